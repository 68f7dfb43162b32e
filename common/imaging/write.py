"""Writing pictures with the alpha, EXIF, color profile, resolution and bit depth of the original."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms

from common.imaging.read import FORMATS, Picture
from common.imaging.sixteen_bit import deep_png, is_srgb
from common.imaging.tiff import TiffWriter
from common.utils.errors import PictureError, UserError, one_sentence
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
    "PNG": {"compress_level": 4},
}
_KEEPS_ALPHA = ("PNG", "TIFF", "WEBP", "AVIF")
_KEEPS_METADATA = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF")  # EXIF and color profile
_KEEPS_DPI = ("JPEG", "PNG", "TIFF", "BMP")
_PROCESSING_SOFTWARE, _SOFTWARE = 0x000B, 0x0131
_MAX_TIFF_BYTES = 4_000_000_000  # beyond it a TIFF is a BigTIFF
_SRGB = ImageCms.createProfile("sRGB")


def format_of(path: str | Path) -> str:
    """Pillow's name of the format for a file name's suffix. Raises PictureError for an unknown suffix."""
    form = FORMAT_OF_SUFFIX.get(Path(path).suffix.lower())
    if form is None:
        raise PictureError(f"{path} names no picture format to write: use one of {', '.join(FORMAT_OF_SUFFIX)}")
    return form


def read_provenance(path: Path) -> str:
    """The `provenance` with which a file was written; "" if it has none, or is a link or no picture."""
    if path.is_symlink():
        return ""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return str(image.getexif().get(_PROCESSING_SOFTWARE, ""))
    except Exception:  # Pillow raises nearly every type for damaged files
        return ""


def save_image(path: str | Path, rgb: np.ndarray, like: Picture | None = None, provenance: str = "") -> None:
    """Encode one picture (see `write_pages`) and write it atomically. Raises PictureError if that fails."""
    form = format_of(path)
    write_picture(path, lambda file: write_pages(file, [(rgb, like)], 1, form, str(path), provenance))


def write_picture(path: str | Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file atomically. write: writes its content. Raises PictureError if that fails."""
    path = Path(path)

    def to_path(temporary: Path) -> None:
        with temporary.open("w+b") as file:
            write(file)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, to_path, tag=f".{os.getpid()}")
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise PictureError(f"{path} cannot be written ({one_sentence(error)}): choose another place") from None


def encode_jpeg(rgb: np.ndarray, quality: int) -> bytes:
    """Encode sRGB uint8 [H, W, 3] as a JPEG for display, with chroma at full resolution and without metadata."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()


def encode_pages(
    pages: Sequence[tuple[np.ndarray, Picture | None]], form: str, name: str = "picture", provenance: str = ""
) -> bytes:
    """Encode one or several pages in memory. The arguments and errors are those of `write_pages`."""
    file = io.BytesIO()
    write_pages(file, pages, len(pages), form, name, provenance)
    return file.getvalue()


def write_pages(
    file: BinaryIO,
    pages: Iterable[tuple[np.ndarray, Picture | None]],
    count: int,
    form: str,
    name: str = "picture",
    provenance: str = "",
) -> None:
    """Encode one or several pages, and write each before the next is taken from `pages`.

    Args:
        file: an empty file, open for reading and writing.
        pages: for each page, sRGB [H, W, 3], uint8 or uint16, and the picture whose alpha, EXIF, color profile and
            resolution it gets, or None. Formats without 16 bits get 8.
        count: number of pages.
        form: a format of `FORMAT_OF_SUFFIX`.
        name: name of the file in errors.
        provenance: name of the software in the metadata, for formats that have metadata.

    Raises:
        PictureError: the format does not support the transparency, the number of pages or the size.
    """
    if count > 1 and form != "TIFF":
        raise PictureError(f"{name} cannot hold {count} pages: write .tif instead")
    tiff = None
    try:
        for rgb, like in pages:
            if form == "TIFF":
                tiff = tiff or TiffWriter(file, big=count * rgb.nbytes > _MAX_TIFF_BYTES)
                exif = _exif(like, provenance)
                if provenance:
                    exif.setdefault(_SOFTWARE, provenance)
                tiff.add(_with_alpha(rgb, like, form, name), exif, like and like.dpi, like.icc if like else b"")
            elif form == "PNG" and rgb.dtype == np.uint16:
                values, dpi, icc = _with_alpha(rgb, like, form, name), like and like.dpi, like.icc if like else b""
                file.write(deep_png(values, _exif(like, provenance).tobytes(), dpi, icc))
            else:
                _save(file, rgb, like, form, name, provenance)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Pillow's encoders raise nearly every type on unusual metadata
        raise PictureError(f"{name} cannot be written ({one_sentence(error)}): choose another format") from None


def _save(file: BinaryIO, rgb: np.ndarray, like: Picture | None, form: str, name: str, provenance: str) -> None:
    if rgb.dtype == np.uint16:
        rgb = ((rgb.astype(np.uint32) + 128) // 257).astype(np.uint8)
    options = dict(_SAVE_OPTIONS.get(form, {}))
    if form in _KEEPS_METADATA and len(exif := _exif(like, provenance)):
        options["exif"] = exif.tobytes()
    if like is not None and like.dpi and form in _KEEPS_DPI:
        options["dpi"] = like.dpi
    if like is not None and like.icc and form in _KEEPS_METADATA:
        options["icc_profile"] = like.icc
    Image.fromarray(_with_alpha(rgb, like, form, name)).save(file, format=form, **options)


def _with_alpha(rgb: np.ndarray, like: Picture | None, form: str, name: str) -> np.ndarray:
    """Pixels of a file, [H, W, 3 or 4]: those of a page in the color profile of `like` and with its alpha."""
    if like is None:
        return rgb
    if like.icc and form in _KEEPS_METADATA and not is_srgb(like.icc):
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            profile = ImageCms.ImageCmsProfile(io.BytesIO(like.icc))
            rgb = np.asarray(ImageCms.profileToProfile(Image.fromarray(rgb), _SRGB, profile, outputMode="RGB"))
    if like.alpha is None:
        return rgb
    if form not in _KEEPS_ALPHA:
        if (like.alpha == 255).all():
            return rgb
        raise PictureError(f"{name} cannot hold the transparency of {like.name}: write .png instead")
    alpha = like.alpha
    if rgb.dtype == np.uint16:
        alpha = like.alpha.astype(np.uint16) * 257 if like.deep_alpha is None else like.deep_alpha
    return np.dstack([rgb, alpha])


def _exif(like: Picture | None, provenance: str) -> Image.Exif:
    exif = Image.Exif()
    if like is not None and like.exif:
        exif.load(like.exif)
    if provenance:
        exif[_PROCESSING_SOFTWARE] = provenance
    return exif
