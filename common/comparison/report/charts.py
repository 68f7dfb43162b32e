"""Charts as inline SVG, styled by the page's CSS for light and dark color schemes.

The colors of series are the CSS variables --s0 to --s9; series with the same color differ in their dashes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np

from common.color.lab import lab_to_rgb
from common.comparison.report.ab_histograms import AB_REACH, CHROMA_REACH, gamut_outline
from common.comparison.report.pictures import png_uri

SERIES = 10
_DASHES = ("", "6 3", "2 2", "8 3 2 3")


def clean(text: object) -> str:
    """Replace characters that XML does not allow: control characters and lone surrogates."""
    return "".join(c if c in "\t\n" or (c >= " " and not "\ud800" <= c <= "\udfff" and c < "\ufffe") else "�"
                   for c in str(text))  # fmt: skip


class _Svg:
    """An SVG under construction."""

    def __init__(self, width: float, height: float, label: str) -> None:
        self.root = ElementTree.Element(
            "svg", {"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": clean(label)}
        )

    def add(self, tag: str, text: str | None = None, **attributes: object) -> ElementTree.Element:
        """Append an element. Underscores in attribute names become hyphens; attributes that are None are omitted."""
        values = {k.rstrip("_").replace("_", "-"): f"{v:.5g}" if isinstance(v, float) else clean(v)
                for k, v in attributes.items() if v is not None}  # fmt: skip
        element = ElementTree.SubElement(self.root, tag, values)
        element.text = None if text is None else clean(text)
        return element

    def to_string(self) -> str:
        return ElementTree.tostring(self.root, encoding="unicode")


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers within low..high."""
    from matplotlib.ticker import MaxNLocator

    slack = 1e-9 * (high - low)
    return [float(t) for t in MaxNLocator(count).tick_values(low, high) if low - slack <= t <= high + slack]


def tick_label(value: float) -> str:
    """Format a number for an axis: 12, 0.85, 1.5k, 384k, 2M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{name}"
    return f"{value:.4g}"


def _range(values: Sequence[float], pad: float = 0.06) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * pad or abs(high) * pad or 1.0
    return low - room, high + room


def dot_chart(title: str, rows: list[dict], truth: float | None = None) -> str:
    """Draw means and their intervals, one row below the other.

    The best row is a filled dot, a row not significantly different from it a ring; others are small dots.

    rows: {"title", "mean", "low", "high", "mark", "trivial"}; those without a mean are omitted. truth: the original's
    number, drawn as a dashed line.
    """
    rows = [row for row in rows if row["mean"] is not None]
    width, left, pitch, top = 360, 118, 22, 8
    height = top + pitch * len(rows) + 26
    svg = _Svg(width, height, f"{title}: " + ", ".join(f"{r['title']} {r['mean']:.4g}" for r in rows))
    ends = [row[k] for row in rows for k in ("mean", "low", "high") if row.get(k) is not None]
    low, high = _range([*ends, *([truth] if truth is not None else [])])

    def x(value: float) -> float:
        return left + (width - left - 12) * (value - low) / (high - low)

    bottom = top + pitch * len(rows)
    for tick in ticks(low, high):
        svg.add("line", x1=x(tick), x2=x(tick), y1=top, y2=bottom, class_="gridline")
        svg.add("text", tick_label(tick), x=x(tick), y=bottom + 15, text_anchor="middle", class_="tick")
    if truth is not None:
        svg.add("line", x1=x(truth), x2=x(truth), y1=top, y2=bottom, class_="truth")
    for i, row in enumerate(rows):
        y = top + pitch * (i + 0.5)
        quiet = " quiet" if row["trivial"] else ""
        name = row["title"] if len(row["title"]) <= 17 else row["title"][:16] + "…"
        svg.add("text", name, x=left - 8, y=y + 4, text_anchor="end", class_="name" + quiet)
        if row.get("low") is not None:
            svg.add("line", x1=x(row["low"]), x2=x(row["high"]), y1=y, y2=y, class_="whisker" + quiet)
        kind = {"★": "best", "☆": "level"}.get(row["mark"], "plain")
        radius = 5.5 if kind != "plain" else 3.5
        svg.add("circle", cx=x(row["mean"]), cy=y, r=radius, class_=f"dot {kind}{quiet}")
    return svg.to_string()


def line_chart(
    title: str, series: list[dict], truth: float | None = None, logarithmic: bool = False, below: str = ""
) -> str:
    """Draw curves on common axes.

    series: {"title", "index" (of its color and dashes), "x", "y"}; values that are not finite are omitted. truth: drawn
    as a dashed line. below: label of the horizontal axis. logarithmic: scale of y, if all values are positive.
    """
    width, height, left, top, bottom = 360, 210, 44, 8, 34
    svg = _Svg(width, height, f"{title}: " + ", ".join(s["title"] for s in series))
    series = [s | {"points": _points(s["x"], s["y"])} for s in series]
    points = [point for s in series for point in s["points"]]
    if not points:
        return svg.to_string()
    logarithmic = logarithmic and min(y for _, y in points) > 0
    scale = math.log10 if logarithmic else float
    low, high = _range([*(scale(y) for _, y in points), *([scale(truth)] if truth is not None else [])])
    last = max(x for x, _ in points) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        across = left + (width - left - 10) * x / last
        return across, top + (height - top - bottom) * (1 - (scale(y) - low) / (high - low))

    for tick in ticks(0, last, 4):
        svg.add(
            "text", tick_label(tick), x=at(tick, points[0][1])[0], y=height - 18, text_anchor="middle", class_="tick"
        )
    svg.add("text", below, x=left + (width - left) / 2, y=height - 4, text_anchor="middle", class_="tick")
    for tick in _vertical_ticks(low, high, logarithmic):
        y = at(0, tick)[1]
        svg.add("line", x1=left, x2=width - 10, y1=y, y2=y, class_="gridline")
        svg.add("text", tick_label(tick), x=left - 6, y=y + 4, text_anchor="end", class_="tick")
    if truth is not None:
        y = at(0, truth)[1]
        svg.add("line", x1=left, x2=width - 10, y1=y, y2=y, class_="truth")
    for s in series:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in s["points"]))
        dashes = _DASHES[s["index"] // SERIES % len(_DASHES)] or None
        svg.add("polyline", points=path, class_=f"curve s{s['index'] % SERIES}", stroke_dasharray=dashes)
        if len(s["points"]) == 1:
            x, y = at(*s["points"][0])
            svg.add("circle", cx=x, cy=y, r=3.0, class_=f"point s{s['index'] % SERIES}")
    return svg.to_string()


def swatch(index: int) -> str:
    """Draw a short line in the style of a series, for a legend."""
    svg = _Svg(28, 8, "")
    dashes = _DASHES[index // SERIES % len(_DASHES)] or None
    svg.add("polyline", points="0,4 28,4", class_=f"curve s{index % SERIES}", stroke_dasharray=dashes)
    svg.root.attrib.pop("role")
    svg.root.attrib["aria-hidden"] = "true"
    return svg.to_string()


def _points(xs: Sequence[float], ys: Sequence[float], most: int = 240) -> list[tuple[float, float]]:
    found = [(x, y) for x, y in zip(xs, ys, strict=True) if y is not None and math.isfinite(y)]
    step = max(1, math.ceil(len(found) / most))
    return found[::step] + (found[-1:] if found and (len(found) - 1) % step else [])


def _vertical_ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    if not logarithmic:
        return ticks(low, high)
    decades = [m * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    inside = [t for t in decades if low <= math.log10(t) <= high]
    return inside if len(inside) > 1 else ticks(10**low, 10**high)


def plane_chart(title: str, counts: np.ndarray) -> str:
    """Draw counts over the ab plane and the boundary of sRGB.

    Each cell is drawn in the color of its center at L = 65; its opacity grows with the logarithm of the count.

    counts: int [b, a] of square cells from -AB_REACH to AB_REACH.
    """
    import torch

    side = len(counts)
    centers = (np.arange(side) + 0.5) * 2 * AB_REACH / side - AB_REACH
    a, b = np.meshgrid(centers, centers)
    lab = torch.from_numpy(np.stack([np.full_like(a, 65.0), a, b]))
    rgb = (lab_to_rgb(lab).permute(1, 2, 0).numpy() * 255).round()
    picture = np.dstack([rgb, _opacity(counts)]).astype(np.uint8)[::-1]  # b upwards
    size, edge = 220, 16
    svg = _Svg(size + 2 * edge, size + 2 * edge, f"{title}: colors in the ab plane")

    def at(x: float, y: float) -> tuple[float, float]:
        return edge + size * (x + AB_REACH) / (2 * AB_REACH), edge + size * (AB_REACH - y) / (2 * AB_REACH)

    for one, other in (((-AB_REACH, 0), (AB_REACH, 0)), ((0, -AB_REACH), (0, AB_REACH))):
        (x1, y1), (x2, y2) = at(*one), at(*other)
        svg.add("line", x1=x1, x2=x2, y1=y1, y2=y2, class_="gridline")
    svg.add("image", href=png_uri(picture), x=edge, y=edge, width=size, height=size, class_="pixels")
    for line in gamut_outline():
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line))
        svg.add("polyline", points=points, class_="outline")
    svg.add("text", "a", x=size + edge + 4, y=edge + size / 2 + 4, class_="tick")
    svg.add("text", "b", x=edge + size / 2, y=edge - 4, text_anchor="middle", class_="tick")
    return svg.to_string()


def chroma_chart(title: str, counts: np.ndarray) -> str:
    """Draw counts of predicted (vertical) against true (horizontal) chroma, and the diagonal.

    counts: int [true, predicted] of square cells from 0 to CHROMA_REACH; opacity grows with their logarithm.
    """
    picture = np.zeros((*counts.shape, 4), dtype=np.uint8)
    picture[..., :3] = (47, 122, 196)
    picture[..., 3] = _opacity(counts.T)
    size, left, bottom, edge = 200, 34, 34, 8
    svg = _Svg(size + left + edge, size + bottom + edge, f"{title}: predicted against true chroma")
    svg.add("image", href=png_uri(picture[::-1]), x=left, y=edge, width=size, height=size, class_="pixels")
    svg.add("line", x1=left, y1=edge + size, x2=left + size, y2=edge, class_="truth")
    svg.add("polyline", points=f"{left},{edge} {left},{edge + size} {left + size},{edge + size}", class_="axis")
    for tick in (0, 40, 80, 120):
        at = size * tick / CHROMA_REACH
        svg.add("text", str(tick), x=left + at, y=edge + size + 14, text_anchor="middle", class_="tick")
        svg.add("text", str(tick), x=left - 5, y=edge + size - at + 4, text_anchor="end", class_="tick")
    svg.add("text", "true chroma", x=left + size / 2, y=edge + size + 28, text_anchor="middle", class_="tick")
    turn = f"rotate(-90 10 {edge + size / 2:g})"
    svg.add("text", "predicted", x=10, y=edge + size / 2, text_anchor="middle", transform=turn, class_="tick")
    return svg.to_string()


def _opacity(counts: np.ndarray) -> np.ndarray:
    """Opacity 0..255 from the logarithm of counts: 0 for a count of 0, at least 50 for others."""
    full = math.log1p(counts.max()) or 1.0
    return np.where(counts > 0, 50 + 205 * np.log1p(counts) / full, 0).round()
