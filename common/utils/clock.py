"""Durations as text."""

from __future__ import annotations

import re


def clock(seconds: float) -> str:
    """Format seconds as 0:05, 12:40 or 1:02:03."""
    minutes, s = divmod(int(seconds + 0.5), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def parse_time(text: str) -> float | None:
    """12.5, 1:20 or 1:02:03.5 -> seconds. None for text of another form."""
    if not re.fullmatch(r"(\d{1,6}:){0,2}\d{1,9}(\.\d{1,9})?", text):
        return None
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds
