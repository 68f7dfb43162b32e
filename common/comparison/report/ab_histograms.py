"""Histograms of predicted colors over the ab plane, and of predicted against true chroma."""

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

CELL = 2  # side of a cell in ab units
AB_REACH, CHROMA_REACH = 110, 120
PHOTOGRAPHS = 256  # largest number of photographs, about a million pixels at 64 px


@dataclass
class Colors:
    """Counts of pixels over a number of photographs."""

    photographs: int
    plane: dict[str, np.ndarray] = field(default_factory=dict)  # [row] int64 [b, a], both from -AB_REACH
    chroma: dict[str, np.ndarray] = field(default_factory=dict)  # [row] int64 [true, predicted], both from 0

    def correlation(self, row: str) -> float | None:
        """Pearson's r of predicted and true chroma over the pixels, from cell centers; None if one is constant."""
        weights = self.chroma[row] / max(1, self.chroma[row].sum())
        centers = (np.arange(len(weights)) + 0.5) * CELL
        true, predicted = weights.sum(axis=1), weights.sum(axis=0)
        means = true @ centers, predicted @ centers
        variances = [float(w @ (centers - m) ** 2) for w, m in zip((true, predicted), means, strict=True)]
        if min(variances) <= 1e-9:
            return None
        return float((centers - means[0]) @ weights @ (centers - means[1]) / np.sqrt(np.prod(variances)))


@torch.no_grad()
def count_colors(
    predictors: dict[str, Predict], pack: Pack, device: str | torch.device = "cpu", batch_size: int = 32
) -> Colors:
    """Count the predicted colors, before gamut mapping, and those of the originals (row `original`).

    At most PHOTOGRAPHS photographs of the pack are used, spread evenly.
    """
    chosen = measured_indices(pack, PHOTOGRAPHS)
    out = Colors(len(chosen))
    for start in range(0, len(chosen), batch_size):
        indices = chosen[start : start + batch_size]
        batch = Batch(*(x.to(device) for x in pack.lab(indices)))
        true = batch.ab.norm(dim=1)
        predictions = {title: predict(batch, indices).float() for title, predict in predictors.items()}
        for title, ab in ({"original": batch.ab} | predictions).items():
            _add(out.plane, title, ab[:, 1] + AB_REACH, ab[:, 0] + AB_REACH, 2 * AB_REACH)
            if title != "original":
                _add(out.chroma, title, true, ab.norm(dim=1), CHROMA_REACH)
    return out


def _add(counts: dict[str, np.ndarray], title: str, rows: Tensor, columns: Tensor, reach: int) -> None:
    side = reach // CELL
    at = [(x / CELL).long().clamp_(0, side - 1).flatten() for x in (rows, columns)]
    found = torch.bincount(at[0] * side + at[1], minlength=side * side).reshape(side, side).cpu().numpy()
    counts[title] = counts.get(title, 0) + found


@lru_cache(maxsize=1)
def gamut_outline() -> list[np.ndarray]:
    """The boundary of sRGB in the ab plane, over all lightnesses: closed lines, float [n, 2] of (a, b)."""
    from skimage.measure import find_contours

    grid = 4
    side = 2 * (AB_REACH // grid) + 3
    inside = np.zeros((side, side))
    at = (in_gamut_bins(grid).numpy() / grid).round().astype(int) + side // 2
    inside[at[:, 0], at[:, 1]] = 1
    return [(line - side // 2) * grid for line in find_contours(inside, 0.5)]
