"""Colors of successive frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from common.colorizer import Colorizer
from common.film.config import FilmConfig
from common.predictor import PredictorConfig, predict_within_memory, working_lightness


@dataclass(frozen=True)
class Reference:
    """The colors of one frame, as a person wants them: uint8 [H, W, 3] sRGB."""

    frame: int
    rgb: np.ndarray


class FrameColorizer:
    """Predicts the ab of successive frames, each on its own."""

    def __init__(self, colorizer: Colorizer, config: FilmConfig, references: Sequence[Reference] = ()) -> None:
        self._colorizer = colorizer
        self._config = config
        self.shot = 0

    def push(self, rgb: np.ndarray) -> list[Tensor]:
        """The ab [1, 2, h, w] of a frame uint8 [H, W, 3] sRGB, in CIELAB units."""
        working = working_lightness(rgb, self._colorizer.device)
        return [predict_within_memory(self._colorizer, working, PredictorConfig(self._config.size))]

    def flush(self) -> list[Tensor]:
        """The ab of the frames that were pushed and not yet returned."""
        return []

    def state_dict(self) -> dict:
        """What is needed to continue after the frames pushed so far."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned."""
