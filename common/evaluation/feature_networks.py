"""Feature vectors of pictures from a published network, for Frechet distances (FID) and the distance of two pictures.

Nothing is downloaded: if the weights are not on this machine, the metric has no numbers, and a note says why.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.evaluation.pictures import Pictures
from common.networks.pretrained import (
    cached_timm_weights,
    cached_weights,
    check_timm_name,
    checkpoints,
    local_network,
    packaged_file,
)
from common.utils.errors import UserError, one_sentence

DEFAULT_FEATURES = "torchvision_inception_v3"
_INCEPTION_FILE = "inception_v3_google-0cc3c7bd.pth"
PerImage = Callable[[Pictures, Pictures], Tensor]  # (predicted, true) -> one value or vector per image
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def features_variant(name: str) -> str:
    """The network in words, for the protocol."""
    if name == DEFAULT_FEATURES:
        return "Inception v3 of torchvision (ImageNet1K V1; not the TensorFlow one of published FIDs), 2048 features"
    return f"{name} of timm, pooled features"


def features_files(name: str) -> list[Path]:
    """The file of the network's weights, or an empty list if it is not on this machine."""
    if name == DEFAULT_FEATURES:
        return [checkpoints() / _INCEPTION_FILE]
    file = packaged_file(name) or cached_timm_weights(name)
    return [file] if file else []


def features_missing(name: str) -> str:
    """What this machine lacks to use the network, and how to get that; "" if nothing."""
    try:
        _network(name)
    except UserError as error:
        return str(error)
    return ""


@lru_cache(maxsize=4)
def network_features(name: str) -> tuple[PerImage, Callable[[Pictures], Tensor], PerImage]:
    """Three functions for metrics: features of predicted and of true pictures, float32 [N, D], and their distance, [N].

    The features are those before the classifier. The distance is 1 - cosine similarity. 8-bit sRGB is resized to
    the network's own input, bilinear with antialiasing, and normalized as in its training.
    """

    def of_truth(true: Pictures) -> Tensor:
        network, size, mean, std = _network(name)
        rgb = F.interpolate(true.rgb.float() / 255, size=size, mode="bilinear", antialias=True, align_corners=False)
        mean, std = (x.to(rgb.device).view(1, 3, 1, 1) for x in (mean, std))
        with torch.no_grad():
            return network.to(rgb.device)((rgb - mean) / std).flatten(1).float()

    def of_prediction(predicted: Pictures, true: Pictures) -> Tensor:
        return of_truth(predicted)

    of_truth.__qualname__ = f"features of {name}"  # the name of the cache column

    def distance(predicted: Pictures, true: Pictures) -> Tensor:
        return (1 - F.cosine_similarity(of_truth(predicted), of_truth(true), dim=1)).clamp(min=0)

    return of_prediction, of_truth, distance


@lru_cache(maxsize=2)
def _network(name: str) -> tuple[nn.Module, tuple[int, int], Tensor, Tensor]:
    """(network that returns pooled features, (height, width) of its input, mean [3], std [3]). Raises UserError."""
    network, size, mean, std = _inception() if name == DEFAULT_FEATURES else _of_timm(name)
    return network.eval().requires_grad_(False), size, torch.tensor(mean), torch.tensor(std)


def _inception() -> tuple:
    path = cached_weights(_INCEPTION_FILE, "torchvision's Inception v3", ", or name another network with --features")
    from torchvision.models import inception_v3

    network = inception_v3(weights=None, aux_logits=True, transform_input=True, init_weights=False)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # unpickling damaged files raises nearly every type
        raise UserError(f"{path} is damaged ({one_sentence(error)}): copy it again") from None
    network.fc = nn.Identity()
    return network, (299, 299), *_IMAGENET


def _of_timm(name: str) -> tuple:
    check_timm_name("--features", name, DEFAULT_FEATURES)
    network = local_network(name, num_classes=0)
    config = network.pretrained_cfg
    return network, tuple(config["input_size"][-2:]), config["mean"], config["std"]
