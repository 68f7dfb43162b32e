"""Side-by-side sheets: grey | models... | original."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from common.color.gamut import ab_to_rgb8
from common.colorizer import Batch
from common.data.packing import Pack
from common.evaluation.evaluate import Predict, trivial_predictor
from common.utils.errors import UserError

_GAP, _HEADER, _INK, _PAPER = 6, 30, (32, 32, 32), (255, 255, 255)


@torch.no_grad()
def render(
    predict: Predict, pack: Pack, indices: Sequence[int], *, name: str = "a row", side: int | None = None,
    batch_size: int = 32, device: str | torch.device = "cpu",
) -> np.ndarray:  # fmt: skip
    """Colorize photographs of a pack to sRGB: uint8 [n, S, S, 3], reduced to `side` if they are larger (None: never).

    Chroma is reduced at constant lightness to fit into sRGB; pictures are rounded to 8 bits, reduced ones twice.
    Originals must be processed the same way (as the row `original`), so that they differ from colorizations in color
    alone. Raises UserError, with the name of the row, for a prediction that is not finite.
    """
    out = []
    for part in np.split(np.asarray(indices), range(batch_size, len(indices), batch_size)):
        batch = Batch(*(x.to(device) for x in pack.lab(part)))
        ab = predict(batch, part).float()
        if not ab.isfinite().all():
            raise UserError(f"{name} predicts colors that are not finite: its training diverged, or it overflows")
        rgb = ab_to_rgb8(batch.L, ab)
        if side and pack.size > side:
            small = F.interpolate(rgb.float(), size=(side, side), mode="bilinear", antialias=True, align_corners=False)
            rgb = small.round().clamp(0, 255).to(torch.uint8)
        out.append(rgb.permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(out)


def color_columns(
    predictors: dict[str, Predict], pack: Pack, indices: Sequence[int], device: str | torch.device = "cpu"
) -> dict[str, np.ndarray]:
    """Colorize photographs of a pack: column title -> uint8 [N, S, S, 3], from `grey` to `original`.

    Raises UserError for a prediction that is not finite.
    """
    rows = {"grey": trivial_predictor("grey", pack)} | predictors
    columns = {name: render(predict, pack, indices, name=name, device=device) for name, predict in rows.items()}
    return columns | {"original": np.asarray(pack.images[np.asarray(indices)])}


def spread_indices(pack: Pack, count: int) -> list[int]:
    """Indices of at most `count` color photographs, spread evenly, because shards and folders are often sorted."""
    indices = pack.color_indices if len(pack.color_indices) else pack.indices
    return [int(indices[i]) for i in np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)]


def sheet(sections: dict[str, dict[str, np.ndarray]], tile: int | None = None) -> np.ndarray:
    """Draw the sections of a sheet below each other, each under its heading, unless that is empty.

    sections: heading -> column title -> uint8 [N, S, S, 3]; all have the same columns. tile: side of a picture on the
    sheet, in pixels (default: the multiple of S nearest to 160). Returns uint8 [H, W, 3].
    """
    first = next(iter(sections.values()))
    size = next(iter(first.values())).shape[1]
    tile = tile or size * max(1, round(160 / size))
    font = ImageFont.load_default(size=max(12, min(17, tile // 8)))
    pitch = tile + _GAP
    height = sum(
        _HEADER * (2 if heading else 1) + pitch * len(next(iter(c.values()))) for heading, c in sections.items()
    )
    image = Image.new("RGB", (pitch * len(first) + _GAP, height + _GAP), _PAPER)
    draw = ImageDraw.Draw(image)
    y = 0
    for heading, columns in sections.items():
        if heading:
            draw.text((_GAP, y + _HEADER / 2), heading, _INK, font, anchor="lm")
            y += _HEADER
        for i, (title, pictures) in enumerate(columns.items()):
            x = _GAP + i * pitch
            draw.text((x + tile / 2, y + _HEADER / 2), _shorten(title, tile, font), _INK, font, anchor="mm")
            for j, picture in enumerate(pictures):
                shown = Image.fromarray(picture).resize((tile, tile), Image.Resampling.BICUBIC)
                image.paste(shown, (x, y + _HEADER + j * pitch))
        y += _HEADER + pitch * len(next(iter(columns.values())))
    return np.asarray(image)


def _shorten(title: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    if font.getlength(title) <= width:
        return title
    while title and font.getlength(title + "…") > width:
        title = title[:-1]
    return title + "…"
