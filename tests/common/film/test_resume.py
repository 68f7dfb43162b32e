"""Interrupted at any moment, the same call ends with the same bytes, in bounded memory."""

import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
import torch

from common.film import colorize as film_colorize
from common.film import join as film_join
from common.film import parts as film_parts
from common.film.config import FilmError, Span
from common.film.decode import FilmReader, Place, frame_at
from common.film.encode import EncodeConfig
from common.film.source import read_info
from common.film.steady import FrameColorizer
from tests.common.film.films import frames_of, make_film
from tests.conftest import ROOT, save_painter


class Delayed:
    """A FrameColorizer that returns the colors of three frames at once, each mixed with those before."""

    def __init__(self, *arguments):
        self.inner, self.kept, self.mean, self.shot = FrameColorizer(*arguments), deque(), None, 0

    def push(self, rgb):
        (ab,) = FrameColorizer.push(self.inner, rgb)
        self.mean = ab if self.mean is None else 0.7 * self.mean + 0.3 * ab
        self.kept.append(self.mean)
        return [self.kept.popleft() for _ in range(3)] if len(self.kept) == 6 else []

    def flush(self):
        return [self.kept.popleft() for _ in range(len(self.kept))]

    def state_dict(self):
        return {"kept": list(self.kept), "mean": None if self.mean is None else self.mean.numpy()}

    def load_state_dict(self, state):
        self.kept, mean = deque(state["kept"]), state["mean"]
        self.mean = None if mean is None else torch.from_numpy(mean)


@pytest.fixture
def delayed(monkeypatch, short_segments):
    monkeypatch.setattr(film_colorize, "FrameColorizer", Delayed)


class Interrupted(Exception):
    pass


def interrupt_at(frame):
    def report(done, total, shots):
        if done == frame:
            raise Interrupted

    return report


@pytest.mark.parametrize("options", [{"g": "5"}, {"g": "30", "bf": "3"}], ids=["key frames", "one key frame"])
def test_interrupted_at_a_frame(tmp_path, colorize, delayed, options):
    source = make_film(tmp_path / "a.mp4", 20, options=options)
    assert colorize(source, tmp_path / "whole.mp4").frames == 20
    for frame in (1, 4, 7, 12, 20):
        with pytest.raises(Interrupted):
            colorize(source, tmp_path / "b.mp4", report=interrupt_at(frame))
        assert not (tmp_path / "b.mp4").exists()
        resumed = []
        result = colorize(source, tmp_path / "b.mp4", report=lambda *numbers: resumed.append(numbers))  # noqa: B023
        assert result.frames == 20
        assert resumed[0][0] >= frame - 10  # no more is repeated than a segment and the delay
        assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
        (tmp_path / "b.mp4").unlink()


def test_interrupted_with_colors_filtered_over_time(tmp_path, colorize, short_segments):
    source = make_film(tmp_path / "a.mp4", 24)
    assert colorize(source, tmp_path / "whole.mp4", steady=True).frames == 24
    for frame in (4, 11, 23):
        with pytest.raises(Interrupted):
            colorize(source, tmp_path / "b.mp4", steady=True, report=interrupt_at(frame))
        colorize(source, tmp_path / "b.mp4", steady=True)
        assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
        (tmp_path / "b.mp4").unlink()


def test_interrupted_at_any_write(tmp_path, colorize, delayed, monkeypatch):
    """Before and after each file of the folder is replaced, and while the film itself is written."""
    source = make_film(tmp_path / "a.mkv", 14, audio="pcm_s16le")
    writes = []
    replace = film_parts.replace_file

    def counted(path, write):
        writes.append(path.name)
        replace(path, write)

    monkeypatch.setattr(film_parts, "replace_file", counted)
    colorize(source, tmp_path / "whole.mkv")
    assert writes[:3] == ["job.json", "000000.segment", "state.pt"]
    total = len(writes)

    def failing_at(number, before):
        def write_file(path, write):
            nonlocal count
            if before and count == number:
                raise Interrupted
            replace(path, write)
            if not before and count == number:
                raise Interrupted
            count += 1

        count = 0
        return write_file

    for number in range(total):
        for before in (True, False):
            monkeypatch.setattr(film_parts, "replace_file", failing_at(number, before))
            with pytest.raises(Interrupted):
                colorize(source, tmp_path / "b.mkv")
            monkeypatch.setattr(film_parts, "replace_file", replace)
            colorize(source, tmp_path / "b.mkv")
            assert (tmp_path / "b.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()
            (tmp_path / "b.mkv").unlink()


KILLED = """
import os, signal, sys
from pathlib import Path
from common.film import colorize as c
from common.film.config import FilmConfig
from common.registry import load_colorizer
c.SEGMENT_FRAMES = 4
source, target, weights, frame = sys.argv[1:]
kill = lambda done, *rest: done == int(frame) and os.kill(os.getpid(), signal.SIGKILL)
config = FilmConfig(32, steady=False)
c.colorize_film(load_colorizer(weights, "cpu"), c.FilmJob(Path(source), Path(target), config, report=kill))
"""


def test_killed_with_sigkill(tmp_path, colorize, short_segments):
    weights = save_painter(tmp_path / "w.safetensors", name="painter")
    source = make_film(tmp_path / "a.mp4", 12)
    colorize(source, tmp_path / "whole.mp4")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, source, tmp_path / "b.mp4", weights, "10"], env=environment, cwd=ROOT
    )
    assert killed.returncode == -signal.SIGKILL
    assert sorted(p.name for p in (tmp_path / "b.mp4.parts").glob("*")) == [
        ".lock", "000000.segment", "000001.segment", "job.json", "state.pt"]  # fmt: skip
    colorize(source, tmp_path / "b.mp4")
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_stop_request_ends_the_work_and_the_next_call_resumes(tmp_path, colorize, short_segments):
    source = make_film(tmp_path / "a.mp4", 12)
    colorize(source, tmp_path / "whole.mp4")
    asked = iter([False] * 6 + [True])
    assert colorize(source, tmp_path / "b.mp4", stopped=lambda: next(asked)) is None
    assert colorize(source, tmp_path / "b.mp4").frames == 12
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.parametrize(("name", "fields"), [
    ("a.mp4", {}), ("a.mkv", {}), ("a.ts", {}), ("a.avi", {"codec": "mpeg4", "audio": "mp2"}),
    ("a.mkv", {"codec": "mpeg2video", "interlaced": True, "rate": 25, "options": {"g": "4"}}),
])  # fmt: skip
def test_decoding_continues_exactly_at_any_place(tmp_path, name, fields):
    info = read_info(make_film(tmp_path / name, 30, **fields))
    frames = list(FilmReader(info).frames())
    assert len(frames) == 30
    for count in (1, 7, 15, 29, 30):
        rest = list(FilmReader(info).frames(Place.of(count, frames[count - 1])))
        assert [f.pts for f in rest] == [f.pts for f in frames[count:]]
        assert all((f.rgb == g.rgb).all() for f, g in zip(rest, frames[count:], strict=True))


def test_a_place_that_is_not_found_again_is_counted(tmp_path):
    """If the frame at the time stamp is another one, decoding begins at the start."""
    info = read_info(make_film(tmp_path / "a.mp4", 30))
    frames = list(FilmReader(info).frames())
    for place in (Place(15, frames[14].pts, 0), Place(15, frames[14].pts + 1, 0), Place(15, 10**9, 0)):
        assert [f.pts for f in FilmReader(info).frames(place)] == [f.pts for f in frames[15:]]


def test_the_frame_at_a_time(tmp_path):
    times = [0, 40, 100, 140, 200, 300, 333, 340, 400, 500]
    info = read_info(make_film(tmp_path / "a.mp4", 10, times=times))
    for seconds, index in ((0, 0), (0.039, 0), (0.04, 1), (0.25, 4), (0.45, 8), (0.5, 9)):
        assert frame_at(info, Span(), seconds) == index
    assert frame_at(info, Span(0.1, 0.4), 0.25) == 2
    for seconds in (0.05, 0.4, 70):
        with pytest.raises(FilmError, match=f"has no frame at {seconds:g} s in this part"):
            frame_at(info, Span(0.1, 0.4), seconds)


def test_another_job_is_refused_until_it_is_asked_for(tmp_path, colorize, short_segments):
    source, target = make_film(tmp_path / "a.mp4", 12), tmp_path / "b.mp4"
    with pytest.raises(Interrupted):
        colorize(source, target, report=interrupt_at(9))
    with pytest.raises(FilmError, match=r"b.mp4.parts holds segments of another job \(encoding was .*\): run the same"):
        colorize(source, target, encode=EncodeConfig(crf=30))
    with pytest.raises(Interrupted):  # the old segments are still there
        colorize(source, target, report=interrupt_at(9))
    colorize(source, target, encode=EncodeConfig(crf=30), overwrite=True)
    colorize(source, tmp_path / "c.mp4", encode=EncodeConfig(crf=30))
    assert target.read_bytes() == (tmp_path / "c.mp4").read_bytes()
    with pytest.raises(FilmError, match=r"b\.mp4 exists already: use --overwrite"):
        colorize(source, target)


def test_the_same_weights_with_other_options_are_another_job(tmp_path, colorize, painter, short_segments, monkeypatch):
    """Published models can differ in their options alone, such as the shift of the logits."""
    source, target = make_film(tmp_path / "a.mp4", 12), tmp_path / "b.mp4"
    with pytest.raises(Interrupted):
        colorize(source, target, report=interrupt_at(9))
    monkeypatch.setitem(painter.card["model"], "shift", 0.5)
    with pytest.raises(FilmError, match=r"another job \(model was"):
        colorize(source, target)


def test_another_film_under_the_same_name_is_another_job(tmp_path, colorize, short_segments):
    source, target = make_film(tmp_path / "a.mp4", 12), tmp_path / "b.mp4"
    with pytest.raises(Interrupted):
        colorize(source, target, report=interrupt_at(9))
    make_film(source, 13)
    with pytest.raises(FilmError, match=r"another job \(film was"):
        colorize(source, target)


def test_files_that_no_film_wrote_are_not_deleted(tmp_path, colorize):
    source = make_film(tmp_path / "a.mp4", 2)
    (tmp_path / "b.mp4.parts").mkdir()
    (tmp_path / "b.mp4.parts" / "letter.txt").write_text("mine")
    with pytest.raises(FilmError, match=r"holds letter\.txt, which no film wrote"):
        colorize(source, tmp_path / "b.mp4", overwrite=True)
    assert (tmp_path / "b.mp4.parts" / "letter.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["state.pt", "000000.segment", "job.json"])
def test_a_damaged_folder_is_one_sentence(tmp_path, colorize, short_segments, name):
    source, target = make_film(tmp_path / "a.mp4", 8), tmp_path / "b.mp4"
    with pytest.raises(Interrupted):
        colorize(source, target, report=interrupt_at(7))
    damaged = tmp_path / "b.mp4.parts" / name
    damaged.write_bytes(damaged.read_bytes()[:50])
    with pytest.raises(
        FilmError, match=f"{name} is damaged .*: delete {target}.parts, then run the same command again"
    ):
        colorize(source, target)
    shutil.rmtree(damaged.parent)
    assert colorize(source, target).frames == 8


def test_a_full_disk_is_one_sentence_and_the_same_call_resumes(tmp_path, colorize, short_segments, monkeypatch):
    source, target = make_film(tmp_path / "a.mp4", 12), tmp_path / "b.mp4"
    colorize(source, tmp_path / "whole.mp4")
    for full in ("000001.segment", "state.pt"):
        with monkeypatch.context() as patch:
            patch.setattr(film_parts, "save_file", on_full_disk(film_parts.save_file, full))
            patch.setattr(film_parts.torch, "save", on_full_disk(torch.save, full))
            with pytest.raises(FilmError) as caught:
                colorize(source, target)
        assert str(caught.value) == (
            f"{tmp_path}/b.mp4.parts/{full} cannot be written (No space left on device): free space or check the"
            " folder, then run the same command again, which resumes"
        )
    colorize(source, target)
    assert target.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_disk_that_is_full_when_the_film_is_joined(tmp_path, colorize, short_segments, monkeypatch):
    source, target = make_film(tmp_path / "a.mkv", 12), tmp_path / "b.mkv"
    with monkeypatch.context() as patch:
        patch.setattr(film_join, "replace_file", lambda path, write: write(Path("/dev/full")))
        with pytest.raises(FilmError, match=r"b\.mkv cannot be written \(No space left on device\): free space"):
            colorize(source, target)
    colored = []
    colorize(source, target, report=lambda done, total, cuts: colored.append(done))
    assert colored == [] and len(frames_of(target)[0]) == 12  # only joined


def on_full_disk(save, name):
    """`save`, on a disk that is full when a file of this name is written."""

    def saved(values, path):
        if name in str(path):
            os.write(os.open("/dev/full", os.O_WRONLY), b"x")
        save(values, path)

    return saved


def test_no_more_frames_are_held_for_a_longer_film(tmp_path, colorize, short_segments, monkeypatch):
    """The number of decoded frames in memory does not depend on the length."""
    most = {}
    for count in (12, 40):
        source = make_film(tmp_path / f"{count}.mp4", count)
        alive, peak = [0], [0]

        class Counted(FilmReader):
            def frames(self, after=None, alive=alive, peak=peak):
                for frame in super().frames(after):
                    alive[0] += 1
                    peak[0] = max(peak[0], alive[0])
                    yield frame

        monkeypatch.setattr(film_colorize, "FilmReader", Counted)
        colorize(
            source,
            tmp_path / f"{count}.color.mp4",
            report=lambda *rest, alive=alive: alive.__setitem__(0, alive[0] - 1),
        )
        most[count] = peak[0]
    assert most[12] == most[40] <= 8
