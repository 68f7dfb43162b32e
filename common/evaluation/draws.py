"""Several samples of one photograph, and how much they differ, for models whose prediction depends on noise.

A layer that draws random numbers in eval mode has an attribute `noise_seed`; for one seed, it always draws the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations

import numpy as np
import torch
from torch import nn

from common.colorizer import Batch, Colorizer
from common.data.packing import Pack
from common.evaluation.bootstrap import Cell, summarize
from common.evaluation.evaluate import Predict, measured_indices, trivial_predictor
from common.evaluation.metrics import METRICS
from common.evaluation.pictures import predicted_pictures
from common.evaluation.sheets import render, spread_indices


@contextmanager
def drawn(colorizer: Colorizer, seed: int) -> Iterator[None]:
    """Set the seed of all layers of a colorizer that draw random numbers, and restore it at the end."""
    layers: list[nn.Module] = [layer for layer in colorizer.modules() if hasattr(layer, "noise_seed")]
    before = [layer.noise_seed for layer in layers]
    for layer in layers:
        layer.noise_seed = seed
    try:
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            layer.noise_seed = own


def sample(predict: Predict, colorizer: Colorizer, seed: int) -> Predict:
    """The predictor of a colorizer with another seed of its noise."""

    def predict_sample(batch: Batch, indices: np.ndarray) -> torch.Tensor:
        with drawn(colorizer, seed):
            return predict(batch, indices)

    return predict_sample


@torch.no_grad()
def difference_of_draws(
    predict: Predict, colorizer: Colorizer, pack: Pack, count: int, *, limit: int | None = None, batch_size: int = 32,
    device: str | torch.device = "cpu", groups: np.ndarray | None = None,
) -> Cell:  # fmt: skip
    """Mean `rmse_ab` between two samples of one photograph, with its 95 % interval, in CIELAB units.

    The mean is over all pairs of `count` samples (2 or more), with seeds from 0, and over photographs. It is 0 for a
    model without noise. limit: as in `evaluate`. groups: as in `summarize`.
    """
    indices, values = measured_indices(pack, limit), []
    for part in np.split(indices, range(batch_size, len(indices), batch_size)):
        batch = Batch(*(x.to(device) for x in pack.lab(part)))
        samples = [predicted_pictures(batch.L, sample(predict, colorizer, seed)(batch, part)) for seed in range(count)]
        pairs = [METRICS["rmse_ab"].per_image(one, other) for one, other in combinations(samples, 2)]
        values.append(torch.stack(pairs).mean(dim=0).cpu().numpy())
    joined = np.concatenate(values)
    return summarize(METRICS["rmse_ab"], joined, np.zeros_like(joined), groups=groups)


def draws_columns(
    predict: Predict, colorizer: Colorizer, pack: Pack, count: int, photos: int = 8, device: str | torch.device = "cpu"
) -> dict[str, np.ndarray]:
    """Columns of a sheet: grey, the samples, and the original, each uint8 [photos, S, S, 3]."""
    indices = spread_indices(pack, photos)
    columns = {"grey": trivial_predictor("grey", pack)}
    columns |= {f"sample {seed + 1}": sample(predict, colorizer, seed) for seed in range(count)}
    pictures = {name: render(each, pack, indices, name=name, device=device) for name, each in columns.items()}
    return pictures | {"original": np.asarray(pack.images[np.asarray(indices)])}
