"""Who beats whom, as tables of a page."""

from __future__ import annotations

from common.comparison.paired import Difference, Standings
from common.comparison.report.tables import ARROW, better_of, number

BEATS, BEATEN, NOISE = "▲", "▼", "≈"


def overview(standings: Standings) -> dict:
    """On how many metrics each line beats each column: {"titles", "rows": [{"title", "cells"}]}."""
    titles = [c.title for c in standings.contestants]
    rows = []
    for first in standings.ranked:
        cells: list[dict | None] = []
        for second in titles:
            found = [standings.difference(metric, first, second) for metric in standings.metrics]
            signs = [_sign(d) for d in found if d]
            counts = {sign: signs.count(sign) for sign in (BEATS, BEATEN, NOISE)}
            cells.append(None if first == second or not signs else counts)
        rows.append({"title": first, "cells": cells})
    return {"titles": titles, "rows": rows}


def matrices(standings: Standings) -> list[dict]:
    """For each metric, the differences: {"metric", "arrow", "titles", "rows": [{"title", "cells"}]}.

    A cell is {"sign", "unsure", "value", "low", "high", "count"}, or None where there is no difference.
    """
    titles = [c.title for c in standings.contestants]
    out = []
    for metric in standings.metrics:
        if not standings.pairs.get(metric):
            continue
        rows = []
        for first in titles:
            found = [standings.difference(metric, first, second) for second in titles]
            rows.append({"title": first, "cells": [d and _cell(metric, d) for d in found]})
        out.append({"metric": metric, "arrow": ARROW[better_of(metric)], "titles": titles, "rows": rows})
    return out


def _sign(d: Difference) -> str:
    return NOISE if not d.sure else BEATS if d.better > 0 else BEATEN


def _cell(metric: str, d: Difference) -> dict:
    unsure = (BEATS if d.better > 0 else BEATEN) if d.told and not d.sure else ""
    said = {key: number(metric, getattr(d, key), "+").replace("-", "−") for key in ("value", "low", "high")}
    return {"sign": _sign(d), "unsure": unsure, "count": d.count, **said}
