"""The design of a study: which pairs a person sees, in which order, and on which side the fake is.

Everything random is a function of the study's seed and the number of the session, so a session can be reproduced.
Practice and test use different photographs, so the feedback in practice reveals nothing about the test.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import numpy as np

from common.utils.errors import UserError

Kind = Literal["practice", "test", "vigilance"]
Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")
EXPOSURE_MS = 1000


class Trial(NamedTuple):
    """One pair: an original beside its colorization; in a vigilance trial, its L with another photo's ab."""

    kind: Kind
    photo: int  # index into `Study.photos`
    fake: Side


@dataclass(frozen=True)
class Study:
    """What is the same for all participants. The first `practice` names of `photos` are used for practice."""

    models: tuple[str, ...]
    photos: tuple[str, ...]
    content: str  # digest of the photographs and the weights
    size: int  # side of the colorized pictures, in pixels
    practice: int = 10
    test: int = 40
    vigilance: float = 0.1  # share of the test pairs
    seed: int = 0

    @property
    def vigilance_pairs(self) -> int:
        """Number of vigilance trials among the test pairs."""
        return round(self.test * self.vigilance)

    def to_json(self) -> str:
        """The study as JSON, as it is stored in databases and keys."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Study:
        """The inverse of `to_json`. Raises ValueError, KeyError or TypeError if the text is not a study."""
        fields = json.loads(text)
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})

    def digest(self) -> str:
        """Short name of the study: 12 hexadecimal digits of its SHA-256."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]


def check_counts(available: int, practice: int, test: int, vigilance: float) -> None:
    """Raise UserError if there are too few photographs for a session, or no test pair would be measured."""
    if round(test * vigilance) >= test:
        raise UserError(f"vigilance is {vigilance:g}: none of the {test} test pairs would be measured; lower it")
    if available < practice + test:
        raise UserError(
            f"{available} color photographs are fewer than the {practice + test} pairs of a session"
            f" ({practice} for practice, {test} test): give more photographs, or lower --practice and --test"
        )


def choose_photos(available: int, wanted: int | None, seed: int) -> list[int]:
    """Indices of `wanted` of the available photographs (None: all), drawn without replacement in random order."""
    order = np.random.default_rng([seed, 0]).permutation(available)
    return [int(i) for i in order[: wanted or available]]


def plan_session(study: Study, number: int) -> list[Trial]:
    """The trials of session `number` (from 0), practice first. No photograph is used twice in a session."""
    rng = np.random.default_rng([study.seed, 1, number])
    practice = rng.permutation(study.practice)
    test = rng.permutation(np.arange(study.practice, len(study.photos)))[: study.test]
    vigilant = set(rng.permutation(study.test)[: study.vigilance_pairs].tolist())
    kinds: list[Kind] = ["practice"] * study.practice
    kinds += ["vigilance" if i in vigilant else "test" for i in range(study.test)]
    sides = rng.integers(0, 2, len(kinds))
    photos = [*practice, *test]
    return [Trial(k, int(p), SIDES[s]) for k, p, s in zip(kinds, photos, sides, strict=True)]


def next_model(started: dict[str, int], study: Study, number: int) -> str:
    """The model of session `number`: drawn from the models with the fewest sessions. started: sessions by model."""
    fewest = min(started.get(model, 0) for model in study.models)
    candidates = [model for model in study.models if started.get(model, 0) == fewest]
    return candidates[int(np.random.default_rng([study.seed, 2, number]).integers(len(candidates)))]


def color_donor(photo: int, count: int, seed: int) -> int:
    """Index of the photograph whose ab a vigilance trial gives to `photo`. It is never `photo` itself."""
    cycle = np.random.default_rng([seed, 3]).permutation(count)
    position = int(np.flatnonzero(cycle == photo)[0])
    return int(cycle[(position + 1) % count])
