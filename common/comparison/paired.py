"""Who beats whom: differences over the same photographs, with intervals, and what many comparisons ask for.

The rules, which the report repeats:

- A difference is taken over the photographs on which both rows were measured. The same resamples of photographs are
  drawn for both, so what makes a photograph hard for everybody cancels out (a paired bootstrap).
- A metric that is best near the original's number is compared by its distance to that number.
- Several seeds of one experiment count as their mean. Their sample variance over their number is added to the
  bootstrap's variance over photographs: the variance of a two-level bootstrap, but for its factor (S - 1) / S, by which
  resampling few seeds falls short. What is random in a photograph and a seed together counts in both: never too narrow.
- The 95 % interval is the difference plus and minus t standard errors, with the degrees of freedom of Satterthwaite
  (1946) for the variances that it is made of. A difference whose interval excludes 0 is `told`, by itself.
- Of 500 comparisons, 25 are told by chance. `sure` are those that are also told after Holm's (1979) correction
  over every comparison of the report, which keeps the chance of any false one under 5 %. Marks and sentences go by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats

from common.comparison.groups import Contestant
from common.evaluation.bootstrap import measured, of_set, resampled
from common.evaluation.metrics import Metric

LEVEL = 0.95
_ROUNDING = 1e-6  # relative: what float32 and another order of sums make of one and the same model


@dataclass(frozen=True)
class Difference:
    """The first's score minus the second's on one metric, over the photographs on which both are measured."""

    value: float
    low: float
    high: float
    count: int  # photographs
    left_out: int  # photographs on which one of them is not measured
    p: float  # two-sided
    better: int  # 1: the first's score is the better one, -1: the second's, 0: alike
    p_holm: float = 1.0  # corrected over every comparison of the report

    @property
    def told(self) -> bool:
        """Whether the 95 % interval excludes 0."""
        return self.low > 0 or self.high < 0

    @property
    def sure(self) -> bool:
        """Whether it is told after correction for all comparisons."""
        return self.told and self.p_holm <= 1 - LEVEL

    def turned(self) -> Difference:
        """The second's score minus the first's."""
        return replace(self, value=-self.value, low=-self.high, high=-self.low, better=-self.better)


@dataclass
class Standings:
    """What came of a comparison: numbers by contestant and metric, and the difference of each pair."""

    contestants: list[Contestant]
    metrics: dict[str, Metric]
    numbers: dict[str, dict[str, dict]]  # [contestant][metric] -> a cell of a table
    scores: dict[str, dict[str, float]]  # [metric][contestant] -> its number, or its distance to the original's
    pairs: dict[str, dict[tuple[str, str], Difference]] = field(default_factory=dict)  # [metric][first, second]

    @property
    def ranked(self) -> list[str]:
        """Titles of the contestants that are not trivial."""
        return [c.title for c in self.contestants if not c.trivial]

    @property
    def comparisons(self) -> int:
        return sum(len(pairs) for pairs in self.pairs.values())

    def difference(self, metric: str, first: str, second: str) -> Difference | None:
        """The first's score minus the second's, or None where that cannot be said."""
        pairs = self.pairs.get(metric, {})
        if (first, second) in pairs:
            return pairs[first, second]
        return pairs[second, first].turned() if (second, first) in pairs else None

    def beats(self, metric: str, first: str, second: str) -> bool:
        """Whether the first is surely better than the second."""
        found = self.difference(metric, first, second)
        return found is not None and found.sure and found.better > 0

    def best(self, metric: str) -> str | None:
        """The contestant with the best score that is not trivial."""
        scores = {title: self.scores.get(metric, {}).get(title) for title in self.ranked}
        there = {title: score for title, score in scores.items() if score is not None}
        if not there:
            return None
        return (max if self.metrics[metric].better == "higher" else min)(there, key=there.__getitem__)

    def level(self, metric: str) -> list[str]:
        """The contestants whose score is within noise of the best's, itself not counted."""
        best = self.best(metric)
        found = {t: self.difference(metric, best, t) for t in self.ranked if t != best} if best else {}
        return [title for title, difference in found.items() if difference and not difference.sure]

    def to_json(self) -> dict:
        """Groups and differences in plain types."""
        return {
            "groups": {c.title: list(c.members) for c in self.contestants if c.seeds > 1},
            "numbers": {c.title: self.numbers[c.title] for c in self.contestants if c.seeds > 1},
            "best": {metric: {"best": self.best(metric), "within_noise": self.level(metric)} for metric in self.pairs},
            "paired": [
                {"metric": metric, "first": first, "second": second, "difference": d.value, "low": d.low,
                 "high": d.high, "photographs": d.count, "left_out": d.left_out, "p": d.p, "p_holm": d.p_holm,
                 "told": d.told, "sure": d.sure, "better": {1: first, -1: second}.get(d.better)}
                for metric, pairs in self.pairs.items() for (first, second), d in pairs.items()
            ],
        }  # fmt: skip


def compare_rows(
    values: dict[str, dict[str, np.ndarray]],
    references: dict[str, np.ndarray],
    metrics: dict[str, Metric],
    who: list[Contestant],
    table: dict[str, dict[str, dict]],
    seed: int = 0,
) -> Standings:
    """Compare contestants pair by pair on every metric.

    values, references, table: as `Evaluation` has them. seed: of the bootstrap. A metric that was not measured on a
    row, or on fewer than two photographs of a pair, has no difference there.
    """
    out = Standings(who, metrics, {c.title: {} for c in who}, {name: {} for name in metrics})
    for name, metric in metrics.items():
        column = {row: values[row][name] for row in values if values[row].get(name) is not None}
        sample = _Column(metric, column, references.get(name), seed)
        out.pairs[name] = {}
        for c in who:
            seen = sample.photographs(c)
            cells = [table[row].get(name, {"mean": None}) for row in c.members]
            out.numbers[c.title][name] = sample.of_seeds(c, seen) if c.seeds > 1 and seen.any() else cells[0]
            if seen.any():
                out.scores[name][c.title] = float(sample.scores(c, seen).mean())
        for i, first in enumerate(who):
            for second in who[i + 1 :]:
                found = sample.difference(first, second)
                if found:
                    out.pairs[name][first.title, second.title] = found
    _correct(out)
    return out


class _Column:
    """The values of one metric, and the numbers of their resamples, drawn once for each choice of photographs."""

    def __init__(self, metric: Metric, column: dict[str, np.ndarray], reference: np.ndarray | None, seed: int) -> None:
        self.metric, self.column, self.seed = metric, column, seed
        self.count = len(next(iter(column.values()), ()))
        if reference is None:
            original = column.get("original")
            reference = np.ones(self.count) if original is None else original
        self.reference = reference
        self._cache: dict[tuple, np.ndarray] = {}

    def photographs(self, *who: Contestant) -> np.ndarray:
        """Those on which all seeds of all of them are measured: bool [N]."""
        seen = measured(self.reference) if len(self.reference) else np.zeros(0, dtype=bool)
        for row in (row for c in who for row in c.members):
            seen = seen & measured(self.column[row]) if row in self.column else np.zeros_like(seen)
        return seen

    def _of(self, row: str | None, seen: np.ndarray, draw: Callable) -> np.ndarray:
        """`of_set` or `resampled` of a row, or of the originals where row is None, on some photographs."""
        key = (row, seen.tobytes(), draw)
        if key not in self._cache:
            values = self.column.get("original", self.reference) if row is None else self.column[row]
            values = self.reference if row is None and not measured(values)[seen].all() else values
            more = (self.seed,) if draw is resampled else ()
            self._cache[key] = np.asarray(draw(self.metric, values[seen], self.reference[seen], *more))
        return self._cache[key]

    def scores(self, who: Contestant, seen: np.ndarray, draw: Callable = of_set) -> np.ndarray:
        """What the seeds of a contestant are compared by: [S], or [S, RESAMPLES] with `draw=resampled`."""
        numbers = np.stack([self._of(row, seen, draw) for row in who.members])
        return np.abs(numbers - self._of(None, seen, draw)) if self.metric.better == "truth" else numbers

    def of_seeds(self, who: Contestant, seen: np.ndarray) -> dict:
        """The cell of a group: mean over seeds, its interval, and the two sources of variance."""
        of_each = np.array([self._of(row, seen, of_set) for row in who.members])
        drawn = np.mean([self._of(row, seen, resampled) for row in who.members], axis=0)
        parts = [_of_photographs(drawn, int(seen.sum())), _of_seeds(of_each)]
        value = float(of_each.mean())
        low, high, _ = _interval(value, parts)
        spread = {"sd_seeds": float(of_each.std(ddof=1)), "se_photographs": float(parts[0][0] ** 0.5)}
        return {"mean": value, "low": low, "high": high, "seeds": who.seeds, **spread}

    def difference(self, first: Contestant, second: Contestant) -> Difference | None:
        """The first's mean score minus the second's."""
        seen = self.photographs(first, second)
        count = int(seen.sum())
        if count < 2:
            return None
        a, b = (self.scores(c, seen) for c in (first, second))
        value = float(a.mean() - b.mean())
        if abs(value) <= _ROUNDING * max(abs(a.mean()), abs(b.mean())):
            value = 0.0
        drawn = self.scores(first, seen, resampled).mean(axis=0) - self.scores(second, seen, resampled).mean(axis=0)
        low, high, p = _interval(value, [_of_photographs(drawn, count), _of_seeds(a), _of_seeds(b)])
        sign = 1 if self.metric.better == "higher" else -1
        return Difference(value, low, high, count, self.count - count, p, sign * int(np.sign(value)))


def _of_photographs(drawn: np.ndarray, count: int) -> tuple[float, float]:
    """(variance, degrees of freedom) over photographs; the factor makes the bootstrap's variance unbiased."""
    return float(drawn.var() * count / max(1, count - 1)), count - 1.0


def _of_seeds(of_each: np.ndarray) -> tuple[float, float]:
    """(variance of the mean over seeds, degrees of freedom); 0 of one seed, whose variance nobody knows."""
    seeds = len(of_each)
    return (float(of_each.var(ddof=1) / seeds), seeds - 1.0) if seeds > 1 else (0.0, 0.0)


def _interval(value: float, parts: list[tuple[float, float]]) -> tuple[float, float, float]:
    """(low, high, two-sided p) of a value with independent variances and their degrees of freedom."""
    variance = sum(v for v, _ in parts)
    if variance <= 0:
        return value, value, 1.0 if value == 0 else 0.0
    freedom = variance**2 / sum(v**2 / f for v, f in parts if v > 0 and f > 0)
    error = variance**0.5
    reach = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    return value - reach, value + reach, float(2 * stats.t.sf(abs(value) / error, freedom))


def _correct(standings: Standings) -> None:
    """Fill in Holm's p values, over every pair and metric."""
    every = [(d.p, metric, pair) for metric, pairs in standings.pairs.items() for pair, d in pairs.items()]
    highest = 0.0
    for i, (p, metric, pair) in enumerate(sorted(every, key=lambda item: item[0])):
        highest = max(highest, min(1.0, p * (len(every) - i)))
        standings.pairs[metric][pair] = replace(standings.pairs[metric][pair], p_holm=highest)
