"""LPIPS, by the package of its authors, where that and its network are on this machine; nothing is downloaded."""

from __future__ import annotations

import importlib.util
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from common.networks.pretrained import cached_weights
from common.utils.errors import UserError, one_sentence

if TYPE_CHECKING:
    from common.evaluation.metrics import Pictures

_ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
_LEAST = 32  # pixels a side that AlexNet takes


def lpips_missing() -> str:
    """What it lacks on this machine and how to get that; "" where it can be measured."""
    if importlib.util.find_spec("lpips") is None:
        return "the package lpips is not installed: pip install 'colorization-lab[metrics]'"
    try:
        cached_weights(_ALEXNET_FILE, "torchvision's AlexNet")
        _distance()
    except UserError as error:
        return str(error)
    return ""


@lru_cache(maxsize=1)
def _distance() -> nn.Module:
    import lpips

    try:
        with warnings.catch_warnings():  # it names torchvision's weights in the old way
            warnings.simplefilter("ignore")
            return lpips.LPIPS(net="alex", version="0.1", verbose=False).eval().requires_grad_(False)
    except Exception as error:  # of a damaged file, or of versions that do not fit each other: nearly every type
        raise UserError(
            f"lpips cannot be made ready ({one_sentence(error)}): install it and its weights anew"
        ) from None


@torch.no_grad()
def lpips(predicted: Pictures, true: Pictures) -> Tensor:
    """Learned perceptual distance of 8-bit sRGB (Zhang et al. 2018): AlexNet, linear heads 0.1, one value per image.

    Pictures are compared at their own size; NaN below 32 pixels, which the network does not take.
    """
    if min(true.rgb.shape[-2:]) < _LEAST:
        return torch.full((len(true.rgb),), torch.nan)
    network = _distance().to(true.rgb.device)
    return network(*(x.rgb.float() / 127.5 - 1 for x in (predicted, true))).flatten()
