"""Colorization as classification of quantized ab."""

from classification.classification import ClassificationColorizer, build
from classification.rebalancing import starting_model, upgrade
from common.registry import register_family

__all__ = ["ClassificationColorizer", "build"]

register_family("classification", build, upgrade, starting_model)
