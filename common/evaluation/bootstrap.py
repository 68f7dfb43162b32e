"""From one value per image to one number of a set with its interval, by resampling images.

Every row of a table sees the same resamples, so two rows can be compared pair by pair.
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
    """The number of a set: values of its images, [n] or [n, D], and their references, likewise."""
    if metric.statistic:
        return metric.statistic(values, reference)
    return float(_of_means(metric, values.mean(), reference.mean()))


@lru_cache(maxsize=4)
def draws(count: int, seed: int = 0) -> np.ndarray:
    """How often each of `count` images is in each resample, drawn with replacement: uint8 [RESAMPLES, count].

    A function of (seed, count) alone. One byte an image and resample; a column's resampled means are one product.
    """
    generator = np.random.default_rng(seed)
    out = np.empty((RESAMPLES, count), dtype=np.uint8)  # 255 times the same image does not come up
    for row in out:
        row[:] = np.bincount(generator.integers(0, count, count), minlength=count)
    out.setflags(write=False)
    return out


def resampled(metric: Metric, values: np.ndarray, reference: np.ndarray, seed: int = 0) -> np.ndarray:
    """The number of each of RESAMPLES sets drawn with replacement: float64 [RESAMPLES].

    The draws are a function of (seed, how many images) alone.
    """
    counts = draws(len(values), seed)
    if metric.influence:  # a distance between sets, which resampling would bias: see common.frechet
        moves = metric.influence(values, reference)[:, None]
        return of_set(metric, values, reference) + _sums(counts, moves)[:, 0] / len(values)
    if metric.statistic:
        every = np.arange(len(values))
        sets = (np.repeat(every, times) for times in counts)
        return np.array([metric.statistic(values[i], reference[i]) for i in sets])
    sums = _sums(counts, np.stack([values, reference], axis=1))
    return _of_means(metric, *(sums / len(values)).T)


def _sums(counts: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Sums over each resample: [RESAMPLES, n] times [n, C], in blocks, as counts are bytes."""
    return np.concatenate([block.astype(np.float64) @ columns for block in np.array_split(counts, 10)])


def _of_means(metric: Metric, mean: np.ndarray, reference: np.ndarray) -> np.ndarray:
    if metric.relation == "difference":
        return np.abs(mean - reference)
    return mean / np.maximum(reference, 1e-9) if metric.relation == "ratio" else mean


def measured(values: np.ndarray) -> np.ndarray:
    """Which images have a value: bool [n]. A perfect psnr is infinite, what was not measured on an image is NaN."""
    return np.isfinite(values if values.ndim == 1 else values.sum(axis=1))


def summarise(metric: Metric, values: np.ndarray, reference: np.ndarray, intervals: bool = True) -> Cell:
    """Values of images -> {"mean", "low", "high"}: a 95 % percentile bootstrap over images.

    Images reproduced exactly (infinite psnr) are left out and counted under "exact"; where no image is left, mean, low
    and high are None.
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
