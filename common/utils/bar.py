"""A progress bar on a terminal, with rich, which takes a tenth of a second to import."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from common.utils.clock import clock

console = Console(stderr=True)


class _Times(ProgressColumn):
    """Time since the first report, and time left once it can be estimated."""

    max_refresh = 0.5  # seconds; faster changes cannot be read

    def render(self, task: Task) -> Text:
        left = "" if task.time_remaining is None else f", {clock(task.time_remaining)} left"
        return Text(f"{clock(task.elapsed or 0)} elapsed{left}")


class _Note(ProgressColumn):
    """The note, shortened to what fits into the line."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")


class Bar(Progress):
    """The bar of one task. A narrow terminal shortens the note and nothing else."""

    def __init__(self, title: str) -> None:
        whole = Column(no_wrap=True)
        super().__init__(
            TextColumn("{task.description}", markup=False, table_column=whole),
            BarColumn(bar_width=16, table_column=whole),
            TextColumn("{task.percentage:3.0f}%", table_column=whole),
            _Times(whole),
            _Note(),
            console=console,
            transient=True,
            speed_estimate_period=600,  # seconds; it also contains pauses, such as validations
        )
        self.task = self.add_task(title, note="", total=None)

    def report(self, done: float, total: float, note: str | None = None) -> None:
        """Move the bar. The time left is estimated from the differences between reports; the first only sets the
        bar.
        """
        if self.tasks[self.task].total is None:
            self.reset(self.task, total=total, completed=done)
        fields = {} if note is None else {"note": note}
        self.update(self.task, completed=done, total=total, **fields)
