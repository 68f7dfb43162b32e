"""The first half of a ResNet18, and an upsampling head."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from common.networks.pretrained import fetched

Library = Literal["timm", "torchvision"]


def resnet18_trunk(library: Library, pretrained: bool) -> nn.Sequential:
    """The first six children of ResNet18 (stem, max pool, layer1, layer2) with a one-channel stem.

    It maps [N, 1, H, W] to [N, 128, H/8, W/8]. The stem's weights are summed over RGB, so that the features of a grey
    picture are the same as for its three-channel copy. Raises UserError if pretrained weights cannot be loaded.
    """

    def create() -> nn.Module:
        if library == "timm":
            import timm

            return timm.create_model("resnet18", pretrained=pretrained)
        from torchvision.models import ResNet18_Weights, resnet18

        return resnet18(weights=ResNet18_Weights.DEFAULT if pretrained else None)

    instead = "set model.pretrained false"
    network = fetched("pretrained ResNet18 weights", library, create, instead) if pretrained else create()
    stem = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    with torch.no_grad():
        stem.weight.copy_(network.conv1.weight.sum(dim=1, keepdim=True))
    return nn.Sequential(stem, *list(network.children())[1:6])


class ResNet18Regressor(nn.Module):
    """ResNet18 features at 1/8 of the size, and a head of 3x3 convolutions: 128 - up - 64 - 64 - up - 32 - 2 - up.

    Batch norm and ReLU follow each convolution of the head except the last. Upsampling is nearest-neighbor.

    Input: [N, 1, H, W] in network range; H and W are multiples of 8. Output: [N, 2, H, W] in network range.
    """

    def __init__(self, library: Library = "torchvision", pretrained: bool = False) -> None:
        super().__init__()
        self.trunk = resnet18_trunk(library, pretrained)

        def conv(before: int, after: int) -> list[nn.Module]:
            return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]

        self.head = nn.Sequential(
            *conv(128, 128), nn.Upsample(scale_factor=2), *conv(128, 64), *conv(64, 64), nn.Upsample(scale_factor=2),
            *conv(64, 32), nn.Conv2d(32, 2, 3, padding=1), nn.Upsample(scale_factor=2),
        )  # fmt: skip

    def forward(self, L: Tensor) -> Tensor:
        """[N, 1, H, W] in network range -> [N, 2, H, W] in network range."""
        return self.head(self.trunk(L))
