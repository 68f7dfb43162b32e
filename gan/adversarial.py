"""pix2pix: a U-Net that a PatchGAN judges, held near the truth by L1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.colorizer import Batch, Colorizer, Objective, frozen
from common.errors import UserError
from common.lab import L_to_unit, ab_from_unit, ab_to_unit
from gan.losses import adversarial_loss
from gan.patchgan import LAYERS, PatchGAN
from gan.unet import Norm, UNet


class AdversarialColorizer(Colorizer):
    """A generator L -> ab and a discriminator of (L, ab) (Isola et al. 2017, equations 1 to 4)."""

    training_only = ("discriminator",)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        adversarial: str,
        l1_weight: float,
        adversarial_weight: float,
        multiple: int,
    ) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.adversarial = adversarial
        self.l1_weight, self.adversarial_weight = l1_weight, adversarial_weight
        self.multiple = multiple

    def forward(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> ab [N, 2, H, W] in CIELAB units."""
        return ab_from_unit(self.generator(L_to_unit(L)))

    def training_step(self, batch: Batch) -> Iterator[Objective]:
        """The generator's objective, then the discriminator's, from one generator pass."""
        L, real_ab = L_to_unit(batch.L), ab_to_unit(batch.ab)
        fake_ab = ab_to_unit(self(batch.L))
        with frozen(self.discriminator) as judge:
            patch_logits = judge(torch.cat([L, fake_ab], dim=1))
        l1 = F.l1_loss(fake_ab, real_ab)
        adversarial = adversarial_loss(self.adversarial, patch_logits, real=True)
        loss = self.l1_weight * l1 + self.adversarial_weight * adversarial
        yield Objective("generator", loss, {"l1": l1, "adversarial": adversarial})

        real_logits = self.discriminator(torch.cat([L, real_ab], dim=1))
        fake_logits = self.discriminator(torch.cat([L, fake_ab.detach()], dim=1))
        real = adversarial_loss(self.adversarial, real_logits, real=True)
        fake = adversarial_loss(self.adversarial, fake_logits, real=False)
        # halved: the discriminator learns more slowly than the generator (pix2pix, 3.3)
        yield Objective("discriminator", (real + fake) / 2, {"real": real, "fake": fake})

    def networks(self) -> dict[str, nn.Module]:
        """Two."""
        return {"generator": self.generator, "discriminator": self.discriminator}


def build(
    size: int | None = None,
    width: int = 64,
    norm: Norm = "batch",
    dropout: float = 0.5,
    receptive_field: int = 70,
    discriminator_width: int = 64,
    adversarial: Literal["vanilla", "lsgan"] = "vanilla",
    l1_weight: float = 100.0,
    adversarial_weight: float = 1.0,
) -> AdversarialColorizer:
    """Build a pix2pix colorizer.

    Args:
        size: the U-Net halves its input as often as this size can be halved, at most ten times: to one pixel for
            32, 64, 128, 256 (default: the size of the training data).
        width: channels of the generator's first layer (64 in the paper).
        norm: normalisation of both networks.
        dropout: in the widest decoder blocks of the generator.
        receptive_field: of the discriminator, in pixels: 1, 16, 34, 70, 142 or 286.
        discriminator_width: channels of the discriminator's first layer.
        adversarial: `vanilla` is cross-entropy, `lsgan` least squares.
        l1_weight: weight of L1 on ab in network range.
        adversarial_weight: weight of the adversarial term.
    """
    size = 64 if size is None else size
    depth = halvings(size)
    fits = [field for field, layers in LAYERS.items() if size >= 3 * 2**layers or layers == 0]
    if receptive_field in LAYERS and receptive_field not in fits:
        takes = ", ".join(map(str, fits))
        raise UserError(f"model.receptive_field is {receptive_field}: at {size} px it takes {takes}")
    if not 0 <= dropout < 1:
        raise UserError(f"model.dropout is {dropout}: it takes a share in [0, 1)")
    if l1_weight < 0 or adversarial_weight < 0 or l1_weight + adversarial_weight == 0:
        raise UserError(
            f"model.l1_weight and model.adversarial_weight are {l1_weight}, {adversarial_weight}: one must be above 0"
        )
    return AdversarialColorizer(
        UNet(depth, width, norm, dropout), PatchGAN(receptive_field, discriminator_width, norm),
        adversarial, l1_weight, adversarial_weight, multiple=2**depth,
    )  # fmt: skip


def halvings(size: int) -> int:
    """How often a size can be halved, at most ten times. Raises UserError where that is less than three times."""
    depth = 0
    while depth < 10 and size > 0 and size % 2 ** (depth + 1) == 0:
        depth += 1
    if depth < 3:
        raise UserError(
            f"model.size (or data.size, where that is not given) is {size}: the U-Net halves it three times or more, so"
            " it takes a multiple of 8"
        )
    return depth
