"""Reading pictures: the only decoder of the project.

Files that cannot be read faithfully are refused with one sentence that names the file.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from common.imaging.sixteen_bit import is_srgb, read_deep
from common.utils.errors import PictureError, one_sentence

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "AVIF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".avif", ".ppm")
MAX_PIXELS = 150_000_000  # a 100-megapixel scan passes, a decompression bomb does not
# What of a file's EXIF is about the photograph: description, camera, dates, artist, copyright, and the Exif and GPS
# directories. The rest describes the file's own layout (in a TIFF all of it does) and would spoil another file.
_KEPT_EXIF = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825)
# Pillow warns of sizes well below the limit, and of damaged EXIF and TIFF tags, which do not matter here.
warnings.filterwarnings("ignore", module=r"PIL\.")
_ORIENTATION = 0x0112
_SRGB = ImageCms.createProfile("sRGB")


class Picture(NamedTuple):
    """A decoded picture, upright, in 8-bit sRGB."""

    rgb: np.ndarray  # uint8 [H, W, 3]
    alpha: np.ndarray | None  # uint8 [H, W], where the file has transparency
    exif: bytes  # without the orientation, which has been applied
    dpi: tuple[float, float] | None
    format: str  # Pillow's name of the file's format
    name: str
    deep: np.ndarray | None = None  # uint16 [H, W, 3], where it was asked for and the file has 16 bits
    icc: bytes = b""  # the file's own RGB profile, from which it was brought to sRGB
    page: int = 0  # of `pages`
    pages: int = 1

    @property
    def finest(self) -> np.ndarray:
        """The values of the highest bit depth: `deep`, else `rgb`."""
        return self.rgb if self.deep is None else self.deep

    def on_white(self) -> np.ndarray:
        """The picture composited on white, uint8 [H, W, 3]."""
        if self.alpha is None:
            return self.rgb
        alpha = self.alpha[..., None].astype(np.uint16)
        return ((self.rgb * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def open_image(
    source: str | Path | bytes | BinaryIO,
    name: str | None = None,
    draft: int | None = None,
    max_pixels: int = MAX_PIXELS,
    *,
    page: int = 0,
    deep: bool = False,
) -> Picture:
    """Read one picture.

    source: a path, the file's bytes, or an open binary file (`name` is then what errors call it).
    draft: where a shorter side of at least this many pixels is enough, a large JPEG is decoded at a half, a
    quarter or an eighth of its size, which is several times faster.
    page: which page of a TIFF; of several frames in another format the first is read.
    deep: also give the 16 bits of a file that has them.
    EXIF orientation is applied, an ICC profile converted to sRGB, 16 bits are brought to 8 by division, CMYK,
    palette, grey and bilevel pictures become RGB, alpha is kept aside.
    Raises PictureError, with one sentence, for whatever cannot be read so.
    """
    if isinstance(source, (str, Path)):
        name = name or str(source)
        _check_file(Path(source))
    elif isinstance(source, bytes):
        source = io.BytesIO(source)
    name = name or getattr(source, "name", "picture")
    try:
        if deep:  # the file is read twice, by two libraries
            data = Path(source).read_bytes() if isinstance(source, (str, Path)) else source.read()
            source = io.BytesIO(data)
        with Image.open(source, formats=FORMATS) as image:
            pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
            if page:
                image.seek(page)
            return _decode(image, name, draft, max_pixels, data if deep else None)._replace(page=page, pages=pages)
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(
            f"{name} is not a picture in a format read here ({', '.join(FORMATS)}): convert it first"
        ) from None
    except Image.DecompressionBombError:
        raise PictureError(_too_large(name, max_pixels)) from None
    except MemoryError:
        raise PictureError(f"{name} does not fit in memory: make it smaller first") from None
    except Exception as error:  # Pillow's decoders raise nearly every type on damaged files
        raise PictureError(f"{name} is damaged or cut short ({one_sentence(error)}): get a whole copy") from None


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise PictureError(f"{path} is a folder, not a picture")
        if path.stat().st_size == 0:
            raise PictureError(f"{path} is empty (0 bytes): get a whole copy")
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise PictureError(f"{path} does not exist: check the path") from None
    except OSError as error:
        raise PictureError(f"{path} cannot be read ({error.strerror}): check its permissions") from None


def _too_large(name: str, max_pixels: int, size: tuple[int, int] | None = None) -> str:
    has = f"has {size[0]}x{size[1]} pixels" if size else "has too many pixels"
    return f"{name} {has}, above the limit of {max_pixels / 1e6:g} megapixels: make it smaller first"


def _decode(image: Image.Image, name: str, draft: int | None, max_pixels: int, data: bytes | None) -> Picture:
    width, height = image.size
    if width * height > max_pixels:
        raise PictureError(_too_large(name, max_pixels, image.size))
    if draft and image.format == "JPEG" and min(width, height) >= 2 * draft:
        image.draft(None, (width * draft // min(width, height), height * draft // min(width, height)))
    form, dpi = image.format or "PNG", image.info.get("dpi")
    image.load()
    values = read_deep(image, data) if data else None
    exif = image.getexif()
    if values is not None:
        values = _upright(values, exif.get(_ORIENTATION, 1))
    image = ImageOps.exif_transpose(image)
    for tag in set(exif) - set(_KEPT_EXIF):
        del exif[tag]
    rgb, alpha = _to_srgb(image, name)
    return Picture(
        rgb=rgb,
        alpha=alpha,
        exif=exif.tobytes() if len(exif) else b"",
        dpi=tuple(float(x) for x in dpi) if dpi else None,
        format="JPEG" if form == "MPO" else form,
        name=name,
        deep=values,
        icc=image.info.get("icc_profile", b"") if image.mode in ("RGB", "RGBA") else b"",
    )


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """An array [H, W, C] turned as EXIF says."""
    turns = {2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1], 5: lambda x: x.swapaxes(0, 1),
             6: lambda x: np.rot90(x, -1), 7: lambda x: np.rot90(x, 2).swapaxes(0, 1), 8: np.rot90}  # fmt: skip
    return np.ascontiguousarray(turns[orientation](values)) if orientation in turns else values


def _to_srgb(image: Image.Image, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's convert("RGB") would clip it at 255
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise PictureError(f"{name} has values of more than 16 bits: save it with 8 or 16 bits a channel")
        grey = (grey >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2), None
    if image.mode == "F":
        raise PictureError(f"{name} has floating-point values: save it with 8 or 16 bits a channel")
    alpha = np.asarray(image.convert("RGBA").getchannel("A")) if image.has_transparency_data else None
    return np.array(_apply_profile(image).convert("RGB")), alpha


def _apply_profile(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile or is_srgb(profile) or image.mode not in ("RGB", "RGBA", "CMYK", "L", "LAB"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        colors = image.convert("RGB") if image.mode == "RGBA" else image
        return ImageCms.profileToProfile(colors, source, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image  # a broken profile, or one for another mode: viewers ignore it as well


def eight_bits(values: np.ndarray) -> np.ndarray:
    """A uint8 or uint16 picture -> uint8, by dropping the low byte of uint16."""
    return (values >> 8).astype(np.uint8) if values.dtype == np.uint16 else values


def square(rgb: np.ndarray, size: int) -> np.ndarray:
    """Centre square of a picture at a size: uint8 [H, W, 3] -> uint8 [size, size, 3].

    Bicubic with antialiasing (Pillow's); a picture that has this size already is returned unchanged.
    """
    height, width = rgb.shape[:2]
    if height == width == size:
        return rgb
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    resized = Image.fromarray(rgb).resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    return np.asarray(resized)
