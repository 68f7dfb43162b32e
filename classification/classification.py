"""Colorization as classification, and the L2 regression with the same trunk that it is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classification.ab_quantizer import ABQuantizer, check_temperature
from classification.network import Trunk
from classification.rebalancing import class_weights
from classification.soft_cross_entropy import soft_cross_entropy
from common.color.lab import L_to_unit, ab_from_unit, ab_to_unit
from common.colorizer import Batch, Colorizer, Diagnosis, Objective
from common.data.color_prior import ab_planes, compute_prior, read_prior
from common.data.packing import Pack
from common.networks.encoder_unet import DEFAULT_ENCODER, EncoderUNet, Freeze, check_other_network
from common.utils.errors import UserError


def quarter(ab: Tensor) -> Tensor:
    """The true colors at the trunk's output size: one pixel in four along each axis, as the paper subsamples.

    A mean over 4x4 pixels would be greyer than any of them, and no longer follow the prior, which counts pixels.
    """
    return F.interpolate(ab, scale_factor=0.25, mode="nearest-exact")


def enlarge(x: Tensor) -> Tensor:
    """[N, C, h, w] -> [N, C, 4h, 4w], bilinear."""
    return F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False)


class ClassificationColorizer(Colorizer):
    """L -> logits over ab bins at a quarter of the size -> annealed mean (Zhang, Isola and Efros 2016).

    uniform_share: lambda of the class weights. prior_file: whose prior (default: that of the training photographs).
    temperature: of the annealed mean; it may be set at any time. upsample: what is enlarged to full size.
    """

    multiple = 8

    def __init__(
        self,
        network: nn.Module,
        quantizer: ABQuantizer,
        uniform_share: float = 0.5,
        prior_file: str | None = None,
        temperature: float = 0.38,
        upsample: Literal["ab", "logits"] = "ab",
    ) -> None:
        super().__init__()
        self.network, self.quantizer = network, quantizer
        self.multiple = getattr(network, "multiple", self.multiple)
        self.uniform_share, self.prior_file, self.upsample = uniform_share, prior_file, upsample
        self.temperature = check_temperature(temperature)
        bins = quantizer.num_bins
        self.register_buffer("prior", torch.full((bins,), 1 / bins))
        class_weights(self.prior, uniform_share)  # lambda is checked before training begins

    def prepare(self, pack: Pack) -> None:
        """Take the prior from its file, else from the training photographs."""
        grid = self.quantizer.grid
        prior = read_prior(self.prior_file) if self.prior_file else compute_prior(pack, grid)
        if prior.grid != grid:
            raise UserError(
                f"prior {self.prior_file} is of grid {prior.grid} and model.grid is {grid}: compute it again with"
                f" --grid {grid}, or leave model.prior out"
            )
        self.prior.copy_(prior.p)

    def logits(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> logits [N, Q, H/4, W/4]."""
        return self.network(L_to_unit(L))

    def forward(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> ab [N, 2, H, W] in CIELAB units."""
        return self.decode(self.logits(L))

    def decode(self, logits: Tensor) -> Tensor:
        """Logits [N, Q, h, w] -> ab [N, 2, 4h, 4w] in CIELAB units, by the annealed mean."""
        if self.upsample == "logits":
            return self.quantizer.annealed_mean(enlarge(logits.float()), self.temperature)
        return enlarge(self.quantizer.annealed_mean(logits, self.temperature))

    def distribution(self, L: Tensor) -> tuple[Tensor, Tensor]:
        """(probabilities [N, Q, H/4, W/4] at temperature 1, the colors of the bins [Q, 2])."""
        return self.quantizer.distribution(self.logits(L)), self.quantizer.ab_bins

    def training_step(self, batch: Batch) -> Iterator[Objective]:
        """One objective: soft cross-entropy, each pixel weighted by the class of its true color (equation 2)."""
        ab = quarter(batch.ab)
        indices, weights = self.quantizer.soft_encode(ab)  # [N, h, w, 5]
        each = soft_cross_entropy(self.logits(batch.L), indices, weights)
        # the nearest bin is the true class
        rebalanced = (class_weights(self.prior, self.uniform_share)[indices[..., 0]] * each).mean()
        yield Objective("network", rebalanced, {"cross_entropy": each.mean(), "cross_entropy_rebalanced": rebalanced})

    def networks(self) -> dict[str, nn.Module]:
        """One."""
        return {"network": self.network}

    def diagnose(self, batch: Batch) -> Diagnosis:
        """Which bins are predicted, beside the true ones and the prior."""
        bins = self.quantizer.num_bins
        logits = self.logits(batch.L)
        counts = {
            "prior": self.prior.double(),
            "true": torch.bincount(self.quantizer.nearest(quarter(batch.ab)).flatten(), minlength=bins).double(),
            "most likely": torch.bincount(logits.argmax(dim=1).flatten(), minlength=bins).double(),
            "annealed mean": torch.bincount(
                self.quantizer.nearest(quarter(self.decode(logits))).flatten(), minlength=bins
            ).double(),
        }
        shares = {name: (count / count.sum()).cpu() for name, count in counts.items()}
        grey = three_greyest(self.quantizer.ab_bins.cpu(), shares["prior"])
        scalars = {f"greyest_bins/{name.replace(' ', '_')}": float(share[grey].sum()) for name, share in shares.items()}
        return Diagnosis(scalars, {"bins": lambda: ab_planes(shares, self.quantizer.grid, "share of pixels")})


def three_greyest(ab_bins: Tensor, prior: Tensor) -> Tensor:
    """Indices of the three bins of least chroma; of equally grey ones, the more frequent."""
    chroma = ab_bins.norm(dim=1)
    return torch.tensor(sorted(range(len(chroma)), key=lambda i: (round(float(chroma[i]), 3), -float(prior[i])))[:3])


class TrunkRegressionColorizer(Colorizer):
    """L -> ab by the same trunk with two outputs, under L2 at the trunk's output size: the paper's regression."""

    multiple = 8

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.multiple = getattr(network, "multiple", self.multiple)

    def forward(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> ab [N, 2, H, W] in CIELAB units."""
        return enlarge(ab_from_unit(self.network(L_to_unit(L)).float()))

    def training_step(self, batch: Batch) -> Iterator[Objective]:
        """One objective: mean squared error in network range."""
        mse = F.mse_loss(self.network(L_to_unit(batch.L)).float(), ab_to_unit(quarter(batch.ab)))
        yield Objective("network", mse, {"mse": mse})

    def networks(self) -> dict[str, nn.Module]:
        """One."""
        return {"network": self.network}


def build(
    network: Literal["zhang2016", "small", "encoder_unet"] = "small",
    width: float = 1.0,
    loss: Literal["cross_entropy", "mse"] = "cross_entropy",
    grid: int = 10,
    rebalancing_lambda: float = 0.5,
    prior: str | None = None,
    temperature: float = 0.38,
    upsample: Literal["ab", "logits"] = "ab",
    encoder: str = DEFAULT_ENCODER,
    pretrained: bool = False,
    freeze: Freeze = "all",
) -> ClassificationColorizer | TrunkRegressionColorizer:
    """Build a classifier of color, or the regressor with its trunk.

    Args:
        network: `zhang2016` is the paper's conv1 to conv8 (32 M parameters), `small` its six-block form (3.9 M), for
            sizes from 32; `encoder_unet` is a U-Net on a timm encoder (0.78 M learn beside the frozen encoder).
        width: factor on all channels, as in 0.25; of `encoder_unet`, on those of the decoder.
        loss: `cross_entropy` predicts a distribution over colors; `mse` is L2 regression by the same trunk, and the
            options from `grid` to `upsample` mean nothing to it.
        grid: side of the ab bins.
        rebalancing_lambda: share of the uniform distribution in the class weights; 1 is no rebalancing, 0 weighs by
            the inverse of the prior.
        prior: file of scripts.compute_prior (default: counted in the training photographs when a run begins).
        temperature: of the annealed mean that makes one color of a distribution.
        upsample: whether colors or logits are enlarged from a quarter to full size.
        encoder: of `encoder_unet`: a timm network with feature maps.
        pretrained: the encoder of `encoder_unet` starts from ImageNet weights.
        freeze: of `encoder_unet`: `all` freezes the encoder, `stages` its layers up to 1/8 of the size, `none` nothing.
    """
    if network != "encoder_unet":
        check_other_network(network, encoder, pretrained, freeze)
    quantizer = ABQuantizer(grid) if loss == "cross_entropy" else None
    outputs = quantizer.num_bins if quantizer else 2
    if network == "encoder_unet":
        net: nn.Module = EncoderUNet(outputs, encoder, pretrained, freeze, width)
    else:
        net = Trunk(network, outputs, width)
    if quantizer is None:
        return TrunkRegressionColorizer(net)
    return ClassificationColorizer(net, quantizer, rebalancing_lambda, prior, temperature, upsample)
