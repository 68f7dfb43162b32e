"""Several trained colorizers as one."""

from ensemble.ensemble import Ensemble, build

__all__ = ["Ensemble", "build"]
