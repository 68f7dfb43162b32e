"""Options that the chosen network, loss or method does not use are refused by their name, in every family."""

import pytest

from common.registry import build_colorizer
from common.training.parser import config_from_dict
from common.utils.errors import UserError

ALONE = {"size": 32, "loss": {"adversarial_weight": 0.0}}


@pytest.mark.parametrize(
    ("family", "model", "name"),
    [
        ("baselines", {"network": "cnn", "pretrained": True}, "model.pretrained"),
        ("baselines", {"network": "cnn_deep", "encoder": "timm"}, "model.encoder"),
        ("baselines", {"network": "cnn", "freeze": "none"}, "model.freeze"),
        ("baselines", {"perceptual": {"network": "vgg19"}}, "model.perceptual.network"),
        ("baselines", {"network": "cnn", "channels": [8]}, "model.channels"),
        ("baselines", {"network": "mean_chroma", "activation": "sigmoid"}, "model.activation"),
        ("baselines", {"network": "transposed", "dropout": 0.5}, "model.dropout"),
        ("baselines", {"network": "cnn_deep", "target": "rgb"}, "model.target"),
        ("baselines", {"network": "encoder_decoder", "encoder_size": 64}, "model.encoder_size"),
        ("classification", {"network": "small", "dropout": 0.5}, "model.dropout"),
        ("classification", {"network": "fully_connected", "width": 0.5}, "model.width"),
        ("classification", {"loss": "mse", "temperature": 0.5}, "model.temperature"),
        ("classification", {"loss": "mse", "prior": "missing.json"}, "model.prior"),
        ("classification", {"loss": "l1", "upsample": "logits"}, "model.upsample"),
        ("classification", {"network": "small", "encoder": "resnet18"}, "model.encoder"),
        ("gan", {"size": 32, "loss": {"cycle_weight": 5.0}}, "model.loss.cycle_weight"),
        ("gan", {"size": 32, "loss": {"gradient_penalty": 5.0}}, "model.loss.gradient_penalty"),
        ("gan", {"size": 32, "generator": {"encoder": "resnet34"}}, "model.generator.encoder"),
        ("gan", ALONE | {"discriminator": {"receptive_field": 16}}, "model.discriminator.receptive_field"),
        ("gan", {"size": 32, "perceptual": {"layers": ["relu1_1"]}}, "model.perceptual.layers"),
        ("gan", {"size": 32, "method": "cyclegan", "perceptual": {"weight": 1.0}}, "model.perceptual.weight"),
    ],
)
def test_of_a_model(family, model, name):
    with pytest.raises(UserError, match=f"^{name} is ") as caught:
        build_colorizer(family, **model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"augment": {"min_scale": 0.5}}, "augment.min_scale"),
        ({"augment": {"intensity": 0.6, "brightness": 0.2}}, "augment.brightness"),
        ({"optim": {"plateau_min": 0.1}}, "optim.plateau_min"),
        ({"optim": {"plateau_factor": 0.1}}, "optim.plateau_factor"),
        ({"optim": {"schedule": "linear", "plateau_patience": 7}}, "optim.plateau_patience"),
    ],
)
def test_of_a_run(values, name):
    with pytest.raises(UserError, match=f"^{name} is "):
        config_from_dict({"family": "baselines", **values})
