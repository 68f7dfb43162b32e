"""Color pictures with 16 bits per channel, which Pillow cannot read or write: OpenCV and tifffile do."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms

_BITS_PER_SAMPLE, _PHOTOMETRIC, _BLACK_IS_ZERO, _RGB = 258, 262, 1, 2


def is_srgb(profile: bytes) -> bool:
    """Whether the description of an ICC profile says that it is sRGB, so that no conversion is needed."""
    try:
        return "sRGB" in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return False


def read_deep(image: Image.Image, data: bytes) -> np.ndarray | None:
    """The 16-bit values of a PNG or TIFF, before EXIF orientation is applied.

    image: the file as loaded by Pillow. data: the content of the file. Returns uint16 [H, W, 3], or None if the file
    has fewer bits or a color profile other than sRGB, since Pillow converts only 8-bit values between profiles.
    """
    profile = image.info.get("icc_profile")
    if profile and not is_srgb(profile):
        return None
    if image.mode.startswith("I;16"):
        return np.repeat(np.asarray(image).astype(np.uint16)[..., None], 3, axis=2)
    if image.mode not in ("RGB", "RGBA") or not _has_16_bits(image, data):
        return None
    import cv2

    data = np.frombuffer(data, np.uint8)
    if image.format == "TIFF":
        _, found = cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED, range=(image.tell(), image.tell() + 1))
        values = found[0] if found else None
    else:
        values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    fits = values is not None and values.dtype == np.uint16 and values.shape[:2] == (image.height, image.width)
    if not fits or values.ndim != 3:
        return None
    return np.ascontiguousarray(values[..., 2::-1])  # OpenCV's order is blue, green, red


def _has_16_bits(image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":
        return data[24] == 16  # the bit depth in the IHDR chunk
    if image.format == "TIFF":
        tags = image.tag_v2
        return set(tags.get(_BITS_PER_SAMPLE, ())) == {16} and tags.get(_PHOTOMETRIC) in (_BLACK_IS_ZERO, _RGB)
    return False


def deep_png(values: np.ndarray, exif: bytes, dpi: tuple[float, float] | None, icc: bytes) -> bytes:
    """Encode uint16 [H, W, 3 or 4] and its metadata as a PNG file."""
    import cv2

    order = [2, 1, 0, 3][: values.shape[2]]
    good, data = cv2.imencode(".png", values[..., order], [cv2.IMWRITE_PNG_COMPRESSION, 4])
    if not good:
        raise OSError("OpenCV could not encode it")
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


def deep_tiff(pages: list[tuple[np.ndarray, tuple[float, float] | None, bytes, str]]) -> bytes:
    """Encode pages of (uint16 [H, W, 3 or 4], dpi, ICC profile, name of the software) as a TIFF file."""
    import tifffile

    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for values, dpi, icc, software in pages:
            writer.write(
                values,
                photometric="rgb",
                compression="zlib",
                predictor=True,
                resolution=dpi,
                resolutionunit="INCH" if dpi else None,
                iccprofile=icc or None,
                extrasamples=["unassalpha"] if values.shape[2] == 4 else None,
                software=software or False,
                metadata=None,
            )
    return file.getvalue()
