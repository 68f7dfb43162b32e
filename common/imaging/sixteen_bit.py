"""Pictures with 16 bits per channel, of which Pillow reads only the high bytes.

TIFF: Pillow decodes 16-bit grey exactly, with every compression and without trust in the file's sizes. The samples of a
page in color are therefore decoded as one grey page that is three or four times as wide. PNG: OpenCV.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, TiffTags
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from common.utils.errors import PictureError

_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1
_SEPARATE, _ASSOCIATED = 2, 1  # planar configuration, alpha
_HORIZONTAL = 2  # predictor
_PREDICTED = (5, 8, 32946, 34925, 50000)  # compressions with a predictor: LZW, Deflate, LZMA, Zstandard
_STRIP_PIXELS = 1_000_000


def is_srgb(profile: bytes) -> bool:
    """Whether the description of an ICC profile says that it is sRGB, so that no conversion is needed."""
    try:
        return "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return False


def has_sixteen_bits(image: Image.Image) -> bool:
    """Whether the samples of an opened PNG or TIFF in grey or RGB have 12 or 16 bits."""
    if image.format == "PNG":
        return ";16" in str(image.tile[0].args) if image.tile else False
    if image.format == "TIFF":
        bits = max(image.tag_v2.get(Base.BitsPerSample, (1,)))
        return bits in (12, 16) and image.mode in ("I;16", "I;16B", "RGB", "RGBA")
    return False


def read_sixteen_bits(image: Image.Image, file: BinaryIO, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The samples of a picture for which `has_sixteen_bits`, before EXIF orientation is applied.

    image: opened from `file`. Returns grey [H, W] or RGB [H, W, 3] and alpha [H, W], which is not premultiplied, or
    None; all are uint16. Raises PictureError if the layout is not supported.
    """
    samples = _read_png(image, file, name) if image.format == "PNG" else _read_tiff(image, file, name)
    transparent = image.info.get("transparency")  # the value of transparent pixels
    if samples.ndim == 2:
        return samples, None if transparent is None else np.where(samples == transparent, 0, 65535).astype(np.uint16)
    color, alpha = samples[..., :-1] if samples.shape[2] in (2, 4) else samples, None
    if color is not samples:
        alpha = samples[..., -1].copy()
    elif transparent is not None:
        alpha = np.where((samples == np.array(transparent)).all(axis=2), 0, 65535).astype(np.uint16)
    return (color[..., 0] if color.shape[2] == 1 else color), alpha


def _read_png(image: Image.Image, file: BinaryIO, name: str) -> np.ndarray:
    image.load()
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.uint16)
    import cv2

    file.seek(0)
    found = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    known = np.asarray(image)  # the high bytes
    if found is not None and found.ndim == 3:
        found = found[..., [2, 1, 0, 3][: known.shape[2]]]  # OpenCV's order is blue, green, red
    if found is None or found.dtype != np.uint16 or not np.array_equal(found >> 8, known):
        raise PictureError(f"{name} is decoded differently by Pillow and by OpenCV: save it again, or with 8 bits")
    return found


def _read_tiff(image: Image.Image, file: BinaryIO, name: str) -> np.ndarray:
    tags = image.tag_v2
    count, width, height = tags.get(Base.SamplesPerPixel, 1), tags[Base.ImageWidth], tags[Base.ImageLength]
    if count == 1:
        grey = _decode_plane(tags, file, 0, 1)
        if tags[Base.BitsPerSample] == (12,):
            grey = grey << 4 | grey >> 8
        return ~grey if tags.get(Base.PhotometricInterpretation, _WHITE_IS_ZERO) == _WHITE_IS_ZERO else grey
    if tags.get(Base.PlanarConfiguration) == _SEPARATE:
        samples = np.stack([_decode_plane(tags, file, plane, 1) for plane in range(count)], axis=2)
    else:
        samples = _decode_plane(tags, file, 0, count).reshape(height, width, count)
        if tags.get(Base.Predictor) == _HORIZONTAL and tags[Base.Compression] in _PREDICTED:
            tile = tags.get(Base.TileWidth, width)
            for left in range(0, width, tile):
                part = samples[:, left : left + tile]
                np.cumsum(part, axis=1, dtype=np.uint16, out=part)
    if image.mode == "RGB":
        return samples[..., :3]  # a fourth sample is neither color nor alpha
    if tags.get(Base.ExtraSamples) == (_ASSOCIATED,):
        _divide_by_alpha(samples)
    return samples


def _decode_plane(tags: ImageFileDirectory_v2, file: BinaryIO, plane: int, count: int) -> np.ndarray:
    """Decode one plane, uint16 [H, W * count], as a grey TIFF page that is made of its strips or tiles."""
    tiled, planes = Base.TileWidth in tags, tags.get(Base.SamplesPerPixel, 1) // count
    offsets_tag, lengths_tag = Base.StripOffsets, Base.StripByteCounts
    if tiled:
        offsets_tag, lengths_tag = Base.TileOffsets, Base.TileByteCounts
    each = len(tags[offsets_tag]) // planes
    offsets, lengths = (tags[tag][plane * each : (plane + 1) * each] for tag in (offsets_tag, lengths_tag))
    width, bits = tags[Base.ImageWidth] * count, tags[Base.BitsPerSample][0]
    if sum(lengths) > file.seek(0, io.SEEK_END):
        raise OSError("image file is truncated")
    page = ImageFileDirectory_v2(b"II*\0\0\0\0\0" if tags.prefix == b"II" else b"MM\0*\0\0\0\0")
    for tag in (Base.ImageLength, Base.Compression, Base.RowsPerStrip, Base.TileLength, Base.FillOrder):
        if tag in tags:
            page[tag] = tags[tag]
    page[Base.ImageWidth], page[Base.BitsPerSample] = width, bits
    page[Base.PhotometricInterpretation], page[Base.SamplesPerPixel] = _BLACK_IS_ZERO, 1
    if count == 1 and Base.Predictor in tags:
        page[Base.Predictor] = tags[Base.Predictor]
    if tiled:
        page[Base.TileWidth] = tags[Base.TileWidth] * count
    page[lengths_tag] = lengths
    page.tagtype[offsets_tag] = TiffTags.LONG
    starts = np.cumsum([0, *lengths[:-1]])
    page[offsets_tag] = tuple(starts.tolist())
    if tiled:  # Pillow adds the length of the directory to the offsets of strips only
        page[offsets_tag] = tuple((starts + 8 + len(page.tobytes(8))).tolist())
    grey = io.BytesIO()
    page.save(grey)
    for offset, length in zip(offsets, lengths, strict=True):
        file.seek(offset)
        grey.write(file.read(length))
    with Image.open(grey, formats=("TIFF",)) as decoded:
        return np.asarray(decoded).astype(np.uint16)


def _divide_by_alpha(samples: np.ndarray) -> None:
    """Change premultiplied samples [H, W, 4] in place."""
    rows = max(1, _STRIP_PIXELS // samples.shape[1])
    for top in range(0, len(samples), rows):
        strip = samples[top : top + rows]
        alpha = np.maximum(strip[..., 3:], 1).astype(np.uint32)
        strip[..., :3] = np.minimum((strip[..., :3] * np.uint32(65535) + alpha // 2) // alpha, 65535)


def deep_png(values: np.ndarray, exif: bytes, dpi: tuple[float, float] | None, icc: bytes) -> bytes:
    """Encode uint16 [H, W, 3 or 4] and its metadata as a PNG file."""
    import cv2

    order = [2, 1, 0, 3][: values.shape[2]]
    good, data = cv2.imencode(".png", values[..., order], [cv2.IMWRITE_PNG_COMPRESSION, 4])
    if not good:
        raise OSError("OpenCV could not encode the PNG")
    chunks = b""
    if icc:
        chunks += _chunk(b"iCCP", b"profile\0\0" + zlib.compress(icc))
    if dpi:
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *(round(x / 0.0254) for x in dpi), 1))
    if exif:
        chunks += _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    data = data.tobytes()
    after_header = 8 + 25  # signature, IHDR
    return data[:after_header] + chunks + data[after_header:]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
