"""Paired comparisons of colorizers: differences with confidence intervals, corrected for multiple comparisons.

- A difference is computed over the photographs on which both rows are measured, from the same bootstrap resamples of
  them (a paired bootstrap), so that the difficulty of a photograph cancels out.
- Photographs that depend on each other form a group (`common.evaluation.photograph_groups`). Resamples draw whole
  groups, and the number of groups is the sample size. With fewer than `MIN_GROUPS`, no difference is significant.
- A metric that is best near the original's number is compared by its distance to that number.
- Seeds of one experiment are compared by their mean. The sample variance over seeds, divided by their number, is added
  to the bootstrap's variance over photographs. This is the variance of a two-level bootstrap without its factor
  (S - 1) / S, by which resampling few seeds underestimates. It never underestimates: variance that depends on both
  photograph and seed is in both terms.
- The 95 % confidence interval is the difference plus and minus t standard errors, with Satterthwaite's (1946) degrees
  of freedom. A difference is `significant` if its interval excludes 0.
- It is `significant_holm` if it remains significant after Holm's (1979) correction over all comparisons of the report,
  which bounds the probability of any false one by 5 %. Marks and sentences of the report use this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats

from common.comparison.groups import ComparedModel
from common.evaluation.bootstrap import measured, of_set, resampled
from common.evaluation.metrics import Metric
from common.evaluation.photograph_groups import MIN_GROUPS, count_groups

LEVEL = 0.95
_ROUNDING = 1e-6  # relative rounding error of float32 sums in another order


@dataclass(frozen=True)
class Difference:
    """The first's score minus the second's on one metric, over the photographs on which both are measured."""

    value: float
    low: float
    high: float
    count: int  # photographs
    left_out: int  # photographs on which one of them is not measured
    p_value: float  # two-sided
    better: int  # 1: the first's score is better, -1: the second's, 0: equal
    groups: int  # of these photographs
    p_holm: float = 1.0  # corrected over all comparisons of the report

    @property
    def significant(self) -> bool:
        """Whether the 95 % interval excludes 0, and there are enough groups to know."""
        return self.groups >= MIN_GROUPS and (self.low > 0 or self.high < 0)

    @property
    def significant_holm(self) -> bool:
        """Whether it remains significant after Holm's correction for multiple comparisons."""
        return self.significant and self.p_holm <= 1 - LEVEL

    def reversed(self) -> Difference:
        """The second's score minus the first's."""
        return replace(self, value=-self.value, low=-self.high, high=-self.low, better=-self.better)


@dataclass
class Comparison:
    """Results of a comparison: the metrics of each model, and the paired difference of each two models. numbers:
    displayed values; scores: values used for ranking (|value - value of `original`| for metrics such as colorfulness).
    """

    models: list[ComparedModel]
    metrics: dict[str, Metric]
    numbers: dict[str, dict[str, dict]]  # [model][metric] -> a cell of the table
    scores: dict[str, dict[str, float]]  # [metric][model] -> its number, or its distance to the original's
    # [metric][first, second]
    paired_differences: dict[str, dict[tuple[str, str], Difference]] = field(default_factory=dict)

    @property
    def ranked(self) -> list[str]:
        """Titles of the models, without the reference rows."""
        return [c.title for c in self.models if not c.trivial]

    @property
    def comparisons(self) -> int:
        return sum(len(pairs) for pairs in self.paired_differences.values())

    def difference(self, metric: str, first: str, second: str) -> Difference | None:
        """The first's score minus the second's, or None if they have no common measurement."""
        pairs = self.paired_differences.get(metric, {})
        if (first, second) in pairs:
            return pairs[first, second]
        return pairs[second, first].reversed() if (second, first) in pairs else None

    def beats(self, metric: str, first: str, second: str) -> bool:
        """Return True if model `first` is significantly better than `second` on `metric` (Holm-corrected, level 5 %).
        Returns False if they have no images in common.
        """
        found = self.difference(metric, first, second)
        return found is not None and found.significant_holm and found.better > 0

    def best(self, metric: str) -> str | None:
        """The model with the best score, reference rows excluded."""
        scores = {title: self.scores.get(metric, {}).get(title) for title in self.ranked}
        there = {title: score for title, score in scores.items() if score is not None}
        if not there:
            return None
        return (max if self.metrics[metric].better == "higher" else min)(there, key=there.__getitem__)

    def level(self, metric: str) -> list[str]:
        """The models that are not significantly worse than the best one, without it."""
        best = self.best(metric)
        others = [t for t in self.ranked if t != best and t in self.scores.get(metric, {})] if best else []
        return [title for title in others if not self.beats(metric, best, title)]

    def is_marked(self, metric: str) -> bool:
        """Whether tables mark the best model: there are several, and enough groups for a significant difference."""
        pairs = self.paired_differences.get(metric, {})
        return any(
            d.groups >= MIN_GROUPS
            for pair, d in pairs.items()
            if self.best(metric) in pair and {*pair} <= {*self.ranked}
        )

    def to_json(self) -> dict:
        """Groups and differences in plain types."""
        return {
            "groups": {c.title: list(c.members) for c in self.models if c.seeds > 1},
            "numbers": {c.title: self.numbers[c.title] for c in self.models if c.seeds > 1},
            "best": {m: {"best": self.best(m), "within_noise": self.level(m)} for m in self.paired_differences},
            "paired": [
                {"metric": metric, "first": first, "second": second, "difference": d.value, "low": d.low,
                 "high": d.high, "photographs": d.count, "left_out": d.left_out, "groups": d.groups,
                 "p_value": d.p_value, "p_holm": d.p_holm, "significant": d.significant,
                 "significant_holm": d.significant_holm, "better": {1: first, -1: second}.get(d.better)}
                for metric, pairs in self.paired_differences.items() for (first, second), d in pairs.items()
            ],
        }  # fmt: skip


def compare_rows(
    values: dict[str, dict[str, np.ndarray]],
    references: dict[str, np.ndarray],
    metrics: dict[str, Metric],
    who: list[ComparedModel],
    table: dict[str, dict[str, dict]],
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> Comparison:
    """Compare models pair by pair on every metric.

    values, references, table: as `Evaluation` has them. seed: of the bootstrap. groups: the group of each photograph,
    int [n] (default: each is its own). A pair has no difference on a metric that is not measured on both of them for
    photographs of at least two groups.
    """
    out = Comparison(who, metrics, {c.title: {} for c in who}, {name: {} for name in metrics})
    for name, metric in metrics.items():
        column = {row: values[row][name] for row in values if values[row].get(name) is not None}
        sample = _Column(metric, column, references.get(name), seed, groups)
        out.paired_differences[name] = {}
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
                    out.paired_differences[name][first.title, second.title] = found
    _correct(out)
    return out


class _Column:
    """The values of one metric. Bootstrap resamples are cached for each selection of photographs."""

    def __init__(
        self, metric: Metric, column: dict[str, np.ndarray], reference: np.ndarray | None, seed: int,
        groups: np.ndarray | None,
    ) -> None:  # fmt: skip
        self.metric, self.column, self.seed = metric, column, seed
        self.count = len(next(iter(column.values()), ()))
        self.groups = np.arange(self.count) if groups is None else groups
        if reference is None:
            original = column.get("original")
            reference = np.ones(self.count) if original is None else original
        self.reference = reference
        self._cache: dict[tuple, np.ndarray] = {}

    def photographs(self, *who: ComparedModel) -> np.ndarray:
        """Mask of the photographs on which all seeds of all these models are measured, bool [N]."""
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
            more = (self.seed, self.groups[seen]) if draw is resampled else ()
            self._cache[key] = np.asarray(draw(self.metric, values[seen], self.reference[seen], *more))
        return self._cache[key]

    def scores(self, who: ComparedModel, seen: np.ndarray, draw: Callable = of_set) -> np.ndarray:
        """Scores of the seeds of a model, float [S]; [S, RESAMPLES] with `draw=resampled`."""
        numbers = np.stack([self._of(row, seen, draw) for row in who.members])
        return np.abs(numbers - self._of(None, seen, draw)) if self.metric.better == "truth" else numbers

    def of_seeds(self, who: ComparedModel, seen: np.ndarray) -> dict:
        """The cell of a group: mean over seeds, its interval, and the two sources of variance."""
        of_each = np.array([self._of(row, seen, of_set) for row in who.members])
        drawn = np.mean([self._of(row, seen, resampled) for row in who.members], axis=0)
        parts = [_of_photographs(drawn, count_groups(self.groups[seen])), _of_seeds(of_each)]
        value = float(of_each.mean())
        low, high = _interval(value, parts)[:2] if parts[0][1] or seen.sum() == 1 else (None, None)
        spread = {"sd_seeds": float(of_each.std(ddof=1)), "se_photographs": float(parts[0][0] ** 0.5)}
        return {"mean": value, "low": low, "high": high, "seeds": who.seeds, **spread}

    def difference(self, first: ComparedModel, second: ComparedModel) -> Difference | None:
        """The first's mean score minus the second's."""
        seen = self.photographs(first, second)
        count, groups = int(seen.sum()), count_groups(self.groups[seen])
        if groups < 2:
            return None
        a, b = (self.scores(c, seen) for c in (first, second))
        value = float(a.mean() - b.mean())
        if abs(value) <= _ROUNDING * max(abs(a.mean()), abs(b.mean())):
            value = 0.0
        drawn = self.scores(first, seen, resampled).mean(axis=0) - self.scores(second, seen, resampled).mean(axis=0)
        low, high, p = _interval(value, [_of_photographs(drawn, groups), _of_seeds(a), _of_seeds(b)])
        sign = 1 if self.metric.better == "higher" else -1
        return Difference(value, low, high, count, self.count - count, p, sign * int(np.sign(value)), groups)


def _of_photographs(drawn: np.ndarray, count: int) -> tuple[float, float]:
    """(variance, degrees of freedom) over `count` groups; the factor makes the bootstrap's variance unbiased."""
    return float(drawn.var() * count / max(1, count - 1)), count - 1.0


def _of_seeds(of_each: np.ndarray) -> tuple[float, float]:
    """(variance of the mean over seeds, degrees of freedom); 0 for a single seed, whose variance is unknown."""
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


def _correct(comparison: Comparison) -> None:
    """Fill in p values after Holm's correction over all pairs and metrics."""
    every = [
        (d.p_value, metric, pair)
        for metric, pairs in comparison.paired_differences.items()
        for pair, d in pairs.items()
    ]
    highest = 0.0
    for i, (p, metric, pair) in enumerate(sorted(every, key=lambda item: item[0])):
        highest = max(highest, min(1.0, p * (len(every) - i)))
        comparison.paired_differences[metric][pair] = replace(
            comparison.paired_differences[metric][pair], p_holm=highest
        )
