"""Decoding of films to frames in 8-bit sRGB, from any place, with an exact way back to a place."""

from __future__ import annotations

import bisect
import zlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, islice
from typing import NamedTuple

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from common.film.config import FilmError, Span
from common.film.source import FilmInfo, open_container, reason, video_stream
from common.utils.clock import clock

# Exact on grey: all values of Y that video uses are different values of RGB, and come back as themselves.
CONVERSION = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)  # fmt: skip
_SWS_MATRIX = {1: Colorspace.ITU709, 4: Colorspace.FCC, 7: Colorspace.SMPTE240M}
_MARGIN = Fraction(1)  # seconds that decoding starts before a place, so that filters and references are filled
_LONGEST = 10.0  # seconds that a frame is shown
_SLACK = 0.5  # seconds by which the stated duration may be wrong


class Frame(NamedTuple):
    """A decoded frame."""

    pts: int  # in units of the stream's time base
    rgb: np.ndarray  # uint8 [H, W, 3], sRGB


class Place(NamedTuple):
    """The last frame before the place at which decoding continues."""

    count: int  # frames up to this place
    pts: int
    checksum: int  # of the last frame

    @classmethod
    def of(cls, count: int, frame: Frame) -> Place:
        """The place after a frame."""
        return cls(count, frame.pts, zlib.crc32(frame.rgb))


def sws_matrix(info: FilmInfo) -> Colorspace:
    """The matrix between YUV and RGB, as libswscale names it."""
    return _SWS_MATRIX.get(info.matrix, Colorspace.ITU601)


class FilmReader:
    """Decodes a part of a film.

    damage: one sentence on the first place that cannot be decoded, or empty. share: of the file that was read, 0 to 1.
    """

    def __init__(self, info: FilmInfo, span: Span | None = None) -> None:
        self.info = info
        self.damage, self.share = "", 0.0
        self._bytes = info.path.stat().st_size
        span = span or Span()
        self.start = self.pts(span.start) if span.start else None
        self.end = None if span.end is None else self.pts(span.end)
        self._reformatter = VideoReformatter()

    def pts(self, seconds: float) -> int:
        """The first time stamp that is not before so many seconds."""
        return -int(-(Fraction(seconds).limit_denominator(1_000_000) + self.info.origin) // self.info.time_base)

    def frames(self, after: Place | None = None) -> Iterator[Frame]:
        """Yield the frames, or those after a place.

        It is found by its time stamp. Only if the frame there is the same as before, decoding continues from there;
        otherwise the frames are counted from the start.
        """
        frames = self._after(after) if after else None
        if frames is None:
            frames = islice(self._from_start(), after.count if after else 0, None)
        for frame in frames:
            if self.end is not None and frame.pts >= self.end:
                return
            yield frame
        self._check_end()

    def _after(self, place: Place) -> Iterator[Frame] | None:
        frames = self._decode(place.pts)
        for frame in frames:
            if frame.pts >= place.pts:
                self.damage = ""
                return frames if Place.of(place.count, frame) == place else None
        return None

    def _from_start(self) -> Iterator[Frame]:
        if self.start is None:
            return self._decode(None)
        frames = self._decode(self.start)
        first = next(frames, None)
        if first is None or first.pts > self.start:  # the file has no index, or a wrong one
            frames = self._decode(None)
            first = next(frames, None)
        return self._part([] if first is None else [first], frames)

    def _part(self, *frames: Iterable[Frame]) -> Iterator[Frame]:
        for frame in chain(*frames):
            if frame.pts >= self.start:
                yield frame
            else:
                self.damage = ""  # damage before the part does not matter

    def _decode(self, pts: int | None) -> Iterator[Frame]:
        """Frames from the beginning, or from a key frame before a time stamp. Stops where the file ends or breaks."""
        info = self.info
        self._read_to = self._last = None
        with open_container(info.path) as container:
            stream = video_stream(container, info.path)
            stream.thread_type = "AUTO"
            if pts is not None:
                try:
                    container.seek(pts - int(_MARGIN / info.time_base), stream=stream)
                except av.error.FFmpegError:
                    return
            decoded = self._decoded(container, stream)
            for frame in self._deinterlaced(decoded) if info.interlaced else decoded:
                if (frame.width, frame.height) != (info.width, info.height):
                    self._note(f"the size of the frames changes to {frame.width}x{frame.height}")
                    return
                step = max(1, round(1 / (info.rate * info.time_base)))
                known = None if frame.pts is None else int(frame.pts * frame.time_base / info.time_base)
                if self._last is not None and (known is None or known <= self._last):
                    known = self._last + (step if known is None else 1)
                self._last = known or 0
                if frame.is_corrupt:
                    self._note("incomplete data")
                yield Frame(self._last, self._to_rgb(frame))

    def _decoded(self, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
        streams = [s for s in container.streams if s.type in ("video", "audio", "subtitle")]
        packets = container.demux(*streams)
        while True:
            try:
                for packet in packets:
                    if packet.pos is not None:
                        self.share = min(1.0, packet.pos / self._bytes)
                    if packet.pts is not None:
                        end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                        self._read_to = max(end, self._read_to or end)
                    if packet.stream_index == stream.index:
                        yield from packet.decode()
                return
            except av.error.EOFError:
                return
            except av.error.FFmpegError as error:
                self._note(reason(error))
                if not isinstance(error, av.error.InvalidDataError):
                    return
                packets = container.demux(*streams)

    def _deinterlaced(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """One frame for each frame: the missing lines of frames that are marked as interlaced are interpolated."""
        graph: Graph | None = None
        for frame in frames:
            if graph is None:
                graph = Graph()
                source = graph.add_buffer(
                    width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
                )
                graph.link_nodes(
                    source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
                ).configure()
            graph.push(frame)
            yield from _pulled(graph)
        if graph is not None:
            graph.push(None)
            yield from _pulled(graph)

    def _to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        matrix = sws_matrix(self.info)
        rgb = self._reformatter.reformat(
            frame, format="rgb24", src_colorspace=matrix, dst_colorspace=matrix,
            src_color_range=ColorRange.JPEG if self.info.full_range else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG, interpolation=CONVERSION,
        ).to_ndarray()  # fmt: skip
        return np.ascontiguousarray(rgb)

    def _note(self, problem: str) -> None:
        where = 0.0 if self._last is None else max(0.0, self.info.seconds_of(self._last))
        self.damage = self.damage or f"{self.info.path} is damaged at {clock(where)} ({problem})"

    def _check_end(self) -> None:
        """Note if the file ends before the duration that it states."""
        stated, read = self.info.seconds, self._read_to
        if stated is not None and read is not None and read - float(self.info.origin) < stated - _SLACK:
            self._note(f"the file is cut off, its duration is {clock(stated)}")


def frame_at(info: FilmInfo, span: Span, seconds: float) -> int:
    """Index, among the frames of a part, of the frame that is shown at a time of the film. Nothing is decoded.

    Raises FilmError if the time is outside the part.
    """
    reader = FilmReader(info, span)
    with open_container(info.path) as container:
        stream = video_stream(container, info.path)
        times = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
    first = 0 if reader.start is None else bisect.bisect_left(times, reader.start)
    last = len(times) if reader.end is None else bisect.bisect_left(times, reader.end)
    index = bisect.bisect_left(times, reader.pts(seconds) + 1) - 1
    if not first <= index < last or seconds > info.seconds_of(times[index]) + _LONGEST:
        raise FilmError(f"{info.path} has no frame at {seconds:g} s in this part: set another time")
    return index - first


def _pulled(graph: Graph) -> Iterator[av.VideoFrame]:
    while True:
        try:
            yield graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
