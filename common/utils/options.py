"""Options of models: conversion of plain values to the typed arguments of a family's `build` function."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields, is_dataclass

from common.utils.errors import UserError, near


def typed_options(build: Callable, values: dict, prefix: str = "model.") -> dict:
    """Convert a dict of plain values to keyword arguments of `build`. Nested dicts and lists of dicts are converted to
    the dataclasses in its type annotations. Returns the keyword arguments.

    prefix: prepended to option names in error messages. Raises UserError for an unknown option.
    """
    kinds = _kinds(build)
    return {key: _typed(kinds, key, value, prefix) for key, value in values.items()}


def _typed(kinds: dict, key: str, value: object, prefix: str) -> object:
    if key not in kinds:
        raise UserError(f"{prefix}{key} is not an option: expected {', '.join(kinds)}{near(key, kinds)}")
    for kind in (kinds[key], *typing.get_args(kinds[key])):  # list[X] of `list[X] | None`
        items = typing.get_args(kind)
        if is_dataclass(kind) and isinstance(value, dict):
            return kind(**typed_options(kind, value, f"{prefix}{key}."))
        if isinstance(value, list) and items and is_dataclass(items[0]):
            return [items[0](**typed_options(items[0], item, f"{prefix}{key}.")) for item in value]
    return value


def _kinds(build: Callable) -> dict[str, object]:
    hints = typing.get_type_hints(build.__init__ if is_dataclass(build) else build)
    return {name: kind for name, kind in hints.items() if name != "return"}


def refuse_unused(prefix: str, config: object, names: Iterable[str], user: str) -> None:
    """Raise UserError if an unused option does not have its default value.

    config: a dataclass. names: its unused options. user: the network or method that does not use them, for the message.
    """
    defaults = {f.name: f.default if f.default is not MISSING else f.default_factory() for f in fields(config)}
    _refuse_changed(prefix, {name: getattr(config, name) for name in names}, defaults, user)


def refuse_unused_arguments(prefix: str, build: Callable, values: dict[str, object], user: str) -> None:
    """Raise UserError if an unused argument of a function does not have its default value.

    values: the unused arguments of `build`. prefix and user: as for `refuse_unused`.
    """
    defaults = {name: parameter.default for name, parameter in inspect.signature(build).parameters.items()}
    _refuse_changed(prefix, values, defaults, user)


def _refuse_changed(prefix: str, values: dict[str, object], defaults: dict[str, object], user: str) -> None:
    for name, value in values.items():
        if value != defaults[name]:
            raise UserError(f"{prefix}.{name} is {value}: {user} does not use it, leave it out")


def check_value(name: str, value: object, valid: object, expected: str) -> None:
    """Raise UserError unless `valid`. name: of the option. expected: the valid values, in words."""
    if not valid:
        raise UserError(f"{name} is {value}: expected {expected}")
