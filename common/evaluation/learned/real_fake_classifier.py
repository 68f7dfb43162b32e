"""`judge`: can a small network, trained to, tell originals from a model's colorizations of other photographs?

A classifier two-sample test (Lopez-Paz and Oquab 2017) with the model's own photographs: its accuracy on photographs
that it has not seen; 1/2 is indistinguishable, to this network.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.colorizer import Batch
from common.data.augment import AugmentConfig
from common.data.batches import derived_seed
from common.data.packing import Pack
from common.evaluation.evaluate import Predict
from common.evaluation.learned.small_classifier import (
    SIDE,
    Recipe,
    Report,
    SmallResNet,
    augmented,
    build_network,
    fit,
    logits_of,
    shown,
)
from common.utils.errors import UserError

# cell: a judge that is shown ab in full looks at how sharp it is, which eyes hardly do. At 64 px of imagenette160 it
# was right on 95 of 100 pictures where the fake was the original with ab blurred by a Gaussian of sigma 1 pixel; with
# ab in cells of 4 pixels, on 57.
RECIPE = Recipe(width=16, blocks=(1, 1, 1, 1), steps=240, cell=4)
FEWEST = 8  # color photographs, other squares of one not counted: under that, a half has too few to hold one out
MOST = 4000  # photographs of another source that judges are trained on
_HELD_OUT = 0.2  # of the training photographs, to pick the best network by
_ROOM = 8  # pixels that a crop may move by, of 64

Pairs = tuple[np.ndarray, np.ndarray]  # originals and their colorizations, uint8 [n, S, S, 3] each


class Teaching(NamedTuple):
    """Photographs of another source that judges are trained on, and the rows' predictors for them."""

    predictors: dict[str, Predict]
    pack: Pack


def judge_values(
    predictors: dict[str, Predict],
    pack: Pack,
    *,
    rows: np.ndarray | None = None,
    teaching: Teaching | None = None,
    recipe: Recipe = RECIPE,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
    seed: int = 0,
    progress: Report | None = None,
) -> dict[str, np.ndarray]:
    """Of each photograph, the share of its two pictures, original and colorization, that is judged rightly.

    Judges are trained by cross-fitting: the color photographs are cut into two halves by their files' digests, and
    each half is judged by a network that was trained on the other one (with `teaching`: both by one network that was
    trained there). All rows get the same network, first weights, batches and crops; a batch holds both pictures of a
    photograph, cut alike, so that lightness tells nothing.

    rows: of the pack, those measured (default: all). Returns row -> float64 [n] of 0, 0.5, 1, and NaN for grey
    photographs, which are left out. Memory: two pictures of 12 kB a photograph. Raises UserError where there are fewer
    than FEWEST color photographs.
    """
    device = torch.device(device)
    rows = np.arange(len(pack)) if rows is None else np.asarray(rows)
    check_photographs(pack, rows, teaching and teaching.pack)
    judged = np.flatnonzero(~pack.grey[rows])
    show = {"batch_size": batch_size, "device": device}
    originals = shown(_true, pack, rows[judged], **show)
    digests = [pack.digests[i] for i in rows[judged]]
    if teaching:
        taught = taught_rows(teaching.pack, pack)
        learned = shown(_true, teaching.pack, taught, **show), [teaching.pack.digests[i] for i in taught]
        rounds = [(None, slice(None))]
    else:
        half = parts(digests, 0.5, seed)
        rounds = [(np.flatnonzero(~half), half), (np.flatnonzero(half), ~half)]
    out: dict[str, np.ndarray] = {}
    for row, predict in predictors.items():
        fakes = shown(predict, pack, rows[judged], **show)
        values = np.full(len(rows), np.nan)
        for turn, (train, test) in enumerate(rounds):
            if train is None:
                pairs, files = (learned[0], shown(teaching.predictors[row], teaching.pack, taught, **show)), learned[1]
            else:
                pairs, files = (originals[train], fakes[train]), [digests[i] for i in train]
            report = progress and _part(progress, len(out) * len(rounds) + turn, len(predictors) * len(rounds))
            judge = train_judge(pairs, files, recipe, device, derived_seed(seed, turn), report)
            values[judged[test]] = judged_rightly(judge, (originals[test], fakes[test]), device)
        out[row] = values
    return out


def _part(progress: Report, index: int, count: int) -> Report:
    return lambda step, steps: progress(index * steps + step, count * steps)


def _true(batch: Batch, rows: np.ndarray) -> Tensor:
    return batch.ab


def taught_rows(source: Pack, pack: Pack) -> np.ndarray:
    """Rows of another source that judges are trained on: in color, not in the judged pack, at most MOST."""
    color = source.excluding(pack).color_indices
    return color[np.linspace(0, len(color) - 1, min(MOST, len(color))).round().astype(int)]


def check_photographs(pack: Pack, rows: np.ndarray, source: Pack | None) -> int:
    """How many photographs a judge is trained on, those held out to pick the best network among them.

    Raises UserError where there are fewer than FEWEST to train on or to judge.
    """
    judged = rows[~pack.grey[rows]]
    taught = taught_rows(source, pack) if source else judged
    files = min(len({p.digests[i] for i in r}) for p, r in ((pack, judged), (source or pack, taught)))
    if files < FEWEST:
        where = (source if source and len(judged) >= FEWEST else pack).manifest["source"]
        raise UserError(
            f"judge needs {FEWEST} color photographs or more, and {where} has {files}: give more, or leave the metric"
            " out"
        )
    return len(taught) if source else len(taught) // 2


def describe(recipe: Recipe = RECIPE) -> str:
    """The network, for the protocol card."""
    return (
        f"accuracy on original and colorization, 0.5 is indistinguishable; residual network of {sum(recipe.blocks)}"
        f" blocks, width {recipe.width}, on Lab at {SIDE} px at most, ab in cells of {recipe.cell} px, {recipe.steps}"
        f" steps of {recipe.batch_size} pictures"
    )


def parts(digests: list[str], share: float, seed: int) -> np.ndarray:
    """bool [n]: a random share of the photographs, at least one; squares of one photograph stay together."""
    different = sorted(set(digests))
    order = np.random.default_rng(seed).permutation(len(different))
    chosen = {different[i] for i in order[: max(1, round(share * len(different)))]}
    return np.array([d in chosen for d in digests], dtype=bool)


def train_judge(
    pairs: Pairs, digests: list[str], recipe: Recipe, device: torch.device, seed: int, report: Report | None = None
) -> SmallResNet:
    """A network trained to tell originals (class 1) from colorizations (class 0), tested inside on a fifth of them."""
    held_out = parts(digests, _HELD_OUT, seed)
    learned = np.flatnonzero(~held_out)
    originals, fakes = pairs
    size = originals.shape[1]
    network = build_network(2, recipe, seed, device)
    config, cut = AugmentConfig(), size - size * _ROOM // 64
    each = recipe.batch_size // 2
    labels = torch.tensor([1] * each + [0] * each, device=device)

    def batch_of(step: int) -> tuple[Tensor, Tensor]:
        draws = np.random.default_rng((seed, step))
        photos = draws.choice(learned, each, replace=len(learned) < each)
        noise = draws.random((each, 8), dtype=np.float32)
        pictures = np.concatenate([originals[photos], fakes[photos]])
        return augmented(pictures, np.concatenate([noise, noise]), cut, config, device), labels

    held = originals[held_out], fakes[held_out]

    def check() -> float:
        logits = [logits_of(network, x, device) for x in held]
        return float(sum(F.cross_entropy(x, torch.full((len(x),), y)) for x, y in zip(logits, (1, 0), strict=True)) / 2)

    fit(network, batch_of, recipe, device, check, report)
    return network


def judged_rightly(judge: SmallResNet, pairs: Pairs, device: torch.device) -> np.ndarray:
    """Share of each photograph's two pictures that is judged rightly: float64 [n] of 0, 0.5, 1.

    Two equal pictures get the same verdict, so one of them is right: exactly 0.5.
    """
    original, fake = (logits_of(judge, x, device) for x in pairs)
    right = (original[:, 1] > original[:, 0]).double() + (fake[:, 1] <= fake[:, 0]).double()
    return (right / 2).numpy()
