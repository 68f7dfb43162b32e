"""LPIPS, computed by the package of its authors. Nothing is downloaded: AlexNet's weights must be on this machine."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from common.evaluation.pictures import Pictures
from common.networks.pretrained import cached_weights, checkpoints
from common.utils.errors import UserError, one_sentence, require

_ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
_SMALLEST = 32  # smallest side that AlexNet accepts, in pixels


def lpips_files() -> list[Path]:
    """The file of AlexNet's weights."""
    return [checkpoints() / _ALEXNET_FILE]


def lpips_missing() -> str:
    """What this machine lacks to measure it, and how to get that; "" if nothing."""
    try:
        require("lpips")
        cached_weights(_ALEXNET_FILE, "torchvision's AlexNet")
        _distance()
    except UserError as error:
        return str(error)
    return ""


@lru_cache(maxsize=1)
def _distance() -> nn.Module:
    import lpips

    try:
        with warnings.catch_warnings():  # it uses a deprecated argument of torchvision
            warnings.simplefilter("ignore")
            return lpips.LPIPS(net="alex", version="0.1", verbose=False).eval().requires_grad_(False)
    except Exception as error:  # damaged files and incompatible versions raise nearly every type
        raise UserError(f"lpips cannot be loaded ({one_sentence(error)}): install it and its weights again") from None


@torch.no_grad()
def lpips(predicted: Pictures, true: Pictures) -> Tensor:
    """Learned perceptual distance of 8-bit sRGB (Zhang et al. 2018), AlexNet with linear heads of version 0.1: [N].

    Pictures are compared at their own size. NaN if they are smaller than 32 pixels.
    """
    if min(true.rgb.shape[-2:]) < _SMALLEST:
        return torch.full((len(true.rgb),), torch.nan)
    network = _distance().to(true.rgb.device)
    return network(*(x.rgb.float() / 127.5 - 1 for x in (predicted, true))).flatten()
