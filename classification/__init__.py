"""L -> a distribution over colours."""

from classification.classification import ClassificationColorizer, build

__all__ = ["ClassificationColorizer", "build"]
