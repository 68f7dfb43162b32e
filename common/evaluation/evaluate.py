"""Measuring colorizers: the same photographs, the same metrics, with confidence intervals and a protocol.

An evaluator knows only a predict function. Photographs are processed in batches; one number per image and metric (one
vector, for distances between sets) stays in memory. Several processes can divide the batches. If a cache folder is
given, values are read from it and added to it, so that an interrupted run resumes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.checkpoint import weights_digest
from common.colorizer import Batch, Colorizer, predict_ab
from common.data.color_prior import Prior
from common.data.degradations import damage, index_noise
from common.data.packing import Pack
from common.evaluation.bootstrap import RESAMPLES, Cell, summarize
from common.evaluation.cache import ImageValues, ValueCache, code_digest, digest, file_digest, library_versions
from common.evaluation.feature_networks import DEFAULT_FEATURES
from common.evaluation.metrics import Metric, pick_metrics
from common.evaluation.photograph_groups import count_groups, group_numbers
from common.evaluation.pictures import Pictures, predicted_pictures
from common.evaluation.rarity import PixelRarity, measured_prior, rarity
from common.predictor import predict_photographs
from common.utils.distributed import ALONE, Processes
from common.utils.errors import UserError

# (batch, index of each photograph in the pack) -> ab [N, 2, H, W], CIELAB units. The attribute `key`, if it has one, is
# a function without arguments that returns the cache key: predictors with equal keys predict the same. The values of
# a predictor without a key are not cached.
Predict = Callable[[Batch, np.ndarray], Tensor]

TRIVIAL = ("grey", "mean", "shuffled", "original")


@dataclass
class Evaluation:
    """What was measured.

    Attributes:
        table: [row][metric].
        values: [row][metric], float64 [n] or [n, D], of each photograph.
        protocol: how it was measured, JSON-able.
        references: [metric]: the references of the photographs, [n] or [n, D]; see `Metric`.
        groups: the group of each photograph, int [n] (`common.evaluation.photograph_groups`).
        damage: [row][kind][metric], if damage was measured.
        failures: one sentence for each metric that could not be measured.
    """

    table: dict[str, dict[str, Cell]]
    values: dict[str, dict[str, np.ndarray]]
    protocol: dict
    references: dict[str, np.ndarray] = field(default_factory=dict)
    groups: np.ndarray | None = None
    damage: dict[str, dict[str, dict[str, Cell]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """{row: {metric: cell}, "protocol": {...}}, and "damage" if it was measured."""
        more = {"damage": self.damage} if self.damage else {}
        return json.dumps(self.table | more | {"protocol": self.protocol}, indent=1)


def keyed(predict: Predict, key: Callable[[], str]) -> Predict:
    """The predictor, with its cache key: see `Predict`."""
    predict.key = key
    return predict


def model_predictor(colorizer: Colorizer, temperature: float | None = None, size: int | None = None) -> Predict:
    """Predict with a colorizer as `colorize` does, in the precision of its weights.

    temperature: of a colorizer that predicts distributions (default: its own). size: side of the square that the
    network sees (default: its training size, which its card names; without a card, the size of the batch, and nothing
    is upsampled). The colorizer is not changed.
    """
    size = (colorizer.card or {}).get("size") if size is None else size

    def predict(batch: Batch, indices: np.ndarray) -> Tensor:
        with _at_temperature(colorizer, temperature):
            return predict_photographs(colorizer, batch.L, size) if size else predict_ab(colorizer, batch.L)

    return keyed(predict, functools.cache(lambda: digest(_colorizer_key(colorizer, temperature), size)))


@contextmanager
def _at_temperature(colorizer: Colorizer, temperature: float | None) -> Iterator[None]:
    """Set the temperature, and restore it at the end, of the colorizer and of those that it consists of."""
    if temperature is None:
        yield
        return
    parts = [part for part in colorizer.modules() if isinstance(part, Colorizer) and part.temperature is not None]
    before = [part.temperature for part in parts]
    colorizer.temperature = temperature
    try:
        yield
    finally:
        for part, own in zip(parts, before, strict=True):  # the members of an ensemble come after it
            part.temperature = own


def _colorizer_key(colorizer: Colorizer, temperature: float | None) -> str:
    """A digest of a colorizer's tensors, its options, and the code of all families that it consists of."""
    parts = [part for part in colorizer.modules() if isinstance(part, Colorizer)]
    with _at_temperature(colorizer, temperature):
        temperatures = [part.temperature for part in parts]
    types = [kind for part in parts for kind in type(part).__mro__ if issubclass(kind, Colorizer)]
    return digest(
        weights_digest(colorizer), temperatures, (colorizer.card or {}).get("model"),
        [f"{kind.__module__}.{kind.__qualname__}" for kind in types], code_digest(*types),
    )  # fmt: skip


def damaged(predict: Predict, kind: str, seed: int = 0) -> Predict:
    """A predictor that is given photographs with a kind of damage (`common.data.degradations`).

    The true colors are unchanged. The damage of a photograph depends on (seed, its index) alone, so it is the same for
    all predictors.
    """

    def predict_damaged(batch: Batch, indices: np.ndarray) -> Tensor:
        seen = damage(batch.L, batch.ab, kind, index_noise(indices, seed).to(batch.L.device))
        return predict(batch._replace(L=seen), indices)

    key = getattr(predict, "key", None)
    return keyed(predict_damaged, lambda: digest(key(), kind, seed, code_digest(damage))) if key else predict_damaged


def trivial_predictor(name: str, pack: Pack, mean_ab: Iterable[float] | None = None, seed: int = 0) -> Predict:
    """A predictor of a row that every table shows.

    `grey`: ab = 0. `mean`: one color everywhere, `mean_ab` (of the training set), else the mean of the pack.
    `shuffled`: the ab of another photograph, by one random cycle through the pack. `original`: the truth. Raises
    UserError for another name, and for `shuffled` if the pack has one photograph.
    """
    if name == "grey":
        return keyed(lambda batch, indices: torch.zeros_like(batch.ab), lambda: name)
    if name == "mean":
        color = torch.tensor(list(mean_ab or pack.manifest["mean_ab_with_grey"]), dtype=torch.float32).view(1, 2, 1, 1)
        return keyed(
            lambda batch, indices: color.to(batch.ab.device).expand_as(batch.ab), lambda: digest(name, color.tolist())
        )
    if name == "shuffled":
        if len(pack) < 2:
            raise UserError("the row 'shuffled' needs two photographs or more: leave it out")
        cycle = np.random.default_rng(seed).permutation(len(pack))
        following = np.empty_like(cycle)
        following[cycle] = np.roll(cycle, -1)  # no photograph gets its own colors
        return keyed(
            lambda batch, indices: pack.lab(following[indices])[1].to(batch.ab.device), lambda: digest(name, seed)
        )
    if name == "original":
        return keyed(lambda batch, indices: batch.ab, lambda: name)
    raise UserError(f"'{name}' is not a reference row: expected one of {', '.join(TRIVIAL)}")


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
    group: str | None = None,
    features: str = DEFAULT_FEATURES,
    cache: Path | None = None,
    processes: Processes = ALONE,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure predictors on the photographs of a pack, grey ones included.

    metrics: names in METRICS (default: those that are cheap and need no network). limit: number of photographs, spread
    evenly over the pack. prior: weights the pixels of `auc_rebalanced` (default: that of the pack's own color
    photographs). group: regular expression that names the group of a photograph, for intervals (see `group_numbers`;
    default: squares of one photograph are a group). features: network of `fid_paired` and `fid_disjoint`. cache: folder
    of values; a value is read from it if predictor, photographs, metric, code and library versions are the same.
    processes: divide the batches; all get the whole result.

    Returns means over images with 95 % bootstrap intervals. A metric that cannot be measured on this machine has no
    numbers, and a note in the protocol. Raises UserError for an unknown metric, for a prediction of the wrong shape or
    with values that are not finite, for a photograph without a group, and for a cache folder that cannot be used.
    """
    chosen = pick_metrics(metrics, features)
    notes = {name: note for name, metric in chosen.items() if metric.missing and (note := metric.missing())}
    measurable = {name: metric for name, metric in chosen.items() if name not in notes}
    indices = measured_indices(pack, limit)
    photographs = pack.photographs
    groups = group_numbers([photographs[i] for i in indices], group)
    weigh = None
    if any(metric.reference is rarity for metric in measurable.values()):
        prior = prior or measured_prior(pack, cache)
        weigh = PixelRarity(prior).to(device)
    columns = {name: _column(name, metric, prior) if cache else name for name, metric in measurable.items()}
    references = {m.reference: _column("", m, prior) if cache else name for name, m in measurable.items()}
    base = [pack.manifest["content"], pack.size, torch.device(device).type, library_versions()]
    starts = range(0, len(indices), batch_size)
    positions = [np.arange(start, min(start + batch_size, len(indices))) for start in starts]
    mine = positions[processes.rank :: processes.count]

    with ValueCache(cache) if cache else nullcontext() as database:

        def values_of(names: Iterable[str], key: str | None) -> ImageValues:
            return ImageValues(indices, names, database if key else None, digest(base, key))

        keys = {row: predict.key() for row, predict in predictors.items() if cache and hasattr(predict, "key")}
        found = {row: values_of(columns.values(), keys.get(row)) for row in predictors}
        truth = values_of(references.values(), "truth")

        def measure(here: np.ndarray) -> None:
            missing = {row: found[row].missing(here) for row in predictors}
            missing_truth = truth.missing(here)
            if not missing_truth and not any(missing.values()):
                return
            batch = Batch(*(x.to(device) for x in pack.lab(indices[here])))
            rgb = torch.from_numpy(pack.images[indices[here]]).permute(0, 3, 1, 2).to(device)
            true = Pictures(batch.ab, rgb, weigh(batch.ab) if weigh else None, batch.L)
            truth.add(here, {name: _numpy(of(true)) for of, name in references.items() if name in missing_truth})
            for row, predict in predictors.items():
                if missing[row]:
                    predicted = predicted_pictures(batch.L, _checked(row, predict(batch, indices[here]), batch.ab))
                    needed = {columns[n]: m.per_image for n, m in measurable.items() if columns[n] in missing[row]}
                    computed = {each: _numpy(each(predicted, true)) for each in set(needed.values())}
                    found[row].add(here, {name: computed[each] for name, each in needed.items()})

        def measure_mine() -> None:
            for i, here in enumerate(mine):
                measure(here)
                if progress:
                    progress(i + 1, len(mine))

        processes.agree(measure_mine)
    _gather(processes, [truth, *found.values()], positions)
    unknown = np.full(len(indices), np.nan)
    values = {row: {m: found[row][columns[m]] if m in columns else unknown for m in chosen} for row in predictors}
    reference = {m: truth[references[chosen[m].reference]] if m in columns else unknown for m in chosen}
    table = {
        row: {m: _finite(summarize(chosen[m], v, reference[m], intervals, groups)) for m, v in of_row.items()}
        for row, of_row in values.items()
    }
    protocol = protocol_card(pack, chosen, indices, seed, groups, group)
    protocol |= ({"prior": prior.describe()} if weigh else {}) | ({"notes": notes} if notes else {})
    return Evaluation(table, values, protocol, reference, groups)


def _checked(row: str, ab: Tensor, true_ab: Tensor) -> Tensor:
    if ab.shape != true_ab.shape:
        raise UserError(f"{row} predicts ab of shape {list(ab.shape)}: it must be {list(true_ab.shape)}")
    if not ab.isfinite().all():
        raise UserError(f"{row} predicts colors that are not finite: its training diverged, or it overflows")
    return ab.float()


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _finite(cell: Cell) -> Cell:
    """An empty cell for a number that is not finite, such as a distance of no photographs."""
    return cell if cell["mean"] is None or np.isfinite(cell["mean"]) else {"mean": None, "low": None, "high": None}


def _column(name: str, metric: Metric, prior: Prior | None) -> str:
    """What decides the values of a metric, or of its reference if the name is empty, as the name of a cache column."""
    weights = hashlib.sha256(prior.p.numpy().tobytes()).hexdigest()[:16] if metric.reference is rarity else ""
    weights += file_digest(*metric.files()) if metric.files else ""
    function = metric.per_image if name else metric.reference
    what = f"{name}|{metric.variant}" if name else f"{function.__module__}.{function.__qualname__}"
    return f"{what}|{weights}|{code_digest(function)}"


def _gather(processes: Processes, values: list[ImageValues], positions: list[np.ndarray]) -> None:
    """Exchange what each process has measured, so that all have everything."""
    if processes.count == 1:
        return
    shares = [
        np.concatenate([*positions[rank :: processes.count], np.empty(0, int)]).astype(int)
        for rank in range(processes.count)
    ]
    gathered = processes.gather([each.part(shares[processes.rank]) for each in values])
    for share, parts in zip(shares, gathered, strict=True):
        for each, part in zip(values, parts, strict=True):
            each.merge(share, part)


def measured_indices(pack: Pack, limit: int | None) -> np.ndarray:
    """Indices of the photographs that are measured: at most `limit`, spread evenly over those not held out. int [n]."""
    usable = pack.indices
    return usable[np.linspace(0, len(usable) - 1, min(len(usable), limit or len(usable))).round().astype(int)]


def protocol_card(
    pack: Pack, metrics: dict[str, Metric], indices: np.ndarray, seed: int, groups: np.ndarray, group: str | None = None
) -> dict:
    """What a reader must know to repeat a table.

    indices: of the measured photographs. groups: of these, int [n]. group: expression that names the groups.
    """
    m, photographs, count = pack.manifest, pack.photographs, count_groups(groups)
    over = "images" if count == len(indices) else f"{count} group{'s' if count > 1 else ''} of images"
    return {
        "source": m["source"],
        "split": m["split"],
        "count": len(indices),
        "of": m["count"],
        "photographs": len({photographs[i] for i in indices}),
        "groups": count,
        "group": group or "each photograph",
        "grey": int(pack.grey[indices].sum()),
        "content": m["content"],
        "size": m["size"],
        "crop": m["crop"],
        "left_out": len(m["left_out"]),
        "trained_on": len(pack) - len(pack.indices),
        "intervals": f"95 % percentile bootstrap over {over}, {RESAMPLES} resamples, seed 0",
        "prediction": "at each model's own training size or --predict_size, upsampled along the edges of L",
        "gamut": "the chroma of predictions outside of sRGB is reduced at constant L and hue",
        "metrics": {name: metric.variant for name, metric in metrics.items()},
        "seed": seed,
        "versions": {p: version(p) for p in ("torch", "numpy", "scikit-image", "pillow")}
        | {"python": platform.python_version()},
    }  # fmt: skip
