"""The report of a study: Markdown, JSON, CSV, a figure, and the values of the live page."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from common.turing.results import PhotoResult, Results, Rules, judge, summarise
from common.turing.statistics import RESAMPLES, Interval
from common.turing.store import Record
from common.turing.trials import Study
from common.utils.errors import UserError

LISTED = 8  # photographs at either end
_COLUMNS = (
    "session", "model", "position", "kind", "photo", "fake", "choice", "fooled", "exposure_ms", "response_ms",
    "layout", "verdict",
)  # fmt: skip


def percent(interval: Interval | None, signed: bool = False) -> str:
    """ "32.3 % (28.1 to 36.5)", or "no counted trial"."""
    if interval is None:
        return "no counted trial"
    sign = "+" if signed else ""
    value, low, high = (100 * x for x in interval)
    return f"{value:{sign}.1f} % ({low:{sign}.1f} to {high:{sign}.1f})"


def people_said(count: int) -> str:
    """ "1 person", "2 people"."""
    return f"{count} {'person' if count == 1 else 'people'}"


def answers_csv(records: list[Record], verdicts: list[str], study: Study) -> str:
    """Every trial as a line of CSV, with what became of it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for r, verdict in zip(records, verdicts, strict=True):
        fooled = "" if r.choice is None else int(r.choice != r.fake)
        writer.writerow(
            [r.session, r.model, r.position, r.kind, study.photos[r.photo], r.fake, r.choice, fooled,
             r.exposure_ms, r.response_ms, r.layout, verdict]
        )  # fmt: skip
    return out.getvalue()


def report_values(results: Results) -> dict:
    """What the report says, ready to be laid out: strings and rows of strings."""
    study, rows = results.study, []
    for title, model in results.models.items():
        times = "–" if model.response_ms is None else " / ".join(f"{t / 1000:.2f}" for t in model.response_ms)
        spread = f"{100 * model.spread:.1f}" if model.people > 1 else "–"
        rows.append([title, percent(model.share), model.people, model.sessions, model.trials, spread, times])
    few = min((m.people for m in results.models.values() if m.share), default=0)
    notes = [
        f"Share fooled: of the counted pairs, those in which the colorization was taken for the original; 50 % is"
        f" indistinguishable. In brackets a 95 % interval: hierarchical bootstrap over people, then trials,"
        f" {RESAMPLES} resamples, fixed seed. It speaks of these photographs, and of other people like these.",
    ]
    if few < 10 and results.models:
        notes.append(f"A model has the answers of {people_said(few)} only: below 10 people, an interval is rough.")
    if len(results.differences) > 1:
        notes.append("Each difference has its own 95 % interval, not corrected for their number.")
    if len([m for m in results.models.values() if m.share]) < 2:
        notes.append("There is nothing to compare until two models have counted pairs.")
    return {
        "title": f"Study {study.digest()}",
        "about": f"{len(study.photos)} photographs of {study.size}x{study.size} px, {study.practice} practice and"
        f" {study.test} test pairs a session, {study.vigilance_pairs} of them vigilance; seed {study.seed}.",
        "models": rows,
        "differences": [[f"{a} − {b}", percent(d, True), _verdict(d)] for (a, b), d in results.differences.items()],
        "verdicts": sorted(results.verdicts.items(), key=lambda item: -item[1]),
        "failed_people": people_said(results.failed_people),
        "rules": results.rules.describe(),
        "most": [_photo(p) for p in results.photos[:LISTED]],
        "least": [_photo(p) for p in reversed(results.photos[-LISTED:])],
        "notes": notes,
    }


def _verdict(difference: Interval) -> str:
    return "not told apart" if difference.low <= 0 <= difference.high else "differ"


def _photo(p: PhotoResult) -> list:
    return [p.photo, p.model, f"{p.fooled} of {p.trials}"]


MODEL_HEADS = (
    "model", "share fooled", "people", "sessions", "pairs", "spread between people, points",
    "seconds to answer, quartiles",
)  # fmt: skip


def markdown(values: dict) -> str:
    """The report as Markdown, from `report_values`."""

    def table(head: tuple[str, ...], rows: list) -> list[str]:
        cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        return ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1), *lines, ""]

    lines = [f"# Colorization Turing test: {values['title']}", "", values["about"], ""]
    lines += table(MODEL_HEADS, values["models"])
    if values["differences"]:
        lines += ["## Differences", "", *table(("models", "difference", ""), values["differences"])]
    lines += ["## Counted and left out", "", *table(("test pairs", "number"), values["verdicts"])]
    lines += [f"{values['failed_people']} failed the vigilance pairs. The rules, in order:", ""]
    lines += [f"{i}. {rule}" for i, rule in enumerate(values["rules"], 1)]
    for title, key in (("Most", "most"), ("Least", "least")):
        lines += ["", f"## {title} convincing", "", *table(("photograph", "model", "fooled"), values[key])]
    return "\n".join([*lines, *(f"{note}\n" for note in values["notes"])])


def draw_shares(results: Results, path: Path) -> None:
    """Write a figure: share fooled by model with its interval, against 50 %."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measured = {title: m for title, m in results.models.items() if m.share}
    figure = Figure(figsize=(7, 1.3 + 0.45 * max(1, len(measured))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for y, model in enumerate(measured.values()):
        value, low, high = (100 * x for x in model.share)
        axes.plot([low, high], [y, y], color="#35618f", linewidth=2.5, solid_capstyle="butt")
        axes.plot([value], [y], "o", color="#35618f", markersize=7)
    axes.axvline(50, color="#777777", linestyle="--", linewidth=1)
    right = max(70, *(105 * m.share.high for m in measured.values()), 0)
    names = [f"{title} ({people_said(m.people)})" for title, m in measured.items()]
    axes.set(
        xlim=(0, right), ylim=(max(1, len(measured)) - 0.5, -0.5), xlabel="share fooled, % (50: indistinguishable)"
    )
    axes.set_yticks(range(len(measured)), names)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def write_report(records: list[Record], study: Study, folder: Path, rules: Rules | None = None) -> str:
    """Write report.md, results.json, answers.csv and shares.png; returns the Markdown.

    Raises UserError where the folder cannot be written.
    """
    rules = rules or Rules()
    results = summarise(records, study, rules)
    text = markdown(report_values(results))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.md").write_text(text)
        (folder / "results.json").write_text(json.dumps(results.to_dict(), indent=1))
        (folder / "answers.csv").write_text(answers_csv(records, judge(records, study, rules), study))
        draw_shares(results, folder / "shares.png")
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}): choose another --out") from None
    return text
