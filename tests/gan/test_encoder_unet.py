"""The generator `encoder_unet`: the network of the families `baselines` and `classification`."""

import pytest
import torch

from common.checkpoint import parameter_count
from common.color.lab import L_to_unit
from common.registry import build_colorizer, load_colorizer
from common.training.loop import train
from common.training.parser import config_from_dict
from common.utils.errors import UserError
from gan.encoder_unet import BoundedEncoderUNet
from gan.generators import GeneratorConfig, build_generator

STAGES = [
    {"train": "generator", "share": 0.4},
    {"train": "discriminator", "share": 0.3},
    {"train": "both", "share": 0.3},
]
DISCRIMINATOR = {"width": 4, "receptive_field": 16}


def build(**generator):
    torch.manual_seed(0)
    generator = {"network": "encoder_unet"} | generator
    return build_colorizer("gan", size=32, generator=generator, discriminator=DISCRIMINATOR)


def test_it_is_the_network_of_the_regression_followed_by_tanh():
    """Under the same names, so that weights of one are weights of the other."""
    ours, sibling = build().eval(), build_colorizer("baselines", network="encoder_unet").eval()
    ours.generator.load_state_dict(sibling.network.state_dict())
    L = L_to_unit(torch.rand(2, 1, 32, 64) * 100)
    with torch.no_grad():
        ours.generator.head.weight.mul_(1000)
        sibling.network.head.weight.mul_(1000)
        found, bare = ours.generator(L), sibling.network(L)
    torch.testing.assert_close(found, bare.tanh())
    assert bare.abs().max() > 1 > found.abs().max()
    assert parameter_count(ours.generator) == parameter_count(sibling.network) < 0.77e6
    assert ours.multiple == 32


def test_options_reach_the_network():
    """`freeze` and `encoder` change what is built; each network has its own default encoder."""
    assert parameter_count(build(freeze="none")) > parameter_count(build(freeze="stages")) > parameter_count(build())
    names = [build(**options).generator.encoder.feature_info.channels() for options in ({}, {"encoder": "resnet18"})]
    assert names == [[16, 24, 40, 112, 320], [64, 64, 128, 256, 512]]
    timm = build(network="timm", width=8).generator.encoder.feature_info.channels()
    assert timm == [64, 64, 128, 256, 512]


@pytest.mark.parametrize("freeze", ["all", "stages"])
def test_frozen_layers_do_not_change_in_any_stage_of_a_run(tmp_path, monkeypatch, freeze):
    """They stay in eval mode and receive no gradient; all other layers of the decoder learn."""
    modes, forward = [], BoundedEncoderUNet.forward

    def watched(self, x):
        frozen = [module for layer in self.frozen for module in layer.modules()]
        modes.append((self.refine.training, any(module.training for module in frozen)))
        assert frozen
        assert not [p for module in frozen for p in module.parameters()]
        assert not any(buffer.requires_grad for module in frozen for buffer in module.buffers())
        return forward(self, x)

    monkeypatch.setattr(BoundedEncoderUNet, "forward", watched)
    model = {
        "generator": {"network": "encoder_unet", "freeze": freeze},
        "discriminator": DISCRIMINATOR,
        "stages": STAGES,
    }
    values = {
        "family": "gan", "model": model, "data": {"train": "demo", "size": 32}, "device": "cpu", "precision": "fp32",
        "optim": {"lr": 0.01, "weight_decay": 0.1}, "batch_size": 4, "steps": 10, "eval_every": 100, "sample_every": 0,
        "run": str(tmp_path / "run"),
    }  # fmt: skip
    config = config_from_dict(values)
    trained = load_colorizer(train(config))
    torch.manual_seed(config.loop.seed)
    start = build_colorizer("gan", **config.model).state_dict()
    found = trained.state_dict()
    changed = {key for key in found if not torch.equal(found[key], start[key])}
    names = {id(module): name for name, module in trained.generator.named_modules()}
    for layer in trained.generator.frozen:
        prefix = f"generator.{names[id(layer)]}."
        assert not [key for key in changed if key.startswith(prefix)]
    assert (freeze == "all") is not any(key.startswith("generator.encoder.") for key in changed)
    assert {"generator.branch.0.0.weight", "generator.deepest.1.running_mean", "generator.head.bias"} <= changed
    assert {learning for learning, _ in modes} == {True, False}  # the stage of the discriminator does not train it
    assert not any(frozen for _, frozen in modes)


def test_a_stage_may_freeze_an_encoder_that_learns_otherwise():
    stages = [{"train": "generator", "share": 0.5, "freeze_encoder": True}, {"train": "both", "share": 0.5}]
    model = {"size": 32, "discriminator": DISCRIMINATOR, "stages": stages}
    assert build_colorizer("gan", generator={"network": "encoder_unet", "freeze": "stages"}, **model)
    with pytest.raises(UserError, match=r"^model\.stages has freeze_encoder true and model\.generator\.freeze is all"):
        build_colorizer("gan", generator={"network": "encoder_unet"}, **model)


@pytest.mark.parametrize(
    ("options", "size", "says"),
    [
        (
            {"width": 32},
            64,
            "the network encoder_unet does not use it: its options are encoder",
        ),
        ({"up": "bilinear"}, 64, "model.generator.up is bilinear: the network encoder_unet does not use it"),
        ({"network": "timm", "freeze": "none"}, 64, "model.generator.freeze is none: the network timm does not use it"),
        ({"network": "unet", "freeze": "stages"}, 64, "model.generator.freeze is stages: the network unet does not"),
        ({"freeze": "half"}, 64, "model.generator.freeze is half: expected all, stages, none"),
        (
            {"encoder": "tf_efficientnet_lite00"},
            64,
            "encoder is tf_efficientnet_lite00: expected a name",
        ),
        ({}, 48, "is 48: this generator halves it until it is 32 times smaller"),
    ],
)
def test_bad_options_are_one_sentence(options, size, says):
    with pytest.raises(UserError) as caught:
        build_generator(GeneratorConfig(**{"network": "encoder_unet"} | options), size)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cyclegan_does_not_take_it():
    with pytest.raises(UserError, match=r"^model\.generator\.network is encoder_unet, which takes L alone"):
        build_colorizer("gan", size=32, method="cyclegan", generator={"network": "encoder_unet"})


def test_configs_of_older_runs_are_read_and_their_runs_resume(tmp_path):
    """They name resnet18, the default of that time, for every network, and have no `freeze`."""
    assert GeneratorConfig(encoder="resnet18") == GeneratorConfig()
    run = tmp_path / "run"
    values = {
        "family": "gan", "model": {"generator": {"width": 4}, "discriminator": DISCRIMINATOR}, "device": "cpu",
        "data": {"train": "demo", "size": 32}, "batch_size": 4, "steps": 1, "sample_every": 0, "run": str(run),
    }  # fmt: skip
    train(config_from_dict(values))
    saved = run / "config.yaml"
    text = saved.read_text()
    old = text.replace("encoder: null", "encoder: resnet18").replace("    freeze: all\n", "")
    assert old.count("resnet18") == 1
    assert "freeze" not in old
    saved.write_text(old)
    assert train(config_from_dict(values | {"steps": 2})) == run
