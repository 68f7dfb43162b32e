"""timm networks that return feature maps."""

from __future__ import annotations

import torch
from torch import nn

from common.networks.pretrained import check_timm_name, fetched
from common.utils.errors import UserError, one_sentence


def timm_features(option: str, name: str, take: str, in_channels: int = 3) -> nn.Module:
    """A timm network, without pretrained weights, that returns its feature maps for input [N, in_channels, H, W].

    option: what the name was given for, for messages. take: alternatives, for messages. Raises UserError if timm has no
    such network, or if it has no feature maps or takes only one input size.
    """
    check_timm_name(option, name)
    try:
        network = _create(name, in_channels, pretrained=False)
        side = 2 * network.feature_info.reduction()[-1]
        with torch.no_grad():
            network.eval()(torch.zeros(1, in_channels, side, side))
    except Exception as error:  # timm raises many types
        raise UserError(
            f"{option} is {name}, for which timm has no feature maps at every size ({one_sentence(error)}): take {take}"
        ) from None
    return network.train()


def pretrained_features(name: str, instead: str, in_channels: int = 3) -> nn.Module:
    """The same network with pretrained weights. Raises UserError if they are missing. instead: see `fetched`."""
    return fetched(
        f"pretrained weights of {name}", "timm", lambda: _create(name, in_channels, pretrained=True), instead
    )


def _create(name: str, in_channels: int, pretrained: bool) -> nn.Module:
    import timm

    return timm.create_model(name, features_only=True, in_chans=in_channels, pretrained=pretrained)
