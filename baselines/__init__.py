"""L -> ab regression."""

from baselines.build import build, upgrade
from baselines.regression import RegressionColorizer
from common.registry import register_family

__all__ = ["RegressionColorizer", "build"]

register_family("baselines", build, upgrade)
