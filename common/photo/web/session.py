"""What the page does to a picture: opens it, paints a preview for every move of a slider, at last the whole file."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.color.gamut import fit_gamut
from common.color.guided_upsampling import GuidedUpsampling
from common.color.lab import lab_to_rgb, rgb8_to_L
from common.colorizer import Colorizer
from common.imaging.read import Picture, open_image
from common.imaging.write import FORMAT_OF_SUFFIX, encode_pages
from common.photo.batch import provenance_of
from common.photo.edit import Edit
from common.predictor import fit, paint, predict_within_memory, working_lightness
from common.registry import load_colorizer
from common.utils.device import out_of_memory
from common.utils.errors import UserError

PREVIEW_SIDE = 1024  # pixels of the longer side
MAX_HINTS = 100
_PREVIEW_BISECTIONS = 6  # a color out of gamut keeps its chroma to 1/64, which is not seen, in half the time
MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "TIFF": "image/tiff", "WEBP": "image/webp",
               "BMP": "image/bmp", "AVIF": "image/avif", "PPM": "image/x-portable-pixmap"}  # fmt: skip
T = TypeVar("T")


class NoMemory(UserError):
    """A picture does not fit in memory."""


@dataclass(frozen=True)
class Model:
    """A colorizer under the name that the page shows."""

    name: str
    colorizer: Colorizer
    size: int  # side of the square that the network sees
    about: str = ""

    @property
    def device(self) -> torch.device:
        """Where it was loaded to, or where it fell back to."""
        return self.colorizer.device


@dataclass
class Painting:
    """A model's colors for one picture."""

    ab: Tensor
    note: str  # of a network that did not fit in memory as it should
    hints: tuple = ()
    fitted: GuidedUpsampling | None = None  # to the preview's size, under these hints: the slow part of a preview


@dataclass
class Opened:
    """What the page keeps of a picture besides its file."""

    name: str
    form: str
    width: int
    height: int
    pages: int
    L: Tensor  # [1, 1, h, w] of the preview
    alpha: np.ndarray | None  # uint8 [h, w], of the preview
    before: bytes  # JPEG
    working: Tensor
    paintings: dict[str, Painting] = field(default_factory=dict)

    def about(self) -> dict:
        """What the page is told of it, for JSON."""
        seen = {"seen_width": self.L.shape[3], "seen_height": self.L.shape[2]}
        own = {"name": self.name, "format": self.form, "pages": self.pages}
        return own | {"width": self.width, "height": self.height} | seen


def open_picture(data: bytes, name: str, max_pixels: int, device: torch.device) -> Opened:
    """Read a picture that was sent. Raises UserError, with one sentence, where that cannot be done."""
    return within_memory(lambda: _open(data, name, max_pixels, device))


def _open(data: bytes, name: str, max_pixels: int, device: torch.device) -> Opened:
    picture = open_image(data, name, max_pixels=max_pixels, deep=True)
    height, width = picture.rgb.shape[:2]
    working = working_lightness(picture.finest, device)
    preview, alpha = _smaller(picture.rgb), None if picture.alpha is None else _smaller(picture.alpha)
    L = rgb8_to_L(torch.from_numpy(preview).to(device).permute(2, 0, 1)[None])
    return Opened(name, picture.format, width, height, picture.pages, L, alpha, _jpeg(preview, alpha), working)


def _smaller(values: np.ndarray) -> np.ndarray:
    height, width = values.shape[:2]
    scale = PREVIEW_SIDE / max(height, width)
    if scale >= 1:
        return values
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.array(Image.fromarray(values).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))


def _jpeg(rgb: np.ndarray, alpha: np.ndarray | None) -> bytes:
    file = io.BytesIO()
    seen = Picture(rgb, alpha, b"", None, "JPEG", "").on_white()
    Image.fromarray(seen).save(file, "JPEG", quality=92, subsampling=0)
    return file.getvalue()


def read_edit(given: dict, opened: Opened) -> Edit:
    """The changes that a page asked for, from JSON: saturation, hue, kelvin, hints (a list of "x,y,#rrggbb").

    Raises UserError for a value that is none or is out of range.
    """
    numbers = {name: _number(given, name) for name in ("saturation", "hue", "kelvin")}
    texts = given.get("hints", [])
    if not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        raise UserError("hints are a list of x,y,#rrggbb")
    if len(texts) > MAX_HINTS:
        raise UserError(f"there are {len(texts)} hints: the page takes {MAX_HINTS}")
    hints = ()
    if texts:
        from common.photo.hints import parse_hint

        hints = tuple(parse_hint(text, (opened.height, opened.width)) for text in texts)
    return Edit(hints=hints, **{name: value for name, value in numbers.items() if value is not None})


def _number(given: dict, name: str) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{name} is no number")
    try:
        return float(value)
    except OverflowError:
        raise UserError(f"{name} is too large") from None


def paint_preview(opened: Opened, model: Model, edit: Edit) -> tuple[bytes, str]:
    """A JPEG of the picture at screen size in a model's colors, and a note where memory was short.

    The network runs where it has not yet, and hints are spread where they changed. What is left for the move of a
    slider is done pixel by pixel at the preview's size, so it is fast; `paint` does it at working size, before the
    fit, which differs by less than can be seen. Raises UserError where there is not enough memory.
    """
    painting = _painting(opened, model)
    rgb = within_memory(*(lambda d=d: _seen(opened, painting, edit, d) for d in _places(opened)))
    return _jpeg(rgb, opened.alpha), painting.note


@torch.no_grad()
def _seen(opened: Opened, painting: Painting, edit: Edit, device: torch.device) -> np.ndarray:
    L, hints = opened.L.to(device), tuple(edit.hints)
    fitted = painting.fitted
    if fitted is None or painting.hints != hints or fitted.coefficients.device != device:
        working, ab = opened.working.to(device), painting.ab.to(device)
        fitted = fit(working, ab, Edit(hints=hints), tuple(L.shape[-2:]))
        painting.fitted, painting.hints = fitted, hints
    ab = replace(edit, hints=())(L, fitted.strip(L, 0))
    rgb = lab_to_rgb(torch.cat([L, fit_gamut(L, ab, _PREVIEW_BISECTIONS)], dim=1))
    return (rgb * 255).round().to(torch.uint8)[0].permute(1, 2, 0).cpu().numpy()


def _places(opened: Opened) -> list[torch.device]:
    """Where to paint: on the device, and where its memory does not do, on the CPU."""
    return list(dict.fromkeys((opened.working.device, torch.device("cpu"))))


def paint_file(data: bytes, opened: Opened, model: Model, edit: Edit, form: str) -> tuple[bytes, str]:
    """The whole picture in a model's colors, as a file of a format, and the file's name.

    Raises UserError where there is not enough memory, or the format cannot hold the picture.
    """
    picture = within_memory(lambda: open_image(data, opened.name, max_pixels=opened.width * opened.height, deep=True))
    ab, working = _painting(opened, model).ab, opened.working
    tries = (lambda d=d: paint(picture.finest, working.to(d), ab.to(d), edit) for d in _places(opened))
    colored = within_memory(*tries)
    name = PurePath(opened.name)
    own = name.suffix if FORMAT_OF_SUFFIX.get(name.suffix.lower()) == form else ""
    suffix = own or next(suffix for suffix, known in FORMAT_OF_SUFFIX.items() if known == form)
    pages = [(colored, picture)]
    file = within_memory(lambda: encode_pages(pages, form, opened.name, provenance_of(model.colorizer.card)))
    return file, f"{name.stem or 'picture'}.color{suffix}"


def _painting(opened: Opened, model: Model) -> Painting:
    found = opened.paintings.get(model.name)
    if found is None:
        notes: list[str] = []
        with torch.no_grad():
            ab = predict_within_memory(model.colorizer, opened.working, model.size, notes.append)
        found = opened.paintings[model.name] = Painting(ab, "; ".join(notes))
    return found


def within_memory(*tries: Callable[[], T]) -> T:
    """The first of these that memory suffices for. Raises NoMemory where there is none."""
    for attempt in tries:
        try:
            return attempt()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
    raise NoMemory("there is not enough memory for this picture now: try again later, or make it smaller first")


def load_models(names: Sequence[str], device: torch.device) -> list[Model]:
    """The colorizers of a command line, each with a name of its own. Raises UserError for what is none."""
    models: dict[str, Model] = {}
    for path in names:
        colorizer = load_colorizer(path, device)
        card = colorizer.card or {}
        title = free = str(card.get("name") or PurePath(path).stem)
        count = 1
        while free in models:
            count += 1
            free = f"{title} ({count})"
        models[free] = Model(free, colorizer, card["size"], f"{card['family']}, sees {card['size']} px")
    return list(models.values())
