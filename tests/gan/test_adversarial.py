import pytest
import torch
import torch.nn.functional as F

from common.color.lab import L_to_unit, ab_to_unit
from common.colorizer import frozen
from common.utils.errors import UserError
from gan.losses import gradient_penalty
from tests.gan.conftest import SIZE, small


def test_the_objectives_are_pix2pixs(batch):
    colorizer = small(loss={"l1_weight": 10.0, "adversarial_weight": 3.0})
    generator, discriminator = colorizer.training_step(batch)
    L, real = L_to_unit(batch.L), ab_to_unit(batch.ab)
    with torch.no_grad():
        fake = colorizer.generator(L)
        said_real, said_fake = (colorizer.discriminator(torch.cat([L, ab], 1)) for ab in (real, fake))
    bce = F.binary_cross_entropy_with_logits
    l1, fooled = F.l1_loss(fake, real), bce(said_fake, torch.ones_like(said_fake))
    torch.testing.assert_close(generator.loss, 10 * l1 + 3 * fooled)
    expected = (bce(said_real, torch.ones_like(said_real)) + bce(said_fake, torch.zeros_like(said_fake))) / 2
    torch.testing.assert_close(discriminator.loss, expected)


def test_the_penalty_is_weighed_and_logged(batch):
    colorizer = small(loss={"adversarial": "wgan-gp", "gradient_penalty": 7.0})
    _, critic = colorizer.training_step(batch)
    terms = critic.terms
    torch.testing.assert_close(critic.loss, terms["real"] + terms["fake"] + 7 * terms["penalty"])
    lab = torch.cat([L_to_unit(batch.L), ab_to_unit(batch.ab)], dim=1)
    assert gradient_penalty(colorizer.discriminator, lab, lab) > 0


@pytest.mark.parametrize("conditional", [True, False])
def test_the_discriminator_sees_lightness_or_not(batch, conditional):
    colorizer = small(discriminator={"conditional": conditional})
    with torch.no_grad():
        seen = [colorizer.discriminator_input(L_to_unit(L), ab_to_unit(batch.ab)) for L in (batch.L, 100 - batch.L)]
        alike = torch.equal(*(colorizer.discriminator(x) for x in seen))
    assert alike is not conditional


def test_updates_of_the_discriminator_each_have_their_own_noise(batch):
    colorizer = small(discriminator={"updates": 3, "instance_noise": 0.5})
    torch.manual_seed(0)
    optimizers, losses = [], []
    for objective in colorizer.training_step(batch):
        optimizers.append(objective.optimizer)
        losses.append(objective.loss.item())
    assert optimizers == ["generator", *["discriminator"] * 3]
    assert len(set(losses[1:])) == 3
    assert colorizer.hooks.repeats


def test_instance_noise_falls_to_nothing(batch):
    colorizer = small(discriminator={"instance_noise": 0.5})
    picture = torch.zeros(64, 1, SIZE, SIZE), torch.zeros(64, 2, SIZE, SIZE)
    found = []
    for share in (0.0, 0.5, 1.0):
        colorizer.hooks.after_step(share)
        found.append(colorizer.discriminator_input(*picture).std().item())
    assert found == pytest.approx([0.5, 0.25, 0.0], abs=0.01)
    assert colorizer.eval().discriminator_input(*picture).std() == 0


def test_the_discriminator_sees_past_fakes(batch):
    colorizer = small(discriminator={"pool": 4})
    seen = []
    colorizer.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    for step in range(3):
        seen.clear()
        torch.manual_seed(step)
        for objective in colorizer.training_step(batch):
            if objective.optimizer == "generator":
                objective.loss.backward()
                with torch.no_grad():  # as if the generator had learned a lot
                    for parameter in colorizer.generator.parameters():
                        parameter.add_(0.1 * torch.randn_like(parameter))
        for_generator, _, for_discriminator = seen
        assert torch.equal(for_generator, for_discriminator) is (step == 0)


STAGES = [
    {"train": "generator", "share": 0.3, "freeze_encoder": True},
    {"train": "discriminator", "share": 0.3},
    {"train": "both", "share": 0.4},
]


def test_each_stage_trains_what_it_says(batch):
    colorizer = small(stages=STAGES, generator={"norm": "batch"})
    found = {}
    for share in (0.1, 0.4, 0.8):
        colorizer.hooks.after_step(share)
        colorizer.zero_grad(set_to_none=True)
        trained = []
        for objective in colorizer.training_step(batch):
            objective.loss.backward()
            trained.append((objective.optimizer, "adversarial" in objective.terms))
        found[share] = trained
        encoder = [p.grad is not None for p in colorizer.generator.encoder.parameters()]
        assert any(encoder) is (share == 0.8)
        assert all(encoder) is any(encoder)
        assert colorizer.generator.encoder.training is (share == 0.8)  # what rests keeps its statistics, too
        assert colorizer.generator.training is (share != 0.4)
    assert found == {0.1: [("generator", False)], 0.4: [("discriminator", False)],
                     0.8: [("generator", True), ("discriminator", False)]}  # fmt: skip
    assert colorizer.hooks.partly_trained == ("generator",)


def test_l1_alone_has_no_discriminator(batch):
    colorizer = small(loss={"adversarial_weight": 0.0})
    assert set(colorizer.networks()) == {"generator"}
    (objective,) = colorizer.training_step(batch)
    torch.testing.assert_close(objective.loss, 100 * objective.terms["l1"])
    assert not colorizer.hooks.diagnose(batch).scalars.keys() & {"accuracy/real"}


def test_the_diagnosis_shares_add_up_and_are_gradients(batch):
    colorizer = small(loss={"l1_weight": 5.0}, perceptual={"weight": 0.3, "random": True, "layers": ["relu1_1"]})
    with torch.no_grad():
        scalars = colorizer.eval().hooks.diagnose(batch).scalars
    shares = {k: v for k, v in scalars.items() if k.startswith("gradient_share/")}
    assert set(shares) == {f"gradient_share/{t}" for t in ("l1", "perceptual_random", "adversarial")}
    assert sum(shares.values()) == pytest.approx(1, rel=1e-5)
    assert min(shares.values()) > 0
    only = small(loss={"l1_weight": 0.0, "adversarial_weight": 2.0}).eval().hooks.diagnose(batch).scalars
    assert only["gradient_share/adversarial"] == 1
    assert 0 <= only["accuracy/real"] <= 1
    assert all(p.grad is None for p in colorizer.parameters())


def test_frozen_passes_gradients_through_and_restores():
    colorizer = small()
    lab = torch.rand(1, 3, SIZE, SIZE, requires_grad=True)
    with frozen(colorizer.discriminator) as judge:
        judge(lab).sum().backward()
    assert lab.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in colorizer.discriminator.parameters())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"loss": {"adversarial": "wgan-gp"}, "discriminator": {"norm": "batch"}}, "with wgan-gp, expected instance"),
        ({"loss": {"adversarial_weight": 0.0}, "stages": [{"train": "both", "share": 1.0}]}, "leave the stages out"),
        ({"loss": {"l1_weight": 0.0, "adversarial_weight": 0.0}}, "needs one of them"),
        ({"los": {}}, "did you mean 'loss'"),
        ({"loss": {"l1_wieght": 1.0}}, "model.loss.l1_wieght is not an option"),
        ({"stages": [{"train": "both", "shore": 1.0}]}, "model.stages.shore is not an option"),
    ],
)
def test_bad_options_are_one_sentence(options, says):
    with pytest.raises(UserError) as caught:
        small(**options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_generator_alone_is_not_diagnosed_with_an_adversary(batch):
    colorizer = small(stages=STAGES).eval()
    alone = colorizer.hooks.diagnose(batch).scalars
    assert alone == {"gradient_share/l1": 1.0, "stage": 0.0}
    colorizer.hooks.after_step(0.9)
    assert {"gradient_share/adversarial", "accuracy/real", "accuracy/running"} < colorizer.hooks.diagnose(
        batch
    ).scalars.keys()
