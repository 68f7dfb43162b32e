"""Options of films."""

from __future__ import annotations

from dataclasses import dataclass

from common.utils.errors import UserError

# Suffixes by which a command line tells films from pictures. The content of a file decides whether it can be read.
SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".vob", ".ts", ".m2ts", ".mts", ".wmv", ".asf",
    ".flv", ".ogv", ".3gp", ".mxf", ".dv",
)  # fmt: skip


class FilmError(UserError):
    """A film that cannot be read or written."""


@dataclass(frozen=True)
class FilmConfig:
    """How the colors of a film are predicted."""

    size: int  # side of the square that the network sees, in pixels
    every: int = 1  # the network sees every so many frames
    steady: bool = True  # filter colors over time


@dataclass(frozen=True)
class Span:
    """The part of a film that is colorized, in seconds from its beginning. Raises UserError if it is empty."""

    start: float = 0.0
    end: float | None = None

    def __post_init__(self) -> None:
        if self.end is not None and self.end <= self.start:
            raise UserError(f"the part of the film from {self.start:g} s to {self.end:g} s is empty: set a later end")
