"""Which colors a model paints: counts over the ab plane, and predicted against true chroma. Streamed."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from common.color.ab_bins import in_gamut_bins
from common.colorizer import Batch
from common.data.packing import Pack
from common.evaluation.evaluate import Predict, measured_indices

CELL = 2  # side of a cell, ab units
AB_REACH, CHROMA_REACH = 110, 120
PHOTOGRAPHS = 256  # at most, spread evenly: a million pixels at 64 px


@dataclass
class Colors:
    """Counts of pixels over the photographs that were looked at."""

    photographs: int
    plane: dict[str, np.ndarray] = field(default_factory=dict)  # [row] int64 [b, a], both from -AB_REACH up
    chroma: dict[str, np.ndarray] = field(default_factory=dict)  # [row] int64 [true, predicted], both from 0 up

    def correlation(self, row: str) -> float | None:
        """Pearson's r of predicted and true chroma over the pixels, at the middles of cells; None without spread."""
        weights = self.chroma[row] / max(1, self.chroma[row].sum())
        middles = (np.arange(len(weights)) + 0.5) * CELL
        true, predicted = weights.sum(axis=1), weights.sum(axis=0)
        means = true @ middles, predicted @ middles
        spreads = [float(w @ (middles - m) ** 2) for w, m in zip((true, predicted), means, strict=True)]
        if min(spreads) <= 1e-9:
            return None
        return float((middles - means[0]) @ weights @ (middles - means[1]) / np.sqrt(np.prod(spreads)))


@torch.no_grad()
def count_colors(
    predictors: dict[str, Predict], pack: Pack, device: str | torch.device = "cpu", batch_size: int = 32
) -> Colors:
    """Count the colors of predictors, before they are brought into sRGB, and those of the originals (`original`).

    Of a large pack, PHOTOGRAPHS of its photographs, spread evenly; memory does not grow with their number.
    """
    chosen = measured_indices(pack, PHOTOGRAPHS)
    out = Colors(len(chosen))
    for start in range(0, len(chosen), batch_size):
        rows = chosen[start : start + batch_size]
        batch = Batch(*(x.to(device) for x in pack.lab(rows)))
        true = batch.ab.norm(dim=1)
        for title, ab in _all(predictors, batch, rows):
            _add(out.plane, title, ab[:, 1] + AB_REACH, ab[:, 0] + AB_REACH, 2 * AB_REACH)
            if title != "original":
                _add(out.chroma, title, true, ab.norm(dim=1), CHROMA_REACH)
    return out


def _all(predictors: dict[str, Predict], batch: Batch, rows: np.ndarray) -> list[tuple[str, Tensor]]:
    return [("original", batch.ab), *((title, predict(batch, rows).float()) for title, predict in predictors.items())]


def _add(counts: dict[str, np.ndarray], title: str, rows: Tensor, columns: Tensor, reach: int) -> None:
    side = reach // CELL
    at = [(x / CELL).long().clamp_(0, side - 1).flatten() for x in (rows, columns)]
    found = torch.bincount(at[0] * side + at[1], minlength=side * side).reshape(side, side).cpu().numpy()
    counts[title] = counts[title] + found if title in counts else found


@lru_cache(maxsize=1)
def gamut_outline() -> list[np.ndarray]:
    """The border of the colors that sRGB can show, over all lightnesses: closed lines, float [n, 2] of (a, b)."""
    from skimage.measure import find_contours

    grid = 4
    side = 2 * (AB_REACH // grid) + 3
    inside = np.zeros((side, side))
    at = (in_gamut_bins(grid).numpy() / grid).round().astype(int) + side // 2
    inside[at[:, 0], at[:, 1]] = 1
    return [(line - side // 2) * grid for line in find_contours(inside, 0.5)]
