"""An encoder-decoder with the features of a frozen classifier (Baldassarre et al. 2017, "Deep Koalarization").

The idea of a fusion layer is that of Iizuka et al. 2016, who trained the classifier together with the colorizer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.color.lab import L_from_unit, grey_from_L
from common.networks.encoder_unet import to_buffers
from common.networks.pretrained import check_timm_name, fetched, load_published, packaged_weights
from common.utils.options import check_value

ENCODER = ((64, 2), (128, 1), (128, 2), (256, 1), (256, 2), (512, 1), (512, 1), (256, 1))  # (channels, stride)
DECODER: tuple[int | str, ...] = (128, "up", 64, 64, "up", 32)
FUSED = 256


class Classifier(nn.Module):
    """A timm classifier that is not trained: its weights are buffers, and it stays in eval mode.

    Input: L [N, 1, H, W] in network range, which is resized to `size` and copied to three channels. Output: the logits
    [N, classes], as in the paper.

    Args:
        name: of the network in timm.
        pretrained: load its ImageNet weights; they are random otherwise.
        size: side of the square that it sees (None: its own, often 224 or 299).

    Raises:
        UserError: timm has no such network, its weights are missing, or the size is below 32.
    """

    def __init__(self, name: str, pretrained: bool = False, size: int | None = None) -> None:
        super().__init__()
        import timm

        check_timm_name("model.encoder", name)
        check_value("model.encoder_size", size, size is None or 32 <= size <= 1024, "32 to 1024 pixels")
        config = timm.get_pretrained_cfg(name)
        self.size = size or config.input_size[-1]
        state = packaged_weights(name) if pretrained else None
        if pretrained and state is None:
            instead = "set model.pretrained false"
            create = lambda: timm.create_model(name, pretrained=True)  # noqa: E731
            self.network = fetched(f"pretrained weights of {name}", "timm", create, instead)
        else:
            self.network = timm.create_model(name)
            if state is not None:
                load_published(self.network, state, name)
        self.classes = self.network.num_classes
        to_buffers(self.network)
        for key, values in (("mean", config.mean), ("std", config.std)):
            self.register_buffer(key, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.train()

    def train(self, mode: bool = True) -> Classifier:
        """Set the mode of this module; the classifier stays in eval mode."""
        super().train(mode)
        self.network.eval()
        return self

    @torch.no_grad()
    def forward(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in network range -> logits [N, classes]."""
        grey = grey_from_L(L_from_unit(L))
        if grey.shape[-2:] != (self.size, self.size):
            size = (self.size, self.size)
            grey = F.interpolate(grey, size=size, mode="bilinear", antialias=True, align_corners=False)
        return self.network((grey - self.mean) / self.std)


class Fusion(nn.Module):
    """The network of "Deep Koalarization" (table 1): encoder, fusion with a vector of a classifier, decoder.

    The encoder has eight 3x3 convolutions to 256 maps at 1/8 of the size. The fusion layer copies the vector of the
    classifier to every position, concatenates it to the maps, and applies a 1x1 convolution to 256 maps. The decoder
    has 3x3 convolutions and nearest-neighbor upsampling. ReLU follows all of them but the last, which tanh follows.
    Without a classifier the fusion layer is a 1x1 convolution of the 256 maps: the same network without fusion.

    It has 6,317,794 parameters without a classifier, and 256 more for each class.

    Input: [N, 1, H, W] in network range; H and W are multiples of 8. Output: [N, 2, H, W] in -1..1.
    """

    multiple = 8

    def __init__(self, classifier: Classifier | None = None) -> None:
        super().__init__()
        self.classifier = classifier
        layers: list[nn.Module] = []
        channels = 1
        for after, stride in ENCODER:
            layers += [nn.Conv2d(channels, after, 3, stride, padding=1), nn.ReLU(inplace=True)]
            channels = after
        self.encoder = nn.Sequential(*layers)
        self.fusion = nn.Sequential(
            nn.Conv2d(channels + (classifier.classes if classifier else 0), FUSED, 1), nn.ReLU(inplace=True)
        )
        layers, channels = [], FUSED
        for item in DECODER:
            if isinstance(item, str):
                layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
            else:
                layers += [nn.Conv2d(channels, item, 3, padding=1), nn.ReLU(inplace=True)]
                channels = item
        layers += [nn.Conv2d(channels, 2, 3, padding=1), nn.Tanh(), nn.Upsample(scale_factor=2, mode="nearest")]
        self.decoder = nn.Sequential(*layers)

    def forward(self, L: Tensor) -> Tensor:
        """[N, 1, H, W] in network range -> [N, 2, H, W] in network range."""
        x = self.encoder(L)
        if self.classifier is not None:
            vector = self.classifier(L).to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[-2:])
            x = torch.cat([x, vector], dim=1)
        return self.decoder(self.fusion(x))
