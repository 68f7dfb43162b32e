"""Building of GAN colorizers from their options."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

from common.training.losses import MixedLoss, loss_weights
from common.training.perceptual import PerceptualConfig
from common.utils.errors import UserError
from common.utils.options import refuse_unused
from gan.adversarial import AdversarialColorizer
from gan.cyclegan import CycleColorizer, CycleDiscriminators, CycleGenerators
from gan.generators import TIMM_ENCODER, GeneratorConfig, build_generator
from gan.losses import LossConfig
from gan.patchgan import DiscriminatorConfig, build_discriminator
from gan.stages import StageConfig, check_stages


def build(
    size: int | None = None,
    method: Literal["pix2pix", "cyclegan"] = "pix2pix",
    generator: GeneratorConfig = GeneratorConfig(),
    discriminator: DiscriminatorConfig = DiscriminatorConfig(),
    loss: LossConfig = LossConfig(),
    perceptual: PerceptualConfig = PerceptualConfig(),
    stages: list[StageConfig] | None = None,
) -> AdversarialColorizer | CycleColorizer:
    """Build an adversarial colorizer.

    Args:
        size: of the pictures (default: the size of the training data).
        method: `pix2pix` learns from pairs of L and ab, `cyclegan` from color photographs and the lightness of other
            photographs.
        generator: the network that predicts ab.
        discriminator: the network that classifies ab as real or generated.
        loss: the losses of both networks.
        perceptual: the perceptual loss.
        stages: which networks are trained in which part of the run (default: both in the whole run).
    """
    size = 64 if size is None else size
    if loss.adversarial == "wgan-gp" and discriminator.norm == "batch":
        raise UserError(
            "model.discriminator.norm is batch: with wgan-gp, expected instance or none, since the gradient penalty is"
            " computed for each picture separately"
        )
    if method == "cyclegan":
        return _cyclegan(size, generator, discriminator, loss, perceptual, stages)
    if stages is None:
        stages = [StageConfig("both" if loss.adversarial_weight else "generator", 1.0)]
    check_stages(stages)
    if generator.network == "encoder_unet" and generator.freeze == "all" and any(s.freeze_encoder for s in stages):
        raise UserError(
            "model.stages has freeze_encoder true and model.generator.freeze is all, which freezes the encoder in the"
            " whole run: leave freeze_encoder out, or set model.generator.freeze none"
        )
    adversarial = any(stage.train != "generator" for stage in stages)
    refuse_unused("model.loss", loss, ("cycle_weight", "identity_weight"), "the method pix2pix")
    if not adversarial:
        names = [f.name for f in fields(DiscriminatorConfig)]
        refuse_unused("model.discriminator", discriminator, names, "a generator that learns alone")
    if loss.adversarial != "wgan-gp":
        refuse_unused("model.loss", loss, ("gradient_penalty",), f"the loss {loss.adversarial}")
    if adversarial and not loss.adversarial_weight:
        raise UserError(
            "model.loss.adversarial_weight is 0 and model.stages trains the discriminator: give the weight, or leave"
            " the stages out"
        )
    if loss.pixel:
        loss_weights(loss.pixel, "model.loss.pixel")
    pixel_loss = MixedLoss({"l1": loss.l1_weight} | loss.pixel, perceptual)
    if not pixel_loss.weights and any(stage.train == "generator" for stage in stages):
        raise UserError(
            "model.loss.l1_weight and model.perceptual.weight are 0: a stage of the generator alone needs one of them"
        )
    return AdversarialColorizer(
        build_generator(generator, size),
        build_discriminator(discriminator, size) if adversarial else None,
        pixel_loss, loss, discriminator, stages,
    )  # fmt: skip


def upgrade(model: dict) -> dict:
    """Convert options of old weights and runs. Their generators have no `freeze`, and all name the encoder resnet18."""
    generator = model.get("generator")
    if not isinstance(generator, dict):
        return model
    generator = {"freeze": "all"} | generator
    if generator.get("network") != "encoder_unet" and generator.get("encoder") == TIMM_ENCODER:
        generator["encoder"] = None
    return model | {"generator": generator}


def _cyclegan(
    size: int, generator: GeneratorConfig, discriminator: DiscriminatorConfig, loss: LossConfig,
    perceptual: PerceptualConfig, stages: list[StageConfig] | None,
) -> CycleColorizer:  # fmt: skip
    given = {"stages": stages is not None, "perceptual.weight": perceptual.weight, "loss.pixel": loss.pixel}
    for name, value in given.items():
        if value:
            raise UserError(f"model.{name} is given: the method cyclegan does not use it, leave it out or take pix2pix")
    if generator.network == "encoder_unet":
        raise UserError(
            "model.generator.network is encoder_unet, which takes L alone: the method cyclegan takes unet,"
            " encoder_decoder, timm or dynamic_unet"
        )
    if loss.adversarial == "wgan-gp":
        raise UserError("model.loss.adversarial is wgan-gp: the method cyclegan takes vanilla, lsgan or hinge")
    if not (loss.cycle_weight and loss.adversarial_weight):
        raise UserError(
            f"model.loss.cycle_weight and model.loss.adversarial_weight are {loss.cycle_weight} and"
            f" {loss.adversarial_weight}: the method cyclegan needs both above 0"
        )
    if not discriminator.conditional:
        raise UserError(
            "model.discriminator.conditional is false: the color discriminator of cyclegan always gets L and ab"
        )
    return CycleColorizer(
        CycleGenerators(build_generator(generator, size, 3, 2), build_generator(generator, size, 3, 1)),
        CycleDiscriminators(build_discriminator(discriminator, size, 3), build_discriminator(discriminator, size, 1)),
        loss, discriminator,
    )  # fmt: skip
