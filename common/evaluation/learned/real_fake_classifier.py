"""`real_fake_classifier`: accuracy of a small network trained to distinguish originals from a model's colorizations.

A classifier two-sample test (Lopez-Paz and Oquab 2017): the network is tested on photographs that it was not trained
on; an accuracy of 1/2 means that it cannot distinguish them.
"""

from __future__ import annotations

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
)
from common.evaluation.sheets import render
from common.utils.errors import UserError

# cell: at full resolution the network learns the sharpness of ab, to which people are hardly sensitive. With originals
# whose ab was blurred by a Gaussian of sigma 1 pixel as fakes (imagenette160 at 64 px), its accuracy was 0.95; with ab
# averaged over cells of 4 pixels, it was 0.57.
RECIPE = Recipe(width=16, blocks=(1, 1, 1, 1), steps=240, cell=4)
FEWEST = 8  # color photographs, squares of the same one counted once; a half of fewer cannot be split again
MOST = 4000  # training photographs from another source
_HELD_OUT = 0.2  # share of the training photographs that selects the best network
_MARGIN = 8  # random crops move by up to 8 of 64 pixels

Pairs = tuple[np.ndarray, np.ndarray]  # originals and their colorizations, uint8 [n, S, S, 3] each


def accuracy_values(
    predict: Predict,
    pack: Pack,
    *,
    indices: np.ndarray | None = None,
    training: tuple[Predict, Pack] | None = None,
    recipe: Recipe = RECIPE,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
    seed: int = 0,
    progress: Report | None = None,
) -> np.ndarray:
    """For each photograph, the share of its two pictures, original and colorization, that is classified correctly.

    Networks are trained by cross-fitting: the color photographs are split into halves by the digests of their files,
    and each half is classified by a network trained on the other half (with `training`: both by one network trained on
    that source). All models get the same initial weights, batches and crops. A batch contains both pictures of each of
    its photographs with the same crop, so that lightness carries no information.

    indices: of the measured photographs in the pack, int [n] (default: all). Returns float64 [n] of 0, 0.5 or 1,
    and NaN for grey photographs, which are excluded. Memory: two pictures of 12 kB per photograph. Raises UserError if
    there are fewer than FEWEST color photographs.
    """
    device = torch.device(device)
    indices = np.arange(len(pack)) if indices is None else np.asarray(indices)
    check_photographs(pack, indices, training and training[1])
    in_color = np.flatnonzero(~pack.grey[indices])  # positions among the measured photographs

    def pairs_of(predict: Predict, pack: Pack, chosen: np.ndarray) -> tuple[Pairs, list[str]]:
        pairs = [render(p, pack, chosen, side=SIDE, batch_size=batch_size, device=device) for p in (_true, predict)]
        return tuple(pairs), [pack.digests[i] for i in chosen]

    tested, digests = pairs_of(predict, pack, indices[in_color])
    if training:
        rounds = [(*pairs_of(*training, training_indices(training[1], pack)), slice(None))]
    else:
        half = random_share(digests, 0.5, seed)
        rounds = [(tuple(x[~test] for x in tested), [d for d, t in zip(digests, test, strict=True) if not t], test)
                  for test in (half, ~half)]  # fmt: skip
    values = np.full(len(indices), np.nan)
    for turn, (pairs, files, test) in enumerate(rounds):
        report = progress and (lambda step, steps, turn=turn: progress(turn * steps + step, len(rounds) * steps))
        network = train_classifier(pairs, files, recipe, device, derived_seed(seed, turn), report)
        values[in_color[test]] = correct_share(network, tuple(x[test] for x in tested), device)
    return values


def _true(batch: Batch, indices: np.ndarray) -> Tensor:
    return batch.ab


def training_indices(source: Pack, pack: Pack) -> np.ndarray:
    """Indices of another source's training photographs: at most MOST, in color, and not in the measured pack."""
    color = source.excluding(pack).color_indices
    return color[np.linspace(0, len(color) - 1, min(MOST, len(color))).round().astype(int)]


def check_photographs(pack: Pack, indices: np.ndarray, source: Pack | None) -> int:
    """Check that there are enough color photographs, and return the number that one classifier is trained on.

    The number includes the fifth that selects the best weights.

    Raises UserError if there are fewer than FEWEST to train on, or to test on.
    """
    tested = indices[~pack.grey[indices]]
    trained = training_indices(source, pack) if source else tested
    files = min(len({p.digests[i] for i in chosen}) for p, chosen in ((pack, tested), (source or pack, trained)))
    if files < FEWEST:
        where = (source if source and len(tested) >= FEWEST else pack).manifest["source"]
        raise UserError(
            f"real_fake_classifier needs {FEWEST} color photographs or more, and {where} has {files}: give more, or"
            " leave the metric out"
        )
    return len(trained) if source else len(trained) // 2


def describe(recipe: Recipe = RECIPE) -> str:
    """The metric and its network in words, for the protocol."""
    return (
        f"accuracy on original and colorization, 0.5 is indistinguishable; residual network of {sum(recipe.blocks)}"
        f" blocks, width {recipe.width}, on Lab at {SIDE} px at most, ab in cells of {recipe.cell} px, {recipe.steps}"
        f" steps of {recipe.batch_size} pictures"
    )


def random_share(digests: list[str], share: float, seed: int) -> np.ndarray:
    """Choose a random share of the photographs, at least one: bool [n]. Squares of one photograph stay together."""
    different = sorted(set(digests))
    order = np.random.default_rng(seed).permutation(len(different))
    chosen = {different[i] for i in order[: max(1, round(share * len(different)))]}
    return np.array([d in chosen for d in digests], dtype=bool)


def train_classifier(
    pairs: Pairs, digests: list[str], recipe: Recipe, device: torch.device, seed: int, report: Report | None = None
) -> SmallResNet:
    """A network that classifies originals (class 1) and colorizations (class 0).

    digests: of the photographs' files, [n]. A fifth of the photographs is held out, to select the best weights.
    """
    held_out = random_share(digests, _HELD_OUT, seed)
    trained = np.flatnonzero(~held_out)
    originals, fakes = pairs
    size = originals.shape[1]
    network = build_network(2, recipe, seed, device)
    config, cut = AugmentConfig(), size - size * _MARGIN // 64
    each = recipe.batch_size // 2
    labels = torch.tensor([1] * each + [0] * each, device=device)

    def batch_of(step: int) -> tuple[Tensor, Tensor]:
        draws = np.random.default_rng((seed, step))
        photos = draws.choice(trained, each, replace=len(trained) < each)
        noise = draws.random((each, 8), dtype=np.float32)
        pictures = np.concatenate([originals[photos], fakes[photos]])
        return augmented(pictures, np.concatenate([noise, noise]), cut, config, device), labels

    held = originals[held_out], fakes[held_out]

    def check() -> float:
        logits = [logits_of(network, x, device) for x in held]
        return float(sum(F.cross_entropy(x, torch.full((len(x),), y)) for x, y in zip(logits, (1, 0), strict=True)) / 2)

    fit(network, batch_of, recipe, device, check, report)
    return network


def correct_share(network: SmallResNet, pairs: Pairs, device: torch.device) -> np.ndarray:
    """The share of each photograph's two pictures that is classified correctly: float64 [n] of 0, 0.5 or 1.

    Two equal pictures are in the same predicted class, which is correct for one of them: exactly 0.5.
    """
    original, fake = (logits_of(network, x, device) for x in pairs)
    correct = (original[:, 1] > original[:, 0]).double() + (fake[:, 1] <= fake[:, 0]).double()
    return (correct / 2).numpy()
