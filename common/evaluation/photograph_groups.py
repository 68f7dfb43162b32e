"""Groups of dependent photographs, such as the squares of one photograph or the frames of one video.

Values of one group are not independent, so confidence intervals and tests resample whole groups (the cluster
bootstrap; Cameron, Gelbach and Miller 2008), and the number of groups counts as the sample size.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from common.utils.errors import UserError, one_sentence

MIN_GROUPS = 8  # with fewer, no difference is significant: their variance is hardly known


def compile_group(expression: str) -> re.Pattern[str]:
    """Compile the regular expression that names groups. Raises UserError if it is none."""
    try:
        return re.compile(expression)
    except re.error as error:
        raise UserError(f"'{expression}' is not a regular expression ({one_sentence(error)}): correct it") from None


def group_numbers(photographs: Sequence[str], expression: str | None = None) -> np.ndarray:
    """The group of each measured item, int64 [n], numbered from 0 in the order of appearance.

    Args:
        photographs: name of the photograph that each item is, or was cut from (`Pack.photographs`).
        expression: a regular expression that is searched in the name. The group is what its first capture group
            matches, or its whole match if there is no such group or it takes no part in the match. None: each
            photograph is a group.

    Raises:
        UserError: the expression does not compile, or a name has no match or an empty one.
    """
    keys = list(photographs)
    if expression is not None:
        pattern = compile_group(expression)
        of_name = {name: _key(pattern, name) for name in dict.fromkeys(keys)}
        keys = [of_name[name] for name in keys]
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], dtype=np.int64)


def _key(pattern: re.Pattern[str], name: str) -> str:
    found = pattern.search(name)
    key = found and ((found[1] if pattern.groups else None) or found[0])
    if not key:
        raise UserError(
            f"photograph {name} has no match of the group expression '{pattern.pattern}': give one that matches every"
            " name"
        )
    return key


def renumbered(groups: np.ndarray) -> np.ndarray:
    """Groups of a selection of items, numbered from 0 in the order of appearance: int [n] -> int64 [n]."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse.reshape(-1)]


def count_groups(groups: np.ndarray) -> int:
    """The number of different groups. groups: int [n]."""
    return len(np.unique(groups))
