"""A small residual classifier and its training, for the metrics `real_fake_classifier` and `semantics`.

Everything random is a function of the seed, so the same call on the same CPU returns the same network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.color.lab import L_to_unit, ab_to_unit, rgb8_to_lab
from common.data.augment import AugmentConfig, augment
from common.utils.device import pick_precision

SIDE = 64  # larger pictures are reduced to this side for the networks
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Recipe:
    """How a small network is built and trained.

    Attributes:
        width: channels of the stem and of the first stage, even; they double from stage to stage.
        blocks: residual blocks of each of the four stages; all but the first halve the resolution.
        steps: maximum number of optimizer steps.
        batch_size: pictures per step.
        lr: peak of the one-cycle schedule (AdamW).
        weight_decay: of AdamW.
        smoothing: of the labels, for cross-entropy.
        cell: ab is averaged over squares of this side, in pixels, before it enters the network.
        checks: number of evaluations on the held-out part; the best weights are used.
    """

    width: int
    blocks: tuple[int, int, int, int]
    steps: int
    batch_size: int = 64
    lr: float = 4e-3
    weight_decay: float = 0.05
    smoothing: float = 0.0
    cell: int = 1
    checks: int = 10


class SmallResNet(nn.Module):
    """timm's ResNet of basic blocks on Lab; its stem is one 3x3 convolution of stride 2, without pooling."""

    def __init__(self, classes: int, recipe: Recipe) -> None:
        from timm.models.resnet import BasicBlock, ResNet

        super().__init__()
        self.cell = recipe.cell
        channels = tuple(recipe.width * 2**stage for stage in range(4))
        stem = {"stem_type": "deep", "stem_width": recipe.width // 2}  # the only stem whose width can be set
        options = {"channels": channels, "avg_down": True, "zero_init_last": False}
        self.resnet = ResNet(BasicBlock, recipe.blocks, classes, **stem, **options)
        self.resnet.conv1 = nn.Conv2d(3, recipe.width, 3, 2, 1, bias=False)
        self.resnet.maxpool = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """L and ab [N, 3, H, W] in network range -> logits [N, classes]."""
        return self.resnet(coarse_color(x, self.cell) if self.cell > 1 else x)


def coarse_color(x: Tensor, cell: int) -> Tensor:
    """Average the ab of a network input [N, 3, H, W] over squares of `cell` pixels, then enlarge it bilinearly."""
    ab = F.adaptive_avg_pool2d(x[:, 1:], [max(1, side // cell) for side in x.shape[-2:]])
    ab = F.interpolate(ab, size=x.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([x[:, :1], ab], dim=1).contiguous(memory_format=torch.channels_last)


def build_network(classes: int, recipe: Recipe, seed: int, device: torch.device) -> SmallResNet:
    """A network with initial weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallResNet(classes, recipe)
    return network.to(device=device, memory_format=torch.channels_last)


def network_input(L: Tensor, ab: Tensor) -> Tensor:
    """L [N, 1, H, W] and ab [N, 2, H, W] in CIELAB units -> network input [N, 3, H, W], channels last."""
    return torch.cat([L_to_unit(L), ab_to_unit(ab)], dim=1).contiguous(memory_format=torch.channels_last)


def augmented(
    pictures: np.ndarray, noise: np.ndarray, size: int, config: AugmentConfig, device: torch.device
) -> Tensor:
    """Network input [n, 3, size, size] of pictures uint8 [n, S, S, 3]: crops and flips, by noise [n, 8] in [0, 1)."""
    moved = torch.from_numpy(np.ascontiguousarray(pictures)).to(device)
    return network_input(*augment(moved, torch.from_numpy(noise).to(device), size, config))


def fit(
    network: SmallResNet,
    batch_of: Callable[[int], tuple[Tensor, Tensor]],
    recipe: Recipe,
    device: torch.device,
    check: Callable[[], float] | None = None,
    report: Report | None = None,
) -> None:
    """Train a network with cross-entropy, AdamW and a one-cycle schedule, and put it in eval mode.

    batch_of: step -> (network input [n, 3, H, W], labels int64 [n]). check: returns the loss on a held-out part. If it
    is given, the best weights of `recipe.checks` evaluations are used, and training ends once this loss is near 0.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=recipe.steps)
    best, best_loss = None, float("inf")
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False):
        for step in range(recipe.steps):
            network.train()
            pictures, labels = batch_of(step)
            with _autocast(device):
                logits = network(pictures)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if report:
                report(step + 1, recipe.steps)
            if check and (step + 1) % max(1, recipe.steps // recipe.checks) == 0:
                held_out = check()
                if held_out < best_loss:
                    best, best_loss = copy.deepcopy(network.state_dict()), held_out
                if held_out < 0.005:
                    break
    if best is not None:
        network.load_state_dict(best)
    network.eval()


@torch.no_grad()
def logits_of(network: nn.Module, pictures: np.ndarray, device: torch.device) -> Tensor:
    """Pictures uint8 [n, S, S, 3] -> logits float32 [n, classes] on the CPU, averaged over each and its mirror image.

    The network is put in eval mode, so that a picture's logits do not depend on its batch.
    """
    network.eval()
    out = []
    for start in range(0, len(pictures), 128):
        rgb = torch.from_numpy(np.ascontiguousarray(pictures[start : start + 128])).to(device).permute(0, 3, 1, 2)
        lab = rgb8_to_lab(rgb)
        x = network_input(lab[:, :1], lab[:, 1:])
        with _autocast(device):
            both = network(x), network(x.flip(3))
        out.append((sum(b.float() for b in both) / 2).cpu())
    return torch.cat(out)


def _autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=pick_precision("auto", device) == "bf16")
