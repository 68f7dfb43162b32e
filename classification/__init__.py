"""Colorization as classification of quantized ab."""

from classification.classification import ClassificationColorizer, build
from common.registry import register_family

__all__ = ["ClassificationColorizer", "build"]

register_family("classification", build)
