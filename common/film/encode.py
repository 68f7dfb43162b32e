"""Encoding of colored frames. Each segment is encoded on its own and begins with a key frame, so they can be joined."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.codec.context import Flags
from av.video.reformatter import ColorRange, VideoReformatter

from common.film.config import FilmError
from common.film.decode import CONVERSION, sws_matrix
from common.film.source import FilmInfo
from common.utils.options import check_value

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
_THREADS = 4  # x264 writes other bytes with another number of threads, so it does not depend on the machine
_UNSPECIFIED, _BT709 = 2, 1


@dataclass(frozen=True)
class EncodeConfig:
    """How the colored frames are encoded. Raises UserError if a value is out of range."""

    codec: str = "h264"  # a key of `CODECS`
    crf: int = 18  # constant rate factor: 0 is the best quality (lossless, except for av1)
    preset: str = "medium"  # of x264 and x265, from ultrafast to veryslow; other codecs have a similar speed with it

    def __post_init__(self) -> None:
        check_value("--codec", self.codec, self.codec in CODECS, ", ".join(CODECS))
        check_value("--preset", self.preset, self.preset in PRESETS, ", ".join(PRESETS))
        most = CODECS[self.codec].max_crf
        check_value("--crf", self.crf, 0 <= self.crf <= most, f"a number from 0 to {most} for {self.codec}")


@dataclass(frozen=True)
class CodecInfo:
    """An encoder."""

    encoder: str  # FFmpeg's name
    max_crf: int
    odd_sizes: str  # pixel format for an odd width or height; empty if there is none
    options: Callable[[EncodeConfig], dict[str, str]]


def _x265(config: EncodeConfig) -> dict[str, str]:
    lossless = ":lossless=1" if config.crf == 0 else ""
    return {"crf": str(config.crf), "preset": config.preset, "x265-params": f"log-level=none{lossless}"}


def _vp9(config: EncodeConfig) -> dict[str, str]:
    options = {"crf": str(config.crf), "deadline": "good", "cpu-used": str(8 - PRESETS.index(config.preset))}
    return options | ({"lossless": "1"} if config.crf == 0 else {})


CODECS = {
    "h264": CodecInfo("libx264", 51, "yuv444p", lambda c: {"crf": str(c.crf), "preset": c.preset}),
    "h265": CodecInfo("libx265", 51, "yuv444p", _x265),
    "vp9": CodecInfo("libvpx-vp9", 63, "yuv420p", _vp9),
    "av1": CodecInfo(
        "libsvtav1", 63, "", lambda c: {"crf": str(max(1, c.crf)), "preset": str(12 - PRESETS.index(c.preset))}
    ),
}


class EncodedFrame(NamedTuple):
    """A packet of encoded video. Its times are numbers of frames since the beginning of the segment."""

    data: bytes
    pts: int
    dts: int
    is_key: bool


def pixel_format(info: FilmInfo, config: EncodeConfig) -> str:
    """Pixel format of the encoded film. Raises FilmError if the codec has none for its size."""
    if info.width % 2 == 0 and info.height % 2 == 0:
        return "yuv420p"
    odd = CODECS[config.codec].odd_sizes
    if not odd:
        raise FilmError(f"{info.path} has {info.width}x{info.height} pixels, and {config.codec} needs even numbers: use"
                        " --codec h264")  # fmt: skip
    return odd


def configure(context: av.VideoCodecContext, info: FilmInfo, config: EncodeConfig) -> None:
    """Set up an encoder for a film: size, colors, quality. Time stamps count frames."""
    os.environ.setdefault("SVT_LOG", "1")  # libsvtav1 prints to stderr otherwise
    context.width, context.height = info.width, info.height
    context.pix_fmt = pixel_format(info, config)
    context.time_base, context.framerate = 1 / info.rate, info.rate
    if info.pixel_aspect:
        context.sample_aspect_ratio = info.pixel_aspect
    context.colorspace, context.color_range = info.matrix, 2 if info.full_range else 1
    # Predicted colors are those of sRGB, which has the primaries of BT.709.
    context.color_primaries = _BT709 if info.primaries == _UNSPECIFIED else info.primaries
    context.color_trc = _BT709 if info.transfer == _UNSPECIFIED else info.transfer
    context.thread_count = _THREADS
    context.flags |= Flags.global_header | Flags.bitexact | Flags.closed_gop
    context.options = CODECS[config.codec].options(config)


class SegmentEncoder:
    """Encodes the frames of one segment."""

    def __init__(self, info: FilmInfo, config: EncodeConfig) -> None:
        self.packets: list[EncodedFrame] = []
        self._info = info
        self._context = av.CodecContext.create(CODECS[config.codec].encoder, "w")
        configure(self._context, info, config)
        self._reformatter = VideoReformatter()
        self._count = 0

    def add(self, rgb: np.ndarray) -> None:
        """Encode a frame, uint8 [H, W, 3] sRGB."""
        frame = to_yuv(rgb, self._info, self._context.pix_fmt, self._reformatter)
        frame.pts, frame.time_base = self._count, Fraction(1) / self._info.rate
        self._count += 1
        self._take(frame)

    def finish(self) -> list[EncodedFrame]:
        """All packets of the segment, in the order in which they are decoded."""
        self._take(None)
        return self.packets

    def _take(self, frame: av.VideoFrame | None) -> None:
        for packet in self._context.encode(frame):
            self.packets.append(EncodedFrame(bytes(packet), packet.pts, packet.dts, packet.is_keyframe))


def to_yuv(rgb: np.ndarray, info: FilmInfo, form: str, reformatter: VideoReformatter) -> av.VideoFrame:
    """Convert a frame to the matrix and range of the film."""
    matrix = sws_matrix(info)
    frame = reformatter.reformat(
        av.VideoFrame.from_ndarray(rgb, format="rgb24"), format=form, src_colorspace=matrix, dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG, dst_color_range=ColorRange.JPEG if info.full_range else ColorRange.MPEG,
        interpolation=CONVERSION,
    )  # fmt: skip
    frame.colorspace, frame.color_range = info.matrix, 2 if info.full_range else 1
    return frame
