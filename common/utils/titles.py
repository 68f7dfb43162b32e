"""Unique titles for models of the same name."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def unique_title(title: str, taken: Collection[str]) -> str:
    """The first of `title`, `title (2)`, `title (3)`, ... that is not taken."""
    count, free = 1, title
    while free in taken:
        count += 1
        free = f"{title} ({count})"
    return free


def unique_titles(titles: Iterable[str]) -> list[str]:
    """The titles in the same order. The second occurrence of a title becomes `title (2)`, and so on."""
    out: list[str] = []
    for title in titles:
        out.append(unique_title(title, out))
    return out
