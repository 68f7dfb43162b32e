"""Weights of pixels by how rare their color is, for `auc_rebalanced` (Zhang et al. 2016, section 3.1)."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from common.color.ab_bins import ABBins
from common.data.color_prior import Prior, compute_prior, read_prior
from common.data.packing import Pack
from common.evaluation.cache import code_digest, digest
from common.evaluation.pictures import Pictures
from common.utils.errors import UserError, one_sentence
from common.utils.files import locked


def rarity_auc(predicted: Pictures, true: Pictures) -> Tensor:
    """`auc` with each pixel weighted by the rarity of its true color, not yet divided by the sum of weights: [N].

    `auc_rebalanced` of a set is the mean of this divided by the mean of `rarity`, Zhang et al.'s weights with
    lambda = 0. Weights are normalized over all pixels of the set, so photographs with rare colors count for more.
    """
    distance = (predicted.ab - true.ab).norm(dim=1).clamp(max=150)
    return ((1 - distance / 150) * true.rarity).mean(dim=(1, 2))


def rarity(true: Pictures) -> Tensor:
    """Mean weight of each picture's pixels: [N]."""
    return true.rarity.mean(dim=(1, 2))


class PixelRarity(nn.Module):
    """1 / prior of the bin of each pixel's color; 0 if the prior of the bin is 0."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.bins = ABBins(prior.grid)
        self.register_buffer("weights", torch.where(prior.p > 0, 1 / prior.p, 0.0).float())

    def forward(self, ab: Tensor) -> Tensor:
        """ab [N, 2, H, W] in CIELAB units -> [N, H, W]."""
        return self.weights[self.bins.nearest(ab)]


def measured_prior(pack: Pack, cache: Path | None) -> Prior:
    """The prior of a pack's color photographs, or of all photographs if all are grey. Cached in a folder, if given.

    Raises UserError if the folder cannot be written.
    """
    indices = pack.color_indices if len(pack.color_indices) else pack.indices
    if not cache:
        return compute_prior(pack, indices=indices)
    path = cache / f"{digest(pack.manifest['content'], indices.tolist(), code_digest(compute_prior))}.prior.json"
    with ExitStack() as stack:
        try:
            cache.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(cache / ".prior.lock"))  # the first of several processes computes it
        except OSError as error:
            raise UserError(
                f"{cache} cannot be written ({one_sentence(error)}): choose another folder with --keep, or --no_keep"
            ) from None
        try:
            return replace(read_prior(path), source=pack.manifest["source"])
        except UserError:  # the file does not exist yet, or is damaged
            prior = compute_prior(pack, indices=indices)
            prior.save(path)
            return prior
