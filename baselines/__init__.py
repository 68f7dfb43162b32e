"""L -> ab regression."""

from baselines.regression import RegressionColorizer, build, upgrade
from common.registry import register_family

__all__ = ["RegressionColorizer", "build"]

register_family("baselines", build, upgrade)
