"""Progress of long tasks: a bar on a terminal, else one line per interval."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Progress:
    """Prints the progress of long tasks on stderr, unless `quiet`. interval: seconds between two lines."""

    def __init__(self, quiet: bool = False, interval: float = 10.0) -> None:
        self.quiet = quiet
        self.interval = interval
        self.live = not quiet and sys.stderr.isatty()

    def say(self, line: str) -> None:
        """Print a line above the progress bar, if there is one."""
        if self.quiet:
            return
        if self.live:
            _console().print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    @contextmanager
    def task(self, title: str) -> Iterator[Callable[..., None]]:
        """Yield a function `report(done, total, note="")`. Without a terminal, short tasks print nothing."""
        if self.quiet:
            yield lambda done, total, note="": None
        elif self.live:
            with _bar() as bar:
                task = bar.add_task(title, note="", total=None)
                yield lambda done, total, note="": bar.update(task, completed=done, total=total, note=note)
        else:
            yield self._lines(title)

    def _lines(self, title: str) -> Callable[..., None]:
        started = last = time.monotonic()

        def report(done: float, total: float, note: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= self.interval and done:
                last = now
                left = (now - started) / done * (total - done)
                print(
                    f"{title}: {done / total:4.0%}  {clock(left)} left  {note}".rstrip(),
                    file=sys.stderr,
                    flush=True,
                )

        return report


def clock(seconds: float) -> str:
    """Format seconds as 0:05, 12:40 or 1:02:03."""
    minutes, s = divmod(int(seconds + 0.5), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def _console():
    from rich.console import Console

    global _shared
    _shared = _shared or Console(stderr=True)
    return _shared


def _bar():
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.percentage:3.0f}%"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
        console=_console(), transient=True,
    )  # fmt: skip


_shared = None
