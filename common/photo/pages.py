"""Colorize one page of a picture: refuse, repair, restore, predict, edit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from common.color.lab import rgb8_to_lab
from common.colorizer import Colorizer
from common.imaging.read import Picture, eight_bits
from common.photo.edit import Edit
from common.photo.hints import hints_of_dots, parse_hint
from common.photo.restore import assess, correct
from common.photo.variants import predict_variants
from common.predictor import PredictorConfig, apply_ab, colorize_photo, embed_photograph, working_lightness
from common.utils.errors import PictureError

# on: correct tint and fading first. auto: only report fading. The network always sees a corrected lightness.
Restore = Literal["auto", "on", "off"]
_GREY_CHROMA = 4.0  # in CIELAB units; a picture is grey if no more than 5 % of it has a higher chroma


@dataclass(frozen=True)
class BatchConfig:
    """How the pictures of a batch are colorized.

    check: raises PictureError for a picture that must not be colorized. write_extra: called with the first page, its
    colorization uint8 [H, W, 3] and the target; writes further files and returns their paths. report: called with one
    sentence if the network ran out of memory at its size, about fading, or if a page got almost no color.
    """

    predictor: PredictorConfig
    edit: Edit = field(default_factory=Edit)
    hints: Sequence[str] = ()  # "x,y,color" in pixels of each picture, see `parse_hint`
    hint_dots: np.ndarray | None = None  # uint8 [H, W, 4], see `hints_of_dots`
    restore: Restore = "off"
    repair: bool = False  # first fill in scratches, and write NAME.repair.png, which shows them
    refuse_colored: bool = False  # refuse photographs that are in color already
    variants: int = 1  # also write NAME.color.2.EXT and so on, up to this number
    seed: int = 0  # of the variants
    compare: bool = False  # also write NAME.compare.png, the picture before and after
    overwrite: bool = False
    provenance: str = ""  # text for the metadata of the written files
    check: Callable[[Picture], None] = lambda picture: None
    write_extra: Callable[[Picture, np.ndarray, Path], list[Path]] | None = None
    report: Callable[[str], None] = lambda message: None


def colorize_page(colorizer: Colorizer, picture: Picture, config: BatchConfig) -> np.ndarray:
    """The colorized page, uint8 or uint16 [H, W, 3] sRGB. Raises PictureError if it is refused."""
    rgb, edit = _prepare(picture, config), config.edit
    colored = colorize_photo(colorizer, rgb, config.predictor, _edit(colorizer, rgb, config), config.report)
    if edit.saturation and _is_grey(colored):
        page = f", page {picture.page + 1}," if picture.pages > 1 else ""
        config.report(
            f"{picture.name}{page} got almost no color from this model: try --model vivid, a higher --saturation, or"
            " --hint"
        )
    return colored


def page_variants(colorizer: Colorizer, picture: Picture, config: BatchConfig) -> Iterator[np.ndarray]:
    """Yield the variants of a page after the first, uint8 or uint16 [H, W, 3] sRGB, one at a time."""
    rgb = _prepare(picture, config)
    working, edit = working_lightness(rgb, colorizer.device), _edit(colorizer, rgb, config)
    for ab in predict_variants(colorizer, working, config.predictor, config.variants - 1, config.seed):
        yield apply_ab(rgb, working, ab, config.predictor, edit)


def _edit(colorizer: Colorizer, rgb: np.ndarray, config: BatchConfig) -> Edit:
    """The edit of a page, with the hints at its size."""
    size = rgb.shape[:2]
    hints = [parse_hint(text, size) for text in config.hints]
    if config.hint_dots is not None:
        hints += hints_of_dots(config.hint_dots, size)
    if not hints:
        return config.edit
    features = embed_photograph(colorizer, working_lightness(rgb, colorizer.device), config.predictor)
    return replace(config.edit, hints=hints, features=features)


def _prepare(picture: Picture, config: BatchConfig) -> np.ndarray:
    """The picture to colorize, uint8 or uint16 [H, W, 3]. Raises PictureError if it is refused."""
    rgb = picture.finest
    if config.repair:
        from common.photo.repair import repair  # imports OpenCV

        rgb, _ = repair(rgb)
    if config.restore == "off" and not config.refuse_colored:
        return rgb
    condition = assess(rgb)
    if condition.colored and config.refuse_colored:
        raise PictureError(f"{picture.name} is in color already: use --anyway to replace its colors")
    if config.restore == "on":
        return correct(rgb, condition)
    if config.restore == "auto" and (fading := condition.fading()):
        config.report(
            f"{picture.name} is faded ({fading}): its lightness was kept; use --restore to correct it, or --restore off"
            " to leave this note out"
        )
    return rgb


def _is_grey(rgb: np.ndarray) -> bool:
    step = -(-max(rgb.shape[:2]) // 256)  # some pixels are enough
    small = torch.from_numpy(eight_bits(rgb)[::step, ::step].copy())
    return float(rgb8_to_lab(small.permute(2, 0, 1))[1:].norm(dim=0).quantile(0.95)) < _GREY_CHROMA
