"""Nested plain values -> a checked TrainConfig."""

from __future__ import annotations

import json

from common.training.config import TrainConfig, parse_config

_GROUPS = ("data", "augment", "optim", "model")


def config_from_dict(values: dict) -> TrainConfig:
    """Check nested plain values, as a config file holds them.

    Raises UserError with one line that names the key, its value and what it takes.
    """
    return parse_config(_flags(values), "", "config")


def _flags(values: dict, prefix: str = "") -> list[str]:
    flags = []
    for key, value in values.items():
        if isinstance(value, dict) and (f"{prefix}{key}" in _GROUPS or f"{prefix}{key}".startswith("model.")):
            flags += _flags(value, f"{prefix}{key}.")
        else:
            flags.append(f"--{prefix}{key}={value if isinstance(value, str) else json.dumps(value)}")
    return flags
