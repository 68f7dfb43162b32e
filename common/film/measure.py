"""Measure the colors of films with known colors: steadiness, error and speed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
import torch

from common.color.lab import grey_from_L, rgb8_to_L, rgb8_to_lab
from common.colorizer import Colorizer
from common.evaluation.metrics import colorfulness_of
from common.film.config import FilmConfig
from common.film.metrics import film_motion, warping_error
from common.film.motion import Motion, MotionEstimator
from common.film.references import Reference
from common.film.shots import begins_shot
from common.film.steady import FrameColorizer, grid_size
from common.film.synthetic import Film
from common.predictor import PredictorConfig, apply_ab, working_lightness

WAYS = ("original", "frame by frame", "filtered", "filtered, every 2", "one reference a shot")


class Measured(NamedTuple):
    """One way to colorize one film."""

    film: str
    way: str  # one of WAYS
    warping_error: float  # E_warp, see `common.film.metrics`
    rmse_ab: float  # mean over frames
    colorfulness: float  # mean over frames
    frames_per_second: float  # of processor time, decoding and encoding not included; NaN for the original
    frames: list[np.ndarray]  # the colorized film, uint8 [H, W, 3]
    found_cuts: int


def colorize_frames(
    colorizer: Colorizer, frames: Sequence[np.ndarray], config: FilmConfig, references: Sequence[Reference] = ()
) -> tuple[list[np.ndarray], int]:
    """Colorize a film in memory. Returns its frames, uint8 [H, W, 3], and the number of cuts that were found."""
    colors = FrameColorizer(colorizer, config, references)
    predicted = [ab for frame in frames for ab in colors.push(frame)] + colors.flush()
    predictor = PredictorConfig(config.size)
    return [
        apply_ab(frame, working_lightness(frame, colorizer.device), ab, predictor)
        for frame, ab in zip(frames, predicted, strict=True)
    ], colors.shot


def measure_film(colorizer: Colorizer, film: Film, size: int, ways: Sequence[str] = WAYS) -> list[Measured]:
    """Colorize the grey version of a film in several ways, and compare with its true colors.

    size: side of the square that the network sees, in pixels. A reference is the true middle frame of a shot.
    """
    grey = [_grey(frame) for frame in film.frames]
    motion = film_motion(grey, film.cuts)
    starts = [0, *film.cuts, len(film.frames)]
    middles = [(start + end) // 2 for start, end in pairwise(starts)]
    references = [Reference(middle, film.frames[middle]) for middle in middles]
    rows = []
    for way in ways:
        config = FilmConfig(size, every=2 if way.endswith("every 2") else 1, steady=way != "frame by frame")
        start = time.process_time()
        frames, cuts = film.frames, len(film.cuts)
        if way != "original":
            given = references if "reference" in way else ()
            frames, cuts = colorize_frames(colorizer, grey, config, given)
        seconds = time.process_time() - start
        speed = float("nan") if way == "original" else len(frames) / seconds
        rows.append(_measured(film, way, frames, motion, speed, cuts))
    return rows


def _measured(
    film: Film, way: str, frames: list[np.ndarray], motion: Sequence[Motion | None], speed: float, cuts: int
) -> Measured:
    errors = [(_lab(a) - _lab(b))[:, 1:].square().mean().sqrt() for a, b in zip(frames, film.frames, strict=True)]
    colorfulness = [colorfulness_of(_tensor(frame)) for frame in frames]
    return Measured(
        film.name, way, warping_error(frames, motion), float(torch.stack(errors).mean()),
        float(torch.cat(colorfulness).mean()), speed, frames, cuts,
    )  # fmt: skip


def _tensor(frame: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frame).permute(2, 0, 1)[None]


def _lab(frame: np.ndarray) -> torch.Tensor:
    return rgb8_to_lab(_tensor(frame))


def _grey(frame: np.ndarray) -> np.ndarray:
    """The grey frame with the same lightness, uint8 [H, W, 3]."""
    grey = (grey_from_L(rgb8_to_L(_tensor(frame))) * 255).round().byte()[0, 0].numpy()
    return np.repeat(grey[..., None], 3, axis=2)


def find_cuts(frames: Sequence[np.ndarray]) -> list[int]:
    """The indices of the frames that begin a shot, without frame 0, as `FrameColorizer` finds them."""
    estimator = MotionEstimator()
    height, width = grid_size(*frames[0].shape[:2])
    small = [
        cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (width, height), interpolation=cv2.INTER_AREA)
        for frame in frames
    ]
    return [i for i, (a, b) in enumerate(pairwise(small), 1) if begins_shot(a, b, estimator.between(a, b)[1])]
