"""Options of films."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FilmConfig:
    """How the colors of a film are predicted."""

    size: int  # side of the square that the network sees, in pixels
    every: int = 1  # the network sees every so many frames
    steady: bool = True  # filter colors over time
