"""`judge`: can a small network, trained to, tell originals from a model's colorizations of other photographs?

A classifier two-sample test (Lopez-Paz and Oquab 2017) with the model's own photographs: its accuracy on photographs
that it has not seen; 1/2 is indistinguishable, to this network.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from common.augment import AugmentConfig
from common.comparison.small_classifier import (
    Recipe, Report, SmallResNet, augmented, build_network, fit, logits_of, shown,
)  # fmt: skip
from common.data import derived_seed
from common.errors import UserError
from common.evaluation import Predict
from common.packing import Pack

# cell: a judge that is shown ab in full looks at how sharp it is, which eyes hardly do. At 64 px it told originals whose
# true ab was blurred by a Gaussian of sigma 1 pixel in 95 of 100 pictures.
RECIPE = Recipe(width=16, blocks=(1, 1, 1, 1), steps=240, cell=4)
FEWEST = 8  # colour photographs: under that, a half has none to be held out
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

    Judges are trained by cross-fitting: the colour photographs are cut into two halves by a hash of their files, and
    each half is judged by a network that was trained on the other one (with `teaching`: both by one network that was
    trained there). All rows get the same network, first weights, batches and crops; a batch holds both pictures of a
    photograph, cut alike, so that lightness tells nothing.

    rows: of the pack, those measured (default: all). Returns row -> float64 [n] of 0, 0.5, 1, and NaN for grey
    photographs, which are left out. Memory: two 12 kB pictures a photograph. Raises UserError where there are fewer
    than FEWEST colour photographs.
    """
    device = torch.device(device)
    rows = np.arange(len(pack)) if rows is None else np.asarray(rows)
    judged = np.flatnonzero(~pack.grey[rows])
    taught = teaching.pack.without(pack).colour_rows if teaching else rows[judged]
    source = teaching.pack if teaching else pack
    if min(len(judged), len(taught)) < FEWEST or len({source.digests[i] for i in taught}) < 4:
        raise UserError(
            f"judge needs {FEWEST} colour photographs or more to train and to test on, and"
            f" {source.manifest['source']} has {min(len(judged), len(taught))}: measure more, or leave the metric out"
        )
    half = halves([pack.digests[i] for i in rows[judged]], seed)
    rounds = [(None, slice(None))] if teaching else [(~half, half), (half, ~half)]
    originals = shown(_true, pack, rows[judged], batch_size, device)
    taught_originals = shown(_true, source, taught, batch_size, device) if teaching else originals
    out, total = {}, len(predictors) * len(rounds) * recipe.steps
    for count, (row, predict) in enumerate(predictors.items()):
        fakes = shown(predict, pack, rows[judged], batch_size, device)
        values = np.full(len(rows), np.nan)
        for turn, (train, test) in enumerate(rounds):
            if teaching:
                pairs = taught_originals, shown(teaching.predictors[row], source, taught, batch_size, device)
                digests = [source.digests[i] for i in taught]
            else:
                pairs = originals[train], fakes[train]
                digests = [pack.digests[i] for i in rows[judged[train]]]
            done = (count * len(rounds) + turn) * recipe.steps
            report = progress and (lambda step, _, done=done: progress(done + step, total))
            judge = train_judge(pairs, digests, recipe, device, derived_seed(seed, turn), report)
            values[judged[test]] = judged_rightly(judge, (originals[test], fakes[test]), device)
        out[row] = values
    return out


def _true(batch, rows):  # noqa: ANN001, ANN202
    return batch.ab


def halves(digests: list[str], seed: int) -> np.ndarray:
    """bool [n]: two parts of the same size, up to one photograph; squares of one photograph stay together."""
    return parts(digests, 0.5, seed)


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

    def batch_of(step: int) -> tuple[torch.Tensor, torch.Tensor]:
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
