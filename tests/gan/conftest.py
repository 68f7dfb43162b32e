"""Small colorizers of the family."""

import torch

from common.registry import build_colorizer
from tests.conftest import SIDE as SIZE


def small(**options):
    """A tiny colorizer without anything random in its forward; options are groups, as in a config."""
    torch.manual_seed(0)
    model = {
        "size": SIZE,
        "generator": {"width": 4, "dropout": 0.0, "norm": "none"},
        "discriminator": {"width": 4, "receptive_field": 16, "norm": "none"},
    }
    for key, value in options.items():
        model[key] = model[key] | value if isinstance(model.get(key), dict) else value
    if (
        model.get("loss", {}).get("adversarial_weight") == 0
        and "discriminator" not in options
        and "stages" not in options
    ):
        del model["discriminator"]  # its options would be refused
    return build_colorizer("gan", **model)
