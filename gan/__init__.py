"""Conditional adversarial networks."""

from common.registry import register_family
from gan.build import build, upgrade

__all__ = ["build"]

register_family("gan", build, upgrade)
