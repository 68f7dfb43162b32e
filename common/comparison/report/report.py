"""The report of a comparison: a self-contained page, tables in four formats, a picture grid and curves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from common.comparison.groups import compared_models, same_experiment
from common.comparison.paired import Comparison, compare_rows
from common.comparison.report.curves import draw_curves
from common.comparison.report.findings import findings, headline
from common.comparison.report.page import report_page
from common.comparison.report.photographs import by_photographs, photograph_lines
from common.comparison.report.plots import draw_bars, draw_by_photographs
from common.comparison.report.tables import csv_table, markdown_table, table_lines, tex_table
from common.data.packing import Pack, open_pack
from common.evaluation.cost import measure_cost
from common.evaluation.evaluate import Evaluation, Predict
from common.evaluation.metrics import METRICS
from common.evaluation.rows import Rows, run_folder
from common.evaluation.sheets import color_columns, sheet, spread_indices
from common.utils.device import pick_device
from common.utils.files import user_path, write_atomically
from common.utils.progress import Progress


def compare_evaluation(
    result: Evaluation, rows: Rows, groups: dict[str, tuple[str, ...]] | None = None, seed: int = 0
) -> Comparison:
    """Compare the rows of an evaluation; seeds of one experiment are compared as one model.

    groups: title -> rows that are seeds of one experiment. Other rows are grouped by their cards.
    """
    named = groups or {}
    taken = {row for members in named.values() for row in members}
    cards = {title: card for title, card in rows.cards.items() if title not in taken}
    who = compared_models(result.table, rows.cards, named | same_experiment(cards))
    first = next(iter(result.table.values()))
    metrics = {m: METRICS[m] for m in first if m in METRICS}
    return compare_rows(result.values, result.references, metrics, who, result.table, seed, result.groups)


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows, and where it is written.

    Attributes:
        out: folder of the report.
        photos: number of photographs in a grid.
        grid_seed: seed of the random selection of photographs.
        seen: source that the models were trained on; some of its photographs are shown separately.
        batch_size: photographs per batch.
        device: `auto`, or the name of a torch device.
        val_fraction: held-out share of `seen`.
        cache: folder of packs. None: the default cache folder.
        bars: whether the headline metrics are also drawn as bars.
    """

    out: Path
    photos: int = 8
    grid_seed: int = 0
    seen: str | None = None
    batch_size: int = 32
    device: str = "auto"
    val_fraction: float = 0.1
    cache: str | None = None
    bars: bool = False


class Written(NamedTuple):
    """The files of a report."""

    files: list[Path]  # report.html first
    summary: str  # the table of the headline metrics as Markdown, for the terminal
    comparison: Comparison


def write_report(
    result: Evaluation,
    rows: Rows,
    pack: Pack,
    options: ReportOptions,
    *,
    groups: dict[str, tuple[str, ...]] | None = None,
    remarks: list[str] | None = None,
    progress: Progress | None = None,
) -> Written:
    """Write all files of a report.

    result, rows, pack: as `measure` returns and leaves them. groups: see `compare_evaluation`. remarks: sentences
    for the top of the page, about failed rows and unfinished runs. Raises UserError if the folder cannot be written.
    """
    out, progress = options.out, progress or Progress(quiet=True)
    comparison = compare_evaluation(result, rows, groups)
    lines = table_lines(result.table, comparison)
    device = pick_device(options.device)
    models = {title: rows.predictors[title] for title in rows.cards}
    first = {c.title: c.members[0] for c in comparison.models if c.members[0] in models}
    shown = {title: models[row] for title, row in first.items()}
    with user_path(out, "choose another --out"):
        out.mkdir(parents=True, exist_ok=True)
        tables = {
            "table.md": markdown_table(result.table, result.protocol, comparison),
            "table.csv": csv_table(lines),
            "table.tex": tex_table(lines, result.protocol),
        }
        for name, text in tables.items():  # titles of rows can contain lone surrogates
            (out / name).write_text(text, encoding="utf-8", errors="replace", newline="\n")
        with progress.task("measuring cost") as report:
            costs = _costs(shown, first, rows, pack, device, options.batch_size, report)
        by_number = photograph_lines(comparison, rows.cards)
        found = findings(comparison) + by_photographs(comparison, by_number)
        compared = comparison.to_json() | {"cost": costs, "findings": found, "remarks": remarks or []}
        whole = json.loads(result.to_json()) | {"comparison": compared}
        (out / "results.json").write_text(json.dumps(whole, indent=1))
        with progress.task("drawing") as report:
            sections = _sections(models, pack, options, device)
            Image.fromarray(sheet(sections)).save(out / "grid.png")
            column_of = {"grey": "grey", **first, "original": "original"}  # the page shows one seed of each group
            fixed = {
                heading: {title: columns[column] for title, column in column_of.items()}
                for heading, columns in sections.items()
            }
            runs = _runs(rows)
            drawn = []
            if options.bars:
                drawn.append("bars.png")
                draw_bars(comparison, result.table.get("original", {}), out / "bars.png")
            if by_number:
                drawn.append("photographs.png")
                draw_by_photographs(comparison, by_number, out / "photographs.png")
            if draw_curves(runs, out / "curves.png", {row: c.title for c in comparison.models for row in c.members}):
                drawn.append("curves.png")
            report(1, 4)
            page = report_page(
                result, comparison, rows, pack, options.photos, options.grid_seed, options.batch_size, shown, lines,
                costs, fixed, runs, remarks or [], found, device, report,
            )  # fmt: skip
        write_atomically(out / "report.html", lambda path: path.write_text(page, encoding="utf-8"))
    names = ["report.html", "table.md", "table.csv", "table.tex", "results.json", "grid.png"]
    summary = markdown_table(result.table, result.protocol, comparison, headline(next(iter(result.table.values()))))
    more = found[len(findings(comparison)) :]
    return Written([out / name for name in [*names, *drawn]], "\n\n".join([summary, *more]), comparison)


def _runs(rows: Rows) -> dict[str, tuple[Path, int]]:
    """Title -> (run folder, batch size), without duplicate runs."""
    folders = {run_folder(path): title for title, path in reversed(rows.paths.items())}
    of_run = {title: folder for folder, title in folders.items() if folder}
    return {t: (of_run[t], rows.cards[t]["config"]["batch_size"]) for t in rows.paths if t in of_run}


def _sections(
    models: dict[str, Predict], pack: Pack, options: ReportOptions, device: torch.device
) -> dict[str, dict[str, np.ndarray]]:
    """Columns of the grid by heading: a fixed selection of the pack, and of the training photographs if given."""
    sections = {}
    if options.seen:
        seen = open_pack(options.seen, pack.size, "train", val_fraction=options.val_fraction, cache=options.cache)
        choice = spread_indices(seen, max(2, options.photos // 3))
        sections["seen in training"] = color_columns(models, seen, choice, device)
    held_out = color_columns(models, pack, spread_indices(pack, options.photos), device)
    return {"never seen in training" if sections else "": held_out} | sections


def _costs(
    shown: dict[str, Predict], first: dict[str, str], rows: Rows, pack: Pack, device: torch.device, batch: int,
    report: Callable[..., None],
) -> dict:  # fmt: skip
    costs = {}
    for i, (title, predict) in enumerate(shown.items()):
        card = rows.cards[first[title]]
        facts = {k: card.get(k) for k in ("parameters", "family", "size", "seconds", "images", "machine")}
        costs[title] = facts | measure_cost(predict, pack, device, batch)
        report(i + 1, len(shown))
    return costs
