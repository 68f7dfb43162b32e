"""Colors of successive frames, filtered over time along the motion within each shot."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.colorizer import Colorizer
from common.film.config import FilmConfig
from common.film.motion import Motion, MotionEstimator, warp
from common.film.references import WEIGHT, Leader, Reference
from common.film.shots import begins_shot
from common.predictor import PredictorConfig, fit_upsampling, predict_within_memory, working_lightness
from common.utils.errors import UserError

GRID = 256  # longer side of the frames on which motion is estimated and colors are filtered, in pixels
_AHEAD = 8  # frames after a frame that its color depends on
_MEMORY = 15.0  # predictions that the mean over the past counts at most
_FADING = 0.98  # factor per frame of the weight of a reference
_NOTHING = 1e-3  # weight of a color that was carried to where it cannot be: it counts only if there is no other


class _Frame(NamedTuple):
    """A frame that was pushed, with what its color is computed from. Stored in few bytes: it is part of the state."""

    ab: Tensor  # float16 [h, w, 2]: prediction, led by references; anything if the weight is 0
    weight: float  # 1 for a prediction, 0 for a skipped frame, more for a reference
    flows: (
        Tensor | None
    )  # float16 [2, h, w, 2]: from the frame before to this one, and back; None at the start of a shot
    visible: Tensor | None  # bool [2, h, w]

    def motion(self, direction: int) -> Motion:
        """The motion from the frame before to this one (0), or back (1)."""
        assert self.flows is not None and self.visible is not None
        return Motion(self.flows[direction].float().numpy(), self.visible[direction].numpy())


class _Mean(NamedTuple):
    """Weighted mean of colors at each pixel."""

    values: np.ndarray  # float32 [h, w, 3]: ab, and the weight, which may be 0

    @property
    def weight(self) -> np.ndarray:
        """[h, w]."""
        return self.values[..., 2]

    def carried(self, motion: Motion) -> _Mean:
        """The same colors in another frame. motion: from that frame to this one."""
        values = warp(self.values, motion.flow)
        values[..., 2] = np.where(motion.visible, values[..., 2], np.minimum(values[..., 2], _NOTHING))
        return _Mean(values)

    def plus(self, other: _Mean) -> _Mean:
        """The mean of both."""
        weight = self.weight + other.weight
        share = (other.weight / np.maximum(weight, 1e-9))[..., None]
        return _Mean(np.dstack([self.values[..., :2] + (other.values - self.values)[..., :2] * share, weight]))

    def weighing(self, weight: np.ndarray) -> _Mean:
        """The same colors with another weight."""
        return _Mean(np.dstack([self.values[..., :2], np.maximum(weight, _NOTHING)]))


class FrameColorizer:
    """Predicts the ab of the successive frames of a film, and filters it over time within each shot.

    The color of a pixel is a weighted mean of the predictions at the places where the motion (dense optical flow) shows
    the same pixel in the frames before, up to the first frame of the shot, and in the next `_AHEAD` frames. The mean
    over the past is recursive, and new predictions replace old ones at a rate of 1 to `_MEMORY`, so memory does not
    grow with the length of a shot. Where motion is inconsistent forward and backward (occlusions), a pixel starts anew
    with its own prediction. Nothing is carried over a cut.

    Args:
        colorizer: the network.
        config: with `steady=False`, each frame gets its own prediction, as a photograph does. With `every=2`, every
            second frame of a shot is predicted, beginning with its first, and the others get the colors that motion
            carries to them.
        references: pictures whose colors lead those of their shots (see `common.film.references`).

    Attributes:
        shot: number of cuts so far; 0 if frames have nothing to do with each other, since cuts are not looked for then.
    """

    def __init__(self, colorizer: Colorizer, config: FilmConfig, references: Sequence[Reference] = ()) -> None:
        self._colorizer, self._config = colorizer, config
        self._predictor = PredictorConfig(config.size)
        self._ahead, self._memory = (_AHEAD, _MEMORY) if config.steady else (0, 0.0)
        self._apart = not (config.steady or references) and config.every == 1
        self._estimator = MotionEstimator()
        self._leader = Leader(references)
        self._count = self._in_shot = 0  # frames so far: in the film, in the shot
        self._shape: list[int] = []  # of a frame
        self._grey: np.ndarray | None = None  # the last frame, uint8 [h, w]
        self._pending: deque[_Frame] = deque()
        self._past: _Mean | None = None  # at the last frame that was returned
        self.shot = 0

    def push(self, rgb: np.ndarray) -> list[Tensor]:
        """Take the next frame, and return the ab of frames before it that are finished.

        Args:
            rgb: uint8 [H, W, 3] sRGB, of the same size for all frames. Only its lightness is used.

        Returns:
            A list of ab [1, 2, h, w] in CIELAB units, in order, not larger than `working_size` of a frame. Over all
            calls, each frame is returned once.

        Raises:
            UserError: the size differs from that of the frames before, or a reference has another aspect ratio.
        """
        shape = list(rgb.shape)
        if self._shape not in ([], shape):
            height, width, _ = self._shape
            raise UserError(
                f"frame {self._count} is {shape[1]} x {shape[0]} pixels: expected {width} x {height}, as before"
            )
        self._shape = shape
        working = working_lightness(rgb, self._colorizer.device)
        if self._apart:
            return [predict_within_memory(self._colorizer, working, self._predictor)]
        L = F.interpolate(working, size=grid_size(*working.shape[-2:]), mode="area")
        grey = (L[0, 0] * 2.55).round().byte().cpu().numpy()
        out, flows, visible = [], None, None
        if self._grey is not None:
            forward, backward = self._estimator.between(self._grey, grey)
            if begins_shot(self._grey, grey, backward):
                out = self.flush()
                self._past, self._in_shot = None, 0
                self.shot += 1
            else:
                flows = torch.from_numpy(np.stack([forward.flow, backward.flow])).half()
                visible = torch.from_numpy(np.stack([forward.visible, backward.visible]))
        self._grey = grey
        ab, weight = self._fresh(working, L, grey)
        self._pending.append(_Frame(torch.from_numpy(ab).half(), weight, flows, visible))
        self._count += 1
        self._in_shot += 1
        if len(self._pending) > self._ahead:
            out.append(self._next())
        return out

    def flush(self) -> list[Tensor]:
        """The ab of the frames that were pushed and not returned yet."""
        return [self._next() for _ in range(len(self._pending))]

    def _fresh(self, working: Tensor, L: Tensor, grey: np.ndarray) -> tuple[np.ndarray, float]:
        """The color of a frame on its own, float32 [h, w, 2], and its weight."""

        def predict(working: Tensor, L: Tensor) -> np.ndarray:
            ab = predict_within_memory(self._colorizer, working, self._predictor)
            # the guided filter sharpens the network's few pixels before they are moved
            ab = fit_upsampling(L, ab, L.shape[-2:]).strip(L, 0)
            return ab[0].permute(1, 2, 0).contiguous().cpu().numpy()

        self._leader.prepare(self._shape, L.shape[-2:], predict, self._colorizer.device)
        if self._in_shot == 0:
            self._leader.begin_shot()
        reference = self._leader.reference_at(self._count)
        if reference is not None:
            return reference, WEIGHT
        if self._in_shot % self._config.every:
            return np.zeros((*grey.shape, 2), np.float32), 0.0
        return self._leader.lead(self._count, L, predict(working, L)), 1.0

    def _next(self) -> Tensor:
        """Finish the oldest pending frame."""
        frame = self._pending.popleft()
        mean, given = _mean(frame), frame.weight > 1  # given by a reference
        least = mean.weight if given else 0
        if self._past is not None and not given:
            past = self._past.carried(frame.motion(1))
            mean, least = past.plus(mean), past.weight * _FADING
        # new predictions replace old ones, and the weight of references fades
        self._past = mean.weighing(np.maximum(np.minimum(mean.weight, self._memory), least))
        if given:
            return self._tensor(mean)
        future: _Mean | None = None
        for later in reversed(self._pending):
            future = _mean(later) if future is None else future.plus(_mean(later))
            future = future.carried(later.motion(0))
        return self._tensor(mean if future is None else mean.plus(future))

    def _tensor(self, mean: _Mean) -> Tensor:
        return torch.from_numpy(mean.values[..., :2]).permute(2, 0, 1)[None].to(self._colorizer.device)

    def state_dict(self) -> dict:
        """Everything needed to continue after the frames pushed so far: plain values and tensors of a few MB."""
        return {
            "shape": self._shape,
            "count": self._count,
            "in_shot": self._in_shot,
            "shot": self.shot,
            "grey": _saved(self._grey),
            "pending": [tuple(frame) for frame in self._pending],
            "past": self._past and _saved(self._past.values),
            "leader": self._leader.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned for the same colorizer, config and references."""
        self._shape, self._count = list(state["shape"]), state["count"]
        self._in_shot, self.shot = state["in_shot"], state["shot"]
        self._grey = None if state["grey"] is None else state["grey"].numpy()
        self._pending = deque(_Frame(*frame) for frame in state["pending"])
        self._past = None if state["past"] is None else _Mean(state["past"].numpy())
        self._leader.load_state_dict(state["leader"])


def _mean(frame: _Frame) -> _Mean:
    weight = np.full((*frame.ab.shape[:2], 1), frame.weight, np.float32)
    return _Mean(np.dstack([frame.ab.float().numpy(), weight]))


def _saved(array: np.ndarray | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(array)


def grid_size(height: int, width: int) -> tuple[int, int]:
    """Size (height, width) at which the colors of frames of a size are filtered."""
    scale = min(1.0, GRID / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
