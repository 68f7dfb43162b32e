"""Checks of a picture file before its pixels are decoded: size of the file, number of pixels, number of frames."""

from __future__ import annotations

import io
from typing import BinaryIO

from PIL import Image
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from common.utils.errors import PictureError

MAX_PIXELS = 150_000_000  # a 100-megapixel scan passes, a decompression bomb does not
MAX_BYTES = 8 * MAX_PIXELS  # 16-bit RGBA without compression; a TIFF on disk, of which one page is read, may be larger
MAX_PAGES = 10_000
# AVIF and WebP decode slowly, and files of a few kilobytes can hold the maximum of pixels. Photographs have less than
# 250 pixels per byte.
_SLOW_FORMATS = ("AVIF", "WEBP")
_SLOW_PIXELS, _SLOW_MAX_PIXELS, _SLOW_PIXELS_PER_BYTE = 16_000_000, 64_000_000, 250
_DEFLATE_RATIO = 1032  # the largest that the format allows
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SEPARATE, _SIGNED = 2, 2  # values of TIFF's PlanarConfiguration and SampleFormat
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by color type


class TooManyPixels(PictureError):
    """A picture has more pixels than allowed."""


def read_bytes(file: BinaryIO, name: str) -> bytes:
    """The content of a file or pipe. Raises PictureError if it has more than MAX_BYTES, and reads no more than that."""
    data = file.read(MAX_BYTES + 1)
    _check_bytes(len(data), name)
    return data


def seekable(file: BinaryIO, name: str) -> tuple[BinaryIO, int]:
    """(`file`, or its content in memory if it is a pipe; its size in bytes). Raises PictureError if it is too large."""
    file = file if file.seekable() else io.BytesIO(read_bytes(file, name))
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if file.read(4) not in _TIFF_SIGNATURES:
        _check_bytes(size, name)
    file.seek(0)
    return file, size


def _check_bytes(size: int, name: str) -> None:
    if size == 0:
        raise PictureError(f"{name} is empty (0 bytes): get a complete copy")
    if size > MAX_BYTES:
        raise PictureError(f"{name} has more than {MAX_BYTES / 1e9:g} GB: make it smaller first")


def count_pages(image: Image.Image, name: str) -> int:
    """Number of pages of an opened TIFF, 1 for other formats. Raises PictureError for animations and endless TIFFs."""
    if image.format == "TIFF":
        for page in range(1, MAX_PAGES + 1):
            try:
                image.seek(page)
            except EOFError:
                image.seek(0)
                return page
        raise PictureError(f"{name} has more than {MAX_PAGES} pages: split it first")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # the further pictures of an MPO are previews or the other eye
        raise PictureError(f"{name} is an animation of {frames} frames: save one of them as a picture")
    return 1


def check_pixels(image: Image.Image, size: int, max_pixels: int, name: str) -> None:
    """Raise TooManyPixels if an opened picture has more than `max_pixels`, or than its format may have in this size."""
    pixels, form = image.width * image.height, image.format
    limit, instead = max_pixels, "make it smaller first"
    if form in _SLOW_FORMATS:
        slow = min(_SLOW_MAX_PIXELS, _SLOW_PIXELS + _SLOW_PIXELS_PER_BYTE * size)
        if slow < limit:
            limit, instead = slow, f"save it as JPEG or PNG (of {form}, files of this size may have fewer pixels)"
    if pixels > limit:
        has = f"{name} has {image.width}x{image.height} pixels"
        raise TooManyPixels(f"{has}, above the limit of {limit / 1e6:.3g} megapixels: {instead}")


def check_complete(image: Image.Image, size: int, name: str) -> None:
    """Raise PictureError if the pixels in the header of an opened picture cannot come from a file of `size` bytes."""
    pixels, form = image.width * image.height, image.format
    if form == "TIFF":
        _check_tiff(image, name)
    most = {"PNG": 8 * _DEFLATE_RATIO * size, "PPM": 8 * size}.get(form, pixels)  # bits
    if pixels * (_png_bits(image) if form == "PNG" else 1) > most:
        raise PictureError(f"{name} is damaged or cut short ({size} bytes for {pixels} pixels): get a complete copy")


def _check_tiff(image: Image.Image, name: str) -> None:
    """Raise PictureError for a page that Pillow decodes wrongly without an error."""
    tags = image.tag_v2
    if not _tiff_is_complete(tags):
        raise PictureError(f"{name} is damaged or cut short (strips or tiles are missing): get a complete copy")
    if _SIGNED in tags.get(Base.SampleFormat, ()):
        raise PictureError(f"{name} has signed values: save it with unsigned values of 8 or 16 bits a channel")
    if image.mode == "CMYK" and tags.get(Base.PlanarConfiguration) == _SEPARATE and max(tags[Base.BitsPerSample]) > 8:
        raise PictureError(f"{name} has separate planes of 16-bit CMYK, which are not supported: save it as RGB")


def _tiff_is_complete(tags: ImageFileDirectory_v2) -> bool:
    """Whether a page has all of its strips or tiles, the missing ones of which Pillow leaves black."""
    width, height = tags[Base.ImageWidth], tags[Base.ImageLength]
    bits, channels = tags.get(Base.BitsPerSample, (1,))[0], tags.get(Base.SamplesPerPixel, 1)
    tiled = Base.TileWidth in tags
    across = -(-width // tags[Base.TileWidth]) if tiled else 1
    rows = tags[Base.TileLength] if tiled else tags.get(Base.RowsPerStrip, height)
    planes = channels if tags.get(Base.PlanarConfiguration) == _SEPARATE else 1
    count = len(tags[Base.TileOffsets if tiled else Base.StripOffsets])
    lengths = tags.get(Base.TileByteCounts if tiled else Base.StripByteCounts)
    stored = planes * height * -(-width * bits * (channels // planes) // 8)  # bytes, at least, without compression
    is_short = tags.get(Base.Compression, 1) == 1 and lengths is not None and sum(lengths) < stored
    return count >= planes * across * -(-height // rows) and not is_short


def _png_bits(image: Image.Image) -> int:
    """Bits per pixel, from the IHDR chunk."""
    position = image.fp.tell()
    image.fp.seek(24)
    depth, kind = image.fp.read(2)
    image.fp.seek(position)
    return depth * _PNG_CHANNELS.get(kind, 1)
