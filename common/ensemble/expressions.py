"""Ensembles by name: `mean(a,b)` wherever a model is named, `stack(a,b,c)` where one can be trained."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from common.colorizer import Colorizer
from common.registry import build_colorizer
from common.utils.errors import UserError, near

KINDS = ("mean", "stack")


class Expression(NamedTuple):
    """An ensemble as it was named."""

    kind: str
    members: tuple[str | Expression, ...]

    def __str__(self) -> str:
        return f"{self.kind}({','.join(map(str, self.members))})"

    def replaced(self, name: Callable[[str], str]) -> Expression:
        """The same, with every member's name replaced."""
        return Expression(
            self.kind, tuple(m.replaced(name) if isinstance(m, Expression) else name(m) for m in self.members)
        )


def parse_ensemble(text: str) -> Expression | None:
    """`mean(a,b)` or `stack(a,b)` -> what it names; None for text of another form, or a path that exists.

    Members may be ensembles themselves. Raises UserError for one that is not whole.
    """
    head = re.match(r"(\w+)\(", text)
    if not head or Path(text).exists():
        return None
    if head[1] not in KINDS:
        raise UserError(
            f"{text} neither exists nor is it an ensemble, which is mean(a,b) or stack(a,b){near(head[1], KINDS)}"
        )
    parts, depth, start = [], 0, 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == "(" and depth == 1:
            start = i + 1
        elif (depth == 0 and letter == ")") or (depth == 1 and letter == ","):
            parts.append(text[start:i].strip())
            start = i + 1
        if depth == 0 and letter == ")":
            break
    if depth > 0:
        raise UserError(f"{text} has a bracket that is not closed: add )")
    rest = text[start:].strip()
    if rest:
        raise UserError(f"{text} has '{rest}' after its closing bracket: leave it out")
    if not any(parts):
        raise UserError(f"{text} has no member: it takes two models or more, as in {head[1]}(calm64,vivid64)")
    if not all(parts):
        raise UserError(f"{text} has a comma with no member beside it: leave the comma out")
    return Expression(head[1], tuple(parse_ensemble(part) or part for part in parts))


def checked(expression: Expression) -> Expression:
    """The same. Raises UserError where it, or a member of it, has fewer than two members."""
    if len(expression.members) < 2:
        raise UserError(f"{expression} has one member: it takes two models or more")
    for member in expression.members:
        if isinstance(member, Expression):
            checked(member)
    return expression


def load_expression(text: str) -> Colorizer | None:
    """The colorizer that `mean(a,b)` names; None for text of another form. Raises UserError as `load_mean` does."""
    expression = parse_ensemble(text)
    return load_mean(expression) if expression else None


def load_mean(expression: Expression) -> Colorizer:
    """The mean of trained colorizers, with a card: their time and photographs added up, the first's training set.

    Raises UserError where a member cannot be read, and for a stack, which has to be trained.
    """
    if expression.kind != "mean":
        raise UserError(
            f"{expression} has to be trained first: name it as a row of scripts.compare, then the folder it is saved in"
        )
    names = [str(member) for member in checked(expression).members]
    colorizer = build_colorizer("ensemble", members=names, kind="mean")
    cards = colorizer.cards
    name = f"mean({','.join(str(card.get('name', '?')) for card in cards)})"
    config = {"family": "ensemble", "model": {"kind": "mean", "members": names}, "run": name, "seed": None}
    colorizer.card = colorizer.hooks.complete_card({
        "name": name, "family": "ensemble", "model": {"kind": "mean"}, "parameters": 0,
        "size": max(card["size"] for card in cards), "trained_on": cards[0].get("trained_on"),
        **{key: sum(card.get(key) or 0 for card in cards) for key in ("steps", "images", "seconds")},
        "seed": None, "validation": {}, "config": cards[0].get("config", {}) | config,
    })  # fmt: skip
    return colorizer
