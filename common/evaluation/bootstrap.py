"""From one value per image to the number of a set and its confidence interval, by resampling images.

All rows of a table use the same resamples, so that two rows can be compared by their paired differences. Dependent
images form groups (`common.evaluation.photograph_groups`), which are resampled as a whole.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypedDict

import numpy as np

from common.evaluation.metrics import Metric
from common.evaluation.photograph_groups import renumbered

RESAMPLES = 1000


class Cell(TypedDict, total=False):
    """One number of a table: `mean` with its 95 % interval, all None if nothing could be measured."""

    mean: float | None
    low: float | None
    high: float | None
    exact: int  # images with an infinite value, which are excluded from the mean


def of_set(metric: Metric, values: np.ndarray, reference: np.ndarray) -> float:
    """The number of a set of images. values, reference: float [n], or [n, D] for a metric with a `statistic`."""
    if metric.statistic:
        return metric.statistic(values, reference)
    return float(_of_means(metric, values.mean(), reference.mean()))


@lru_cache(maxsize=4)
def draws(count: int, seed: int = 0) -> np.ndarray:
    """How often each of `count` groups is drawn, with replacement, in each resample: uint8 [RESAMPLES, count].

    A function of (seed, count) alone. Resampled means are a matrix product with it.
    """
    generator = np.random.default_rng(seed)
    out = np.empty((RESAMPLES, count), dtype=np.uint8)  # the same group is never drawn more than 255 times
    for row in out:
        row[:] = np.bincount(generator.integers(0, count, count), minlength=count)
    out.setflags(write=False)
    return out


def resampled(
    metric: Metric, values: np.ndarray, reference: np.ndarray, seed: int = 0, groups: np.ndarray | None = None
) -> np.ndarray:
    """The number of each resampled set: float64 [RESAMPLES]. values, reference: as in `of_set`.

    groups: int [n], the group of each image; whole groups are drawn (default: each image is a group). The resamples
    are a function of (seed, group of each image) alone.
    """
    groups = np.arange(len(values)) if groups is None else renumbered(groups)
    counts = draws(int(groups.max()) + 1, seed)
    if metric.influence:  # resampling would bias a distance between sets: see `frechet`
        moves = metric.influence(values, reference)[:, None]
        return of_set(metric, values, reference) + _means(counts, moves, groups)[:, 0]
    if metric.statistic:
        every = np.arange(len(values))
        sets = (np.repeat(every, times[groups]) for times in counts)
        return np.array([metric.statistic(values[i], reference[i]) for i in sets])
    return _of_means(metric, *_means(counts, np.stack([values, reference], axis=1), groups).T)


def _means(counts: np.ndarray, columns: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Means over the images of each resample. columns [n, C], groups int [n], from 0: float64 [RESAMPLES, C]."""
    if counts.shape[1] == len(columns):
        return _sums(counts, columns) / len(columns)
    sums = np.zeros((counts.shape[1], columns.shape[1]))
    np.add.at(sums, groups, columns)
    images = _sums(counts, np.bincount(groups)[:, None])  # groups have different sizes, and so have resamples
    return _sums(counts, sums) / images


def _sums(counts: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """counts uint8 [RESAMPLES, G] @ columns [G, C], in blocks to save memory: float64 [RESAMPLES, C]."""
    return np.concatenate([block.astype(np.float64) @ columns for block in np.array_split(counts, 10)])


def _of_means(metric: Metric, mean: np.ndarray, reference: np.ndarray) -> np.ndarray:
    if metric.relation == "difference":
        return np.abs(mean - reference)
    return mean / np.maximum(reference, 1e-9) if metric.relation == "ratio" else mean


def measured(values: np.ndarray) -> np.ndarray:
    """Which images have a finite value: bool [n]. The psnr of an exact image is infinite; NaN means not measured."""
    return np.isfinite(values if values.ndim == 1 else values.sum(axis=1))


def summarize(
    metric: Metric,
    values: np.ndarray,
    reference: np.ndarray,
    intervals: bool = True,
    groups: np.ndarray | None = None,
) -> Cell:
    """The number of a set with its 95 % percentile bootstrap interval over images. values, reference: as in `of_set`.

    groups: int [n], as in `resampled`. Images without a finite value are excluded. Those with an infinite one (exact
    images) are counted as `exact`. If no image remains, the numbers are None. If several images remain and all are of
    one group, the interval is None, because nothing is known of the variance between groups.
    """
    finite = measured(values)
    exact = int(np.isposinf(values).sum()) if values.ndim == 1 else 0
    out: Cell = {"exact": exact} if exact else {}
    if not finite.any():
        return {"mean": None, "low": None, "high": None, **out}
    values, reference = values[finite], reference[finite]
    groups = np.arange(len(values)) if groups is None else groups[finite]
    out["mean"] = of_set(metric, values, reference)
    if intervals and len(values) > 1 and (groups == groups[0]).all():
        out |= {"low": None, "high": None}
    elif intervals:
        low, high = np.percentile(resampled(metric, values, reference, groups=groups), [2.5, 97.5])
        out |= {"low": float(low), "high": float(high)}
    return out
