"""Tables for people: Markdown with intervals."""

from __future__ import annotations

from common.metrics import METRICS
from common.packing import counted

_ARROW = {"higher": "↑", "lower": "↓", "truth": "→ original"}


def cell(metric: str, result: dict) -> str:
    """One cell: the mean and the half width of its interval (`11.20 ± 0.31`), with what was counted apart."""
    digits = METRICS[metric].digits
    if result["mean"] is None:
        return "exact" if result.get("exact") else "n/a"
    text = f"{result['mean']:.{digits}f}"
    if "low" in result:
        text += f" ± {(result['high'] - result['low']) / 2:.{digits}f}"
    if result.get("exact"):
        text += f" ({result['exact']} exact)"
    return text


def markdown_table(table: dict[str, dict[str, dict]], protocol: dict) -> str:
    """A table with one row per model, one column per metric, and the protocol under it."""
    metrics = list(next(iter(table.values())))
    lines = [
        "| | " + " | ".join(f"{m} {_ARROW[METRICS[m].better]}" for m in metrics) + " |",
        "|---|" + "---:|" * len(metrics),
    ]
    lines += [f"| {row} | " + " | ".join(cell(m, r[m]) for m in metrics) + " |" for row, r in table.items()]
    p = protocol
    lines += [
        "",
        (f"{p['count']} of the {p['of']} squares, spread evenly: " if p["count"] < p["of"] else "")
        + f"{counted(p['count'], p['photographs'])} of `{p['source']}` ({p['split']}, {p['grey']} grey, content"
        f" {p['content']}) at {p['size']} px, {p['crop']}. ± is half the width of a {p['intervals']}.",
    ]
    if p.get("mean_of"):
        lines.append(f"`mean` paints the mean colour of {p['mean_of']}.")
    if p.get("prior"):
        lines.append(f"`auc_rebalanced` weighs each pixel by 1 / p of its true colour, p the prior of {p['prior']}.")
    lines += [f"`{metric}` is n/a: {note}." for metric, note in p.get("notes", {}).items()]
    lines.append("Torch " + p["versions"]["torch"] + ", scikit-image " + p["versions"]["scikit-image"] + ".")
    return "\n".join(lines) + "\n"


def damage_table(damage: dict[str, dict[str, dict[str, dict]]]) -> str:
    """Robustness: a line for each row and kind of damage, a column for each metric, and what was damaged under it."""
    metrics = list(next(iter(next(iter(damage.values())).values())))
    lines = [
        "| | damage | " + " | ".join(f"{m} {_ARROW[METRICS[m].better]}" for m in metrics) + " |",
        "|---|---|" + "---:|" * len(metrics),
    ]
    for row, kinds in damage.items():
        lines += [f"| {row} | {k} | " + " | ".join(cell(m, r[m]) for m in metrics) + " |" for k, r in kinds.items()]
    lines += ["", "Only the lightness that a row is shown is damaged; its colours are judged on the whole photograph."]
    return "\n".join(lines) + "\n"
