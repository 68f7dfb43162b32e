"""Writing TIFF files page by page, so that the memory does not grow with the number of pages.

Pillow's own writer fails on the EXIF directories of cameras if it compresses, and has no 16-bit color.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from PIL.TiffTags import LONG, LONG8

_STRIP_BYTES = 2**18
_DIRECTORIES = (IFD.Exif, IFD.GPSInfo)
_DEFLATE, _RGB, _HORIZONTAL, _UNASSOCIATED, _INCH = 8, 2, 2, 2, 2


class TiffWriter:
    """Appends pages, compressed without loss, to an empty file.

    big: write a BigTIFF, which may have more than 4 GB.
    """

    def __init__(self, file: BinaryIO, big: bool = False) -> None:
        self.file, self.big = file, big
        self.header = b"II+\0\x08\0\0\0" + bytes(8) if big else b"II*\0" + bytes(4)
        file.write(self.header)
        self.link = 8 if big else 4  # where the offset of the next page belongs

    def add(
        self, values: np.ndarray, exif: Image.Exif, dpi: tuple[float, float] | None = None, icc: bytes = b""
    ) -> None:
        """Append a page: sRGB or sRGB and alpha, uint8 or uint16 [H, W, 3 or 4]."""
        height, width, channels = values.shape
        rows = max(1, _STRIP_BYTES // (width * channels * values.itemsize))
        strips = [zlib.compress(_differences(values[top : top + rows]), 6) for top in range(0, height, rows)]
        page = ImageFileDirectory_v2(self.header)
        for tag in exif:
            page[tag] = _directory(exif, tag) if tag in _DIRECTORIES else exif[tag]
        known = {
            "ImageWidth": width, "ImageLength": height, "BitsPerSample": (8 * values.itemsize,) * channels,
            "Compression": _DEFLATE, "PhotometricInterpretation": _RGB, "SamplesPerPixel": channels,
            "RowsPerStrip": rows, "StripByteCounts": tuple(map(len, strips)), "PlanarConfiguration": 1,
            "Predictor": _HORIZONTAL,
        }  # fmt: skip
        for name, value in known.items():
            page[Base[name]] = value
        if channels == 4:
            page[Base.ExtraSamples] = _UNASSOCIATED
        if dpi:
            page[Base.XResolution], page[Base.YResolution] = dpi
            page[Base.ResolutionUnit] = _INCH
        if icc:
            page[Base.InterColorProfile] = icc
        page.tagtype[Base.StripOffsets] = LONG8 if self.big else LONG
        # `tobytes` adds the end of the directory
        page[Base.StripOffsets] = tuple(np.cumsum([0, *map(len, strips[:-1])]).tolist())
        start = self.file.seek(0, io.SEEK_END)
        self.file.write(bytes(start % 2))
        start += start % 2
        self.file.write(page.tobytes(start))
        self.file.writelines(strips)
        self.file.seek(self.link)
        self.file.write(struct.pack("<Q" if self.big else "<L", start))
        self.link = start + (8 + 20 * len(page) if self.big else 2 + 12 * len(page))


def _directory(exif: Image.Exif, tag: int) -> dict:
    """An EXIF directory without its own directory, whose offset would be wrong."""
    return {key: value for key, value in exif.get_ifd(tag).items() if key != IFD.Interop}


def _differences(values: np.ndarray) -> bytes:
    """Samples minus those of the pixel on the left, which compress better."""
    out = values.astype(values.dtype.newbyteorder("<"))
    out[:, 1:] -= values[:, :-1]
    return out.tobytes()
