import io

import pytest
from rich.console import Console

from common.utils import bar, progress
from common.utils.clock import clock
from common.utils.progress import Progress


@pytest.fixture
def now(monkeypatch):
    """A clock that stands still until it is set."""
    time = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: time[0])
    return time


@pytest.fixture
def terminal(monkeypatch, now):
    """A terminal of 80 columns, as a function that draws a bar into one line."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80, get_time=lambda: now[0], color_system=None)
    monkeypatch.setattr(bar, "console", console)

    def drawn(it):
        with console.capture() as capture:
            console.print(it.get_renderable())
        (line,) = capture.get().splitlines()
        return line.rstrip()

    return drawn


def test_the_bar_says_how_much_time_is_left(terminal, now):
    it = bar.Bar("pix2pix")
    assert "left" not in terminal(it)
    for step in range(11):
        now[0] = 2.0 * step
        it.report(step, 40)
    line = terminal(it)
    assert line.startswith("pix2pix ") and line.endswith(" 25% 0:20 elapsed, 1:00 left")


def test_a_long_note_is_shortened_and_nothing_else(terminal, now):
    it = bar.Bar("pix2pix_64")
    for step in range(11):
        now[0] = 120.0 * step
        it.report(step, 40, f"step {step}  l1 0.0267  adversarial 0.6931  discriminator 0.693  112.3 images/s")
    it.report(10, 40)  # keeps the note
    line = terminal(it)
    assert " 25% 20:00 elapsed, 1:00:00 left step 10" in line
    assert line.endswith("…") and len(line) <= 80


def test_the_time_left_of_a_resumed_task_does_not_count_what_was_done_before(terminal, now, capsys):
    it, lines = bar.Bar("run"), Progress(interval=5)
    with lines.task("run") as report:
        for step in range(900, 911):
            now[0] = 10.0 * (step - 900)
            it.report(step, 1000)
            report(step, 1000, f"step {step}" if step == 900 else None)
    assert terminal(it).endswith("91% 1:40 elapsed, 15:00 left")
    assert capsys.readouterr().err.splitlines()[-1] == "run:  91%  15:00 left  step 900"


def test_without_a_terminal_there_is_one_line_per_interval(now, capsys):
    with Progress(interval=5).task("packing") as report:
        for step in range(1, 21):
            now[0] = step
            report(step, 20, f"{step} photographs")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "packing:  25%  0:15 left  5 photographs"
    assert len(lines) == 4


@pytest.mark.parametrize(("seconds", "text"), [(5.4, "0:05"), (59.6, "1:00"), (760, "12:40"), (3723, "1:02:03")])
def test_clock(seconds, text):
    assert clock(seconds) == text
