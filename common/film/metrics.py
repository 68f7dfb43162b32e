"""Metrics of colorized films: how steady their colors are along the motion of the film."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import torch

from common.color.lab import rgb8_to_lab
from common.film.motion import MEDIUM, Motion, MotionEstimator, warp


def film_motion(grey: Sequence[np.ndarray], cuts: Iterable[int]) -> list[Motion | None]:
    """The motion from each frame to the one before it; None for frame 0 and frames that begin a shot.

    It is estimated at the size of the frames, with a more careful preset of DIS than the filter of
    `common.film.steady`, which works on smaller frames: the filter is not measured by its own flow.

    grey: uint8 [H, W] or [H, W, 3] frames. cuts: indices of the frames that begin a shot.
    """
    estimator, starts = MotionEstimator(MEDIUM), {0, *cuts}
    planes = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) if frame.ndim == 3 else frame for frame in grey]
    return [None if i in starts else estimator.between(planes[i - 1], planes[i])[1] for i in range(len(planes))]


def warping_error(frames: Sequence[np.ndarray], motion: Sequence[Motion | None]) -> float:
    """Warping error of color (E_warp), in CIELAB units.

    The mean of |ab_t - warp(ab_(t-1))| over both channels, over the pixels that are visible in both frames, and over
    all pairs of frames within a shot (Lai et al. 2018, equation 12, with ab instead of RGB and L1 instead of L2).

    Args:
        frames: uint8 [H, W, 3] sRGB, as they are shown.
        motion: from `film_motion` of the grey film.

    Raises:
        ValueError: no two successive frames belong to one shot.
    """
    errors, before = [], None
    for frame, step in zip(frames, motion, strict=True):
        ab = _ab(frame)
        if step is not None:
            errors.append(float(np.abs(ab - warp(before, step.flow))[step.visible].mean()))
        before = ab
    if not errors:
        raise ValueError("the warping error needs two successive frames of one shot")
    return float(np.mean(errors))


def _ab(frame: np.ndarray) -> np.ndarray:
    lab = rgb8_to_lab(torch.from_numpy(frame).permute(2, 0, 1))
    return lab[1:].permute(1, 2, 0).contiguous().numpy()
