"""Hard cuts, found from the motion between two frames."""

from __future__ import annotations

import numpy as np

from common.film.motion import Motion

_SAME_SHOT = 0.25  # share of pixels seen in both frames, above which they show the same scene
_BLANK = 2.0  # standard deviation of grey (of 255) below which a frame shows nothing


def same_scene(forward: Motion, backward: Motion) -> bool:
    """Whether two frames show the same scene: whether the motion between them is consistent in enough pixels.

    On constructed films, at most 0.11 of the pixels are consistent across a cut, and at least 0.39 within a shot, also
    with flashes, fades and grain. A flash or a fade changes the brightness, which DIS ignores.
    """
    return (forward.visible.mean() + backward.visible.mean()) / 2 > _SAME_SHOT


def begins_shot(before: np.ndarray, frame: np.ndarray, forward: Motion, backward: Motion) -> bool:
    """Whether a frame begins a shot: it shows another scene than the frame before it, or that frame is blank.

    before, frame: grey, uint8 [h, w]. forward, backward: the motion between them. A dissolve is not recognized.
    """
    if np.std(before) < _BLANK <= np.std(frame):
        return True
    return not same_scene(forward, backward)
