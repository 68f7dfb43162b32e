"""References: pictures of single frames whose colors lead the colors of their shots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.color.lab import rgb8_to_lab
from common.film.motion import Motion, MotionEstimator, global_shift, warp
from common.film.shots import same_scene
from common.predictor import working_lightness
from common.utils.clock import parse_time
from common.utils.errors import UserError

# (working L [1, 1, h, w], L [1, 1, h', w'] on the grid of the filter) -> predicted ab, float32 [h', w', 2]
Predict = Callable[[Tensor, Tensor], np.ndarray]

WEIGHT = 100.0  # of the color of a reference, in predictions
_PATCHES = 64  # longer side of the frames on which similar places are looked for, in pixels
_HALF = 0.5  # summed similarity at which half of the change is made
# what makes one unit of distance between two places: L, L around them, contrast, predicted ab, and position, as a
# fraction of the longer side
_UNITS = (8.0, 12.0, 8.0, 12.0, 12.0, 0.15, 0.15)


@dataclass(frozen=True)
class Reference:
    """The colors of one frame, as a person wants them.

    frame: index of that frame among the frames of the film, from 0. rgb: uint8 [H, W, 3] sRGB, a picture of that frame
    at any size. name: for messages.
    """

    frame: int
    rgb: np.ndarray
    name: str = "the reference"


def parse_reference(text: str) -> tuple[Path, float]:
    """Parse PICTURE@TIME, where TIME is in seconds, mm:ss or hh:mm:ss. Returns the path and the time in seconds.

    Raises UserError if the text has another form. The file is not opened.
    """
    path, _, time = text.rpartition("@")
    seconds = parse_time(time)
    if not path or seconds is None:
        raise UserError(f"reference '{text}' is not of the form PICTURE@TIME: write for example colored.png@12.5")
    return Path(path), seconds


class _Prepared(NamedTuple):
    frame: int
    grey: np.ndarray  # uint8 [h, w]
    ab: np.ndarray  # float32 [h, w, 2]
    places: Tensor  # [h', w', 7], features of its places
    change: Tensor  # [h', w', 2], its ab minus the prediction, there


class Leader:
    """Changes predictions towards the colors of references.

    A frame is led by the last reference before it in its shot, and by the next one after it, if it shows the same
    scene (see `common.film.shots.same_scene`). So the frames of a shot are led before the film reaches its reference,
    and other shots are not, unless they show the same view. Two references share a frame according to their distances
    in time.

    A reference changes predictions in two ways. By similarity: places that look alike, and where the network predicts
    alike, change alike. By motion: a pixel that the optical flow finds in the reference gets its color.
    """

    def __init__(self, references: Sequence[Reference]) -> None:
        self._given = sorted(references, key=lambda reference: reference.frame)
        for one, other in zip(self._given, self._given[1:], strict=False):
            if one.frame == other.frame:
                raise UserError(f"{one.name} and {other.name} are both for frame {one.frame}: give one of them")
        if self._given and self._given[0].frame < 0:
            raise UserError(f"{self._given[0].name} is for frame {self._given[0].frame}: expected 0 or more")
        self._prepared: list[_Prepared] = []
        self._estimator = MotionEstimator()
        self._last: int | None = None  # index of the last reference in this shot
        self._next: int | None = None  # index of the next one, once a frame of this shot showed its scene

    def prepare(self, shape: Sequence[int], grid: Sequence[int], predict: Predict, device: torch.device) -> None:
        """Bring the references to the grid (height, width) of the filter. shape: of a frame. Repeated calls do nothing.

        Raises UserError if the aspect ratio of a reference is not that of the film.
        """
        height, width = shape[:2]
        for given in self._given[len(self._prepared) :]:
            own_height, own_width = given.rgb.shape[:2]
            if abs(own_width - own_height * width / height) > max(1.5, 0.02 * own_width):
                raise UserError(
                    f"{given.name} is {own_width} x {own_height} and the film {width} x {height} pixels: give a picture"
                    " of a whole frame"
                )
            rgb = np.ascontiguousarray(given.rgb)
            ab = F.interpolate(rgb8_to_lab(torch.from_numpy(rgb).permute(2, 0, 1)[None])[:, 1:], size=grid, mode="area")
            ab = ab[0].permute(1, 2, 0).contiguous().numpy()
            working = working_lightness(rgb, device)
            L = F.interpolate(working, size=grid, mode="area")
            predicted = predict(working, L)
            change = _few(ab - predicted).permute(1, 2, 0)
            self._prepared.append(_Prepared(given.frame, _grey(L), ab, _places(L, predicted), change))

    def begin_shot(self) -> None:
        """Forget the references of the shot before."""
        self._last = self._next = None

    def reference_at(self, frame: int) -> np.ndarray | None:
        """The ab float32 [h, w, 2] of the reference for a frame, or None. Later frames of the shot are led by it."""
        for i, reference in enumerate(self._prepared):
            if reference.frame == frame:
                self._last, self._next = i, None
                return reference.ab
        return None

    def lead(self, frame: int, L: Tensor, predicted: np.ndarray) -> np.ndarray:
        """The colors of a frame that is none of the references.

        L: [1, 1, h, w] in 0..100, on the grid. predicted: ab, float32 [h, w, 2]. Returns ab of the same shape.
        """
        following = next((i for i, r in enumerate(self._prepared) if r.frame > frame), None)
        near = [i for i in (self._last, following) if i is not None]
        led: list[tuple[float, np.ndarray]] = []
        places = None
        for i in near:
            reference = self._prepared[i]
            forward, seen = self._match(_grey(L), reference.grey)
            if i == following and seen:
                self._next = i
            if i not in (self._last, self._next):
                continue
            places = _places(L, predicted) if places is None else places
            ab = _by_similarity(reference, places, predicted)
            if seen:
                trust = cv2.blur(forward.visible.astype(np.float32), (5, 5)) * forward.visible
                ab = ab + (warp(reference.ab, forward.flow) - ab) * trust[..., None]
            led.append((1 / abs(reference.frame - frame), ab))
        if not led:
            return predicted
        total = sum(weight for weight, _ in led)
        return sum((weight / total) * ab for weight, ab in led)

    def _match(self, grey: np.ndarray, reference: np.ndarray) -> tuple[Motion, bool]:
        """The motion from a frame to a reference, and whether both show the same scene."""
        motion, _ = self._estimator.between(grey, reference)
        seen = same_scene(reference, grey, motion)
        if not seen and min(grey.shape) > 1:
            motion, _ = self._estimator.between(grey, reference, global_shift(grey, reference))
            seen = same_scene(reference, grey, motion)
        return motion, seen

    def state_dict(self) -> dict:
        """Which references lead the shot."""
        return {"last": self._last, "next": self._next}

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned for the same references."""
        self._last, self._next = state["last"], state["next"]


def _grey(L: Tensor) -> np.ndarray:
    return (L[0, 0] * 2.55).round().byte().cpu().numpy()


def _few(values: np.ndarray) -> Tensor:
    """Reduce [h, w, n] to the places that are compared, [n, h', w'] float32."""
    height, width = values.shape[:2]
    scale = min(1.0, _PATCHES / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return F.interpolate(torch.from_numpy(values).permute(2, 0, 1)[None], size=size, mode="area")[0]


def _places(L: Tensor, ab: np.ndarray) -> Tensor:
    """Features of the places of a frame, [h', w', 7], in the units of `_UNITS`."""
    lightness = L[0, 0].cpu().numpy()
    height, width = lightness.shape
    mean = cv2.blur(lightness, (9, 9))
    contrast = np.sqrt(np.maximum(cv2.blur(lightness * lightness, (9, 9)) - mean * mean, 0))
    y, x = np.mgrid[:height, :width].astype(np.float32) / max(height, width)
    around = cv2.blur(lightness, (21, 21))
    features = np.dstack([cv2.blur(lightness, (5, 5)), around, contrast, ab, x, y]) / np.array(_UNITS, np.float32)
    return _few(features).permute(1, 2, 0)


def _by_similarity(reference: _Prepared, places: Tensor, predicted: np.ndarray) -> np.ndarray:
    """Predicted ab plus the mean change of similar places of the reference (Nadaraya-Watson regression)."""
    similarity = torch.cdist(places.flatten(0, 1), reference.places.flatten(0, 1)).square_().mul_(-0.5).exp_()
    change = similarity @ reference.change.flatten(0, 1) / (similarity.sum(dim=1, keepdim=True) + _HALF)
    height, width = predicted.shape[:2]
    return predicted + cv2.resize(change.reshape(*places.shape[:2], 2).numpy(), (width, height))
