"""L -> a distribution over colors."""

from classification.classification import ClassificationColorizer, build

__all__ = ["ClassificationColorizer", "build"]
