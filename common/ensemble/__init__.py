"""Ensembles of trained colorizers."""

from common.ensemble.ensemble import Ensemble, build
from common.ensemble.expressions import load_expression
from common.registry import register_family, register_loader

__all__ = ["Ensemble", "build"]

register_family("ensemble", build)
register_loader(load_expression)
