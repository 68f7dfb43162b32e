"""Decoding of files that strangers send, with limits of CPU time and memory that follow from the file's header."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import AvifImagePlugin, Image

from common.imaging.read import FORMATS, Picture, open_image
from common.utils.errors import PictureError
from common.utils.limited import LimitedProcess, ProcessEnded, limit

LARGE_PIXELS = 5_000_000  # a larger picture is decoded in a process of its own
_MODULES = (__name__, "cv2")


@dataclass(frozen=True)
class DecodeLimits:
    """Several times what photographs of all formats need."""

    quick_seconds: float = 0.5  # CPU time in the shared process
    seconds: float = 3.0  # CPU time of any file in a process of its own
    seconds_per_megapixel: float = 0.5
    memory: int = 200_000_000  # bytes for any file
    memory_per_pixel: int = 80  # bytes
    memory_per_byte: int = 4  # bytes per byte of the file

    def of(self, data: bytes, pixels: int) -> tuple[float, int]:
        """CPU seconds and bytes for a file whose header states so many pixels."""
        memory = self.memory + self.memory_per_byte * len(data) + self.memory_per_pixel * pixels
        return self.seconds + self.seconds_per_megapixel * pixels / 1e6, memory


class LargePicture(Exception):
    """A picture of more than LARGE_PIXELS, or one that takes long, must be decoded with `large=True`."""


class Decoder:
    """Decodes pictures in other processes: a file that crashes a decoder or exhausts its limits fails alone.

    Pictures up to LARGE_PIXELS share one process that is kept running, and get little time in it. Others get a new one.
    """

    def __init__(self, limits: DecodeLimits | None = None) -> None:
        self.limits = limits or DecodeLimits()
        self._shared = LimitedProcess(*_MODULES)

    def start(self) -> None:
        """Start the shared process now instead of with the first picture."""
        self._shared.start()

    def open(self, data: bytes, name: str, max_pixels: int, large: bool = False) -> Picture:
        """`open_image(data, name, max_pixels=max_pixels, deep=True)` with limits.

        Raises PictureError also if decoding exceeds its limits, and LargePicture without `large` if the header states
        more than LARGE_PIXELS or if the time in the shared process is over.
        """
        process = LimitedProcess(*_MODULES) if large else self._shared
        try:
            seconds, memory = self.limits.of(data, 0)
            picture = process.call(_open, data, name, max_pixels, large, self.limits, seconds=seconds, memory=memory)
        except ProcessEnded as ended:
            if ended.out_of_time and not large:
                raise LargePicture from None
            if ended.out_of_time:
                raise PictureError(f"{name} takes too long to decode: save it again as JPEG or PNG") from None
            raise PictureError(
                f"{name} is damaged, or needs too much memory to decode: save it again as JPEG or PNG"
            ) from None
        finally:
            if large:
                process.close()
        if picture is None:
            raise LargePicture
        return picture


def _open(data: bytes, name: str, max_pixels: int, large: bool, limits: DecodeLimits) -> Picture | None:
    """Runs in the other process. None for a picture that is too large for this one."""
    AvifImagePlugin.DEFAULT_MAX_THREADS = 2  # of one per core, the stacks could exceed the memory
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            pixels = image.width * image.height
    except Exception:  # reported by `open_image`
        pixels = 0
    if pixels <= max_pixels:
        if pixels > LARGE_PIXELS and not large:
            return None
        seconds, memory = limits.of(data, pixels)
        limit(seconds if large else limits.quick_seconds, memory)
    return open_image(data, name, max_pixels=max_pixels, deep=True)
