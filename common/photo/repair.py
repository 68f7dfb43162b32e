"""Remove scratches from scans: a mask of long thin lines, filled in by OpenCV's inpainting.

Dust is not removed: in trials, a detector of specks took more highlights and buttons than dust.
"""

from __future__ import annotations

import cv2
import numpy as np

from common.imaging.read import eight_bits

# chosen on photographs of a training shard, see experiments/README.md
_BREADTH = 0.018  # largest breadth of a scratch, as a fraction of the longer side
_LENGTH = 0.1  # length over which a scratch is averaged, as a fraction of the height
_MIN_LENGTH = 0.25  # shortest scratch, as a fraction of the height
_LINE = 14.0  # how much lighter or darker a scratch is than its sides, in 8-bit levels, averaged along it
_CALM = 6.0  # multiple of the contrast of its surroundings that a scratch exceeds
_RADIUS = 3  # of the inpainting, in pixels


def repair(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fill in what looks like scratches.

    Scratches are nearly vertical, as on film and prints. Thin poles can look the same, so the result has to be checked:
    the mask shows what was replaced.

    Args:
        rgb: uint8 or uint16 [H, W, 3] sRGB.

    Returns:
        A new array of the same shape and dtype, and the mask, bool [H, W].
    """
    mask = find_marks(rgb)
    out = rgb.copy()
    if mask.any():
        for channel in range(3):
            plane = np.ascontiguousarray(rgb[..., channel])
            out[..., channel] = cv2.inpaint(plane, mask.astype(np.uint8), _RADIUS, cv2.INPAINT_TELEA)
    return out, mask


def find_marks(rgb: np.ndarray) -> np.ndarray:
    """Where a picture, uint8 or uint16 [H, W, 3], has scratches: bool [H, W]."""
    grey = cv2.cvtColor(eight_bits(rgb), cv2.COLOR_RGB2GRAY)
    breadth = max(3, 2 * round(_BREADTH * max(grey.shape) / 2) + 3)
    marks = np.zeros(grey.shape, dtype=bool)
    for plane in (grey, 255 - grey):  # light scratches, then dark ones
        marks |= _scratches(plane, breadth)
    # their rims are half covered
    return cv2.dilate(marks.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)


def _scratches(plane: np.ndarray, breadth: int) -> np.ndarray:
    """Nearly vertical light lines of a plane, uint8 [H, W], that are at most `breadth` pixels broad."""
    height = len(plane)
    window = 2 * round(_LENGTH * height / 2) + 1
    ridge = cv2.morphologyEx(plane, cv2.MORPH_TOPHAT, np.ones((1, breadth), np.uint8)).astype(np.float32)
    leaning = cv2.dilate(ridge, np.ones((1, 3), np.uint8))  # a scratch that is not quite vertical stays in the window
    along = cv2.blur(leaning, (1, window))
    texture = cv2.blur(ridge, (4 * breadth + 1, window))
    line = (along > _LINE) & (along > _CALM * texture) & (ridge > 0.5 * along)
    joined = cv2.dilate(line.astype(np.uint8), np.ones((window, 3), np.uint8))
    _, label, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    long = boxes[:, cv2.CC_STAT_HEIGHT] >= _MIN_LENGTH * height
    long[0] = False  # the background
    return line & long[label]


def show_marks(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with the mask in red, uint8 [H, W, 3]."""
    shown = eight_bits(rgb).copy()
    shown[mask] = (255, 0, 0)
    return shown
