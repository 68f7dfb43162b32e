"""Several trained colorizers as one."""

from common.ensemble.ensemble import Ensemble, build

__all__ = ["Ensemble", "build"]
