"""L -> ab regression."""

from baselines.regression import RegressionColorizer, build

__all__ = ["RegressionColorizer", "build"]
