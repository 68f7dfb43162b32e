"""The HTML page of a report: values of its template, and rendering."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from common.comparison.groups import ComparedModel
from common.comparison.paired import Comparison
from common.comparison.report import charts
from common.comparison.report.ab_histograms import Colors, count_colors
from common.comparison.report.curves import loss_curves, validation_curves
from common.comparison.report.findings import findings, headline, pairs_in_words, rules
from common.comparison.report.matrix import matrices, overview
from common.comparison.report.pictures import extremes, extremes_metric, grid, jpeg_uri, random_indices
from common.comparison.report.tables import (
    ARROW,
    MARKS,
    Line,
    better_of,
    cell,
    notes,
    number,
    plus_minus,
    protocol_lines,
)
from common.data.packing import Pack, counted
from common.evaluation.cost import HOW, MEMORY_CPU, MEMORY_CUDA
from common.evaluation.evaluate import Evaluation, Predict, measured_indices
from common.evaluation.metrics import METRICS
from common.evaluation.rows import Rows
from common.utils.clock import clock
from common.utils.device import machine


def report_page(
    result: Evaluation, comparison: Comparison, rows: Rows, pack: Pack, photos: int, grid_seed: int, batch_size: int,
    shown: dict[str, Predict], lines: list[Line], costs: dict, sections: dict, runs: dict[str, tuple[Path, int]],
    remarks: list[str], device: torch.device, report: Callable[..., None],
) -> str:  # fmt: skip
    """The page of a report: self-contained HTML that is also well-formed XML.

    shown: title -> predictor of each compared model (of its first seed). lines: of the table. sections: heading ->
    columns of the fixed grid. runs: title -> (run folder, batch size). remarks: sentences without a full stop. report:
    called with (done, 4).
    """
    colors = count_colors(shown, pack, device, batch_size)
    report(2, 4)
    chosen = random_indices(pack, photos, grid_seed)
    fixed = {
        heading: [
            {"name": "", "pictures": {title: jpeg_uri(pictures[i]) for title, pictures in columns.items()}}
            for i in range(len(next(iter(columns.values()))))
        ]
        for heading, columns in sections.items()
    }
    random = grid(shown, pack, chosen, device)
    report(3, 4)
    metrics = list(next(iter(result.table.values())))
    p = result.protocol
    source = Path(p["source"]).name or p["source"]
    values = {
        "heading": f"{counted(p['count'], p['photographs'])} of {source} at {p['size']} px",
        "findings": findings(comparison), "remarks": remarks, "pairs": pairs_in_words(comparison),
        "first": _table(headline(metrics), lines, p), "whole": _table(metrics, lines, p),
        "marks": MARKS if any(line.marks for line in lines) else "", "notes": notes(result.table, p),
        "charts": [{"metric": _head(m, p), "svg": _dots(m, lines, result)} for m in metrics],
        "overview": overview(comparison), "matrices": matrices(comparison), "rules": rules(comparison),
        "fixed": fixed, "random": random, "grid_seed": grid_seed, "names": list(shown),
        "extremes": _extremes(result, comparison, shown, pack, device),
        "colors": _colors(colors), "color_photographs": colors.photographs,
        "validation": _validation(runs), "losses": _losses(runs),
        "costs": [_cost(title, cost) for title, cost in costs.items()], "size": p["size"],
        "cost_how": HOW.format(memory=MEMORY_CUDA if device.type == "cuda" else MEMORY_CPU),
        "machine": machine(), "protocol": [line.replace("`", "") for line in protocol_lines(p)],
        "card": _card(p), "models": _models(rows),
    }  # fmt: skip
    return render(values)


def render(values: dict) -> str:
    """Render the template. All values are escaped except SVG, which the template marks as safe."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=lambda value: charts.clean(value) if type(value) is str else value,
    )  # fmt: skip
    return environment.get_template("report.html").render(values)


def _head(metric: str, protocol: dict) -> dict:
    better = better_of(metric)
    text = "closest to the original is best" if better == "truth" else f"{better} is better"
    if variant := protocol["metrics"].get(metric, ""):
        text += f": {variant}"
    return {"name": metric, "arrow": ARROW[better].split()[0], "description": text, "variant": variant}


def _table(metrics: list[str], lines: list[Line], protocol: dict) -> dict:
    return {"metrics": [_head(m, protocol) for m in metrics], "lines": [_line(line, metrics) for line in lines]}


def _line(line: Line, metrics: list[str]) -> dict:
    cells = []
    for m in metrics:
        c = line.cells[m]
        text = cell(m, c) if c["mean"] is None else number(m, c["mean"])
        plus = "" if c["mean"] is None else plus_minus(m, c)
        cells.append({"text": text, "plus": plus, "mark": line.marks.get(m, ""), "exact": c.get("exact", 0)})
    return {"title": line.title, "kind": line.kind, "cells": cells}


def _dots(metric: str, lines: list[Line], result: Evaluation) -> str:
    shown = [line for line in lines if line.kind != "seed" and line.title != "original"]
    rows = [
        {"title": line.title, "trivial": line.kind == "trivial", "mark": line.marks.get(metric, "")}
        | {key: line.cells[metric].get(key) for key in ("mean", "low", "high")}
        for line in shown
    ]
    truth = result.table.get("original", {}).get(metric, {}).get("mean") if better_of(metric) == "truth" else None
    return charts.dot_chart(metric, rows, truth) if any(row["mean"] is not None for row in rows) else ""


def _extremes(
    result: Evaluation, comparison: Comparison, shown: dict[str, Predict], pack: Pack, device: torch.device
) -> dict | None:
    metric = extremes_metric(result)
    if metric is None:
        return None
    indices = measured_indices(pack, result.protocol["count"])
    first: dict[str, ComparedModel] = {c.title: c for c in comparison.models}
    models = []
    for title, predict in shown.items():
        values = np.asarray(result.values[first[title].members[0]][metric])
        ends = extremes(values, indices, pack, METRICS[metric].better == "higher")
        best, worst = (
            [
                row | {"value": number(metric, values[i])}
                for row, i in zip(grid({title: predict}, pack, indices[found].tolist(), device), found, strict=True)
            ]
            for found in ends
        )
        models.append({"title": title, "best": best, "worst": worst})
    return {"metric": metric, "models": models}


def _colors(colors: Colors) -> list[dict]:
    out = []
    for title, counts in colors.plane.items():
        chroma = colors.chroma.get(title)
        r = None if chroma is None else colors.correlation(title)
        out.append(
            {
                "title": title, "plane": charts.plane_chart(title, counts),
                "chroma": "" if chroma is None else charts.chroma_chart(title, chroma),
                "r": "r undefined: constant chroma" if r is None else f"r = {r:.2f}",
            }
        )  # fmt: skip
    return out


def _validation(runs: dict[str, tuple[Path, int]]) -> dict:
    panels = []
    index = {title: i for i, title in enumerate(runs)}
    drawn: set[str] = set()
    for panel in validation_curves(runs):
        series = [s | {"index": index[s["title"]]} for s in panel["series"]]
        drawn |= {s["title"] for s in series}
        truth = METRICS[panel["metric"]].ideal if panel["metric"] in METRICS else None
        svg = charts.line_chart(panel["metric"], series, truth, below="photographs seen")
        arrow = ARROW[better_of(panel["metric"])].split()[0] if panel["metric"] in METRICS else ""
        panels.append({"metric": panel["metric"], "arrow": arrow, "svg": svg})
    legend = [{"title": title, "svg": charts.swatch(i)} for title, i in index.items() if title in drawn]
    return {"panels": panels, "legend": legend}


def _losses(runs: dict[str, tuple[Path, int]]) -> list[dict]:
    out = []
    for title, found in loss_curves(runs).items():
        series = [s | {"index": i} for i, s in enumerate(found)]
        svg = charts.line_chart(f"losses of {title}", series, logarithmic=True, below="photographs seen")
        legend = [{"title": s["title"], "svg": charts.swatch(s["index"])} for s in series]
        out.append({"title": title, "svg": svg, "legend": legend})
    return out


def _amount(value: float | None, scale: float, unit: str, digits: int = 2) -> str:
    return "n/a" if value is None else f"{value / scale:.{digits}f} {unit}"


def _cost(title: str, c: dict) -> dict:
    return {
        "title": title, "family": c["family"],
        "parameters": _amount(c["parameters"], 1e6, "M"),
        "multiply_adds": _amount(c["multiply_adds"], 1e9, "G") if c["multiply_adds"] >= 1e8
        else _amount(c["multiply_adds"], 1e6, "M", 1),
        "ms_one": _amount(c["ms_one"], 1, "ms", 1), "ms_batched": _amount(c["ms_batched"], 1, "ms", 1),
        "batch": c["batch"],
        "memory": _amount(c["memory"], 2**20, "MiB", 1),
        "memory_batched": _amount(c["memory_batched"], 2**20, "MiB", 0),
        "trained": "n/a" if c["seconds"] is None else clock(c["seconds"]),
        "images": "n/a" if c["images"] is None else f"{c['images']:,}", "machine": c["machine"] or "n/a",
    }  # fmt: skip


def _card(p: dict) -> list[tuple[str, str]]:
    """Keys and values of the protocol, without those that the page shows elsewhere."""
    versions = ", ".join(f"{k} {v}" for k, v in p["versions"].items())
    values = {k: v for k, v in p.items() if k not in ("metrics", "models", "notes")} | {"versions": versions}
    return [(k.replace("_", " "), str(v)) for k, v in values.items()]


def _models(rows: Rows) -> list[dict]:
    """Facts about each model, from its card."""
    out = []
    for title, card in rows.cards.items():
        seen = card.get("trained_on") or {}
        trained_on = f"{seen.get('count', '?')} photographs of {seen.get('source', 'an unknown source')}"
        steps, seed, size = (card.get(key, "?") for key in ("steps", "seed", "size"))
        facts = {"title": title, "family": card["family"], "size": size, "steps": steps, "seed": seed}
        out.append(facts | {"trained_on": trained_on})
    return out
