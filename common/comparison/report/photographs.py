"""Results by the number of training photographs: models that differ in nothing else form a line."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace

from common.comparison.groups import experiment_config
from common.comparison.paired import Comparison
from common.comparison.report.findings import headline, listed
from common.utils.titles import unique_title


@dataclass(frozen=True)
class Line:
    """Models that were trained alike on different numbers of photographs.

    Attributes:
        title: what their titles have in common.
        points: (number of training photographs, title of the model), by this number.
    """

    title: str
    points: tuple[tuple[int, str], ...]


def photograph_lines(comparison: Comparison, cards: dict[str, dict]) -> list[Line]:
    """The lines among the compared models; an empty list if no two models differ in `data.train_limit` alone.

    cards: of the rows.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for model in comparison.models:
        card = cards.get(model.members[0], {})
        seen = card.get("trained_on") or {}
        if isinstance(card.get("config"), dict) and {"count", "grey"} <= set(seen):
            config = experiment_config(card["config"])
            data = {key: value for key, value in config.get("data", {}).items() if key != "train_limit"}
            identity = json.dumps([config | {"data": data}, card.get("shifted")], sort_keys=True, default=str)
            found.setdefault(identity, []).append((seen["count"] - seen["grey"], model.title))
    lines: list[Line] = []
    for points in found.values():
        if len({count for count, _ in points}) == len(points) > 1:
            common = re.sub(r"[\W_]+\d*$", "", os.path.commonprefix([title for _, title in points]))  # noqa: RUF071
            title = unique_title(common or points[0][1], {line.title for line in lines})
            lines.append(Line(title, tuple(sorted(points))))
    return lines


def by_photographs(comparison: Comparison, lines: list[Line]) -> list[str]:
    """For each number of photographs that several lines have, one sentence: which line is best on which metric."""
    of_count: dict[int, dict[str, str]] = {}
    for line in lines:
        for count, title in line.points:
            of_count.setdefault(count, {})[title] = line.title
    out = []
    for count, names in sorted(of_count.items()):
        if len(names) < 2:
            continue
        part = replace(comparison, models=[c for c in comparison.models if c.title in names])
        said: dict[str, list[str]] = {}
        for metric in headline(comparison.metrics):
            best = part.best(metric)
            if best is None:
                continue
            beaten = [names[other] for other in names if other != best and part.beats(metric, best, other)]
            why = f"significantly better than {listed(beaten)}" if beaten else "no significant difference"
            said.setdefault(f"{names[best]} ({why})", []).append(metric)
        parts = "; ".join(f"{who} on {listed(metrics)}" for who, metrics in said.items())
        out.append(f"Trained on {count:,} photographs, best is {parts}.")
    return out
