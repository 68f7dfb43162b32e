"""Films with known colors and known cuts, made from photographs: pans and zooms behind moving foregrounds."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np


class Film(NamedTuple):
    """A film in memory."""

    name: str
    frames: list[np.ndarray]  # uint8 [H, W, 3] sRGB
    cuts: list[int]  # indices of the frames that begin a shot, without frame 0


def synthetic_film(
    photographs: np.ndarray,
    seed: int,
    shots: int = 2,
    length: int = 30,
    size: tuple[int, int] = (192, 256),
    traps: bool = False,
) -> Film:
    """Make a film whose shots pan and zoom over one photograph each, with a cut-out of another one moving in front.

    Args:
        photographs: uint8 [N, S, S, 3] sRGB, N >= 2.
        seed: of everything random.
        shots: number of shots, with a hard cut between two.
        length: frames per shot.
        size: (height, width) of a frame.
        traps: add what looks like a cut but is none: in turns a flash of two frames and a fade to half the brightness.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(photographs))
    frames: list[np.ndarray] = []
    for shot in range(shots):
        back, front = (photographs[order[(2 * shot + i) % len(order)]] for i in (0, 1))
        frames += _shot(back, front, rng, length, size, ("flash", "fade")[shot % 2] if traps else "")
    return Film(f"synthetic{seed}", frames, [shot * length for shot in range(1, shots)])


def _shot(
    back: np.ndarray, front: np.ndarray, rng: np.random.Generator, length: int, size: tuple[int, int], trap: str
) -> list[np.ndarray]:
    height, width = size
    side = len(back)
    zoom = rng.uniform(0.55, 0.85, 2)  # width of the visible part, as a fraction of the photograph's side
    centers = np.array([rng.uniform(z / 2, 1 - z / 2, 2) for z in zoom])
    path = rng.uniform(0.2, 0.8, (2, 2))  # of the cut-out's center, as fractions of the frame
    radius = rng.uniform(0.15, 0.3) * height
    flash = int(rng.integers(3, max(4, length - 4)))
    frames = []
    for t in np.linspace(0, 1, length):
        view = (1 - t) * zoom[0] + t * zoom[1]
        center = ((1 - t) * centers[0] + t * centers[1]) * side
        scale = view * side / width
        frame = _window(back, center, scale, size)
        x, y = ((1 - t) * path[0] + t * path[1]) * (width, height)
        offset = np.array([width / 2 - x, height / 2 - y])
        cut_out = _window(front, side / 2 + offset * side / (2.5 * radius), side / (2.5 * radius), size)
        mask = np.zeros(size, np.uint8)
        cv2.circle(mask, (round(x * 16), round(y * 16)), round(radius * 16), 255, -1, cv2.LINE_AA, shift=4)
        alpha = mask[..., None] / 255.0
        gain = 1.0
        if trap == "fade":
            gain = 1 - 0.5 * t
        elif trap == "flash" and len(frames) in (flash, flash + 1):
            gain = 2.0
        frame = (frame * (1 - alpha) + cut_out * alpha) * gain
        frames.append(frame.round().clip(0, 255).astype(np.uint8))
    return frames


def _window(photograph: np.ndarray, center: np.ndarray, scale: float, size: tuple[int, int]) -> np.ndarray:
    """The part of a photograph around `center` (x, y), enlarged: a pixel of the result is `scale` pixels wide."""
    height, width = size
    matrix = np.array([
        [scale, 0, center[0] - scale * (width - 1) / 2], [0, scale, center[1] - scale * (height - 1) / 2],
    ])  # fmt: skip
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(photograph, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)


def with_grain(frames: list[np.ndarray], sigma: float, seed: int) -> list[np.ndarray]:
    """Add film grain: Gaussian noise of standard deviation `sigma` (of 255), equal in the three channels."""
    rng = np.random.default_rng(seed)
    return [
        (frame + rng.normal(0, sigma, (*frame.shape[:2], 1))).round().clip(0, 255).astype(np.uint8) for frame in frames
    ]
