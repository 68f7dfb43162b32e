"""The design of a study: which pairs a person sees, in which order, on which side the fake is.

Everything random is a function of (the study's seed, the number of the session), so a session can be planned again
from its record. Practice and test draw from different photographs: what practice gives away tells nothing of the test.
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
    """One pair: an original beside its colorization, or beside itself in the colors of another photograph."""

    kind: Kind
    photo: int  # index into the photographs of the study
    fake: Side


@dataclass(frozen=True)
class Study:
    """What is fixed for everybody who takes part. `photos`: names; the first of them are for practice."""

    models: tuple[str, ...]
    photos: tuple[str, ...]
    content: str  # digest of the pictures that are shown
    size: int  # side of the source pictures, in pixels
    practice: int = 10
    test: int = 40
    vigilance: float = 0.1  # share of the test pairs
    seed: int = 0

    @property
    def vigilance_pairs(self) -> int:
        """How many of the test pairs are vigilance trials."""
        return round(self.test * self.vigilance)

    def to_json(self) -> str:
        """The study's record, exact: what a database and a key hold."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Study:
        """The reverse of `to_json`. Raises ValueError, KeyError or TypeError for another text."""
        fields = json.loads(text)
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})

    def digest(self) -> str:
        """A short name for exactly this study."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]


def check_counts(available: int, practice: int, test: int, vigilance: float) -> None:
    """Raises UserError where the photographs do not suffice for one session, or the counts make none."""
    if round(test * vigilance) >= test:
        raise UserError(f"vigilance is {vigilance:g}: of {test} test pairs none would be left to measure")
    if available < practice + test:
        raise UserError(
            f"{available} color photographs are fewer than the {practice + test} pairs of a session"
            f" ({practice} for practice, {test} test): give more photographs, or lower --practice and --test"
        )


def choose_photos(available: int, wanted: int | None, seed: int) -> list[int]:
    """A seeded choice of `wanted` of the available photographs (None: all), in random order."""
    order = np.random.default_rng([seed, 0]).permutation(available)
    return [int(i) for i in order[: wanted or available]]


def plan_session(study: Study, number: int) -> list[Trial]:
    """The trials of the session of a number (from 0), practice first. No photograph comes twice in a session."""
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
    """The model of the next session: one of those with the fewest sessions, by a seeded draw among them."""
    fewest = min(started.get(model, 0) for model in study.models)
    open_to = [model for model in study.models if started.get(model, 0) == fewest]
    return open_to[int(np.random.default_rng([study.seed, 2, number]).integers(len(open_to)))]


def colors_of(photo: int, count: int, seed: int) -> int:
    """The photograph whose colors a vigilance trial paints on `photo`: another one, fixed for the study."""
    cycle = np.random.default_rng([seed, 3]).permutation(count)
    place = int(np.flatnonzero(cycle == photo)[0])
    return int(cycle[(place + 1) % count])
