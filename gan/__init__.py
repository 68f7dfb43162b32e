"""Conditional adversarial networks."""

from gan.build import build

__all__ = ["build"]
