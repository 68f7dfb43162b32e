"""Stills over a film on one sheet: the frame in grey, and below it in color."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from common.color.gamut import ab_to_rgb8
from common.colorizer import Colorizer
from common.film.config import FilmConfig, FilmError, Span
from common.film.decode import FilmReader, Frame
from common.film.source import FilmInfo, read_info
from common.predictor import AbTransform, PredictorConfig, colorize_photo, working_lightness
from common.utils.clock import clock

_COLUMNS, _WIDTH, _GAP, _HEADER, _INK, _PAPER = 5, 320, 6, 24, (32, 32, 32), (255, 255, 255)


def preview(
    colorizer: Colorizer, path: Path, count: int, config: FilmConfig, span: Span, transform: AbTransform | None = None
) -> Image.Image:
    """Draw `count` stills, spread evenly over a part of a film, each colorized on its own.

    Raises FilmError if the film cannot be read, or does not state its duration.
    """
    info = read_info(path)
    predictor = PredictorConfig(config.size)
    stills = []
    for frame in _stills(info, count, span):
        colored = colorize_photo(colorizer, frame.rgb, predictor, transform)
        small = _upright(colored, info)
        L = working_lightness(np.asarray(_upright(frame.rgb, info)), colorizer.device)
        grey = ab_to_rgb8(L, L.new_zeros(1, 2, *L.shape[-2:]))[0].permute(1, 2, 0).cpu().numpy()
        stills.append((info.seconds_of(frame.pts), Image.fromarray(grey), small))
    if not stills:
        raise FilmError(f"{path} has no frames in this part: set another --from or --to")
    return _sheet(stills)


def _stills(info: FilmInfo, count: int, span: Span) -> Iterator[Frame]:
    if info.seconds is None:
        raise FilmError(f"{info.path} does not state its duration: give --to")
    end = min(span.end or info.seconds, info.seconds)
    for i in range(count):
        second = span.start + (end - span.start) * (i + 0.5) / count
        frame = next(FilmReader(info, Span(second)).frames(), None)
        if frame is not None:
            yield frame


def _upright(rgb: np.ndarray, info: FilmInfo) -> Image.Image:
    """A small frame as a player shows it: square pixels, turned by the display matrix."""
    aspect = float(info.pixel_aspect or 1)
    image = Image.fromarray(rgb)
    shown = image.resize((_WIDTH, max(1, round(_WIDTH * image.height / (image.width * aspect)))), reducing_gap=3.0)
    if info.display_matrix:
        turn = round(math.degrees(math.atan2(info.display_matrix[1], info.display_matrix[0])))
        shown = shown.rotate(-turn, expand=True)
    return shown


def _sheet(stills: list[tuple[float, Image.Image, Image.Image]]) -> Image.Image:
    """stills: time in seconds, the frame in grey, the frame in color."""
    width, height = stills[0][2].size
    columns = min(_COLUMNS, len(stills))
    pitch = _HEADER + 2 * (height + _GAP)
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, pitch * math.ceil(len(stills) / columns)), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    close = stills[-1][0] - stills[0][0] < 2 * len(stills)  # clock times would be repeated
    for i, (time, grey, colored) in enumerate(stills):
        title = f"{clock(int(time))}.{int(time % 1 * 10)}" if close else clock(time)
        x, y = _GAP + i % columns * (width + _GAP), i // columns * pitch
        draw.text((x + width / 2, y + _HEADER / 2), title, _INK, font, anchor="mm")
        sheet.paste(grey.resize((width, height)), (x, y + _HEADER))
        sheet.paste(colored, (x, y + _HEADER + height + _GAP))
    return sheet
