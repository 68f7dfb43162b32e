"""The interface between the training loop and every family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Batch(NamedTuple):
    """Photographs in CIELAB units, float32."""

    L: Tensor  # [N, 1, H, W], 0..100
    ab: Tensor  # [N, 2, H, W], about -86..98 and -108..95
    grey: Tensor | None = None  # [N, 1, H, W], lightness of other photographs, for families that learn unpaired


class Objective(NamedTuple):
    """One loss, on which one optimizer takes one step."""

    optimizer: str  # a key of `Colorizer.networks()`
    loss: Tensor  # scalar
    terms: dict[str, Tensor]  # its unweighted terms, for the log


class Diagnosis(NamedTuple):
    """Additional scalars and images for the log."""

    scalars: dict[str, float]
    pictures: dict[str, Callable[[], np.ndarray]]  # name -> function that draws uint8 [H, W, 3]


class TrainingHooks:
    """What only staged or adversarial training needs. Every method may be left as it is.

    repeats: one step may update a network several times, so gradients cannot be accumulated over sub-batches.
    partly_trained: names of networks of which some steps train only a part. unpaired: `Batch.grey` is needed.
    """

    repeats: bool = False
    partly_trained: tuple[str, ...] = ()
    unpaired: bool = False

    def load_networks(self, device: torch.device) -> None:
        """Load fixed networks that the losses need. Called before any photograph is read."""

    def start_from(self, card: dict) -> None:
        """Called once, after published weights with this card were loaded for a new run to start from."""

    def prepare(self, photographs: Any) -> None:
        """Compute statistics of the training photographs, a `common.data.packing.Pack`.

        Called once, before the first step of a new run.
        """

    def after_step(self, progress: float) -> None:
        """Called after every step, with the fraction of the run that is done."""

    def state_dict(self) -> dict:
        """Plain values and tensors that resuming needs, beside weights and optimizers."""
        return {}

    def load_state_dict(self, state: dict, device: torch.device) -> None:
        """Restore what `state_dict` returned."""

    def warnings(self) -> list[str]:
        """Sentences for the log, asked for after each validation."""
        return []

    def diagnose(self, batch: Batch) -> Diagnosis:
        """Additional logging, asked for with each sample sheet, in eval mode, on validation photographs."""
        return Diagnosis({}, {})

    def complete_card(self, card: dict) -> dict:
        """Change the card of weights that are about to be saved. It must be enough to build the network."""
        return card

    def complete_fingerprints(self, fingerprints: np.ndarray) -> np.ndarray | None:
        """Add the training photographs of networks that were trained before: uint8 [n, 16] -> [m, 16].

        Return None if they are unknown.
        """
        return fingerprints


class Colorizer(nn.Module, ABC):
    """A model together with its losses.

    Evaluation and inference call only `forward`. The training loop calls `training_step` and `networks`. `hooks` is
    only needed for staged or adversarial training.

    Attributes:
        multiple: height and width of the input of `forward` must be multiples of this value, in pixels.
        training_only: sub-networks (dotted names) that are not part of published weights.
        temperature: softmax temperature of classification models; None for all others.
        card: metadata of the weights file; None if the model was not loaded from a file (see
            `common.checkpoint.save_weights`).
        fingerprints: uint8 [n, 16], of the photographs that the weights were trained on; None if they are unknown (see
            `common.data.fingerprints`).
    """

    multiple: int = 1
    training_only: tuple[str, ...] = ()
    temperature: float | None = None
    card: dict | None = None
    fingerprints: np.ndarray | None = None

    @abstractmethod
    def forward(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> ab [N, 2, H, W] in CIELAB units, float32."""

    @abstractmethod
    def training_step(self, batch: Batch) -> Iterator[Objective]:
        """Yield one Objective per optimizer update. The loop calls `backward()` and `optimizer.step()` after each."""

    def embed(self, L: Tensor) -> Tensor | None:
        """Features that tell objects apart: L [N, 1, H, W] -> [N, C, h, w], or None if the network has none.

        H and W must be multiples of `multiple`.
        """
        return None

    def networks(self) -> dict[str, nn.Module]:
        """Optimizer name -> the sub-network it trains, which is the attribute of that name; by default `network`."""
        return {"network": self.network}

    @cached_property
    def hooks(self) -> TrainingHooks:
        """State and behavior of training beyond `training_step`; created at its first use."""
        return TrainingHooks()

    @property
    def device(self) -> torch.device:
        """The device of its parameters, or of its buffers where it has no parameters."""
        return next(chain(self.parameters(), self.buffers())).device


@contextmanager
def frozen(network: nn.Module) -> Iterator[nn.Module]:
    """The network with gradients through it, but none for its parameters.

    Yields the module inside of DistributedDataParallel: the wrapper would wait for gradients of the parameters.
    """
    bare = unwrap(network)
    required = [p.requires_grad for p in bare.parameters()]
    bare.requires_grad_(False)
    try:
        yield bare
    finally:
        for parameter, requires_grad in zip(bare.parameters(), required, strict=True):
            parameter.requires_grad_(requires_grad)


def unwrap(network: nn.Module) -> nn.Module:
    """The module inside of DistributedDataParallel, or the network itself."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network


def predict_ab(colorizer: Colorizer, L: Tensor) -> Tensor:
    """Predict ab for L of any size.

    L: [N, 1, H, W] in 0..100. Where H or W is not a multiple of `colorizer.multiple`, L is padded by repeating its
    edge, and ab is cropped. If padding would add more than half of the pixels, L is resized to the nearest multiple
    instead, and ab is resized back. Returns [N, 2, H, W] in CIELAB units.
    """
    height, width = L.shape[-2:]
    down, right = -height % colorizer.multiple, -width % colorizer.multiple
    if not (down or right):
        return colorizer(L)
    if (height + down) * (width + right) <= 1.5 * height * width:
        return colorizer(F.pad(L, (0, right, 0, down), mode="replicate"))[..., :height, :width]
    nearest = [max(1, round(side / colorizer.multiple)) * colorizer.multiple for side in (height, width)]
    ab = colorizer(F.interpolate(L, size=nearest, mode="bilinear", antialias=True, align_corners=False))
    return F.interpolate(ab.float(), size=(height, width), mode="bilinear", antialias=True, align_corners=False)
