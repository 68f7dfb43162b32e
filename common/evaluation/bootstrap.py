"""From one value per image to the number of a set and its confidence interval, by resampling images.

All rows of a table use the same resamples, so that two rows can be compared by their paired differences.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypedDict

import numpy as np

from common.evaluation.metrics import Metric

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
    """How often each of `count` images is drawn, with replacement, in each resample: uint8 [RESAMPLES, count].

    A function of (seed, count) alone. Resampled means are a matrix product with it.
    """
    generator = np.random.default_rng(seed)
    out = np.empty((RESAMPLES, count), dtype=np.uint8)  # the same image is never drawn more than 255 times
    for row in out:
        row[:] = np.bincount(generator.integers(0, count, count), minlength=count)
    out.setflags(write=False)
    return out


def resampled(metric: Metric, values: np.ndarray, reference: np.ndarray, seed: int = 0) -> np.ndarray:
    """The number of each resampled set: float64 [RESAMPLES]. values, reference: as in `of_set`.

    The resamples are a function of (seed, number of images) alone.
    """
    counts = draws(len(values), seed)
    if metric.influence:  # resampling would bias a distance between sets: see `frechet`
        moves = metric.influence(values, reference)[:, None]
        return of_set(metric, values, reference) + _sums(counts, moves)[:, 0] / len(values)
    if metric.statistic:
        every = np.arange(len(values))
        sets = (np.repeat(every, times) for times in counts)
        return np.array([metric.statistic(values[i], reference[i]) for i in sets])
    sums = _sums(counts, np.stack([values, reference], axis=1))
    return _of_means(metric, *(sums / len(values)).T)


def _sums(counts: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """counts uint8 [RESAMPLES, n] @ columns [n, C], in blocks to save memory: float64 [RESAMPLES, C]."""
    return np.concatenate([block.astype(np.float64) @ columns for block in np.array_split(counts, 10)])


def _of_means(metric: Metric, mean: np.ndarray, reference: np.ndarray) -> np.ndarray:
    if metric.relation == "difference":
        return np.abs(mean - reference)
    return mean / np.maximum(reference, 1e-9) if metric.relation == "ratio" else mean


def measured(values: np.ndarray) -> np.ndarray:
    """Which images have a finite value: bool [n]. The psnr of an exact image is infinite; NaN means not measured."""
    return np.isfinite(values if values.ndim == 1 else values.sum(axis=1))


def summarize(metric: Metric, values: np.ndarray, reference: np.ndarray, intervals: bool = True) -> Cell:
    """The number of a set with its 95 % percentile bootstrap interval over images. values, reference: as in `of_set`.

    Images without a finite value are excluded. Those with an infinite one (exact images) are counted as `exact`. If no
    image remains, the numbers are None.
    """
    finite = measured(values)
    exact = int(np.isposinf(values).sum()) if values.ndim == 1 else 0
    out: Cell = {"exact": exact} if exact else {}
    if not finite.any():
        return {"mean": None, "low": None, "high": None, **out}
    values, reference = values[finite], reference[finite]
    out["mean"] = of_set(metric, values, reference)
    if intervals:
        low, high = np.percentile(resampled(metric, values, reference), [2.5, 97.5])
        out |= {"low": float(low), "high": float(high)}
    return out
