"""Load the ensemble that an expression such as `mean(a,b)` names."""

from __future__ import annotations

from common.colorizer import Colorizer
from common.ensemble.ensemble import members_fingerprints
from common.registry import build_colorizer
from common.utils.errors import UserError
from common.utils.expressions import Expression, parse_ensemble


def load_expression(text: str) -> Colorizer | None:
    """Load the colorizer that `mean(a,b)` names; None for text of another form. Raises UserError as `load_mean`."""
    expression = parse_ensemble(text)
    return load_mean(expression) if expression else None


def load_mean(expression: Expression) -> Colorizer:
    """Load trained colorizers and build their mean.

    The mean's card has the sums of the members' steps, images and seconds, and the training set of the first member.
    Raises UserError if a member cannot be loaded, or if the expression is a stack, which has to be trained first.
    """
    if expression.kind != "mean":
        raise UserError(
            f"{expression} has to be trained first: name it as a row of scripts.compare, then the folder it is saved in"
        )
    expression.check_members()
    names = [str(member) for member in expression.members]
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
    colorizer.fingerprints = members_fingerprints(colorizer.members)
    return colorizer
