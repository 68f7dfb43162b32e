"""Colorize a film: decode, predict, apply and encode, in threads beside the network, segment after segment."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
import torch
from torch import Tensor

from common.checkpoint import weights_digest
from common.colorizer import Colorizer
from common.film.config import FilmConfig, FilmError, Span
from common.film.decode import FilmReader, Frame, Place
from common.film.encode import EncodeConfig, SegmentEncoder
from common.film.join import join, plan
from common.film.parts import Parts, Progressed, Segment, open_parts
from common.film.references import Reference
from common.film.source import FilmInfo, identity, read_info
from common.film.steady import FrameColorizer
from common.predictor import AbTransform, PredictorConfig, apply_ab, working_lightness

SEGMENT_FRAMES = 120  # a segment ends with the first prediction that completes so many frames
_QUEUE_SIZE = 4  # frames that are decoded ahead, and that wait to be encoded
_PAINTERS = min(4, os.cpu_count() or 1)
T = TypeVar("T")


@dataclass(frozen=True)
class FilmJob:
    """A film to colorize, and how.

    transform: applied to the predicted ab of each frame. transform_key: plain values that determine `transform`.
    report: called with frames done, frames in total (estimated), and cuts so far; first with what an interrupted call
    had done. stopped: asked after each frame; if it is true, the work ends. say: called with each sentence on what the
    written film does not keep.
    """

    source: Path
    target: Path
    config: FilmConfig
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    span: Span = field(default_factory=Span)
    references: Sequence[Reference] = ()
    transform: AbTransform | None = None
    transform_key: dict = field(default_factory=dict)
    overwrite: bool = False
    provenance: str = ""
    report: Callable[[int, int, int], None] = lambda done, total, cuts: None
    stopped: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = lambda sentence: None


@dataclass(frozen=True)
class FilmResult:
    """What was done. frames: in the written film. damage: one sentence on a damaged film, or empty."""

    frames: int
    damage: str


def colorize_film(colorizer: Colorizer, job: FilmJob) -> FilmResult | None:
    """Colorize a film. The finished segments of an interrupted call are used, and the result is the same.

    Memory does not depend on the length of the film. Returns None if `job.stopped` ended the work.

    Raises:
        FilmError: the film cannot be read, the target cannot be written or cannot hold its sound, or the segments
            beside it are those of another job.
    """
    info = read_info(job.source)
    copied = plan(info, job.target, job.encode)
    with open_parts(job.target, _identity(colorizer, job), job.overwrite) as parts:
        for note in (*info.notes(), *copied.notes):
            job.say(note)
        if not _Pipeline(colorizer, job, info, parts).run():
            return None
        progressed = parts.progressed
        join(parts, info, job.target, copied, job.encode, job.span, job.provenance)
        parts.remove()
    return FilmResult(progressed.place.count, progressed.damage)


class _Pipeline:
    """Fills the folder of segments."""

    def __init__(self, colorizer: Colorizer, job: FilmJob, info: FilmInfo, parts: Parts) -> None:
        self._job, self._info, self._parts = job, info, parts
        self._device = colorizer.device
        self._predictor = PredictorConfig(job.config.size)
        self._colors = FrameColorizer(colorizer, job.config, job.references)
        self._reader = FilmReader(info, job.span)
        self._waiting: deque[Frame] = deque()  # frames whose colors the FrameColorizer has not returned
        self._count = self._pushed = 0

    def run(self) -> bool:
        """Make all segments that are missing. Returns whether the film is complete."""
        before = self._parts.progressed
        if before:
            if before.complete:
                return True
            self._count, self._pushed = before.place.count, before.pushed
            self._colors.load_state_dict(before.colors)
            self._report()
        frames = self._reader.frames(before.place if before else None)
        with (
            ThreadPoolExecutor(1) as decoder,
            ThreadPoolExecutor(_PAINTERS) as self._painters,
            ThreadPoolExecutor(1) as self._encoders,
        ):
            self._start_segment()
            ahead = _ahead(decoder, frames)
            for number, frame in enumerate(ahead, self._count):
                self._waiting.append(frame)
                if number < self._pushed:  # its color is in the restored state
                    continue
                self._pushed += 1
                self._take(self._colors.push(frame.rgb))
                if len(self._times) >= SEGMENT_FRAMES:
                    self._finish_segment(complete=False)
                    self._start_segment()
                if self._job.stopped():
                    ahead.close()
                    return False
            self._take(self._colors.flush())
            if not self._count:
                raise FilmError(f"{self._info.path} has no frames in this part: set another --from or --to")
            self._finish_segment(complete=True)
        return True

    def _take(self, colors: list[Tensor]) -> None:
        """Color the oldest waiting frames and encode them, in threads."""
        for ab in colors:
            frame = self._waiting.popleft()
            while len(self._encoding) >= _QUEUE_SIZE:
                self._encoding.popleft().result()
            painted = self._painters.submit(self._paint, frame.rgb, ab)
            self._encoding.append(self._encoders.submit(self._encode, self._encoder, painted))
            self._times.append(frame.pts)
            self._last = frame
            self._count += 1
            self._report()

    def _paint(self, rgb: np.ndarray, ab: Tensor) -> np.ndarray:
        return apply_ab(rgb, working_lightness(rgb, self._device), ab, self._predictor, self._job.transform)

    def _encode(self, encoder: SegmentEncoder, painted: Future[np.ndarray]) -> None:
        encoder.add(painted.result())

    def _start_segment(self) -> None:
        self._encoder = SegmentEncoder(self._info, self._job.encode)
        self._encoding: deque[Future] = deque()
        self._times: list[int] = []

    def _report(self) -> None:
        self._job.report(self._count, self._total(), self._colors.shot)

    def _finish_segment(self, complete: bool) -> None:
        for future in self._encoding:
            future.result()
        before = self._parts.progressed
        if self._times:
            place = Place.of(self._count, self._last)
            packets = self._encoder.finish()
            number = before.segments + 1 if before else 1
        else:
            assert before is not None
            place, packets, number = before.place, [], before.segments
        damage = self._reader.damage or (before.damage if before else "")
        state = Progressed(number, place, self._pushed, self._colors.state_dict(), damage, complete)
        self._parts.add(Segment(packets, self._times), state)

    def _total(self) -> int:
        """Number of frames of the part, as far as the file states it, else from the share of the file that was read."""
        if not self._info.frames:
            return round(self._count / (self._reader.share or 1))
        start, end = self._job.span.start, self._job.span.end
        if not start and end is None:
            return max(self._info.frames, self._count)
        stated = self._info.frames / float(self._info.rate)
        return max(round((min(end or stated, stated) - start) * float(self._info.rate)), self._count)


def _ahead(thread: ThreadPoolExecutor, items: Iterator[T]) -> Iterator[T]:
    """The items of an iterator, a few of which are taken ahead in a thread."""
    end = object()
    waiting: deque[Future] = deque()
    try:
        while True:
            while len(waiting) < _QUEUE_SIZE:
                waiting.append(thread.submit(next, items, end))
            item = waiting.popleft().result()
            if item is end:
                return
            yield item
    finally:
        for future in waiting:
            future.cancel()


def _identity(colorizer: Colorizer, job: FilmJob) -> dict:
    """Everything that determines the written film, as plain values."""
    references = [[r.frame, hashlib.sha256(r.rgb.tobytes()).hexdigest()] for r in job.references]
    return {
        "film": identity(job.source),
        "model": _model(colorizer),
        "prediction": asdict(job.config),
        "references": references,
        "edit": job.transform_key,
        "encoding": asdict(job.encode),
        "part": asdict(job.span),
        "segment": SEGMENT_FRAMES,
        "libraries": [f"av {av.__version__}", f"torch {torch.__version__}"],
    }


def _model(colorizer: Colorizer) -> str:
    """A digest of all that determines what a colorizer predicts."""
    temperatures = [part.temperature for part in colorizer.modules() if isinstance(part, Colorizer)]
    options = (colorizer.card or {}).get("model")
    values = [weights_digest(colorizer), temperatures, options]
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
