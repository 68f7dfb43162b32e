"""Hard cuts, found from the motion between two frames."""

from __future__ import annotations

import cv2
import numpy as np

from common.film.motion import Motion, warp

# On constructed films, `explained` is at most 0.05 across a cut, and at least 0.30 within a shot, also with flashes,
# fades and grain.
_SAME_SCENE = 0.18
_BLANK = 2.0  # standard deviation of grey (of 255) below which a frame shows nothing
_WINDOW = (15, 15)  # of the comparison, in pixels
_NOISE = 4.0  # variance of grey that counts as none


def explained(first: np.ndarray, second: np.ndarray, backward: Motion) -> float:
    """How much of a frame the motion from another one explains: at most 1, and near 0 for another scene.

    The mean over pixels of the local correlation of the frame with the other one, moved (the structure term of SSIM,
    Wang et al. 2004, equation 10), where pixels that are not visible in both count as 0. A flash or a fade does not
    change it.

    first, second: grey, uint8 [h, w]. backward: the motion from the second to the first.
    """
    moved, seen = warp(first.astype(np.float32), backward.flow), second.astype(np.float32)
    mean_moved, mean_seen, moved_moved, seen_seen, moved_seen = (
        cv2.blur(values, _WINDOW) for values in (moved, seen, moved * moved, seen * seen, moved * seen)
    )
    variances = (moved_moved - mean_moved**2) * (seen_seen - mean_seen**2)
    correlation = (moved_seen - mean_moved * mean_seen + _NOISE) / (np.sqrt(np.maximum(variances, 0)) + _NOISE)
    return float((correlation * backward.visible).mean())


def same_scene(first: np.ndarray, second: np.ndarray, backward: Motion) -> bool:
    """Whether two frames show the same scene (see `explained`)."""
    return explained(first, second, backward) > _SAME_SCENE


def begins_shot(before: np.ndarray, frame: np.ndarray, backward: Motion) -> bool:
    """Whether a frame begins a shot: it shows another scene than the frame before it, or that frame is blank.

    before, frame: grey, uint8 [h, w]. backward: the motion from the frame to that before it. A dissolve is not
    recognized: there, colors are replaced as fast as new predictions replace old ones.
    """
    return np.std(before) < _BLANK <= np.std(frame) or not same_scene(before, frame, backward)
