"""Which rows are compared: each row by itself, or the seeds of one experiment as one model."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.utils.errors import UserError
from common.utils.titles import unique_title

# Options that may differ between runs of one experiment: their identity, and options that do not affect the weights.
_NO_EXPERIMENT = {"seed", "run", "fresh", "device", "log_every", "sample_every", "samples", "save_every", "keep_every"}
_NO_DATA = {"cache", "workers"}


@dataclass(frozen=True)
class ComparedModel:
    """A model of the comparison: one row of the table, or several seeds of one experiment."""

    title: str
    members: tuple[str, ...]  # rows of the table
    trivial: bool = False  # compared with, but not ranked

    @property
    def seeds(self) -> int:
        return len(self.members)


def expand_groups(names: Iterable[str]) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """`NAME=A,B,C` on a command line -> the rows `NAME 1=A`, `NAME 2=B`, ... and {NAME: their titles}.

    Other names stay as they are, also those with brackets (`mean(a,b)`) and paths that exist. Raises UserError for a
    group with an empty member.
    """
    rows: list[str] = []
    groups: dict[str, tuple[str, ...]] = {}
    for name in names:
        title, equals, paths = name.partition("=")
        if not equals or "," not in paths or "(" in paths or Path(name).exists() or Path(paths).exists():
            rows.append(name)
            continue
        members = [path.strip() for path in paths.split(",")]
        if not all(members) or not title:
            raise UserError(f"row {name} is not a group: write NAME=RUN,RUN with a name and no empty member")
        titles = tuple(f"{title} {i}" for i in range(1, len(members) + 1))
        groups[title] = titles
        rows += [f"{title}={path}" for title, path in zip(titles, members, strict=True)]
    return rows, groups


def same_experiment(cards: dict[str, dict]) -> dict[str, tuple[str, ...]]:
    """Find rows that are seeds of one experiment, from their cards: {title of the group: rows}.

    Their configurations are equal except for the seed and the run's folder, they were trained for the same number of
    steps (if the configuration has one), the temperature in the row's title is the same, and all seeds differ: the
    last and the best weights of one run are not two seeds.
    """
    found: dict[str, list[str]] = {}
    for title, card in cards.items():
        if isinstance(card.get("config"), dict) and card.get("seed") is not None:
            found.setdefault(_experiment(title, card), []).append(title)
    groups = {}
    for titles in found.values():
        if len(titles) > 1 and len({cards[title]["seed"] for title in titles}) == len(titles):
            groups[_common_name(titles, cards[titles[0]], {*cards, *groups})] = tuple(titles)
    return groups


def experiment_config(config: dict) -> dict:
    """The options of a run's config that define its experiment."""
    out = {key: value for key, value in config.items() if key not in _NO_EXPERIMENT}
    if isinstance(out.get("data"), dict):
        out["data"] = {key: value for key, value in out["data"].items() if key not in _NO_DATA}
    return out


def _experiment(title: str, card: dict) -> str:
    config = experiment_config(card["config"])
    temperature = re.search(r" T=([\d.e+-]+)( \(\d+\))?$", title)
    learned = (card.get("trained_on") or {}).get("content")
    length = card.get("steps") if config.get("steps") else None
    identity = [config, card.get("model"), card.get("shifted"), learned, length, temperature and temperature[1]]
    return json.dumps(identity, sort_keys=True, default=str)


def _common_name(titles: list[str], card: dict, taken: set[str]) -> str:
    common = os.path.commonprefix(titles)  # noqa: RUF071
    common = re.sub(r"[\W_]+(seed|s|run)?[\W_]*$|seed[\W_]*$", "", common) or str(
        card.get("name") or card.get("family")
    )
    return common if common not in taken else unique_title(f"{common}, {len(titles)} seeds", taken)


def compared_models(
    rows: Iterable[str], models: Iterable[str], groups: dict[str, tuple[str, ...]] | None = None
) -> list[ComparedModel]:
    """Models of a table in its order, without `original`; a group stands in the place of its first member.

    models: rows that are ranked; the others are trivial. A group of which only one row was measured is that row.
    """
    rows, models = list(rows), set(models)
    group_of = {}
    for name, members in (groups or {}).items():
        there = tuple(row for row in members if row in rows)
        if len(there) > 1:
            group_of |= dict.fromkeys(there, ComparedModel(name, there))
    out: dict[str, ComparedModel] = {}
    for row in rows:
        if row != "original":
            one = group_of.get(row) or ComparedModel(row, (row,), row not in models)
            out.setdefault(one.title, one)
    return list(out.values())
