"""From one value per image to one number of a set with its interval, by resampling images.

Every row of a table sees the same resamples, so two rows can be compared pair by pair.
"""

from __future__ import annotations

import numpy as np

from common.metrics import Metric

RESAMPLES = 1000


def of_set(metric: Metric, values: np.ndarray, reference: np.ndarray) -> float:
    """The number of a set: values of its images, [n] or [n, D], and their references, likewise."""
    if metric.statistic:
        return metric.statistic(values, reference)
    return float(_of_means(metric, values.mean(), reference.mean()))


def resampled(metric: Metric, values: np.ndarray, reference: np.ndarray, seed: int = 0) -> np.ndarray:
    """The number of each of RESAMPLES sets drawn with replacement: float64 [RESAMPLES].

    The draws are a function of (seed, how many images) alone.
    """
    draws = np.random.default_rng(seed)
    count = len(values)
    indices = (draws.integers(0, count, count) for _ in range(RESAMPLES))
    if metric.influence:  # a distance between sets, which resampling would bias: see common.frechet
        each = metric.influence(values, reference)
        return of_set(metric, values, reference) + np.array([each[i].mean() for i in indices])
    if metric.statistic:
        return np.array([metric.statistic(values[i], reference[i]) for i in indices])
    pairs = np.stack([values, reference])
    means = np.stack([pairs[:, i].mean(axis=1) for i in indices], axis=1)
    return _of_means(metric, means[0], means[1])


def _of_means(metric: Metric, mean: np.ndarray, reference: np.ndarray) -> np.ndarray:
    if metric.against == "difference":
        return np.abs(mean - reference)
    return mean / np.maximum(reference, 1e-9) if metric.against == "ratio" else mean


def measured(values: np.ndarray) -> np.ndarray:
    """Which images have a value: bool [n]. A perfect psnr is infinite, what was not measured on an image is NaN."""
    return np.isfinite(values if values.ndim == 1 else values.sum(axis=1))


def summarise(metric: Metric, values: np.ndarray, reference: np.ndarray, intervals: bool = True) -> dict:
    """Values of images -> {"mean", "low", "high"}: a 95 % percentile bootstrap over images.

    Images reproduced exactly (infinite psnr) are left out and counted under "exact"; where no image is left, mean, low
    and high are None.
    """
    finite = measured(values)
    exact = int(np.isposinf(values).sum()) if values.ndim == 1 else 0
    out: dict = {"exact": exact} if exact else {}
    if not finite.any():
        return {"mean": None, "low": None, "high": None, **out}
    values, reference = values[finite], reference[finite]
    out["mean"] = of_set(metric, values, reference)
    if intervals:
        low, high = np.percentile(resampled(metric, values, reference), [2.5, 97.5])
        out |= {"low": float(low), "high": float(high)}
    return out
