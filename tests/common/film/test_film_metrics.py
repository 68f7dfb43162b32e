"""The warping error, against films whose error is known; constructed films; the measured ways."""

import numpy as np
import pytest
import torch

from common.color.lab import rgb8_to_lab
from common.film.measure import WAYS, measure_film
from common.film.metrics import film_motion, warping_error
from common.film.synthetic import synthetic_film, with_grain
from tests.common.film.made import ByLightness, pan, texture
from tests.common.packs import painted

PHOTOGRAPHS = np.stack([np.repeat(np.repeat(painted(i, 32), 4, 0), 4, 1) for i in range(6)])


def test_alternating_colors_have_their_difference_as_error():
    one, other = (np.full((64, 64, 3), color, np.uint8) for color in ((120, 100, 90), (100, 110, 120)))
    ab = [rgb8_to_lab(torch.from_numpy(x).permute(2, 0, 1))[1:, 0, 0] for x in (one, other)]
    motion = film_motion([texture(0)[:64, :64].copy()] * 6, [])
    assert warping_error([one, other] * 3, motion) == pytest.approx((ab[0] - ab[1]).abs().mean().item(), abs=1e-3)


def test_colors_that_move_with_the_picture_have_a_small_error():
    grey = pan(texture(0), 8)
    tint = np.where(np.arange(320)[None, :, None] % 40 < 20, (-20, -10, 50), (50, -20, -20))
    moving = pan(np.clip(texture(0) + tint, 0, 255).astype(np.uint8), 8)
    standing = [np.clip(frame + tint[:, :160], 0, 255).astype(np.uint8) for frame in grey]
    motion = film_motion(grey, [])
    assert warping_error(moving, motion) < warping_error(standing, motion) / 4


def test_cuts_are_left_out():
    one, other = (np.full((64, 64, 3), color, np.uint8) for color in ((120, 100, 90), (100, 110, 120)))
    assert warping_error([one] * 3 + [other] * 3, film_motion([texture(0)[:64, :64].copy()] * 6, [3])) == 0
    with pytest.raises(ValueError, match="two successive frames"):
        warping_error([one, other], film_motion([texture(0)[:64, :64].copy()] * 2, [1]))


def test_a_constructed_film_is_a_function_of_its_seed():
    film, same, other = (synthetic_film(PHOTOGRAPHS, seed, 2, 8, (48, 64), traps=True) for seed in (1, 1, 2))
    assert film.cuts == [8]
    assert len(film.frames) == 16
    assert film.frames[0].shape == (48, 64, 3)
    assert all(map(np.array_equal, film.frames, same.frames))
    assert not any(map(np.array_equal, film.frames, other.frames))
    grainy = with_grain(film.frames, 5, 0)
    noise = np.stack(grainy).astype(int) - np.stack(film.frames)
    assert 3 < noise.std() < 6


def test_all_ways_are_measured():
    film = synthetic_film(PHOTOGRAPHS, 3, 2, 8, (96, 128))
    rows = {row.way: row for row in measure_film(ByLightness(flicker=15), film, 32)}
    assert tuple(rows) == WAYS
    assert rows["original"].rmse_ab == 0
    assert all(row.found_cuts == 1 and len(row.frames) == 16 for row in rows.values() if row.way != "frame by frame")
    assert rows["filtered"].warping_error < rows["frame by frame"].warping_error / 3
    assert rows["one reference a shot"].rmse_ab < rows["filtered"].rmse_ab
