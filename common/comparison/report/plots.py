"""Charts of a comparison as image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.comparison.paired import Comparison
from common.comparison.report.findings import headline
from common.comparison.report.photographs import Line
from common.evaluation.metrics import METRICS
from common.utils.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS, _WIDTH = 3, 4.3


def panels(count: int, height: float = 3.3) -> tuple[Figure, list[Axes]]:
    """A figure with `count` charts in rows of up to three."""
    from matplotlib.figure import Figure

    columns = 2 if count == 4 else min(_COLUMNS, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(_WIDTH * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    for axis in axes[:count]:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(which="both", labelsize=8)
    return figure, axes[:count]


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, atomically."""
    write_atomically(path, lambda part: figure.savefig(part, dpi=120, format="png"))


def title_of(metric: str) -> str:
    """The name of a metric and which values are better."""
    better = METRICS[metric].better
    return f"{metric} ({'closest to the original is best' if better == 'truth' else f'{better} is better'})"


def reach(cell: dict) -> tuple[list[float], list[float]]:
    """Lengths of the error bar of a table's cell, in matplotlib's form; 0 where it has no interval."""
    mean, low, high = (cell.get(key) for key in ("mean", "low", "high"))
    return ([0.0 if low is None else mean - low], [0.0 if high is None else high - mean])


def draw_bars(comparison: Comparison, original: dict[str, dict], path: Path) -> None:
    """Draw the headline metrics of each model as bars with 95 % intervals; reference rows are grey.

    original: cells of the row `original`, drawn as a dashed line for metrics that are best near its number.
    """
    names = headline(comparison.metrics)
    models = [c for c in comparison.models if any("mean" in comparison.numbers[c.title][m] for m in names)]
    figure, axes = panels(len(names), 0.9 + 0.27 * len(models))
    for axis, name in zip(axes, names, strict=True):
        for place, c in enumerate(models):
            cell = comparison.numbers[c.title][name]
            if cell.get("mean") is None:
                continue
            color = "0.75" if c.trivial else "tab:blue"
            axis.barh(place, cell["mean"], color=color, height=0.7)
            axis.errorbar(cell["mean"], place, xerr=reach(cell), color="0.2", capsize=2.5, linewidth=1)
        true = original.get(name, {}).get("mean")
        if true is not None and METRICS[name].better == "truth":
            axis.axvline(true, color="0.3", linestyle="--", linewidth=1)
        axis.set_yticks(range(len(models)), [c.title for c in models], parse_math=False)
        axis.invert_yaxis()
        axis.grid(visible=False, axis="y")
        axis.set_title(title_of(name), fontsize=9)
    save(figure, path)


def draw_by_photographs(comparison: Comparison, lines: Sequence[Line], path: Path) -> None:
    """Draw the headline metrics, with 95 % intervals, against the number of training photographs."""
    names = headline(comparison.metrics)
    figure, axes = panels(len(names))
    for axis, name in zip(axes, names, strict=True):
        for place, line in enumerate(lines):
            # a few percent to the side, so that intervals do not hide each other
            cells = [(n * 1.05 ** (place - (len(lines) - 1) / 2), comparison.numbers[t][name]) for n, t in line.points]
            cells = [(x, cell) for x, cell in cells if cell.get("mean") is not None]
            if cells:
                ends = [reach(cell) for _, cell in cells]
                whiskers = [[low[0] for low, _ in ends], [high[0] for _, high in ends]]
                axis.errorbar([x for x, _ in cells], [cell["mean"] for _, cell in cells], whiskers, label=line.title,
                              marker="o", markersize=4, capsize=3, linewidth=1.5)  # fmt: skip
        grey = comparison.numbers.get("grey", {}).get(name, {}).get("mean")
        if grey is not None and METRICS[name].better != "truth":
            axis.axhline(grey, color="0.6", linestyle=":", linewidth=1.2, label="grey")
        counts = sorted({n for line in lines for n, _ in line.points})
        axis.set_xscale("log")
        axis.set_xticks(counts, [f"{n:,}" for n in counts])
        axis.minorticks_off()
        axis.set_xlabel("training photographs", fontsize=8)
        axis.set_title(title_of(name), fontsize=9)
    handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=5, frameon=False, fontsize=9)
    save(figure, path)
