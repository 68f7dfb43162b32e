"""Opening of films: what a file holds, and which files are refused before a frame is decoded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from common.film.config import FilmError
from common.utils.errors import one_sentence

MAX_PIXELS = 36_000_000  # of a frame: 8K
# Containers. Playlists and lists of pictures, which name other files, are not among them.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,live_flv,ogg,mxf,gxf,dv,h264,hevc,m4v,ivf,"
    "nut,rm,wtv,yuv4mpegpipe"
)
# Values of AVColorSpace, AVColorRange and AVColorTransferCharacteristic in FFmpeg
_UNSPECIFIED, _FULL = 2, 2
_BT709, _BT601 = 1, 6
_MATRICES = (1, 4, 5, 6, 7)
_BT2020 = (9, 10)
_HDR_TRANSFER = {16: "PQ", 18: "HLG"}
_FIELD_ORDERS = (2, 3, 4, 5)  # of AVFieldOrder: those of interlaced films


@dataclass(frozen=True)
class FilmInfo:
    """What is known of a film before it is decoded. Colors are FFmpeg's numbers (AVCOL_*)."""

    path: Path
    width: int
    height: int
    rate: Fraction  # frames per second, the mean if it varies
    time_base: Fraction  # unit of time stamps in seconds
    origin: Fraction  # time stamp of the beginning, in seconds
    seconds: float | None  # duration, if the file states it
    frames: int  # number of frames, 0 if unknown
    matrix: int
    full_range: bool
    primaries: int
    transfer: int
    pixel_aspect: Fraction | None
    display_matrix: tuple[int, ...] | None  # nine numbers, for rotated films
    interlaced: bool
    depth: int  # bits per channel

    def notes(self) -> list[str]:
        """Sentences on what the colored film does not keep."""
        notes = []
        if self.interlaced:
            notes.append(f"{self.path} is interlaced: the colored film is progressive, with as many frames")
        if self.depth > 8:
            notes.append(f"{self.path} has {self.depth} bits per channel: the colored film has 8")
        return notes

    def seconds_of(self, pts: int) -> float:
        """Seconds from the beginning of the film to a time stamp."""
        return float(pts * self.time_base - self.origin)


def open_container(path: Path) -> InputContainer:
    """Open a film. Only this file is read, whatever it says. Raises FilmError."""
    try:
        if path.is_dir():
            raise FilmError(f"{path} is a folder: expected a film")
        with path.open("rb") as file:
            if not file.read(1):
                raise FilmError(f"{path} is empty (0 bytes): get a complete copy")
        # An absolute path cannot be taken for an address such as http://
        return av.open(
            str(path.absolute()),
            container_options={"protocol_whitelist": "file", "format_whitelist": _FORMATS},
            metadata_errors="replace",
        )
    except FilmError:
        raise
    except FileNotFoundError:
        raise FilmError(f"{path} does not exist: check the path") from None
    except av.error.FFmpegError as error:
        raise FilmError(
            f"{path} is not a film in a supported format, or is damaged ({reason(error)}): get a complete copy"
        ) from None
    except (OSError, ValueError) as error:
        raise FilmError(f"{path} cannot be read ({one_sentence(error)}): check its permissions") from None


def reason(error: av.error.FFmpegError) -> str:
    """What FFmpeg says of an error."""
    return str(error.strerror or error)


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first stream of moving pictures. Raises FilmError if there is none."""
    for stream in container.streams.video:
        if not stream.disposition & stream.disposition.attached_pic:
            if stream.codec_context is None:
                raise FilmError(f"{path} has video in an unknown codec: convert it first")
            return stream
    raise FilmError(f"{path} has no video: expected a film")


def read_info(path: Path) -> FilmInfo:
    """Read what a film holds. Raises FilmError if it cannot be colorized."""
    with open_container(path) as container:
        stream = video_stream(container, path)
        context = stream.codec_context
        if context.width * context.height > MAX_PIXELS:
            raise FilmError(f"{path} has frames of {context.width}x{context.height} pixels, above the limit of"
                            f" {MAX_PIXELS / 1e6:g} megapixels: make it smaller first")  # fmt: skip
        stream.thread_type = "AUTO"
        frame = _first_frame(container, stream, path)
        _refuse_hdr(context, path)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        duration = stream.duration * stream.time_base if stream.duration else None
        if duration is None and container.duration:
            duration = Fraction(container.duration, av.time_base)
        side_data = frame.side_data.get("DISPLAYMATRIX")
        form = frame.format
        full = frame.color_range == _FULL or (form.name.startswith(("yuvj", "gray")) and frame.color_range != 1)
        large = frame.width >= 1280 or frame.height > 576  # players assume BT.709 for them if nothing is stated
        return FilmInfo(
            path=path, width=frame.width, height=frame.height, rate=rate, time_base=stream.time_base,
            origin=max(Fraction(0), Fraction(container.start_time or 0, av.time_base)),
            seconds=None if duration is None else float(duration),
            frames=stream.frames or round((duration or 0) * rate),
            matrix=frame.colorspace if frame.colorspace in _MATRICES else _BT709 if large else _BT601,
            full_range=bool(full), primaries=context.color_primaries, transfer=context.color_trc,
            pixel_aspect=stream.sample_aspect_ratio or None,
            display_matrix=tuple(memoryview(bytes(side_data)).cast("i")) if side_data else None,
            interlaced=frame.interlaced_frame or int(context.field_order) in _FIELD_ORDERS,
            depth=max(component.bits for component in form.components),
        )  # fmt: skip


def _first_frame(container: InputContainer, stream: VideoStream, path: Path) -> av.VideoFrame:
    bad: av.error.FFmpegError | None = None
    packets = container.demux(stream)
    while True:
        try:
            for packet in packets:
                for frame in packet.decode():
                    return frame
            break
        except av.error.InvalidDataError as error:
            bad = bad or error
    if bad:
        raise FilmError(f"{path} is damaged: no frame can be decoded ({reason(bad)}), get a complete copy")
    raise FilmError(f"{path} holds no frames: expected a film")


def _refuse_hdr(context: av.VideoCodecContext, path: Path) -> None:
    kind = _HDR_TRANSFER.get(int(context.color_trc))
    if kind is None and (int(context.color_primaries) in _BT2020 or int(context.colorspace) in _BT2020):
        kind = "BT.2020"
    if kind:
        raise FilmError(f"{path} has high dynamic range or wide gamut ({kind}): convert it to BT.709 first")


def identity(path: Path) -> dict:
    """Size, time of the last change and hash of the first megabyte of a file."""
    try:
        stat = path.stat()
        with path.open("rb") as file:
            head = hashlib.sha256(file.read(1_000_000)).hexdigest()
    except OSError as error:
        raise FilmError(f"{path} cannot be read ({one_sentence(error)}): check the path and its permissions") from None
    return {"bytes": stat.st_size, "changed": stat.st_mtime_ns, "head": head}
