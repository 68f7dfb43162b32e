"""Small colorizers of the family, and a batch."""

import pytest
import torch

from common.colorizer import Batch
from common.registry import build_colorizer

SIZE = 16


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
    return build_colorizer("gan", **model)


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return Batch(torch.rand(4, 1, SIZE, SIZE) * 100, torch.rand(4, 2, SIZE, SIZE) * 80 - 40)
