"""Colorization as classification of quantized ab, and regression with the same trunk for comparison."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classification.ab_quantizer import ABQuantizer, check_temperature
from classification.network import Trunk
from classification.rebalancing import baked_shift, class_weights
from classification.soft_cross_entropy import soft_cross_entropy
from common.color.lab import L_to_unit, ab_from_unit
from common.colorizer import Batch, Colorizer, Diagnosis, Objective, TrainingHooks
from common.data.color_prior import ab_planes, compute_prior, read_prior
from common.data.packing import Pack
from common.networks.encoder_unet import DEFAULT_ENCODER, EncoderUNet, Freeze, check_other_network
from common.networks.fully_connected import FullyConnected
from common.training.losses import PIXEL_LOSSES, MixedLoss, weighted_sum
from common.utils.errors import UserError
from common.utils.options import refuse_unused_arguments


def quarter(ab: Tensor) -> Tensor:
    """Subsample ab [N, 2, H, W] to [N, 2, H/4, W/4] by nearest neighbor, as in the paper.

    Means of 4x4 pixels would be less saturated than the pixels that the prior counts.
    """
    return F.interpolate(ab, scale_factor=0.25, mode="nearest-exact")


def enlarge(x: Tensor) -> Tensor:
    """Enlarge [N, C, h, w] bilinearly to [N, C, 4h, 4w]."""
    return F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False)


class ClassificationColorizer(Colorizer):
    """Predicts logits over ab bins at a quarter of the size, and decodes them (Zhang, Isola and Efros 2016).

    `shift` makes a classifier that was trained without rebalancing predict rare colors more often: shift times the
    logarithm of the class weights of lambda 0.5 is added to the logits, which for an ideal classifier equals training
    with rebalancing. The loss does not include the shift, so training does not unlearn it.

    Args:
        network: maps L [N, 1, H, W] in network range to unshifted logits [N, Q, H/4, W/4].
        quantizer: the bins.
        uniform_share: lambda of the class weights.
        prior_file: file of the prior (default: it is computed from the training photographs).
        temperature: of the annealed mean.
        upsample: what is upsampled to the input size, ab or the logits.
        shift: 0 to 1.
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
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= shift <= 1 or (shift and uniform_share < 1):
            raise UserError(
                f"model.shift is {shift} and model.rebalancing_lambda {uniform_share}: expected a share from 0 to 1,"
                " and above 0 model.rebalancing_lambda 1, which is training without rebalancing"
            )
        self.shift = shift
        self.network, self.quantizer = network, quantizer
        self.multiple = getattr(network, "multiple", self.multiple)
        self.uniform_share, self.prior_file, self.upsample = uniform_share, prior_file, upsample
        self.temperature = check_temperature(temperature)
        bins = quantizer.num_bins
        self.register_buffer("prior", torch.full((bins,), 1 / bins))
        class_weights(self.prior, uniform_share)  # to check lambda

    def logits(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> logits [N, Q, H/4, W/4], with the shift."""
        logits = self.unshifted_logits(L)
        return logits + self.shift * self.log_class_weights if self.shift else logits

    def unshifted_logits(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> the logits that are trained, [N, Q, H/4, W/4]."""
        return self.network(L_to_unit(L))

    @property
    def log_class_weights(self) -> Tensor:
        """Logarithm of the class weights of lambda 0.5, [Q, 1, 1]."""
        return class_weights(self.prior).log()[:, None, None]

    def forward(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> ab [N, 2, H, W] in CIELAB units."""
        return self.decode(self.logits(L))

    def decode(self, logits: Tensor) -> Tensor:
        """Logits [N, Q, h, w] -> ab [N, 2, 4h, 4w] in CIELAB units, by the annealed mean."""
        if self.upsample == "logits":
            return self.quantizer.annealed_mean(enlarge(logits.float()), self.temperature)
        return enlarge(self.quantizer.annealed_mean(logits, self.temperature))

    def distribution(self, L: Tensor) -> tuple[Tensor, Tensor]:
        """L [N, 1, H, W] -> (probabilities [N, Q, H/4, W/4] at temperature 1, ab of the bins [Q, 2])."""
        return self.quantizer.distribution(self.logits(L)), self.quantizer.ab_bins

    def embed(self, L: Tensor) -> Tensor | None:
        """The features before the last layer of `encoder_unet`, [N, C, H/4, W/4]; None for the other networks."""
        return self.network.features(L_to_unit(L)) if isinstance(self.network, EncoderUNet) else None

    def training_step(self, batch: Batch) -> Iterator[Objective]:
        """Yield one objective: soft cross-entropy with class weights (Zhang et al. 2016, equation 2)."""
        ab = quarter(batch.ab)
        indices, weights = self.quantizer.soft_encode(ab)  # [N, h, w, 5], the nearest bin first
        cross_entropy = soft_cross_entropy(self.unshifted_logits(batch.L), indices, weights)
        rebalanced = (class_weights(self.prior, self.uniform_share)[indices[..., 0]] * cross_entropy).mean()
        terms = {"cross_entropy": cross_entropy.mean(), "cross_entropy_rebalanced": rebalanced}
        yield Objective("network", rebalanced, terms)

    @cached_property
    def hooks(self) -> TrainingHooks:
        """Hooks that compute the prior and log which bins are predicted."""
        return ClassificationHooks(self)


class ClassificationHooks(TrainingHooks):
    """Computes the prior before the first step, and logs which bins are predicted."""

    def __init__(self, colorizer: ClassificationColorizer) -> None:
        self.colorizer, self.has_prior = colorizer, False

    @torch.no_grad()
    def start_from(self, card: dict) -> None:
        """Subtract the shift that is in the bias of older published weights, and keep their prior.

        With the same prior and the option `shift`, published weights of the new run have the same shift again.
        """
        colorizer, self.has_prior = self.colorizer, True
        colorizer.network.head.bias.sub_(baked_shift(card) * colorizer.log_class_weights.flatten())

    def prepare(self, photographs: Pack) -> None:
        """Read the prior from its file, or compute it from the training photographs, unless the weights have one."""
        grid, file = self.colorizer.quantizer.grid, self.colorizer.prior_file
        if self.has_prior and not file:
            return
        prior = read_prior(file) if file else compute_prior(photographs, grid)
        if prior.grid != grid:
            raise UserError(
                f"prior {file} is of grid {prior.grid} and model.grid is {grid}: compute it again with --grid {grid},"
                " or leave model.prior out"
            )
        self.colorizer.prior.copy_(prior.p)

    @torch.no_grad()
    def diagnose(self, batch: Batch) -> Diagnosis:
        """Histograms of the predicted and the true bins, and the prior."""
        quantizer, prior = self.colorizer.quantizer, self.colorizer.prior
        logits = self.colorizer.logits(batch.L)
        predicted = self.colorizer.decode(logits)
        bins = {
            "true": quantizer.nearest(quarter(batch.ab)),
            "most likely": logits.argmax(dim=1),
            "annealed mean": quantizer.nearest(quarter(predicted)),
        }
        counts = {"prior": prior.double()}
        counts |= {k: torch.bincount(v.flatten(), minlength=quantizer.num_bins).double() for k, v in bins.items()}
        shares = {name: (count / count.sum()).cpu() for name, count in counts.items()}
        grey = three_greyest(quantizer.ab_bins.cpu(), shares["prior"])
        scalars = {f"greyest_bins/{name.replace(' ', '_')}": float(share[grey].sum()) for name, share in shares.items()}
        return Diagnosis(scalars, {"bins": lambda: ab_planes(shares, quantizer.grid, "share of pixels")})


def three_greyest(ab_bins: Tensor, prior: Tensor) -> Tensor:
    """Indices [3] of the bins with the smallest chroma. Of bins with equal chroma, the more frequent comes first."""
    chroma = ab_bins.norm(dim=1)
    return torch.tensor(sorted(range(len(chroma)), key=lambda i: (round(float(chroma[i]), 3), -float(prior[i])))[:3])


class TrunkRegressionColorizer(Colorizer):
    """Regression with the same trunk, as in the paper: it predicts ab at a quarter of the size.

    network: maps [N, 1, H, W] to [N, 2, H/4, W/4], both in network range. loss: applied at a quarter of the size.
    """

    multiple = 8

    def __init__(self, network: nn.Module, loss: MixedLoss) -> None:
        super().__init__()
        self.network, self.loss = network, loss
        self.multiple = getattr(network, "multiple", self.multiple)

    def small_ab(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> ab [N, 2, H/4, W/4] in CIELAB units."""
        return ab_from_unit(self.network(L_to_unit(L)))

    def forward(self, L: Tensor) -> Tensor:
        """L [N, 1, H, W] in 0..100 -> ab [N, 2, H, W] in CIELAB units."""
        return enlarge(self.small_ab(L))

    def training_step(self, batch: Batch) -> Iterator[Objective]:
        """Yield one objective."""
        terms = self.loss.terms(quarter(batch.L), self.small_ab(batch.L), quarter(batch.ab))
        yield Objective("network", *weighted_sum(terms))


def build(
    network: Literal["zhang2016", "small", "encoder_unet", "fully_connected"] = "small",
    width: float = 1.0,
    loss: str = "cross_entropy",
    grid: int = 10,
    rebalancing_lambda: float = 0.5,
    prior: str | None = None,
    temperature: float = 0.38,
    upsample: Literal["ab", "logits"] = "ab",
    shift: float = 0.0,
    encoder: str = DEFAULT_ENCODER,
    pretrained: bool = False,
    freeze: Freeze = "all",
    size: int | None = None,
    dropout: float = 0.0,
) -> ClassificationColorizer | TrunkRegressionColorizer:
    """Build a classifier of colors, or a regressor with the same trunk.

    Args:
        network: `zhang2016` is the paper's conv1 to conv8 (32 M parameters), `small` a smaller form for sizes from 32
            (3.9 M), `encoder_unet` a U-Net on a timm encoder (0.78 M trained parameters), `fully_connected` a linear
            layer over the whole picture (32 and 64 px).
        width: factor on the number of channels, as in 0.25. With `encoder_unet`, only of the decoder.
        loss: `cross_entropy` predicts a distribution over colors. mse, l1 and smooth_l1 are regression with the same
            trunk, for which the options from `grid` to `shift` are not available.
        grid: side of the bins, in ab units.
        rebalancing_lambda: share of the uniform distribution in the class weights. 1 turns rebalancing off, 0 weights
            by the inverse of the prior.
        prior: file written by scripts.compute_prior (default: computed from the training photographs).
        temperature: of the annealed mean, which reduces a distribution to one color.
        upsample: what is enlarged from a quarter to full size: `ab` or `logits`.
        shift: adds shift (0 to 1) times the logarithm of the class weights of lambda 0.5 to the logits, which makes
            predictions more colorful. It is for classifiers without rebalancing, and does not change their training.
        encoder: with `encoder_unet`, a timm network with feature maps.
        pretrained: start the encoder of `encoder_unet` from ImageNet weights.
        freeze: of `encoder_unet`: `all` freezes the encoder, `stages` its layers up to 1/8 of the size, `none` nothing.
        size: of the pictures of `fully_connected` (default: that of the training data).
        dropout: probability, after each batch norm of `fully_connected`.
    """
    if network != "encoder_unet":
        check_other_network(network, encoder, pretrained, freeze)
    unused = {"width": width} if network == "fully_connected" else {"dropout": dropout}
    refuse_unused_arguments("model", build, unused, f"the network {network}")

    def build_network(out_channels: int) -> nn.Module:
        if network == "encoder_unet":
            return EncoderUNet(out_channels, encoder, pretrained, freeze, width)
        if network == "fully_connected":
            return FullyConnected(64 if size is None else size, out_channels, dropout, by_pixel=False)
        return Trunk(network, out_channels, width)

    if loss != "cross_entropy":
        if loss not in PIXEL_LOSSES:
            raise UserError(f"model.loss is {loss}: expected cross_entropy, {', '.join(PIXEL_LOSSES)}")
        unused = {"grid": grid, "rebalancing_lambda": rebalancing_lambda, "prior": prior, "temperature": temperature,
                  "upsample": upsample, "shift": shift}  # fmt: skip
        refuse_unused_arguments("model", build, unused, f"the loss {loss}")
        return TrunkRegressionColorizer(build_network(2), MixedLoss({loss: 1.0}))
    quantizer = ABQuantizer(grid)
    trunk = build_network(quantizer.num_bins)
    return ClassificationColorizer(trunk, quantizer, rebalancing_lambda, prior, temperature, upsample, shift)
