"""Tables in Markdown, LaTeX and CSV, with intervals and marks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass

from common.comparison.paired import Comparison
from common.data.packing import counted
from common.evaluation.metrics import METRICS
from common.evaluation.photograph_groups import MIN_GROUPS

ARROW = {"higher": "↑", "lower": "↓", "truth": "→ original"}
BEST, LEVEL = "★", "☆"
MARKS = (
    f"{BEST} best row of a column, {LEVEL} not significantly different from it (paired differences, Holm's correction)"
)


@dataclass(frozen=True)
class Line:
    """A line of a table."""

    title: str
    kind: str  # model, group (of seeds), seed, trivial
    cells: dict[str, dict]  # metric -> {"mean", "low", "high", ...}
    marks: dict[str, str]  # metric -> BEST or LEVEL


def better_of(metric: str) -> str:
    """Whether `higher`, `lower` or `truth` is better; `higher` for a metric that is not in METRICS."""
    return METRICS[metric].better if metric in METRICS else "higher"


def number(metric: str, value: float, sign: str = "") -> str:
    """Format a value with the metric's number of digits."""
    return f"{value:{sign}.{METRICS[metric].digits if metric in METRICS else 3}f}"


def plus_minus(metric: str, result: dict) -> str:
    """Half the width of the interval, or "" if there is none."""
    return "" if result.get("low") is None else number(metric, (result["high"] - result["low"]) / 2)


def cell(metric: str, result: dict) -> str:
    """Format a cell: the mean and half the width of its interval, as `11.20 ± 0.31`, and the number of exact images."""
    if result["mean"] is None:
        return "exact" if result.get("exact") else "n/a"
    text = number(metric, result["mean"])
    if plus_minus(metric, result):
        text += f" ± {plus_minus(metric, result)}"
    if result.get("exact"):
        text += f" ({result['exact']} exact)"
    return text


def table_lines(table: dict[str, dict[str, dict]], comparison: Comparison | None = None) -> list[Line]:
    """The lines of a table: models in order, each group followed by its seeds, then rows that are not compared."""
    if comparison is None:
        return [Line(row, "model", cells, {}) for row, cells in table.items()]
    marks: dict[str, dict[str, str]] = {}
    for metric in comparison.metrics:
        best = comparison.best(metric)
        if best and comparison.is_marked(metric):
            marks.setdefault(best, {})[metric] = BEST
            for title in comparison.level(metric):
                marks.setdefault(title, {})[metric] = LEVEL
    lines, shown = [], set()
    for c in sorted(comparison.models, key=lambda c: c.trivial):
        kind = "trivial" if c.trivial else "group" if c.seeds > 1 else "model"
        cells = table[c.members[0]] | (comparison.numbers[c.title] if c.seeds > 1 else {})
        lines.append(Line(c.title, kind, cells, marks.get(c.title, {})))
        lines += [Line(row, "seed", table[row], {}) for row in c.members if c.seeds > 1]
        shown |= {*c.members}
    return lines + [Line(row, "trivial", cells, {}) for row, cells in table.items() if row not in shown]


def markdown_table(
    table: dict[str, dict[str, dict]],
    protocol: dict,
    comparison: Comparison | None = None,
    metrics: Iterable[str] | None = None,
) -> str:
    """A table with one line per row and one column per metric, followed by the protocol.

    comparison: adds marks. metrics: its columns (default: all that were measured).
    """
    metrics = list(metrics or next(iter(table.values())))
    rows = table_lines(table, comparison)
    lines = [
        "| | " + " | ".join(f"{m} {ARROW[better_of(m)]}" for m in metrics) + " |",
        "|---|" + "---:|" * len(metrics),
    ]
    for line in rows:
        title = ("↳ " if line.kind == "seed" else "") + line.title.replace("|", "\\|")
        if line.kind == "group":
            title += " (mean of seeds)"
        cells = [_marked(cell(m, line.cells[m]), line.marks.get(m)) for m in metrics]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines += ["", *([MARKS + "."] if any(line.marks for line in rows) else []), *protocol_lines(protocol)]
    lines += [f"`{metric}` is n/a: {note}." for metric, note in notes(table, protocol).items()]
    return "\n".join(lines) + "\n"


def _marked(text: str, mark: str | None) -> str:
    return f"**{text}** {BEST}" if mark == BEST else f"{text} {mark}" if mark else text


def protocol_lines(protocol: dict) -> list[str]:
    """The protocol in sentences, for below a table."""
    p = protocol
    lines = [
        (f"{p['count']} of the {p['of']} squares, spread evenly: " if p["count"] < p["of"] else "")
        + f"{counted(p['count'], p['photographs'])} of `{p['source']}` ({p['split']}, {p['grey']} grey, content"
        f" {p['content']}) at {p['size']} px, {p['crop']}. ± is half the width of a {p['intervals']}.",
    ]
    if p.get("trained_on"):
        lines.append(f"{counted(p['trained_on'], p['trained_on'])} that a model was trained on, or copies of them, are"
                     " not measured.")  # fmt: skip
    if unknown := p.get("of_unknown_training"):
        lines.append(f"The weights of {', '.join(f'`{title}`' for title in unknown)} do not record their training"
                     " photographs, so these may be among the measured ones.")  # fmt: skip
    if "groups" in p and p["groups"] < max(p["count"], MIN_GROUPS):
        lines.append(groups_line(p["groups"], p["group"]))
    if p.get("prediction"):
        lines.append(f"Models predict {p['prediction']}.")
    if p.get("mean_of"):
        lines.append(f"`mean` predicts the mean color of {p['mean_of']}.")
    if p.get("prior"):
        lines.append(
            f"`auc_rebalanced` weights each pixel by 1 / p of its true color, where p is the prior of {p['prior']}."
        )
    for metric, variant in p["metrics"].items():  # requested metrics have variants
        if metric in METRICS and not METRICS[metric].default and metric not in p.get("notes", {}):
            lines.append(f"`{metric}`: {variant}.")
    lines.append("Torch " + p["versions"]["torch"] + ", scikit-image " + p["versions"]["scikit-image"] + ".")
    return lines


def groups_line(groups: int, expression: str) -> str:
    """The number of groups of dependent photographs and, if it is small, why no difference is marked as significant."""
    what = "each photograph is a group" if expression == "each photograph" else f"`{expression}` names the group"
    line = f"Groups are resampled as a whole: {groups} group{'s' if groups > 1 else ''} ({what})"
    if groups < MIN_GROUPS:
        line += f". No difference is marked as significant, because that takes {MIN_GROUPS} groups or more"
    return line + "."


def notes(table: dict[str, dict[str, dict]], protocol: dict) -> dict[str, str]:
    """Reasons why metrics are n/a, by metric, from the protocol and the cells."""
    found = {m: c["note"] for cells in table.values() for m, c in cells.items() if c.get("note")}
    return {metric: str(note).rstrip(".") for metric, note in (protocol.get("notes", {}) | found).items()}


def csv_table(lines: Iterable[Line]) -> str:
    """CSV in long form, one line per row and metric: row, kind, metric, mean, low, high, exact, better, mark, note.

    mean, low and high are empty if nothing was measured; exact is the number of photographs reproduced exactly; mark
    is `best`, `within_noise` (not significantly different from the best), or empty.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "kind", "metric", "mean", "low", "high", "exact", "better", "mark", "note"])
    names = {BEST: "best", LEVEL: "within_noise"}
    for line in lines:
        for metric, c in line.cells.items():
            numbers = ["" if c.get(key) is None else repr(float(c[key])) for key in ("mean", "low", "high")]
            mark = names.get(line.marks.get(metric, ""), "")
            more = [c.get("exact", 0), better_of(metric), mark, c.get("note", "")]
            writer.writerow([line.title, line.kind, metric, *numbers, *more])
    return out.getvalue()


_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
_TEX |= {">": r"\textgreater{}", "|": r"\textbar{}"} | {c: "\\" + c for c in "&%$#_{}"}
_TEX_ARROW = {"higher": r"$\uparrow$", "lower": r"$\downarrow$", "truth": r"$\to$"}


def tex(text: str) -> str:
    """Escape text for LaTeX; unprintable characters become question marks."""
    return "".join(_TEX.get(c, c if c.isprintable() else "?") for c in text)


def tex_table(lines: list[Line], protocol: dict) -> str:
    """A LaTeX table (booktabs). The best row, with a star, and rows not significantly different from it are bold."""
    metrics = list(lines[0].cells)
    body = []
    for i, line in enumerate(lines):
        if i and line.kind == "trivial" != lines[i - 1].kind:
            body.append(r"\midrule")
        cells = []
        for m in metrics:
            c = line.cells[m]
            text = cell(m, c) if c["mean"] is None else f"${number(m, c['mean'])}$"
            if line.marks.get(m):
                star = r"^{\star}" if line.marks[m] == BEST else ""
                text = rf"$\mathbf{{{number(m, c['mean'])}}}{star}$"
            if c["mean"] is not None and plus_minus(m, c):
                text += rf" {{\scriptsize$\pm{plus_minus(m, c)}$}}"
            cells.append(text)
        title = (r"\quad " if line.kind == "seed" else "") + tex(line.title)
        body.append(" & ".join([title, *cells]) + r" \\")
    heads = [f"{tex(m)} {_TEX_ARROW[better_of(m)]}" for m in metrics]
    protocol_text = " ".join(" ".join(protocol_lines(protocol)).replace("`", "").replace("±", "pm").split())
    return (
        "\n".join(
            [
                "% needs \\usepackage{booktabs}; bold: best row (star) and rows not significantly different from it",
                "% " + protocol_text,
                rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}",
                r"\toprule",
                " & ".join(["", *heads]) + r" \\",
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )
        + "\n"
    )


def damage_table(damage: dict[str, dict[str, dict[str, dict]]]) -> str:
    """A Markdown table of robustness: one line per row and kind of damage, one column per metric."""
    metrics = list(next(iter(next(iter(damage.values())).values())))
    lines = [
        "| | damage | " + " | ".join(f"{m} {ARROW[better_of(m)]}" for m in metrics) + " |",
        "|---|---|" + "---:|" * len(metrics),
    ]
    for row, kinds in damage.items():
        lines += [f"| {row} | {k} | " + " | ".join(cell(m, r[m]) for m in metrics) + " |" for k, r in kinds.items()]
    lines += ["", "Only the input lightness is damaged; colors are compared with those of the undamaged photograph."]
    return "\n".join(lines) + "\n"


def draws_table(cells: dict[str, dict]) -> str:
    """A Markdown table of how much samples of one photograph differ: row -> cell of `rmse_ab` between two samples."""
    lines = ["| | rmse_ab between two samples of a photograph |", "|---|---:|"]
    return "\n".join([*lines, *(f"| {row} | {cell('rmse_ab', found)} |" for row, found in cells.items())]) + "\n"
