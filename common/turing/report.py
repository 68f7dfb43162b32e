"""The report of a study as Markdown, JSON, CSV and a figure, and the values of the report page."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from common.turing.results import PhotoResult, Results, Rules, summarize, trial_verdicts
from common.turing.statistics import RESAMPLES, Interval
from common.turing.store import Record
from common.turing.trials import Study
from common.utils.files import user_path

LISTED = 8  # most convincing photographs, and as many least convincing ones
_COLUMNS = (
    "session", "model", "position", "kind", "photo", "fake", "choice", "fooled", "exposure_ms", "response_ms",
    "layout", "verdict",
)  # fmt: skip


def percent(interval: Interval | None, signed: bool = False) -> str:
    """Format an interval as "32.3 % (28.1 to 36.5)", and None as "no counted trial". signed: with a + sign."""
    if interval is None:
        return "no counted trial"
    sign = "+" if signed else ""
    value, low, high = (100 * x for x in interval)
    return f"{value:{sign}.1f} % ({low:{sign}.1f} to {high:{sign}.1f})"


def people_count(count: int) -> str:
    """Format a number of people as "1 person" or "2 people"."""
    return f"{count} {'person' if count == 1 else 'people'}"


def answers_csv(records: list[Record], verdicts: list[str], study: Study) -> str:
    """All trials as CSV, one per line, with their verdicts (see `trial_verdicts`)."""
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
    """The values of the report's templates: strings, and tables as lists of rows."""
    study, rows = results.study, []
    for title, model in results.models.items():
        times = "–" if model.response_ms is None else " / ".join(f"{t / 1000:.2f}" for t in model.response_ms)
        spread = f"{100 * model.spread:.1f}" if model.people > 1 else "–"
        rows.append([title, percent(model.share), model.people, model.sessions, model.trials, spread, times])
    fewest = min((m.people for m in results.models.values() if m.share), default=None)
    notes = [
        f"Share fooled: the share of counted pairs in which the colorization was taken for the original; 50 % means"
        f" indistinguishable. In brackets: 95 % interval, hierarchical bootstrap over people, then trials,"
        f" {RESAMPLES} resamples, fixed seed. It applies to these photographs and to people like the participants.",
    ]
    if fewest is not None and fewest < 10:
        notes.append(
            f"One model has answers of {people_count(fewest)} only. With fewer than 10, intervals are unreliable."
        )
    if len(results.differences) > 1:
        notes.append("The intervals of the differences are not corrected for multiple comparisons.")
    if len([m for m in results.models.values() if m.share]) < 2:
        notes.append("There are no differences yet, because fewer than two models have counted pairs.")
    return {
        "title": f"Study {study.digest()}",
        "about": f"{len(study.photos)} photographs of {study.size}x{study.size} px; per session"
        f" {study.practice} practice and {study.test} test pairs (vigilance: {study.vigilance_pairs}); seed"
        f" {study.seed}.",
        "models": rows,
        "differences": [[f"{a} − {b}", percent(d, True), _verdict(d)] for (a, b), d in results.differences.items()],
        "verdicts": sorted(results.verdicts.items(), key=lambda item: -item[1]),
        "failed_people": people_count(results.failed_people),
        "rules": results.rules.describe(),
        "most": [_photo(p) for p in results.photos[:LISTED]],
        "least": [_photo(p) for p in reversed(results.photos[-LISTED:])],
        "notes": notes,
    }


def _verdict(difference: Interval) -> str:
    return "not significant" if difference.low <= 0 <= difference.high else "significant"


def _photo(p: PhotoResult) -> list:
    return [p.photo, p.model, f"{p.fooled} of {p.trials}"]


MODEL_HEADS = (
    "model", "share fooled", "people", "sessions", "pairs", "SD between people, points",
    "seconds to answer, quartiles",
)  # fmt: skip


def markdown(values: dict) -> str:
    """The report as Markdown. values: of `report_values`."""

    def table(head: tuple[str, ...], rows: list) -> list[str]:
        cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        return ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1), *lines, ""]

    lines = [f"# Colorization Turing test: {values['title']}", "", values["about"], ""]
    lines += table(MODEL_HEADS, values["models"])
    if values["differences"]:
        lines += ["## Differences", "", *table(("models", "difference", ""), values["differences"])]
    lines += ["## Counted and excluded pairs", "", *table(("test pairs", "number"), values["verdicts"])]
    lines += [f"{values['failed_people']} failed the vigilance pairs. These are excluded, in this order:", ""]
    lines += [f"{i}. {rule}" for i, rule in enumerate(values["rules"], 1)]
    for title, key in (("Most", "most"), ("Least", "least")):
        lines += ["", f"## {title} convincing", "", *table(("photograph", "model", "fooled"), values[key])]
    return "\n".join([*lines, *(f"{note}\n" for note in values["notes"])])


def draw_shares(results: Results, path: Path) -> None:
    """Draw the share fooled of each model with its interval, and a line at 50 %."""
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
    names = [f"{title} ({people_count(m.people)})" for title, m in measured.items()]
    axes.set(
        xlim=(0, right), ylim=(max(1, len(measured)) - 0.5, -0.5), xlabel="share fooled, % (50 = indistinguishable)"
    )
    axes.set_yticks(range(len(measured)), names)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def write_report(records: list[Record], study: Study, folder: Path, rules: Rules | None = None) -> str:
    """Write report.md, results.json, answers.csv and shares.png; returns the Markdown.

    Raises UserError if the folder cannot be written.
    """
    rules = rules or Rules()
    results = summarize(records, study, rules)
    text = markdown(report_values(results))
    with user_path(folder, "choose another --out"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.md").write_text(text)
        (folder / "results.json").write_text(json.dumps(results.to_dict(), indent=1))
        (folder / "answers.csv").write_text(answers_csv(records, trial_verdicts(records, study, rules), study))
        draw_shares(results, folder / "shares.png")
    return text
