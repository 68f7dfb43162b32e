"""Reading pictures. All pictures that the project decodes pass through `open_image`."""

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
# The EXIF tags that describe the photograph: description, camera, dates, artist, copyright, and the Exif and GPS
# directories. Other tags describe the layout of the file and would be wrong in another file.
_KEPT_EXIF = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825)
# Pillow warns of sizes far below MAX_PIXELS, and of damaged EXIF and TIFF tags, which are not needed.
warnings.filterwarnings("ignore", module=r"PIL\.")
_ORIENTATION = 0x0112
_SRGB = ImageCms.createProfile("sRGB")


class Picture(NamedTuple):
    """A decoded picture in 8-bit sRGB, with EXIF orientation applied."""

    rgb: np.ndarray  # uint8 [H, W, 3]
    alpha: np.ndarray | None  # uint8 [H, W]; None for files without transparency
    exif: bytes  # without the orientation
    dpi: tuple[float, float] | None
    format: str  # Pillow's name of the file's format
    name: str
    deep: np.ndarray | None = None  # uint16 [H, W, 3], if requested and if the file has 16 bits per channel
    icc: bytes = b""  # RGB color profile of the file, from which its colors were converted to sRGB
    page: int = 0  # index of this page in the file
    pages: int = 1  # number of pages in the file

    @property
    def finest(self) -> np.ndarray:
        """The values of the highest bit depth: `deep` if present, else `rgb`."""
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
    """Read one picture and convert it to 8-bit sRGB.

    EXIF orientation is applied. Colors are converted from an embedded ICC profile to sRGB, and CMYK, palette, grey and
    bilevel pictures to RGB. 16-bit values are divided by 256. Alpha is returned separately.

    Args:
        source: a path, the content of a file, or an open binary file.
        name: name of the picture in errors (default: the path).
        draft: decode a large JPEG at 1/2, 1/4 or 1/8 of its size, which is several times faster, as long as its shorter
            side stays at least this many pixels.
        max_pixels: the largest number of pixels that is accepted.
        page: index of the page of a TIFF. For other formats with several frames, the first frame is read.
        deep: also return 16-bit values, if the file has them.

    Raises:
        PictureError: the file is missing, damaged, too large, or of an unsupported format or bit depth.
    """
    if isinstance(source, (str, Path)):
        name = name or str(source)
        _check_file(Path(source))
    elif isinstance(source, bytes):
        source = io.BytesIO(source)
    name = name or getattr(source, "name", "picture")
    try:
        if deep:  # Pillow and OpenCV both decode it
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
            f"{name} is not a picture in a supported format ({', '.join(FORMATS)}): convert it first"
        ) from None
    except Image.DecompressionBombError:
        raise PictureError(_too_large(name, max_pixels)) from None
    except MemoryError:
        raise PictureError(f"{name} does not fit in memory: make it smaller first") from None
    except Exception as error:  # Pillow's decoders raise nearly every type on damaged files
        raise PictureError(f"{name} is damaged or cut short ({one_sentence(error)}): get a complete copy") from None


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise PictureError(f"{path} is a folder, not a picture")
        if path.stat().st_size == 0:
            raise PictureError(f"{path} is empty (0 bytes): get a complete copy")
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
    """Apply an EXIF orientation to an array [H, W, C]."""
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
        return image  # the profile is damaged or of another color mode; image viewers ignore it as well


def eight_bits(values: np.ndarray) -> np.ndarray:
    """uint8 or uint16 picture -> uint8. uint16 values are divided by 256."""
    return (values >> 8).astype(np.uint8) if values.dtype == np.uint16 else values


def square(rgb: np.ndarray, size: int) -> np.ndarray:
    """Crop the central square and resize it: uint8 [H, W, 3] -> uint8 [size, size, 3].

    Pillow's bicubic filter, with antialiasing. A picture of this size is returned unchanged.
    """
    height, width = rgb.shape[:2]
    if height == width == size:
        return rgb
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    resized = Image.fromarray(rgb).resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    return np.asarray(resized)
