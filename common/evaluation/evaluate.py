"""Measuring colorizers: the same photographs, the same metrics, intervals, and a card that says how.

An evaluator knows only a predict function. Photographs stream through in batches; what stays in memory is one number
per image and metric (one vector, for distances between sets). Several processes share the batches. Where a folder is
given, values are kept there, so that a run that was cut off goes on, and a second table costs next to nothing.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.color.ab_bins import ABBins
from common.colorizer import Batch, Colorizer, predict_ab
from common.data.color_prior import Prior, compute_prior, read_prior
from common.data.degradations import damage, index_noise
from common.data.packing import Pack
from common.evaluation.bootstrap import RESAMPLES, summarise
from common.evaluation.cache import Columns, code_digest, code_of, digest
from common.evaluation.feature_networks import DEFAULT_FEATURES
from common.evaluation.metrics import Metric, Pictures, pick_metrics, predicted_pictures, rarity
from common.utils.distributed import ALONE, Processes
from common.utils.errors import UserError, one_sentence
from common.utils.files import locked

# (batch, its rows in the pack) -> ab [N, 2, H, W]. Its attribute `key`, where it has one, is a function without
# arguments that gives a text: predictors with equal keys predict the same. Without one, values are not kept.
Predict = Callable[[Batch, np.ndarray], Tensor]

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
    references: dict[str, np.ndarray] = field(default_factory=dict)  # [metric]: what its values are held against
    damage: dict[str, dict[str, dict[str, dict]]] = field(default_factory=dict)  # [row][kind][metric], where measured

    def to_json(self) -> str:
        """The table with the protocol, and the damage, beside its rows: {row: {metric: {...}}, "protocol": {...}}."""
        more = {"damage": self.damage} if self.damage else {}
        return json.dumps(self.table | more | {"protocol": self.protocol}, indent=1)


def keyed(predict: Predict, key: Callable[[], str]) -> Predict:
    """The predictor, with what its values are kept under: see `Predict`."""
    predict.key = key
    return predict


def model_predictor(colorizer: Colorizer, temperature: float | None = None) -> Predict:
    """Predict with a colorizer, at the size of the batch, in the precision of its weights.

    temperature: of a colorizer that has one (default: its own).
    """

    def predict(batch: Batch, rows: np.ndarray) -> Tensor:
        if temperature is not None:
            colorizer.temperature = temperature
        return predict_ab(colorizer, batch.L)

    return keyed(predict, cache(lambda: digest(_content(colorizer), temperature or colorizer.temperature)))


def _content(colorizer: Colorizer) -> str:
    """A name for a colorizer's tensors and the code of its family."""
    content = hashlib.sha256(type(colorizer).__qualname__.encode())
    for name, tensor in colorizer.state_dict().items():
        content.update(name.encode() + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    source = getattr(sys.modules[type(colorizer).__module__], "__file__", None)
    content.update(code_digest(*sorted(Path(source).parent.glob("*.py"))).encode() if source else b"")
    content.update(json.dumps((colorizer.card or {}).get("model"), sort_keys=True, default=str).encode())
    return content.hexdigest()


def damaged(predict: Predict, kind: str, seed: int = 0) -> Predict:
    """The same predictor, shown photographs with a kind of damage (`common.data.degradations`). The truth is unchanged.

    How a photograph is damaged depends on (seed, its row) alone, so all predictors see the same.
    """

    def predict_damaged(batch: Batch, rows: np.ndarray) -> Tensor:
        seen = damage(batch.L, batch.ab, kind, index_noise(rows, seed).to(batch.L.device))
        return predict(batch._replace(L=seen), rows)

    key = getattr(predict, "key", None)
    return keyed(predict_damaged, lambda: digest(key(), kind, seed, code_of(damage))) if key else predict_damaged


def trivial_predictor(name: str, pack: Pack, mean_ab: Iterable[float] | None = None, seed: int = 0) -> Predict:
    """The rows every table needs.

    `grey`: ab = 0. `mean`: one color everywhere, `mean_ab` (the training set's), else the mean of the pack
    itself. `shuffled`: another photograph's ab, by one random cycle through the pack. `original`: the truth.
    """
    if name == "grey":
        return keyed(lambda batch, rows: torch.zeros_like(batch.ab), lambda: name)
    if name == "mean":
        color = torch.tensor(list(mean_ab or pack.manifest["mean_ab_with_grey"]), dtype=torch.float32).view(1, 2, 1, 1)
        return keyed(
            lambda batch, rows: color.to(batch.ab.device).expand_as(batch.ab), lambda: digest(name, color.tolist())
        )
    if name == "shuffled":
        if len(pack) < 2:
            raise UserError("the row 'shuffled' needs two photographs or more: leave it out")
        cycle = np.random.default_rng(seed).permutation(len(pack))
        following = np.empty_like(cycle)
        following[cycle] = np.roll(cycle, -1)  # nobody follows himself
        return keyed(lambda batch, rows: pack.lab(following[rows])[1].to(batch.ab.device), lambda: digest(name, seed))
    if name == "original":
        return keyed(lambda batch, rows: batch.ab, lambda: name)
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
    features: str = DEFAULT_FEATURES,
    keep: Path | None = None,
    processes: Processes = ALONE,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure predictors on the pictures of a pack, grey ones included.

    metrics: names in METRICS (default: those that are cheap and need nothing). limit: so many rows, spread evenly over
    the pack. prior: by which `auc_rebalanced` weighs pixels (default: that of the pack's own color photographs).
    features: the network of `fid_paired` and `fid_disjoint`. keep: a folder for values; a value that is there is not
    measured again, as long as the predictor's key, the pack, the metric and its code are the same. processes: those
    that share the work, each a part of the batches; all get the whole outcome.

    Returns means over images with 95 % bootstrap intervals. A metric that this machine lacks something for has no
    numbers, and a note in the protocol. Raises UserError for an unknown metric, and for a prediction of the wrong shape
    or with values that are not finite.
    """
    chosen = pick_metrics(metrics, features)
    notes = {name: note for name, metric in chosen.items() if metric.missing and (note := metric.missing())}
    there = {name: metric for name, metric in chosen.items() if name not in notes}
    measured = measured_indices(pack, limit)
    weigh = None
    if any(metric.reference is rarity for metric in there.values()):
        prior = prior or _prior_of(pack, keep)
        weigh = PixelRarity(prior).to(device)
    columns = {name: _column(name, metric, prior) if keep else name for name, metric in there.items()}
    references = {metric.reference: _column("", metric, prior) if keep else name for name, metric in there.items()}
    versions = [version(p) for p in ("torch", "numpy")]
    base = [pack.manifest["content"], pack.size, str(torch.device(device).type), versions]

    def file_of(key: str) -> Path | None:
        return keep / f"{digest(base, key)}.values" if keep else None

    keys = {row: predict.key() if keep and hasattr(predict, "key") else None for row, predict in predictors.items()}
    found = {row: Columns(measured, file_of(key) if key else None) for row, key in keys.items()}
    truth = Columns(measured, file_of("truth"))
    starts = range(0, len(measured), batch_size)
    positions = [np.arange(start, min(start + batch_size, len(measured))) for start in starts]
    mine = positions[processes.rank :: processes.count]

    def measure(here: np.ndarray) -> None:
        lacking = {row: found[row].lacking(list(columns.values()), here) for row in predictors}
        lacking_truth = truth.lacking(list(references.values()), here)
        if not lacking_truth and not any(lacking.values()):
            return
        rows = measured[here]
        batch = Batch(*(x.to(device) for x in pack.lab(rows)))
        rgb = torch.from_numpy(pack.images[rows]).permute(0, 3, 1, 2).to(device)
        true = Pictures(batch.ab, rgb, weigh(batch.ab) if weigh else None, batch.L)
        new = {reference: [name] for reference, name in references.items() if name in lacking_truth}
        truth.add(here, [(names, _numbers(reference(true))) for reference, names in new.items()])
        for row, predict in predictors.items():
            if not lacking[row]:
                continue
            ab = predict(batch, rows).float()
            if ab.shape != batch.ab.shape:
                raise UserError(f"{row} predicts ab of shape {list(ab.shape)} where {list(batch.ab.shape)} belongs")
            if not ab.isfinite().all():
                raise UserError(f"{row} predicts colors that are not finite: its training diverged, or it overflows")
            predicted = predicted_pictures(batch.L, ab)
            shared: dict[Callable, list[str]] = {}  # several columns rest on one function
            for name, metric in there.items():
                if columns[name] in lacking[row]:
                    shared.setdefault(metric.per_image, []).append(columns[name])
            found[row].add(here, [(names, _numbers(each(predicted, true))) for each, names in shared.items()])

    def measure_mine() -> None:
        for i, here in enumerate(mine):
            measure(here)
            if progress:
                progress(i + 1, len(mine))

    processes.agree(measure_mine)
    if processes.count > 1:
        _gather(processes, found, truth, list(columns.values()), list(references.values()), positions)
    nothing = np.full(len(measured), np.nan)
    values = {row: {m: found[row][columns[m]] if m in there else nothing for m in chosen} for row in predictors}
    against = {m: truth[references[chosen[m].reference]] if m in there else nothing for m in chosen}
    table = {
        row: {m: _finite(summarise(chosen[m], v, against[m], intervals)) for m, v in of_row.items()}
        for row, of_row in values.items()
    }
    protocol = protocol_card(pack, chosen, measured, seed) | ({"prior": prior.describe()} if weigh else {})
    return Evaluation(table, values, protocol | ({"notes": notes} if notes else {}), against)


def _numbers(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _finite(cell: dict) -> dict:
    """A set whose number cannot be told (a distance of no photographs) is one that was not measured."""
    return cell if cell["mean"] is None or np.isfinite(cell["mean"]) else {"mean": None, "low": None, "high": None}


def _column(name: str, metric: Metric, prior: Prior | None) -> str:
    """What decides the values of a metric (of its reference, where the name is empty), in one text."""
    weights = hashlib.sha256(prior.p.numpy().tobytes()).hexdigest()[:16] if metric.reference is rarity else ""
    if name:
        return f"{name}|{metric.variant}|{weights}|{code_of(metric.per_image)}"
    of = metric.reference
    return f"{of.__module__}.{of.__qualname__}|{weights}|{code_of(of)}"


def _gather(
    processes: Processes, found: dict[str, Columns], truth: Columns, names: list[str], references: list[str],
    positions: list[np.ndarray],
) -> None:  # fmt: skip
    """Bring what each process has measured into all of them."""
    shares = [np.concatenate([*positions[r :: processes.count], np.empty(0, int)]) for r in range(processes.count)]
    mine = shares[processes.rank].astype(int)
    parts = processes.gather((truth.part(references, mine), {row: c.part(names, mine) for row, c in found.items()}))
    for share, (of_truth, of_rows) in zip(shares, parts, strict=True):
        truth.merge(share.astype(int), of_truth)
        for row, part in of_rows.items():
            found[row].merge(share.astype(int), part)


def _prior_of(pack: Pack, keep: Path | None) -> Prior:
    """The prior of the pack's color photographs (of all, where all are grey), kept like values."""
    rows = pack.color_indices if len(pack.color_indices) else np.arange(len(pack))
    if not keep:
        return compute_prior(pack, indices=rows)
    path = keep / f"{digest(pack.manifest['content'], rows.tolist(), code_of(compute_prior))}.prior.json"
    with ExitStack() as held:
        try:
            keep.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(keep / ".prior.lock"))  # of several processes, the first counts
        except OSError as error:
            raise UserError(
                f"{keep} cannot be written ({one_sentence(error)}): choose another folder with --keep, or --no_keep"
            ) from None
        try:
            return replace(read_prior(path), source=pack.manifest["source"])
        except UserError:  # there is none yet, or it is damaged
            prior = compute_prior(pack, indices=rows)
            prior.save(path)
            return prior


def measured_indices(pack: Pack, limit: int | None) -> np.ndarray:
    """The rows that are measured: so many, spread evenly over the pack."""
    return np.linspace(0, len(pack) - 1, min(len(pack), limit or len(pack))).round().astype(int)


class PixelRarity(torch.nn.Module):
    """1 / prior of the bin that each pixel's color lies in; 0 where the prior has never seen it."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.bins = ABBins(prior.grid)
        self.register_buffer("weights", torch.where(prior.p > 0, 1 / prior.p, 0.0).float())

    def forward(self, ab: Tensor) -> Tensor:
        """ab [N, 2, H, W] in CIELAB units -> [N, H, W]."""
        return self.weights[self.bins.nearest(ab)]


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
