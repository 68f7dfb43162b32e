"""Tables of pairwise differences for the report."""

from __future__ import annotations

from common.comparison.paired import Comparison, Difference
from common.comparison.report.tables import ARROW, better_of, number

BETTER, WORSE, LEVEL = "▲", "▼", "≈"


def overview(comparison: Comparison) -> dict:
    """Count the metrics on which each row is significantly better or worse than each column.

    Returns {"titles", "rows": [{"title", "cells"}]}; a cell is {sign: count}, or None if the pair was not compared.
    """
    titles = [c.title for c in comparison.models]
    rows = []
    for first in comparison.ranked:
        cells: list[dict | None] = []
        for second in titles:
            found = [comparison.difference(metric, first, second) for metric in comparison.metrics]
            signs = [_sign(d) for d in found if d]
            counts = {sign: signs.count(sign) for sign in (BETTER, WORSE, LEVEL)}
            cells.append(None if first == second or not signs else counts)
        rows.append({"title": first, "cells": cells})
    return {"titles": titles, "rows": rows}


def matrices(comparison: Comparison) -> list[dict]:
    """For each metric, the differences: {"metric", "arrow", "titles", "rows": [{"title", "cells"}]}.

    A cell is {"sign", "uncorrected", "value", "low", "high", "count"}, or None if the pair was not compared.
    """
    titles = [c.title for c in comparison.models]
    out = []
    for metric in comparison.metrics:
        if not comparison.paired_differences.get(metric):
            continue
        rows = []
        for first in titles:
            found = [comparison.difference(metric, first, second) for second in titles]
            rows.append({"title": first, "cells": [d and _cell(metric, d) for d in found]})
        out.append({"metric": metric, "arrow": ARROW[better_of(metric)], "titles": titles, "rows": rows})
    return out


def _sign(d: Difference) -> str:
    return LEVEL if not d.significant_holm else BETTER if d.better > 0 else WORSE


def _cell(metric: str, d: Difference) -> dict:
    uncorrected = (BETTER if d.better > 0 else WORSE) if d.significant and not d.significant_holm else ""
    texts = {key: number(metric, getattr(d, key), "+").replace("-", "−") for key in ("value", "low", "high")}
    return {"sign": _sign(d), "uncorrected": uncorrected, "count": d.count, **texts}
