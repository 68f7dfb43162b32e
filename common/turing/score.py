"""Score of a blind sheet, from its key and the forms that people filled in."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.turing.report import percent
from common.turing.sheets import read_form, read_sheet_key
from common.turing.statistics import Interval, share_interval
from common.utils.errors import UserError


class SheetScore(NamedTuple):
    """One model: the share of answered pairs in which its picture was taken for the original."""

    share: Interval | None  # None if nobody answered
    fooled: int
    trials: int
    people: int
    unanswered: int


def score_sheet(key: Path, forms: list[Path]) -> dict[str, SheetScore]:
    """Scores by model. Each form counts as different people, even if its numbers of persons occur in another form.

    Raises UserError if the key or a form cannot be read, or if no pair is answered.
    """
    pairs = read_sheet_key(key)
    answers: dict[tuple[Path, str], dict[int, str]] = {}
    for form in dict.fromkeys(forms):
        for (person, pair), fake in read_form(form, len(pairs)).items():
            answers.setdefault((form, person), {})[pair] = fake
    people = [given for given in answers.values() if any(given.values())]
    if not people:
        raise UserError(f"{', '.join(map(str, forms))}: no pair is answered; enter left or right in the column fake")
    scores = {}
    for model in dict.fromkeys(pair.model for pair in pairs):
        own = [i for i, pair in enumerate(pairs) if pair.model == model]
        given = [[(i, person.get(i, "")) for i in own] for person in people]
        trials = np.array([sum(bool(a) for _, a in one) for one in given])
        fooled = np.array([sum(bool(a) and a != pairs[i].fake for i, a in one) for one in given])
        total = int(trials.sum())
        scores[model] = SheetScore(
            share=share_interval(fooled, trials) if total else None,
            fooled=int(fooled.sum()),
            trials=total,
            people=int((trials > 0).sum()),
            unanswered=len(own) * len(people) - total,
        )
    return scores


def score_table(scores: dict[str, SheetScore]) -> str:
    """The scores as a Markdown table with a note on its intervals."""
    lines = ["| model | share fooled | fooled | people | unanswered |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {model} | {percent(s.share)} | {s.fooled} of {s.trials} | {s.people} | {s.unanswered} |"
        for model, s in scores.items()
    ]
    note = "In brackets: 95 % interval, bootstrap over people, then trials. Unanswered pairs are excluded."
    if max(s.people for s in scores.values()) == 1:
        note += " With one person, the bootstrap is over trials alone, and the interval does not apply to other people."
    return "\n".join([*lines, "", note])
