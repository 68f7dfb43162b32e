"""Dense motion between successive frames: optical flow in both directions, and where the two agree."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

FAST = cv2.DISOPTICAL_FLOW_PRESET_FAST
MEDIUM = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM


class Motion(NamedTuple):
    """Where each pixel of a frame is in another frame of the same size."""

    flow: np.ndarray  # float32 [h, w, 2]: pixel (x, y) is at (x, y) + flow[y, x] in the other frame
    visible: np.ndarray  # bool [h, w]: it is inside of the other frame and not occluded there


class MotionEstimator:
    """Optical flow by dense inverse search (DIS, Kroeger et al. 2016).

    preset: FAST or MEDIUM.
    """

    def __init__(self, preset: int = FAST) -> None:
        self._preset, self._dis = preset, cv2.DISOpticalFlow_create(preset)

    def between(
        self, first: np.ndarray, second: np.ndarray, shift: tuple[float, float] = (0, 0)
    ) -> tuple[Motion, Motion]:
        """The motion from the first frame to the second, and back.

        first, second: grey, uint8 [h, w]. shift: (x, y) of most of the motion from the first to the second, if it is
        known; DIS finds motion of up to about a fifth of a frame by itself.
        """
        height, width = first.shape
        # OpenCV crashes on frames that are smaller than its patches at the coarsest scale that it chooses by the longer
        # side
        least = max(16, math.ceil(0.36 * max(height, width)))
        padding = (0, max(0, least - height), 0, max(0, least - width))
        first, second = (cv2.copyMakeBorder(x, *padding, cv2.BORDER_REPLICATE) for x in (first, second))
        # an object that was given a shift does not forget it
        dis = cv2.DISOpticalFlow_create(self._preset) if any(shift) else self._dis
        start = np.broadcast_to(np.array(shift, np.float32), (*first.shape, 2))
        there, back = (
            np.ascontiguousarray(dis.calc(*pair, initial.copy() if any(shift) else None)[:height, :width])
            for *pair, initial in ((first, second, start), (second, first, -start))
        )
        return Motion(there, _consistent(there, back)), Motion(back, _consistent(back, there))


def _consistent(there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Forward-backward check: going there and back ends near the same pixel (Sundaram et al. 2010, equation 5)."""
    height, width = there.shape[:2]
    back = warp(back, there)
    squares = [cv2.transform(flow * flow, np.ones((1, 2), np.float32)) for flow in (there + back, there, back)]
    x, y = _targets(there)
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    return inside & (squares[0] < 0.01 * (squares[1] + squares[2]) + 0.5)


def _targets(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    height, width = flow.shape[:2]
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    return x, flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]


def global_shift(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """The translation (x, y) from the first grey frame to the second, by phase correlation."""
    window = cv2.createHanningWindow(first.shape[::-1], cv2.CV_32F)
    return cv2.phaseCorrelate(first.astype(np.float32), second.astype(np.float32), window)[0]


def warp(values: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Values float32 [h, w] or [h, w, n] where each pixel moves to: the result at p is that of `values` at p + flow(p).

    They are interpolated bilinearly. Outside of the frame, the nearest border pixel counts.
    """
    return cv2.remap(values, *_targets(flow), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
