"""Names of ensembles: `mean(a,b)` and `stack(a,b,c)`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from common.utils.errors import UserError, near

KINDS = ("mean", "stack")


class Expression(NamedTuple):
    """A parsed name of an ensemble: its kind (one of KINDS) and its members."""

    kind: str
    members: tuple[str | Expression, ...]

    def __str__(self) -> str:
        return f"{self.kind}({','.join(map(str, self.members))})"

    def replaced(self, rename: Callable[[str], str]) -> Expression:
        """A copy with `rename` applied to the name of every model."""
        return Expression(
            self.kind, tuple(m.replaced(rename) if isinstance(m, Expression) else rename(m) for m in self.members)
        )

    def contains(self, kind: str) -> bool:
        """Whether this ensemble or one of its members is of this kind."""
        return self.kind == kind or any(m.contains(kind) for m in self.members if isinstance(m, Expression))

    def check_members(self) -> None:
        """Raise UserError if this ensemble, or a member of it, has fewer than two members."""
        if len(self.members) < 2:
            raise UserError(f"{self} has one model: expected two or more")
        for member in self.members:
            if isinstance(member, Expression):
                member.check_members()


def parse_ensemble(text: str) -> Expression | None:
    """Parse `mean(a,b)` or `stack(a,b)`; members may be ensembles themselves.

    Returns None for text of another form, and for an existing path. Raises UserError for an unknown kind, unbalanced
    brackets, or an empty member.
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
        raise UserError(f"{text} has a bracket that is not closed: add ')'")
    rest = text[start:].strip()
    if rest:
        raise UserError(f"{text} has '{rest}' after its closing bracket: leave it out")
    if not any(parts):
        raise UserError(f"{text} has no model: expected two or more, as in {head[1]}(calm64,vivid64)")
    if not all(parts):
        raise UserError(f"{text} has a comma with no member beside it: leave the comma out")
    return Expression(head[1], tuple(parse_ensemble(part) or part for part in parts))


def is_ensemble(text: str) -> bool:
    """Whether text has the form `kind(...)`, of any kind, and is not an existing path."""
    return bool(re.match(r"\w+\(", text)) and not Path(text).exists()


def split_title(text: str) -> tuple[str, str]:
    """Split `NAME=PATH` or `NAME=mean(a,b)` into (NAME, the rest). Without a name, NAME is empty."""
    cuts = [("", text), *((text[:i], text[i + 1 :]) for i, letter in enumerate(text) if letter == "=")]
    existing = (cut for cut in cuts if Path(cut[1]).exists())
    ensembles = (cut for cut in reversed(cuts) if is_ensemble(cut[1]) and cut[0].count("(") == cut[0].count(")"))
    return next(existing, None) or next(ensembles, None) or cuts[-1]
