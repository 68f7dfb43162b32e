"""Progress of long tasks: a bar on a terminal, else one line per interval."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from common.utils.clock import clock


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
            from common.utils.bar import console

            console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    @contextmanager
    def task(self, title: str) -> Iterator[Callable[..., None]]:
        """Yield a function `report(done, total, note=None)`. Without a terminal, short tasks print nothing.

        The time left is estimated from what is done after the first report, since a task may resume. A note stays until
        the next one.
        """
        if self.quiet:
            yield lambda done, total, note=None: None
        elif self.live:
            from common.utils.bar import Bar

            with Bar(title) as bar:
                yield bar.report
        else:
            yield self._lines(title)

    def _lines(self, title: str) -> Callable[..., None]:
        last, first, shown = time.monotonic(), None, ""

        def report(done: float, total: float, note: str | None = None) -> None:
            nonlocal last, first, shown
            now = time.monotonic()
            first, shown = first or (now, done), shown if note is None else note
            if now - last >= self.interval and done > first[1]:
                last = now
                left = (now - first[0]) / (done - first[1]) * (total - done)
                line = f"{title}: {done / total:4.0%}  {clock(left)} left  {shown}"
                print(line.rstrip(), file=sys.stderr, flush=True)

        return report
