"""Conditional adversarial networks."""

from gan.adversarial import AdversarialColorizer, build

__all__ = ["AdversarialColorizer", "build"]
