"""Building a colorizer of this family from its options."""

from __future__ import annotations

from typing import Literal

from common.utils.errors import UserError
from gan.adversarial import AdversarialColorizer
from gan.cyclegan import CycleColorizer, CycleDiscriminators, CycleGenerators
from gan.generators import GeneratorConfig, build_generator
from gan.losses import LossConfig
from gan.patchgan import DiscriminatorConfig, build_discriminator
from gan.perceptual import PerceptualConfig
from gan.recipe import StageConfig, check_stages


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
        method: `pix2pix` learns from photographs and their own lightness, `cyclegan` from color photographs and other
            photographs' lightness.
        generator: the network that paints.
        discriminator: the network that judges.
        loss: what is minimised.
        perceptual: the perceptual term.
        stages: what learns when (default: both, all the time).
    """
    size = 64 if size is None else size
    if loss.adversarial == "wgan-gp" and discriminator.norm == "batch":
        raise UserError(
            "model.discriminator.norm is batch: with wgan-gp it takes instance or none, since the penalty is for each"
            " picture alone"
        )
    if method == "cyclegan":
        return _cyclegan(size, generator, discriminator, loss, perceptual, stages)
    if stages is None:
        stages = [StageConfig("both" if loss.adversarial_weight else "generator", 1.0)]
    check_stages(stages)
    judged = any(stage.train != "generator" for stage in stages)
    if judged and not loss.adversarial_weight:
        raise UserError(
            "model.loss.adversarial_weight is 0 and model.stages trains the discriminator: give the weight, or leave"
            " the stages out"
        )
    if loss.l1_weight + perceptual.weight == 0 and any(stage.train == "generator" for stage in stages):
        raise UserError(
            "model.loss.l1_weight and model.perceptual.weight are 0: a generator that learns alone needs one of them"
        )
    return AdversarialColorizer(
        build_generator(generator, size),
        build_discriminator(discriminator, size) if judged else None,
        loss, perceptual, discriminator, stages,
    )  # fmt: skip


def _cyclegan(
    size: int, generator: GeneratorConfig, discriminator: DiscriminatorConfig, loss: LossConfig,
    perceptual: PerceptualConfig, stages: list[StageConfig] | None,
) -> CycleColorizer:  # fmt: skip
    for name, given in {"stages": stages is not None, "perceptual.weight": perceptual.weight}.items():
        if given:
            raise UserError(f"model.{name} is given: the method cyclegan has none, leave it out or take pix2pix")
    if loss.adversarial == "wgan-gp":
        raise UserError("model.loss.adversarial is wgan-gp: the method cyclegan takes vanilla, lsgan or hinge")
    if not (loss.cycle_weight and loss.adversarial_weight):
        raise UserError(
            f"model.loss.cycle_weight and model.loss.adversarial_weight are {loss.cycle_weight} and"
            f" {loss.adversarial_weight}: the method cyclegan needs both above 0"
        )
    if not discriminator.conditional:
        raise UserError("model.discriminator.conditional is false: the method cyclegan judges whole pictures")
    return CycleColorizer(
        CycleGenerators(build_generator(generator, size, 3, 2), build_generator(generator, size, 3, 1)),
        CycleDiscriminators(build_discriminator(discriminator, size, 3), build_discriminator(discriminator, size, 1)),
        loss, discriminator,
    )  # fmt: skip
