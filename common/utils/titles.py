"""Titles that differ from each other."""

from __future__ import annotations

from collections.abc import Collection


def unique_title(title: str, taken: Collection[str]) -> str:
    """The first of `title`, `title (2)`, `title (3)`, ... that is not taken."""
    count, free = 1, title
    while free in taken:
        count += 1
        free = f"{title} ({count})"
    return free
