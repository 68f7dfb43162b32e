"""The interface between the training loop and every family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.utils.errors import UserError

if TYPE_CHECKING:
    from common.data.packing import Pack


class Batch(NamedTuple):
    """Photographs in CIELAB units."""

    L: Tensor  # [N, 1, H, W], 0..100
    ab: Tensor  # [N, 2, H, W], about -86..98 and -108..95
    grey: Tensor | None = None  # [N, 1, H, W], lightness of other photographs, for families that learn unpaired


class Objective(NamedTuple):
    """One loss, for one optimizer to take one step on."""

    optimizer: str  # a key of `Colorizer.networks()`
    loss: Tensor  # scalar
    terms: dict[str, Tensor]  # its unweighted parts, for the log


class Diagnosis(NamedTuple):
    """What a family wants its trainer to look at."""

    scalars: dict[str, float]
    pictures: dict[str, Callable[[], np.ndarray]]  # name -> draws uint8 [H, W, 3]


class Colorizer(nn.Module, ABC):
    """A family's model together with its losses.

    `forward` is all that evaluation and colorizing ever need. A sub-network that only training needs is named
    in `training_only` (dotted, where it is part of another) and left out of published weights and their average.
    """

    training_only: tuple[str, ...] = ()
    partly_trained: tuple[str, ...] = ()  # networks of which some steps train a part only
    repeats: bool = False  # a step may drive one optimizer twice, so batches are not accumulated
    unpaired: bool = False  # it learns from `Batch.grey` too
    multiple: int = 1  # forward takes heights and widths that are multiples of this
    temperature: float | None = None  # of families that predict distributions; may be set before forward
    card: dict | None = None  # what the weights say of themselves, where they were loaded

    @abstractmethod
    def forward(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> ab [N, 2, H, W] in CIELAB units."""

    @abstractmethod
    def training_step(self, batch: Batch) -> Iterator[Objective]:
        """Yield one Objective per optimizer update. The engine differentiates and steps between yields."""

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """Optimizer name -> the sub-network it trains, which is the attribute of that name."""

    @property
    def device(self) -> torch.device:
        """Where it is; a mean of models has nothing learnable, but buffers."""
        return next(chain(self.parameters(), self.buffers())).device

    def prepare(self, pack: Pack) -> None:
        """Called once, before the first step of a new run, with the training photographs.

        What a family learns from them here (a prior) it keeps in buffers, which are saved with the weights.
        """

    def begin_training(self, device: torch.device, precision: str) -> None:
        """Called once, before a photograph is read, when a run begins or goes on: load what only training needs.

        precision: bf16 or fp32, of networks that the engine does not know of.
        """

    def training_state(self) -> dict:
        """What a process must save beside weights and optimizers to go on exactly: plain values and tensors."""
        return {}

    def load_training_state(self, state: dict, device: torch.device) -> None:
        """The reverse of `training_state`."""

    def warnings(self) -> list[str]:
        """Called after each validation: what the person who waits should know."""
        return []

    def after_step(self, share: float) -> None:
        """Called after every step, with the share of the run that is done."""

    def diagnose(self, batch: Batch) -> Diagnosis:
        """Called beside the sample sheets, in eval mode, with validation photographs: what else to log."""
        return Diagnosis({}, {})

    def complete(self, card: dict) -> dict:
        """Called with the card of weights that are about to be written: the same, with what only the family knows.

        The card's `model` has to build the network from the card alone, without the files that this one was made from.
        """
        return card

    def distribution(self, L: Tensor) -> tuple[Tensor, Tensor]:
        """L [N, 1, H, W] -> (probabilities [N, Q, h, w], their colors ab [Q, 2]), in families that predict them."""
        raise UserError(f"a {type(self).__name__} predicts one color a pixel, no distribution: use a classifier")


@contextmanager
def frozen(network: nn.Module) -> Iterator[nn.Module]:
    """The bare network, with gradients through it but none for its parameters, to judge with.

    Under several processes the wrapped network would wait for parameter gradients that never come; the bare
    one does not.
    """
    bare = unwrap(network)
    wanted = [p.requires_grad for p in bare.parameters()]
    bare.requires_grad_(False)
    try:
        yield bare
    finally:
        for parameter, want in zip(bare.parameters(), wanted, strict=True):
            parameter.requires_grad_(want)


def unwrap(network: nn.Module) -> nn.Module:
    """The network inside a DistributedDataParallel, or itself."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network


def predict_ab(colorizer: Colorizer, L: Tensor) -> Tensor:
    """ab [N, 2, H, W] for L [N, 1, H, W] of any size.

    Where the network does not take the size, L is padded by its edge and ab cut; where more than half as many
    pixels would be padding, L is resized to the nearest size that it takes, and ab back.
    """
    height, width = L.shape[-2:]
    down, right = -height % colorizer.multiple, -width % colorizer.multiple
    if not (down or right):
        return colorizer(L)
    if (height + down) * (width + right) <= 1.5 * height * width:
        return colorizer(F.pad(L, (0, right, 0, down), mode="replicate"))[..., :height, :width]
    near = [max(1, round(side / colorizer.multiple)) * colorizer.multiple for side in (height, width)]
    ab = colorizer(F.interpolate(L, size=near, mode="bilinear", antialias=True, align_corners=False))
    return F.interpolate(ab.float(), size=(height, width), mode="bilinear", antialias=True, align_corners=False)
