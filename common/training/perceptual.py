"""Perceptual loss: distance between the feature maps of a classification network (Johnson et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.color.lab import lab_to_rgb
from common.networks.pretrained import fetched
from common.networks.timm_features import pretrained_features, timm_features
from common.utils.errors import UserError, near, one_sentence

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, in sRGB
_VGG = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}  # convolutions before each pooling


@dataclass(frozen=True)
class PerceptualConfig:
    """The perceptual loss.

    Attributes:
        weight: of the loss (0: it is not used).
        network: vgg16, vgg19, or a timm network with feature maps.
        layers: of the network; relu1_1 to relu5_3 (relu5_4) of VGG, timm's names of the feature maps of others.
        layer_weights: one per layer (default: all 1).
        distance: between feature maps, mean over their elements.
        weights: file of the network's weights, .pth or .safetensors (default: the library's cache, else downloaded).
        random: use an untrained network; the loss is then named perceptual_random in the log.
    """

    weight: float = 0.0
    network: str = "vgg16"
    layers: list[str] = field(default_factory=lambda: ["relu1_2", "relu2_2", "relu3_3"])
    layer_weights: list[float] | None = None
    distance: Literal["l1", "mse"] = "l1"
    weights: str | None = None
    random: bool = False

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise UserError(f"model.perceptual.weight is {self.weight}: expected 0 or more")

    def check(self) -> None:
        """Raise UserError where the options do not fit together. Builds a timm network, so it takes a second."""
        if not self.layers:
            raise UserError("model.perceptual.layers is empty: expected one or more layers of the network")
        if self.random and self.weights:
            raise UserError("model.perceptual.random and model.perceptual.weights exclude each other: give one")
        if self.layer_weights is not None and (
            len(self.layer_weights) != len(self.layers) or min(self.layer_weights) < 0 or not any(self.layer_weights)
        ):
            raise UserError(
                f"model.perceptual.layer_weights is {self.layer_weights}: expected a weight of 0 or more for each of"
                f" the {len(self.layers)} layers, one of them above 0"
            )
        if self.network in _VGG:
            known = vgg_layers(self.network)
        else:
            known = list(_untrained(self.network).feature_info.module_name())
        for layer in self.layers:
            if layer not in known:
                raise UserError(
                    f"model.perceptual.layers has {layer}, which is not a layer of {self.network}: expected"
                    f" {', '.join(known)}{near(layer, known)}"
                )

    @property
    def term(self) -> str:
        """Name of the loss in the log."""
        return "perceptual_random" if self.random else "perceptual"


class PerceptualLoss:
    """Distance between the feature maps of two pictures with the same L.

    Raises UserError where the network's weights cannot be loaded.
    """

    def __init__(self, config: PerceptualConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        features = _vgg_features(config) if config.network in _VGG else _timm_features(config)
        self.features = features.requires_grad_(False).eval().to(device=device, memory_format=torch.channels_last)
        self.mean, self.std = (torch.tensor(x, device=device).view(1, 3, 1, 1) for x in (_MEAN, _STD))

    def __call__(self, L: Tensor, predicted_ab: Tensor, true_ab: Tensor) -> Tensor:
        """L [N, 1, H, W], both ab [N, 2, H, W], in CIELAB units -> scalar, float32.

        Gradients reach `predicted_ab`. Colors outside of sRGB are not clipped, since clipping has no gradient. The
        network follows the caller's autocast; the conversion to sRGB and the distances are float32.
        """
        with torch.no_grad():
            true_maps = self._maps(L, true_ab)
        maps = self._maps(L, predicted_ab)
        distance = F.l1_loss if self.config.distance == "l1" else F.mse_loss
        weights = self.config.layer_weights or [1.0] * len(maps)
        return sum(w * distance(m.float(), t.float()) for w, m, t in zip(weights, maps, true_maps, strict=True))

    def _maps(self, L: Tensor, ab: Tensor) -> list[Tensor]:
        rgb = lab_to_rgb(torch.cat([L, ab], dim=1), clip=False)
        maps = self.features(((rgb - self.mean) / self.std).contiguous(memory_format=torch.channels_last))
        return [maps[name] for name in self.config.layers]


class _NamedMaps(nn.Module):
    """Feature maps of a timm network as a dict instead of a list."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.names = network, network.feature_info.module_name()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.names, self.network(x), strict=True))


def vgg_layers(network: str) -> list[str]:
    """The names of a VGG's activations, relu1_1 first."""
    return [f"relu{i}_{j}" for i, count in enumerate(_VGG[network], 1) for j in range(1, count + 1)]


def _vgg_features(config: PerceptualConfig) -> nn.Module:
    from torchvision import models
    from torchvision.models.feature_extraction import create_feature_extractor

    weights = models.get_model_weights(config.network).IMAGENET1K_V1
    make = getattr(models, config.network)
    if config.random or config.weights:
        # on the meta device, since the classifier layers alone would take half a gigabyte
        with torch.device("meta"):
            empty = make().features
        layers = empty.to_empty(device="cpu")
        if config.random:
            for module in layers.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight)
                    nn.init.zeros_(module.bias)
        else:
            state = {k.removeprefix("features."): v for k, v in _read(config.weights).items() if "classifier" not in k}
            _load(layers, state, config)
    else:
        create = lambda: make(weights=weights).features  # noqa: E731
        layers = fetched(f"{weights.url.rsplit('/', 1)[-1]} of {config.network}", "torchvision", create, _INSTEAD)
    relus = [i for i, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
    for i in relus:
        layers[i].inplace = False  # feature maps must not be overwritten by the next layer
    names = {str(i): name for i, name in zip(relus, vgg_layers(config.network), strict=True) if name in config.layers}
    return create_feature_extractor(layers, names)


def _timm_features(config: PerceptualConfig) -> nn.Module:
    network = _untrained(config.network)
    if config.weights:
        known = network.state_dict()
        _load(network, {k: v for k, v in _read(config.weights).items() if k in known}, config)
    elif not config.random:
        network = pretrained_features(network, config.network, _INSTEAD)
    return _NamedMaps(network)


def _untrained(name: str) -> nn.Module:
    return timm_features("model.perceptual.network", name, "vgg16, or a convolutional network such as resnet18")


_INSTEAD = "name their file with model.perceptual.weights, or set model.perceptual.random true"


def _read(path: str) -> dict[str, Tensor]:
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        return state.get("state_dict", state)
    except Exception as error:  # unpickling damaged files raises nearly every type
        raise UserError(
            f"model.perceptual.weights is {path}, which cannot be read ({one_sentence(error)}): give a file of a"
            " state_dict, .pth or .safetensors"
        ) from None


def _load(network: nn.Module, state: dict[str, Tensor], config: PerceptualConfig) -> None:
    try:
        network.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError):
        raise UserError(
            f"model.perceptual.weights is {config.weights}, which does not fit {config.network}: give that network's"
            " weights, as torchvision or timm publish them"
        ) from None
