"""Reading pictures. All pictures that the project decodes pass through `open_image`."""

from __future__ import annotations

import contextlib
import io
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from common.imaging.header import (
    MAX_PIXELS,
    TooManyPixels,
    check_complete,
    check_pixels,
    count_pages,
    read_bytes,
    seekable,
)
from common.imaging.sixteen_bit import has_sixteen_bits, is_srgb, read_sixteen_bits
from common.utils.errors import PictureError, one_sentence

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "AVIF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".avif", ".ppm")
# The EXIF tags that describe the photograph: description, camera, dates, artist, copyright, and the Exif and GPS
# directories. Other tags describe the layout of the file and would be wrong in another file.
_KEPT_EXIF = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825)
# Pillow warns of sizes far below MAX_PIXELS, and of damaged EXIF and TIFF tags, which are not needed.
warnings.filterwarnings("ignore", module=r"PIL\.")
_ORIENTATION = 0x0112
_STRIP_PIXELS = 1_000_000
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
    deep_alpha: np.ndarray | None = None  # uint16 [H, W], if there is `deep` and `alpha`
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
        white = np.empty_like(self.rgb)
        rows = max(1, _STRIP_PIXELS // self.rgb.shape[1])
        for top in range(0, len(white), rows):
            alpha = self.alpha[top : top + rows, :, None].astype(np.uint16)
            white[top : top + rows] = (self.rgb[top : top + rows] * alpha + 255 * (255 - alpha) + 127) // 255
        return white


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
    bilevel pictures to RGB. 16-bit values are divided by 256. Alpha is returned separately, and is not premultiplied.

    Args:
        source: a path, the content of a file, or an open binary file.
        name: name of the picture in errors (default: the path).
        draft: decode a large JPEG at 1/2, 1/4 or 1/8 of its size, which is several times faster, as long as its shorter
            side stays at least this many pixels.
        max_pixels: the largest number of pixels that is decoded.
        page: index of the page of a TIFF.
        deep: also return 16-bit values, if the file has them.

    Raises:
        PictureError: the file is missing, damaged, too large, an animation, or of an unsupported format or bit depth.
            It is a TooManyPixels if the number of pixels is the reason.
    """
    if isinstance(source, (str, Path)):
        name = name or str(source)
        source = _open_file(Path(source))
        opened: AbstractContextManager = source
    else:
        source = io.BytesIO(source) if isinstance(source, bytes) else source
        name = name or getattr(source, "name", "picture")
        opened = contextlib.nullcontext()
    try:
        with opened:
            file, size = seekable(source, name)
            with Image.open(file, formats=FORMATS) as image:
                pages = count_pages(image, name)
                if page:
                    image.seek(page)
                # of a progressive JPEG, Pillow holds the full size in memory at any scale
                whole = not draft or image.info.get("progressive")
                check_pixels(image, size, max_pixels if whole else MAX_PIXELS, name)
                if draft:
                    _draft(image, draft)
                check_pixels(image, size, max_pixels, name)
                check_complete(image, size, name)
                return _decode(image, file, name, deep)._replace(page=page, pages=pages)
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(
            f"{name} is not a picture in a supported format ({', '.join(FORMATS)}): convert it first"
        ) from None
    except Image.DecompressionBombError:
        raise TooManyPixels(
            f"{name} has too many pixels, above the limit of {max_pixels / 1e6:g} megapixels: make it smaller first"
        ) from None
    except MemoryError:
        raise PictureError(f"{name} does not fit in memory: make it smaller first") from None
    except Exception as error:  # Pillow's decoders raise nearly every type on damaged files
        raise PictureError(f"{name} is damaged or cut short ({one_sentence(error)}): get a complete copy") from None


def _open_file(path: Path) -> BinaryIO:
    try:
        if path.is_dir():
            raise PictureError(f"{path} is a folder, not a picture")
        return path.open("rb")
    except FileNotFoundError:
        raise PictureError(f"{path} does not exist: check the path") from None
    except (OSError, ValueError) as error:
        raise PictureError(f"{path} cannot be read ({one_sentence(error)}): check its permissions") from None


def _draft(image: Image.Image, draft: int) -> None:
    short = min(image.size)
    if image.format == "JPEG" and short >= 2 * draft:
        image.draft(None, (image.width * draft // short, image.height * draft // short))


def _decode(image: Image.Image, file: BinaryIO, name: str, deep: bool) -> Picture:
    form, dpi, values, deep_alpha = image.format or "PNG", image.info.get("dpi"), None, None
    sixteen_bits = has_sixteen_bits(image)  # before the EXIF data, for which Pillow may decode the file
    exif = image.getexif()
    if sixteen_bits:
        turn, profile = exif.get(_ORIENTATION, 1), image.info.get("icc_profile")
        values, deep_alpha = (x if x is None else _upright(x, turn) for x in read_sixteen_bits(image, file, name))
        image = Image.fromarray(eight_bits(values))
        image.info = {"icc_profile": profile} if profile else {}
    else:
        directory = image.tile[0].args[-1] if form == "TIFF" and image.tile[0].codec_name == "libtiff" else 0
        if directory >= 2**32:
            raise PictureError(f"page {image.tell() + 1} of {name} lies beyond 4 GB: split the file first")
        image.load()
        if directory and image.tell() and image.getbbox() is None and not _opencv_decodes(file, image.tell()):
            raise OSError(f"page {image.tell() + 1} cannot be decoded")
        ImageOps.exif_transpose(image, in_place=True)
    rgb, alpha, icc = to_srgb(image, name)
    if values is not None:
        alpha = None if deep_alpha is None else eight_bits(deep_alpha)
        # Pillow converts only 8-bit values between profiles
        keeps = deep and (not image.info or is_srgb(image.info["icc_profile"]))
        values = (values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)) if keeps else None
        deep_alpha = deep_alpha if keeps else None
    for tag in set(exif) - set(_KEPT_EXIF):
        del exif[tag]
    return Picture(
        rgb=rgb,
        alpha=alpha,
        exif=exif.tobytes() if len(exif) else b"",
        dpi=tuple(float(x) for x in dpi) if dpi else None,
        format="JPEG" if form == "MPO" else form,
        name=name,
        deep=values,
        deep_alpha=deep_alpha,
        icc=icc,
    )


def _opencv_decodes(file: BinaryIO, page: int) -> bool:
    """Whether OpenCV can decode a page that Pillow decoded as black, which it does if libtiff refuses the directory."""
    import cv2

    file.seek(0)
    data = np.frombuffer(read_bytes(file, "the file"), np.uint8)
    return cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED, range=(page, page + 1))[0]


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation to an array [H, W] or [H, W, C]."""
    turns = {2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1], 5: lambda x: x.swapaxes(0, 1),
             6: lambda x: np.rot90(x, -1), 7: lambda x: np.rot90(x, 2).swapaxes(0, 1), 8: np.rot90}  # fmt: skip
    return np.ascontiguousarray(turns[orientation](values)) if orientation in turns else values


def to_srgb(image: Image.Image, name: str) -> tuple[np.ndarray, np.ndarray | None, bytes]:
    """Convert an image of any mode to sRGB, in strips, so that only one copy of a large picture is in memory.

    Returns (uint8 [H, W, 3], alpha uint8 [H, W] or None, the image's color profile if it is one of RGB). Raises
    PictureError, with `name`, if the values have more than 16 bits or are floats.
    """
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's convert("RGB") would clip it at 255
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise PictureError(f"{name} has values of more than 16 bits: save it with 8 or 16 bits a channel")
        image = Image.fromarray((grey >> 8).astype(np.uint8))
    if image.mode == "F":
        raise PictureError(f"{name} has floating-point values: save it with 8 or 16 bits a channel")
    transform, mode, icc = _profile_transform(image)
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    alpha = np.empty(rgb.shape[:2], np.uint8) if image.has_transparency_data else None
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        strip = strip.convert("LA") if strip.mode == "La" else strip
        colors = strip.convert(mode) if strip.mode != mode else strip
        rgb[top : top + rows] = np.asarray(ImageCms.applyTransform(colors, transform) if transform else colors)
        if alpha is not None:
            alpha[top : top + rows] = np.asarray(strip.convert("RGBA").getchannel("A"))
    return rgb, alpha, icc


def _profile_transform(image: Image.Image) -> tuple[ImageCms.ImageCmsTransform | None, str, bytes]:
    """(transform from the image's profile to sRGB or None, mode that it is applied to, profile if it is of RGB)."""
    profile = image.info.get("icc_profile")
    mode = {"L": "L", "LA": "L", "La": "L", "CMYK": "CMYK", "LAB": "LAB"}.get(image.mode, "RGB")
    if profile and is_srgb(profile):
        return None, "RGB", profile if mode == "RGB" else b""
    if profile and image.mode != "1":
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            transform = ImageCms.buildTransform(source, _SRGB, mode, "RGB")
            return transform, mode, profile if mode == "RGB" else b""
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # the profile is damaged or of another color mode; image viewers ignore it as well
    return None, "RGB", b""


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
