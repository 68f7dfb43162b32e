"""Measuring colorizers: the same photographs, the same metrics, intervals, and a card that says how.

An evaluator knows only a predict function. Photographs stream through in batches; what is kept is one number
per image and metric.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor

from common.ab_bins import ABBins
from common.ab_prior import Prior, compute_prior
from common.bootstrap import RESAMPLES, summarise
from common.colorizer import Batch, Colorizer, predict_ab
from common.damage import damage, row_noise
from common.errors import UserError, near
from common.metrics import METRICS, Metric, Pictures, predicted_pictures, rarity
from common.packing import Pack

Predict = Callable[[Batch, np.ndarray], Tensor]  # (batch, its rows in the pack) -> ab [N, 2, H, W]

TRIVIAL = ("grey", "mean", "shuffled", "original")
TRAINING_METRICS = (
    "rmse_ab",
    "mae_ab",
    "psnr",
    "auc",
    "colorfulness_ratio",
)  # cheap: for validation while training


@dataclass
class Evaluation:
    """The outcome: `table[row][metric]` = {"mean", "low", "high"}, per-image values, and the protocol card."""

    table: dict[str, dict[str, dict]]
    values: dict[str, dict[str, np.ndarray]]
    protocol: dict
    damage: dict[str, dict[str, dict[str, dict]]] = field(default_factory=dict)  # [row][kind][metric], where measured
    references: dict[str, np.ndarray] = field(default_factory=dict)  # by metric: the originals' values, per image

    def to_json(self) -> str:
        """The table with the protocol, and the damage, beside its rows: {row: {metric: {...}}, "protocol": {...}}."""
        more = {"damage": self.damage} if self.damage else {}
        return json.dumps(self.table | more | {"protocol": self.protocol}, indent=1)


def model_predictor(colorizer: Colorizer, temperature: float | None = None) -> Predict:
    """Predict with a colorizer, at the size of the batch, in the precision of its weights.

    temperature: of a colorizer that has one (default: its own).
    """

    def predict(batch: Batch, rows: np.ndarray) -> Tensor:
        if temperature is not None:
            colorizer.temperature = temperature
        return predict_ab(colorizer, batch.L)

    return predict


def damaged(predict: Predict, kind: str, seed: int = 0) -> Predict:
    """The same predictor, shown photographs with a kind of damage (`common.damage`). The truth stays what it was.

    How a photograph is damaged depends on (seed, its row) alone, so all predictors see the same.
    """

    def predict_damaged(batch: Batch, rows: np.ndarray) -> Tensor:
        seen = damage(batch.L, batch.ab, kind, row_noise(rows, seed).to(batch.L.device))
        return predict(batch._replace(L=seen), rows)

    return predict_damaged


def trivial_predictor(name: str, pack: Pack, mean_ab: Iterable[float] | None = None, seed: int = 0) -> Predict:
    """The rows every table needs.

    `grey`: ab = 0. `mean`: one colour everywhere, `mean_ab` (the training set's), else the mean of the pack
    itself. `shuffled`: another photograph's ab, by one random cycle through the pack. `original`: the truth.
    """
    if name == "grey":
        return lambda batch, rows: torch.zeros_like(batch.ab)
    if name == "mean":
        colour = torch.tensor(list(mean_ab or pack.manifest["mean_ab_with_grey"]), dtype=torch.float32).view(1, 2, 1, 1)
        return lambda batch, rows: colour.to(batch.ab.device).expand_as(batch.ab)
    if name == "shuffled":
        if len(pack) < 2:
            raise UserError("the row 'shuffled' needs two photographs or more: leave it out")
        cycle = np.random.default_rng(seed).permutation(len(pack))
        following = np.empty_like(cycle)
        following[cycle] = np.roll(cycle, -1)  # nobody follows himself
        return lambda batch, rows: pack.lab(following[rows])[1].to(batch.ab.device)
    if name == "original":
        return lambda batch, rows: batch.ab
    raise UserError(f"'{name}' is no trivial row: it takes one of {', '.join(TRIVIAL)}")


@torch.no_grad()
def evaluate(
    predictors: dict[str, Predict],
    pack: Pack,
    metrics: Iterable[str] | None = None,
    *,
    limit: int | None = None,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
    seed: int = 0,
    intervals: bool = True,
    prior: Prior | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure predictors on the pictures of a pack, grey ones included.

    metrics: names in METRICS (default: all). limit: so many rows, spread evenly over the pack. prior: by which
    `auc_rebalanced` weighs pixels (default: that of the pack's own colour photographs). Returns means over images with
    95 % bootstrap intervals. Raises UserError for an unknown metric, and for a prediction of the wrong
    shape or with values that are not finite.
    """
    chosen = pick_metrics(metrics)
    measured = np.linspace(0, len(pack) - 1, min(len(pack), limit or len(pack))).round().astype(int)
    weigh = None
    if any(metric.reference is rarity for metric in chosen.values()):
        everything_is_grey = not len(pack.colour_rows)
        prior = prior or compute_prior(pack, rows=np.arange(len(pack)) if everything_is_grey else None)
        weigh = PixelRarity(prior).to(device)
    values: dict[str, dict[str, list]] = {row: {m: [] for m in chosen} for row in predictors}
    references: dict[Callable, list[np.ndarray]] = {m.reference: [] for m in chosen.values()}
    for start in range(0, len(measured), batch_size):
        rows = measured[start : start + batch_size]
        batch = Batch(*(x.to(device) for x in pack.lab(rows)))
        rgb = torch.from_numpy(pack.images[rows]).permute(0, 3, 1, 2).to(device)
        true = Pictures(batch.ab, rgb, weigh(batch.ab) if weigh else None)
        for reference, found in references.items():
            found.append(reference(true).cpu().double().numpy())
        for row, predict in predictors.items():
            ab = predict(batch, rows).float()
            if ab.shape != batch.ab.shape:
                raise UserError(f"{row} predicts ab of shape {list(ab.shape)} where {list(batch.ab.shape)} belongs")
            if not ab.isfinite().all():
                raise UserError(f"{row} predicts colours that are not finite: its training diverged, or it overflows")
            predicted = predicted_pictures(batch.L, ab)
            done: dict[Callable, np.ndarray] = {}
            for name, metric in chosen.items():
                if metric.per_image not in done:
                    done[metric.per_image] = metric.per_image(predicted, true).cpu().double().numpy()
                values[row][name].append(done[metric.per_image])
        if progress:
            progress(start + len(rows), len(measured))
    joined = {row: {m: np.concatenate(v) for m, v in columns.items()} for row, columns in values.items()}
    true_values = {reference: np.concatenate(found) for reference, found in references.items()}
    table = {
        row: {m: summarise(chosen[m], v, true_values[chosen[m].reference], intervals) for m, v in columns.items()}
        for row, columns in joined.items()
    }
    protocol = protocol_card(pack, chosen, measured, seed) | ({"prior": prior.said()} if weigh else {})
    references = {m: true_values[metric.reference] for m, metric in chosen.items()}
    return Evaluation(table, joined, protocol, references=references)


class PixelRarity(torch.nn.Module):
    """1 / prior of the bin that each pixel's colour lies in; 0 where the prior has never seen it."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.bins = ABBins(prior.grid)
        self.register_buffer("weights", torch.where(prior.p > 0, 1 / prior.p, 0.0).float())

    def forward(self, ab: Tensor) -> Tensor:
        """ab [N, 2, H, W] in CIELAB units -> [N, H, W]."""
        return self.weights[self.bins.nearest(ab)]


def pick_metrics(names: Iterable[str] | None) -> dict[str, Metric]:
    """The named metrics, or all. Raises UserError for a name that is none."""
    for name in names or ():
        if name not in METRICS:
            raise UserError(f"'{name}' is no metric: it takes {', '.join(METRICS)}{near(name, METRICS)}")
    return {name: METRICS[name] for name in names or METRICS}


def protocol_card(pack: Pack, metrics: dict[str, Metric], rows: np.ndarray, seed: int) -> dict:
    """What a reader must know to repeat or to doubt a table."""
    m = pack.manifest
    tiled = m["photographs"] < m["count"]
    return {
        "source": m["source"],
        "split": m["split"],
        "count": len(rows),
        "of": m["count"],
        "photographs": len({pack.names[i].rpartition("#")[0] or pack.names[i] for i in rows}) if tiled else len(rows),
        "grey": int(pack.grey[rows].sum()),
        "content": m["content"],
        "size": m["size"],
        "crop": m["crop"],
        "left_out": len(m["left_out"]),
        "intervals": f"95 % percentile bootstrap over images, {RESAMPLES} resamples, seed 0",
        "gamut": "predictions clipped per channel, as scikit-image's lab2rgb does",
        "metrics": {name: metric.variant for name, metric in metrics.items()},
        "seed": seed,
        "versions": {p: version(p) for p in ("torch", "numpy", "scikit-image", "pillow")}
        | {"python": platform.python_version()},
    }  # fmt: skip
