"""Adversarial losses on patch logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Each takes logits and whether they should say "real"; a loss that is added is a function and an entry.
ADVERSARIAL = {
    "vanilla": lambda logits, real: F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real))),
    "lsgan": lambda logits, real: F.mse_loss(logits, torch.full_like(logits, float(real))),
}


def adversarial_loss(kind: str, logits: Tensor, real: bool) -> Tensor:
    """How far patch logits are from the wanted answer: scalar, in fp32.

    vanilla: Goodfellow et al. 2014, in its non-saturating form when a generator asks for `real`.
    lsgan: Mao et al. 2017.
    """
    return ADVERSARIAL[kind](logits.float(), real)
