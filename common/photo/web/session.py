"""Work on one uploaded picture: open it, render previews while the user edits, render the file to download."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import PurePath
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.checkpoint import installed_models, read_card
from common.color.gamut import fit_gamut
from common.color.guided_upsampling import GuidedUpsampling
from common.color.lab import lab_to_rgb, rgb8_to_L
from common.colorizer import Colorizer
from common.imaging.read import Picture, open_image
from common.imaging.write import FORMAT_OF_SUFFIX, encode_jpeg, encode_pages
from common.photo.batch import provenance_text
from common.photo.distribution import distribution_of, likely_colors
from common.photo.edit import Edit
from common.photo.hints import parse_hint
from common.photo.restore import ScanCondition, assess, correct, stretch_lightness
from common.photo.variants import check_variants, predict_variants
from common.predictor import (
    PredictorConfig,
    apply_ab,
    embed_photograph,
    fit_upsampling,
    predict_within_memory,
    working_lightness,
)
from common.registry import load_colorizer
from common.utils.device import out_of_memory
from common.utils.errors import UserError
from common.utils.titles import unique_titles

# what the page says of installed models
DESCRIPTIONS = {
    "photo": "natural colors",
    "safe": "calm colors, fewer mistakes",
    "vivid": "vivid colors, more mistakes",
    "calm64": "calm colors, coarse",
    "vivid64": "vivid colors, coarse",
    "regression128": "muted colors",
    "gan128": "lively colors, sometimes with stains",
}
PREVIEW_SIDE = 1024  # longer side of a preview, in pixels
MAX_HINTS = 100
VERSIONS = 4  # the usual colorization and its variants
CACHED_UPSAMPLINGS = 2  # per picture: they take most of its memory and are computed again in a fraction of a second
_PREVIEW_BISECTIONS = 6  # precision of gamut mapping: chroma to 1/64, which is not visible, in half the time
MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "TIFF": "image/tiff", "WEBP": "image/webp",
               "BMP": "image/bmp", "AVIF": "image/avif", "PPM": "image/x-portable-pixmap"}  # fmt: skip
T = TypeVar("T")
Decode = Callable[[bytes, str, int], Picture]  # (data, name, max_pixels)


def decode_here(data: bytes, name: str, max_pixels: int) -> Picture:
    """Decode a trusted file in this process. For others, see `common.imaging.limited.Decoder.open`."""
    return open_image(data, name, max_pixels=max_pixels, deep=True)


class NoMemory(UserError):
    """A picture does not fit in memory."""


@dataclass(frozen=True)
class Model:
    """A colorizer with the name and the description that the page shows. It is loaded when it is first needed."""

    name: str
    load: Callable[[], Colorizer]
    config: PredictorConfig
    description: str = ""
    argument: str = ""  # what --model takes for it

    @cached_property
    def colorizer(self) -> Colorizer:
        """The network."""
        return self.load()

    @property
    def device(self) -> torch.device:
        """Device of the colorizer, which may have fallen back to the CPU."""
        return self.colorizer.device


@dataclass
class Prediction:
    """A model's prediction for one picture, with the upsampling of the latest preview."""

    ab: Tensor  # [1, 2, s, s] in CIELAB units; a quarter of the size, for versions after the first
    note: str  # for the user, if the network ran out of memory at its size
    fitted: tuple = ()  # hints and restoration that `upsampling` was fitted with
    upsampling: GuidedUpsampling | None = None  # to the preview's size; cached, because the fit is slow


@dataclass
class Session:
    """An opened picture without its file, and the predictions for it."""

    name: str  # of the file, for messages
    form: str  # Pillow's name of its format
    width: int
    height: int
    pages: int  # only the first is used
    L: Tensor  # [1, 1, h, w] in 0..100, at preview size
    alpha: np.ndarray | None  # uint8 [h, w], at preview size
    before: bytes  # JPEG of the picture before colorization, at preview size
    working: Tensor  # from `working_lightness`
    condition: ScanCondition
    predictions: dict[tuple[str, int], Prediction] = field(default_factory=dict)  # by model and version

    def describe(self) -> dict:
        """Properties of the picture for the page, as JSON."""
        preview = {"preview_width": self.L.shape[3], "preview_height": self.L.shape[2]}
        file = {"name": self.name, "format": self.form, "pages": self.pages}
        scan = {"faded": bool(self.condition.fading()), "colored": self.condition.colored}
        return file | {"width": self.width, "height": self.height} | preview | scan


@dataclass(frozen=True)
class Look:
    """How a picture is colorized: what the page sends besides the model."""

    edit: Edit = field(default_factory=Edit)
    restore: bool = False  # correct tint and fading, see `common.photo.restore`
    version: int = 0  # 0 is the usual colorization, others are variants


def open_session(
    data: bytes, name: str, max_pixels: int, device: torch.device, decode: Decode = decode_here
) -> Session:
    """Decode an uploaded file. Raises UserError if it is not a picture, has too many pixels, or memory is short."""
    return first_within_memory(lambda: _open(decode(data, name, max_pixels), name, device))


def _open(picture: Picture, name: str, device: torch.device) -> Session:
    height, width = picture.rgb.shape[:2]
    working = working_lightness(picture.finest, device)
    preview, alpha = _downscale(picture.rgb), None if picture.alpha is None else _downscale(picture.alpha)
    L = rgb8_to_L(torch.from_numpy(preview).to(device).permute(2, 0, 1)[None])
    before, condition = _jpeg(preview, alpha), assess(picture.finest)
    return Session(name, picture.format, width, height, picture.pages, L, alpha, before, working, condition)


def _downscale(values: np.ndarray) -> np.ndarray:
    height, width = values.shape[:2]
    scale = PREVIEW_SIDE / max(height, width)
    if scale >= 1:
        return values
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.array(Image.fromarray(values).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))


def _jpeg(rgb: np.ndarray, alpha: np.ndarray | None) -> bytes:
    """Encode a preview on white, with less than half the bytes that `encode_pages` writes for a download."""
    return encode_jpeg(Picture(rgb, alpha, b"", None, "JPEG", "").on_white(), 92)


def read_look(request: dict, session: Session) -> Look:
    """Read what a request asks for.

    All of it is optional: saturation, hue, kelvin (numbers), hints (a list of texts, see `parse_hint`), restore (a
    truth value) and version (0 to 3). Raises UserError if a value has the wrong type or is out of range.
    """
    numbers = {name: _number(request, name) for name in ("saturation", "hue", "kelvin")}
    texts = request.get("hints", [])
    if not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        raise UserError("hints are a list of x,y,color")
    if len(texts) > MAX_HINTS:
        raise UserError(f"there are {len(texts)} hints: the page takes {MAX_HINTS}")
    hints = tuple(parse_hint(text, (session.height, session.width)) for text in texts)
    restore, version = request.get("restore", False), request.get("version", 0)
    if not isinstance(restore, bool):
        raise UserError("restore is true or false")
    if isinstance(version, bool) or not isinstance(version, int) or not 0 <= version < VERSIONS:
        raise UserError(f"version is a whole number from 0 to {VERSIONS - 1}")
    edit = Edit(hints=hints, **{name: value for name, value in numbers.items() if value is not None})
    return Look(edit, restore, version)


def likely_colors_at(session: Session, model: Model, request: dict) -> list[dict]:
    """The likely colors of the pixel x, y of a request: [{"color": "#rrggbb", "share": 0..1}].

    Empty if the model predicts no distribution. Raises UserError if the pixel is not in the picture.
    """
    x, y = request.get("x"), request.get("y")
    for value, limit in ((x, session.width), (y, session.height)):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < limit:
            raise UserError(f"x and y are whole numbers inside of the picture ({session.width} x {session.height})")
    if not hasattr(model.colorizer, "distribution"):
        return []
    found = distribution_of(model.colorizer, session.working, model.config.size)
    row, column = found.cell(x, y, (session.height, session.width))
    height, width = session.L.shape[-2:]
    L = float(session.L[0, 0, y * height // session.height, x * width // session.width])
    colors = likely_colors(found.probabilities[row, column], found.ab_bins, L)
    return [{"color": color, "share": round(share, 3)} for color, share in colors]


def _number(request: dict, name: str) -> float | None:
    value = request.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{name} is not a number")
    try:
        return float(value)
    except OverflowError:
        raise UserError(f"{name} is too large") from None


def render_preview(session: Session, model: Model, look: Look) -> tuple[bytes, str]:
    """Render the edited colorization at preview size.

    The network runs once per model, and hints are spread only after they changed. The rest of the edit is applied to
    the upsampled ab, which is fast enough for a slider; `apply_ab` applies it before upsampling, and the difference is
    not visible.
    Returns a JPEG, and a note if the network ran out of memory at its size. Raises UserError if memory is short.
    """
    prediction = _predict(session, model, look.version)
    for others in [p for p in list(session.predictions.values()) if p is not prediction][: 1 - CACHED_UPSAMPLINGS]:
        others.upsampling = None
    rgb = first_within_memory(*(lambda d=d: _preview(session, model, prediction, look, d) for d in _devices(session)))
    return _jpeg(rgb, session.alpha), prediction.note


@torch.no_grad()
def _preview(session: Session, model: Model, prediction: Prediction, look: Look, device: torch.device) -> np.ndarray:
    """uint8 [h, w, 3] sRGB."""
    L, working = session.L.to(device), session.working.to(device)
    if look.restore:
        L, working = (stretch_lightness(x, session.condition) for x in (L, working))
    hints = tuple(look.edit.hints)
    upsampling, wanted = prediction.upsampling, (hints, look.restore)
    if upsampling is None or prediction.fitted != wanted or upsampling.coefficients.device != device:
        ab = prediction.ab.to(device)
        features = embed_photograph(model.colorizer, working, model.config) if hints else None
        upsampling = fit_upsampling(working, ab, tuple(L.shape[-2:]), Edit(hints=hints, features=features))
        prediction.upsampling, prediction.fitted = upsampling, wanted
    ab = replace(look.edit, hints=())(L, upsampling.strip(L, 0))
    rgb = lab_to_rgb(torch.cat([L, fit_gamut(L, ab, _PREVIEW_BISECTIONS)], dim=1))
    return (rgb * 255).round().to(torch.uint8)[0].permute(1, 2, 0).cpu().numpy()


def _devices(session: Session) -> list[torch.device]:
    """Devices to render on: the session's, then the CPU if memory runs out."""
    return list(dict.fromkeys((session.working.device, torch.device("cpu"))))


def render_file(
    data: bytes, session: Session, model: Model, look: Look, form: str, decode: Decode = decode_here
) -> tuple[bytes, str]:
    """Render the edited colorization of an uploaded file at full size: (encoded in the format `form`, file name).

    Raises UserError if memory is short or the format cannot hold the picture.
    """
    max_pixels = session.width * session.height
    picture = first_within_memory(lambda: decode(data, session.name, max_pixels))
    ab, working, edit = _predict(session, model, look.version).ab, session.working, look.edit
    rgb = picture.finest
    if look.restore:
        rgb, working = correct(rgb, session.condition), stretch_lightness(working, session.condition)
    if edit.hints:
        edit = replace(edit, features=embed_photograph(model.colorizer, working, model.config))
    attempts = (lambda d=d: apply_ab(rgb, working.to(d), ab.to(d), model.config, edit) for d in _devices(session))
    colored = first_within_memory(*attempts)
    name = PurePath(session.name)
    own = name.suffix if FORMAT_OF_SUFFIX.get(name.suffix.lower()) == form else ""
    suffix = own or next(suffix for suffix, known in FORMAT_OF_SUFFIX.items() if known == form)
    pages = [(colored, picture)]
    provenance = provenance_text(model.colorizer.card)
    file = first_within_memory(lambda: encode_pages(pages, form, session.name, provenance))
    return file, f"{name.stem or 'picture'}.color{suffix}"


def _predict(session: Session, model: Model, version: int) -> Prediction:
    """The cached prediction of a model, or a new one. It becomes the last in `predictions`."""
    key = (model.name, version)
    found = session.predictions.pop(key, None)
    if found is None:
        notes: list[str] = []
        if version:
            check_variants(model.colorizer, VERSIONS, model.name)
            variants = first_within_memory(
                lambda: predict_variants(model.colorizer, session.working, model.config, VERSIONS - 1)
            )
            session.predictions |= {(model.name, i): Prediction(ab, "") for i, ab in enumerate(variants, 1)}
            found = session.predictions.pop(key)
        else:
            with torch.no_grad():
                ab = predict_within_memory(model.colorizer, session.working, model.config, notes.append)
            found = Prediction(ab, "; ".join(notes))
    session.predictions[key] = found
    return found


def first_within_memory(*attempts: Callable[[], T]) -> T:
    """Result of the first attempt that does not run out of memory. Raises NoMemory if all do."""
    for attempt in attempts:
        try:
            return attempt()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
    raise NoMemory("there is not enough memory for this picture now: try again later, or make it smaller first")


def load_models(names: Sequence[str], device: torch.device) -> list[Model]:
    """Load models by name or path onto `device`, and assign unique titles. Raises UserError if any model cannot be
    loaded.
    """
    colorizers = [load_colorizer(path, device) for path in names]
    return _models(names, [colorizer.card for colorizer in colorizers], [lambda c=c: c for c in colorizers])


def load_installed_models(first: str, device: torch.device) -> list[Model]:
    """The installed models, `first` before the others. Only `first` is loaded now."""
    paths = installed_models()
    names = sorted(paths, key=lambda name: name != first)
    loads = [partial(load_colorizer, paths[name], device) for name in names]
    models = _models(names, [read_card(paths[name]) for name in names], loads)
    for model in models[:1]:
        _ = model.colorizer
    return models


def _models(names: Sequence[str], cards: Sequence[dict], loads: Sequence[Callable[[], Colorizer]]) -> list[Model]:
    own = [str(card.get("name") or PurePath(path).stem) for card, path in zip(cards, names, strict=True)]
    return [
        Model(title, load, PredictorConfig(card["size"]), DESCRIPTIONS.get(path, card["family"]), path)
        for title, load, card, path in zip(unique_titles(own), loads, cards, names, strict=True)
    ]
