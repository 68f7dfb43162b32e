"""Writing pictures with the alpha, EXIF, color profile, resolution and bit depth of the original."""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from common.imaging.read import Picture
from common.imaging.sixteen_bit import deep_png, deep_tiff, is_srgb
from common.utils.errors import PictureError, one_sentence
from common.utils.files import replace_file

FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF",
    ".webp": "WEBP", ".bmp": "BMP", ".avif": "AVIF", ".ppm": "PPM",
}  # fmt: skip
_SAVE_OPTIONS = {
    # Full chroma resolution and almost no loss, so that the file preserves L.
    "JPEG": {"quality": 99, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "TIFF": {"compression": "tiff_deflate"},
    "PNG": {"compress_level": 4},
}
_KEEPS_ALPHA = ("PNG", "TIFF", "WEBP", "AVIF")
_KEEPS_EXIF = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF")
_KEEPS_PROFILE = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF")
_KEEPS_DPI = ("JPEG", "PNG", "TIFF", "BMP")
_PROCESSING_SOFTWARE = 0x000B
_SRGB = ImageCms.createProfile("sRGB")


def format_of(path: str | Path) -> str:
    """Pillow's name of the format for a file name's suffix. Raises PictureError for an unknown suffix."""
    form = FORMAT_OF_SUFFIX.get(Path(path).suffix.lower())
    if form is None:
        raise PictureError(f"{path} names no picture format to write: use one of {', '.join(FORMAT_OF_SUFFIX)}")
    return form


def save_image(path: str | Path, rgb: np.ndarray, like: Picture | None = None, provenance: str = "") -> None:
    """Encode one picture (see `encode_pages`) and write it atomically. Raises PictureError if that fails."""
    write_picture(path, encode_pages([(rgb, like)], format_of(path), str(path), provenance))


def write_picture(path: str | Path, data: bytes) -> None:
    """Write an encoded picture atomically. Raises PictureError if that fails."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda to: to.write_bytes(data), tag=f".{os.getpid()}")
    except (OSError, ValueError) as error:
        raise PictureError(f"{path} cannot be written ({one_sentence(error)})") from None


def encode_jpeg(rgb: np.ndarray, quality: int) -> bytes:
    """Encode sRGB uint8 [H, W, 3] as a JPEG for display, with chroma at full resolution and without metadata."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()


def encode_pages(
    pages: Sequence[tuple[np.ndarray, Picture | None]], form: str, name: str = "picture", provenance: str = ""
) -> bytes:
    """Encode one or several pages as a picture file.

    Args:
        pages: for each page, sRGB [H, W, 3], uint8 or uint16, and the picture whose alpha, EXIF, color profile and
            resolution it gets, or None. Formats without 16 bits get 8.
        form: a format of `FORMAT_OF_SUFFIX`.
        name: name of the file in errors.
        provenance: name of the software in the metadata, for formats that have metadata.

    Returns:
        The content of the file.

    Raises:
        PictureError: the format does not support the transparency, the number of pages or the size.
    """
    if len(pages) > 1 and form != "TIFF":
        raise PictureError(f"{name} cannot hold {len(pages)} pages: write .tif instead")
    try:
        if all(rgb.dtype == np.uint16 for rgb, _ in pages) and form in ("PNG", "TIFF"):
            return _encode_deep(pages, form, provenance)
        images = [_prepared(rgb, like, form, name) for rgb, like in pages]
        options = dict(_SAVE_OPTIONS.get(form, {}))
        like = pages[0][1]
        if len(images) > 1:
            options |= {"save_all": True, "append_images": images[1:]}
        if form in _KEEPS_EXIF and (exif := _exif(like, provenance)):
            options["exif"] = exif
        if like is not None and like.dpi and form in _KEEPS_DPI:
            options["dpi"] = like.dpi
        if like is not None and like.icc and form in _KEEPS_PROFILE:
            options["icc_profile"] = like.icc
        file = io.BytesIO()
        images[0].save(file, format=form, **options)
        return file.getvalue()
    except PictureError:
        raise
    except (OSError, ValueError, struct.error) as error:
        raise PictureError(f"{name} cannot be written ({one_sentence(error)})") from None


def _prepared(rgb: np.ndarray, like: Picture | None, form: str, name: str) -> Image.Image:
    if rgb.dtype == np.uint16:
        rgb = ((rgb.astype(np.uint32) + 128) // 257).astype(np.uint8)
    image = Image.fromarray(rgb)
    if like is None:
        return image
    if like.icc and form in _KEEPS_PROFILE and not is_srgb(like.icc):
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            profile = ImageCms.ImageCmsProfile(io.BytesIO(like.icc))
            image = ImageCms.profileToProfile(image, _SRGB, profile, outputMode="RGB")
    if like.alpha is not None:
        if form not in _KEEPS_ALPHA and not (like.alpha == 255).all():
            raise PictureError(f"{name} cannot hold the transparency of {like.name}: write .png instead")
        if form in _KEEPS_ALPHA:
            image.putalpha(Image.fromarray(like.alpha))
    return image


def _encode_deep(pages: Sequence[tuple[np.ndarray, Picture | None]], form: str, provenance: str) -> bytes:
    found = []
    for values, like in pages:
        if like is not None and like.alpha is not None:
            values = np.dstack([values, like.alpha.astype(np.uint16) * 257])
        found.append((values, like.dpi if like else None, like.icc if like else b"", provenance))
    if form == "TIFF":
        return deep_tiff(found)
    values, dpi, icc, _ = found[0]
    return deep_png(values, _exif(pages[0][1], provenance), dpi, icc)


def _exif(like: Picture | None, provenance: str) -> bytes:
    exif = Image.Exif()
    if like is not None and like.exif:
        exif.load(like.exif)
    if provenance:
        exif[_PROCESSING_SOFTWARE] = provenance
    return exif.tobytes() if len(exif) else b""
