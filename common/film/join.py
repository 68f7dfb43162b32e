"""Writing of the colored film: the segments and the packets of all other streams, without encoding anything."""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer, OutputContainer
from av.stream import Stream

from common.film.config import FilmError, Span
from common.film.encode import CODECS, EncodeConfig, configure
from common.film.parts import Parts, Segment, disk_errors
from common.film.source import FilmInfo, open_container, reason, video_stream
from common.utils.files import replace_file

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
_REQUIRED = ("audio", "subtitle")
# Metadata of a file's layout, which would be wrong in another file
_DROPPED = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration", "number_of_frames",
            "number_of_bytes", "bps", "_statistics_tags", "_statistics_writing_app", "_statistics_writing_date_utc",
            "vendor_id")  # fmt: skip


@dataclass(frozen=True)
class Copied:
    """Indexes of the streams that are copied, and a sentence on each other stream."""

    streams: tuple[int, ...]
    notes: tuple[str, ...]


def container_format(target: Path) -> str:
    """FFmpeg's name of the format for a file name's suffix. Raises FilmError for an unknown suffix."""
    form = CONTAINERS.get(target.suffix.lower())
    if form is None:
        raise FilmError(f"{target} names no film format to write: use one of {', '.join(CONTAINERS)}")
    return form


def default_target(source: Path) -> Path:
    """NAME.color.SUFFIX beside a film. Films of formats that are only read become Matroska, which holds all codecs."""
    suffix = source.suffix if source.suffix.lower() in CONTAINERS else ".mkv"
    return source.with_name(f"{source.stem}.color{suffix}")


def plan(info: FilmInfo, target: Path, config: EncodeConfig) -> Copied:
    """Check that a format can hold the encoded video and all sound and subtitles. Raises FilmError if it cannot."""
    form = container_format(target)
    with _trial(form) as output:
        try:
            configure(output.add_stream(CODECS[config.codec].encoder, rate=info.rate).codec_context, info, config)
            output.start_encoding()
        except FilmError:
            raise
        except av.error.FFmpegError as error:
            raise FilmError(f"{info.path} cannot be encoded as {config.codec} ({reason(error)}): use --codec h264"
                            ) from None  # fmt: skip
        except ValueError:
            instead = "--codec vp9" if form == "webm" else "--codec h264"
            raise FilmError(f"{target} cannot hold video of codec {config.codec}: use {instead}") from None
    copied, notes = [], []
    with open_container(info.path) as source:
        video = video_stream(source, info.path)
        for stream in source.streams:
            if stream.index == video.index:
                continue
            what = f"{stream.type} stream {stream.index} ({stream.name or 'unknown codec'}) of {info.path}"
            if _fits(stream, form):
                copied.append(stream.index)
            elif stream.type in _REQUIRED:
                fitting = [suffix for suffix, other in CONTAINERS.items() if _fits(stream, other)]
                instead = f"use --out {target.with_suffix(fitting[0])}" if fitting else "convert that stream first"
                raise FilmError(f"{target} cannot hold the {what}: {instead}")
            else:
                notes.append(f"the {what} is left out: {target} cannot hold it")
    return Copied(tuple(copied), tuple(notes))


def join(
    parts: Parts, info: FilmInfo, target: Path, copied: Copied, config: EncodeConfig, span: Span, provenance: str
) -> None:
    """Write the film. Raises FilmError if that fails."""

    def write(path: Path) -> None:
        with open_container(info.path) as source, _output(path, container_format(target)) as output:
            _join(parts, info, source, output, copied, config, span, provenance)

    with disk_errors(target):
        replace_file(target, write)


def _join(
    parts: Parts, info: FilmInfo, source: InputContainer, output: OutputContainer, copied: Copied,
    config: EncodeConfig, span: Span, provenance: str,
) -> None:  # fmt: skip
    original = video_stream(source, info.path)
    offset = info.origin + Fraction(span.start).limit_denominator(1_000_000)
    output.metadata.update(_metadata(source.metadata))
    output.metadata.setdefault("comment", provenance)
    output.set_chapters([c for chapter in source.chapters() if (c := _chapter(chapter, offset, span))])
    video = output.add_stream(CODECS[config.codec].encoder, rate=info.rate)
    configure(video.codec_context, info, config)
    video.time_base = info.time_base
    video.disposition = original.disposition
    video.metadata.update(_metadata(original.metadata))
    if info.display_matrix:
        video.set_display_matrix(info.display_matrix)
    targets = {index: _add_copy(output, source.streams[index]) for index in copied.streams}
    output.start_encoding()
    colored = ((time, index, packet) for index, (time, packet) in enumerate(_video_packets(parts.segments(), info)))
    others = _copied_packets(source, targets, offset, span)
    for _, index, packet in heapq.merge(
        ((time - offset, index, packet) for time, index, packet in colored), others, key=lambda item: item[0]
    ):
        if index >= 0:
            packet.stream = video
            _shift(packet, offset)
        output.mux(packet)


def _video_packets(segments: Iterable[Segment], info: FilmInfo) -> Iterator[tuple[Fraction, av.Packet]]:
    """(decoding time, packet). The encoders number the frames; each number becomes the time of that frame."""
    step = max(1, round(1 / (info.rate * info.time_base)))
    before: list[int] = []
    for segment, following in _with_next(segments):
        times = segment.times
        after = following.times[0] if following else times[-1] + step
        for encoded in segment.packets:
            packet = av.Packet(encoded.data)
            packet.time_base = info.time_base
            packet.pts = times[encoded.pts]
            if encoded.dts >= 0:
                packet.dts = times[encoded.dts]
            else:
                packet.dts = before[encoded.dts] if before else times[0] + encoded.dts * step
            packet.duration = (times[encoded.pts + 1] if encoded.pts + 1 < len(times) else after) - packet.pts
            packet.is_keyframe = encoded.is_key
            yield packet.dts * info.time_base, packet
        before = times


def _with_next(segments: Iterable[Segment]) -> Iterator[tuple[Segment, Segment | None]]:
    current = None
    for segment in segments:
        if current is not None:
            yield current, segment
        current = segment
    if current is not None:
        yield current, None


def _copied_packets(
    source: InputContainer, targets: dict[int, Stream], offset: Fraction, span: Span
) -> Iterator[tuple[Fraction, int, av.Packet]]:
    """(decoding time after the offset, -1, packet) of the copied streams, in the part of the film."""
    end = None if span.end is None else offset + Fraction(span.end - span.start).limit_denominator(1_000_000)
    streams = [source.streams[index] for index in targets if source.streams[index].type != "attachment"]
    if not streams:
        return
    if span.start:
        source.seek(int(offset * av.time_base))
    last: dict[int, Fraction] = {}
    packets = source.demux(*streams)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:  # the damage is reported by the decoding of the video
            return
        if packet is None:
            return
        if packet.pts is None or (packet.dts is None and packet.size == 0):
            continue
        start = packet.pts * packet.time_base
        if (span.start and start < offset) or (end is not None and start >= end):
            if end is not None and start > end + 10:
                return
            continue
        packet.dts = packet.pts if packet.dts is None else packet.dts
        time = max(packet.dts * packet.time_base - offset, last.get(packet.stream_index, Fraction(-1_000_000)))
        last[packet.stream_index] = time
        packet.stream = targets[packet.stream_index]
        _shift(packet, offset)
        yield time, -1, packet


def _shift(packet: av.Packet, offset: Fraction) -> None:
    if offset:
        units = round(offset / packet.time_base)
        packet.pts, packet.dts = packet.pts - units, packet.dts - units


def _chapter(chapter: dict, offset: Fraction, span: Span) -> dict | None:
    """A chapter in the time of the written film, or None if it is outside the part."""
    units = round(offset / chapter["time_base"])
    start, end = max(0, chapter["start"] - units), chapter["end"] - units
    if span.end is not None:
        end = min(end, int((span.end - span.start) / chapter["time_base"]))
    return {**chapter, "start": start, "end": end} if start < end else None


def _metadata(values: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in values.items() if key.lower() not in _DROPPED}


def _add_copy(output: OutputContainer, stream: Stream) -> Stream:
    if stream.type == "attachment":
        return output.add_attachment(stream.name or "attachment", stream.mimetype or "application/octet-stream",
                                     stream.data)  # fmt: skip
    copy = output.add_stream_from_template(stream, opaque=True)
    copy.disposition = stream.disposition
    copy.metadata.update(_metadata(stream.metadata))
    return copy


def _fits(stream: Stream, form: str) -> bool:
    """Whether a format can hold a stream: the way to know is to write a header."""
    with _trial(form) as output:
        try:
            _add_copy(output, stream)
            output.start_encoding()
            return True
        except (av.error.FFmpegError, ValueError, AttributeError):
            return False


def _trial(form: str) -> OutputContainer:
    return av.open(io.BytesIO(), "w", format=form)


def _output(path: Path, form: str) -> OutputContainer:
    options = {"fflags": "+bitexact"}  # no random numbers and no version of FFmpeg in the file
    if form in ("mp4", "mov"):
        options["movflags"] = "+faststart"
    return av.open(str(path), "w", format=form, container_options=options, metadata_errors="replace")
