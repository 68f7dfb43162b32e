"""Durations as text."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """Format seconds as 0:05, 12:40 or 1:02:03."""
    minutes, s = divmod(int(seconds + 0.5), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
