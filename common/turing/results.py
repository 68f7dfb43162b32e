"""From the trials of a study to its results: who is left out by which rule, shares, differences, photographs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np

from common.turing.statistics import Interval, difference_interval, share_interval, spread_between
from common.turing.store import Record
from common.turing.trials import EXPOSURE_MS, Study

COUNTED = "counted"


@dataclass(frozen=True)
class Rules:
    """What is left out of the shares, stated before anybody looks at them."""

    min_vigilance: float = 0.75  # a person with a lower share of vigilance trials right
    exposure_tolerance_ms: float = 50.0  # a pair shown longer or shorter than 1 s by more
    min_response_ms: float = 150.0  # an answer sooner than this after the pictures have gone

    def describe(self) -> list[str]:
        """The rules in words, in the order in which they are applied."""
        return [
            "a pair without an answer (never reached, or the page was left while it was on show)",
            f"all pairs of a person who had less than {self.min_vigilance:.0%} of the answered vigilance pairs right,"
            " or answered none of them",
            f"a pair that was shown for other than {EXPOSURE_MS} ± {self.exposure_tolerance_ms:g} ms",
            f"an answer sooner than {self.min_response_ms:g} ms after the pictures had gone",
        ]


def judge(records: list[Record], study: Study, rules: Rules) -> list[str]:
    """For each trial: `counted`, or why it is not."""
    right: dict[int, list[bool]] = {}
    for r in records:
        if r.kind == "vigilance" and r.choice:
            right.setdefault(r.session, []).append(r.choice == r.fake)
    verdicts = []
    for r in records:
        seen = right.get(r.session, [])
        failed = bool(study.vigilance_pairs) and (not seen or np.mean(seen) < rules.min_vigilance)
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
    """One model: the share of counted trials in which its picture was taken for the original."""

    share: Interval | None  # None without a counted trial
    people: int
    sessions: int
    trials: int
    spread: float  # estimated standard deviation between people
    response_ms: tuple[float, float, float] | None  # quartiles


@dataclass(frozen=True)
class PhotoResult:
    """One photograph under one model."""

    photo: str
    model: str
    fooled: int
    trials: int

    @property
    def smoothed(self) -> float:
        """(fooled + 1) / (trials + 2): a photograph that few have seen does not lead a list by chance."""
        return (self.fooled + 1) / (self.trials + 2)


@dataclass(frozen=True)
class Results:
    """Everything that a report shows."""

    study: Study
    rules: Rules
    models: dict[str, ModelResult]
    differences: dict[tuple[str, str], Interval]
    verdicts: dict[str, int]  # of test trials
    failed_people: int
    photos: list[PhotoResult]  # most convincing first

    def to_dict(self) -> dict:
        """The same, ready for JSON."""
        out = asdict(self)
        out["study"] |= {"photos": len(self.study.photos), "digest": self.study.digest()}
        for model, result in self.models.items():
            out["models"][model]["share"] = result.share and result.share._asdict()
        out["differences"] = [
            {"first": a, "second": b} | interval._asdict() for (a, b), interval in self.differences.items()
        ]
        return out


def summarise(records: list[Record], study: Study, rules: Rules | None = None) -> Results:
    """The results of a study so far; models without a counted trial have no share."""
    rules = rules or Rules()
    verdicts = judge(records, study, rules)
    counts = {model: _by_person(records, verdicts, model) for model in study.models}
    models = {}
    for model, (fooled, trials) in counts.items():
        times = [r.response_ms for r, v in zip(records, verdicts, strict=True) if v == COUNTED and r.model == model]
        models[model] = ModelResult(
            share=share_interval(fooled, trials) if len(trials) else None,
            people=len(trials),
            sessions=len({r.session for r in records if r.model == model}),
            trials=int(trials.sum()),
            spread=float(np.sqrt(spread_between(fooled, trials))),
            response_ms=tuple(float(q) for q in np.percentile(times, [25, 50, 75])) if times else None,
        )
    measured = [model for model in study.models if models[model].share]
    differences = {(a, b): difference_interval(counts[a], counts[b]) for a, b in combinations(measured, 2)}
    of_test = Counter(v for r, v in zip(records, verdicts, strict=True) if r.kind == "test")
    failed = {r.session for r, v in zip(records, verdicts, strict=True) if v == "vigilance failed"}
    return Results(study, rules, models, differences, dict(of_test), len(failed), _by_photo(records, verdicts, study))


def _by_person(records: list[Record], verdicts: list[str], model: str) -> tuple[np.ndarray, np.ndarray]:
    fooled: Counter = Counter()
    trials: Counter = Counter()
    for r, verdict in zip(records, verdicts, strict=True):
        if verdict == COUNTED and r.model == model:
            trials[r.session] += 1
            fooled[r.session] += r.choice != r.fake
    people = sorted(trials)
    return np.array([fooled[p] for p in people], dtype=int), np.array([trials[p] for p in people], dtype=int)


def _by_photo(records: list[Record], verdicts: list[str], study: Study) -> list[PhotoResult]:
    fooled: Counter = Counter()
    trials: Counter = Counter()
    for r, verdict in zip(records, verdicts, strict=True):
        if verdict == COUNTED:
            trials[r.photo, r.model] += 1
            fooled[r.photo, r.model] += r.choice != r.fake
    found = [PhotoResult(study.photos[key[0]], key[1], fooled[key], n) for key, n in trials.items()]
    return sorted(found, key=lambda p: (-p.smoothed, p.photo, p.model))
