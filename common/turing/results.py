"""Results of a study: which trials are excluded by which rule, shares, differences, photographs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np

from common.turing.statistics import Interval, between_person_variance, difference_interval, share_interval
from common.turing.store import Record
from common.turing.trials import EXPOSURE_MS, Study

COUNTED = "counted"


@dataclass(frozen=True)
class Rules:
    """Exclusion rules. They are fixed before the answers are analyzed."""

    min_vigilance: float = 0.75  # a person with a lower share of correct vigilance answers is excluded
    exposure_tolerance_ms: float = 50.0  # a pair whose display time deviates from 1 s by more is excluded
    min_response_ms: float = 150.0  # an answer sooner than this after the pictures disappear is excluded

    def describe(self) -> list[str]:
        """Descriptions of what is excluded, in the order in which the rules are applied."""
        return [
            "a pair without an answer (never reached, or the page was closed while it was displayed)",
            f"all pairs of a person who answered less than {100 * self.min_vigilance:g} % of the vigilance pairs"
            " correctly, or answered none of them",
            f"a pair that was not displayed for {EXPOSURE_MS} ± {self.exposure_tolerance_ms:g} ms",
            f"an answer sooner than {self.min_response_ms:g} ms after the pictures disappeared",
        ]


def trial_verdicts(records: list[Record], study: Study, rules: Rules) -> list[str]:
    """Return one string per record, in order: `counted`, `practice`, `vigilance`, or the exclusion reason:
    `unanswered`, `vigilance failed`, `exposure wrong`, `too fast`.
    """
    correct: dict[int, list[bool]] = {}
    for r in records:
        if r.kind == "vigilance" and r.choice:
            correct.setdefault(r.session, []).append(r.choice == r.fake)
    verdicts = []
    for r in records:
        answered = correct.get(r.session, [])
        failed = bool(study.vigilance_pairs) and (not answered or np.mean(answered) < rules.min_vigilance)
        if r.kind != "test":
            verdicts.append(r.kind)
        elif r.choice is None:
            verdicts.append("unanswered")
        elif failed:
            verdicts.append("vigilance failed")
        elif abs(r.exposure_ms - EXPOSURE_MS) > rules.exposure_tolerance_ms:
            verdicts.append("exposure wrong")
        elif r.response_ms < rules.min_response_ms:
            verdicts.append("too fast")
        else:
            verdicts.append(COUNTED)
    return verdicts


@dataclass(frozen=True)
class ModelResult:
    """One model: the share of counted trials in which its picture was taken for the original, and related counts."""

    share: Interval | None  # None if there are no counted trials
    people: int
    sessions: int
    trials: int
    spread: float  # estimated standard deviation of the true share between people
    response_ms: tuple[float, float, float] | None  # quartiles


@dataclass(frozen=True)
class PhotoResult:
    """Counts of one photograph colorized by one model."""

    photo: str
    model: str
    fooled: int
    trials: int

    @property
    def smoothed(self) -> float:
        """(fooled + 1) / (trials + 2), Laplace's estimate, so that photographs with few trials are not ranked first."""
        return (self.fooled + 1) / (self.trials + 2)


@dataclass(frozen=True)
class Results:
    """All values that a report shows."""

    study: Study
    rules: Rules
    models: dict[str, ModelResult]
    differences: dict[tuple[str, str], Interval]
    verdicts: dict[str, int]  # of test trials
    failed_people: int
    photos: list[PhotoResult]  # most convincing first

    def to_dict(self) -> dict:
        """The results as values that JSON can represent."""
        out = asdict(self)
        out["study"] |= {"photos": len(self.study.photos), "digest": self.study.digest()}
        for model, result in self.models.items():
            out["models"][model]["share"] = result.share and result.share._asdict()
        out["differences"] = [
            {"first": a, "second": b} | interval._asdict() for (a, b), interval in self.differences.items()
        ]
        return out


def summarize(records: list[Record], study: Study, rules: Rules | None = None) -> Results:
    """Compute the results of a study. rules: None for the defaults."""
    rules = rules or Rules()
    verdicts = trial_verdicts(records, study, rules)
    counts = {model: _by_person(records, verdicts, model) for model in study.models}
    models = {}
    for model, (fooled, trials) in counts.items():
        times = [r.response_ms for r, v in zip(records, verdicts, strict=True) if v == COUNTED and r.model == model]
        models[model] = ModelResult(
            share=share_interval(fooled, trials) if len(trials) else None,
            people=len(trials),
            sessions=len({r.session for r in records if r.model == model}),
            trials=int(trials.sum()),
            spread=float(np.sqrt(between_person_variance(fooled, trials))),
            response_ms=tuple(float(q) for q in np.percentile(times, [25, 50, 75])) if times else None,
        )
    measured = [model for model in study.models if models[model].share]
    differences = {(a, b): difference_interval(counts[a], counts[b]) for a, b in combinations(measured, 2)}
    of_test = Counter(v for r, v in zip(records, verdicts, strict=True) if r.kind == "test")
    failed = {r.session for r, v in zip(records, verdicts, strict=True) if v == "vigilance failed"}
    return Results(study, rules, models, differences, dict(of_test), len(failed), _by_photo(records, verdicts, study))


def _by_person(records: list[Record], verdicts: list[str], model: str) -> tuple[np.ndarray, np.ndarray]:
    own = [(r, v) for r, v in zip(records, verdicts, strict=True) if r.model == model]
    fooled, trials = _counts(own, lambda r: r.session)
    people = sorted(trials)
    return np.array([fooled[p] for p in people], dtype=int), np.array([trials[p] for p in people], dtype=int)


def _by_photo(records: list[Record], verdicts: list[str], study: Study) -> list[PhotoResult]:
    fooled, trials = _counts(zip(records, verdicts, strict=True), lambda r: (r.photo, r.model))
    found = [PhotoResult(study.photos[key[0]], key[1], fooled[key], n) for key, n in trials.items()]
    return sorted(found, key=lambda p: (-p.smoothed, p.photo, p.model))


def _counts(judged: Iterable[tuple[Record, str]], key: Callable[[Record], object]) -> tuple[Counter, Counter]:
    counted = [r for r, verdict in judged if verdict == COUNTED]
    return Counter(key(r) for r in counted if r.choice != r.fake), Counter(map(key, counted))
