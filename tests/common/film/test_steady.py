"""Laws of the filter over time: what stays constant, what follows motion, what a cut separates, and resuming."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.film.config import FilmConfig
from common.film.references import Reference
from common.film.steady import FrameColorizer
from common.film.synthetic import with_grain
from common.predictor import PredictorConfig, predict_within_memory, working_lightness
from common.utils.errors import UserError
from tests.common.film.made import ByLightness, by_lightness, flatness, pan, texture

SIZE = 64


@pytest.fixture(autouse=True)
def lightness_as_it_is(monkeypatch):
    """The colors of these films are known for their own lightness, not for a stretched one."""
    monkeypatch.setattr("common.predictor.unfade", lambda L: L)


def colorize(frames, network=None, references=(), **options):
    colors = FrameColorizer(network or ByLightness(), FilmConfig(SIZE, **options), references)
    return [ab for frame in frames for ab in colors.push(frame)] + colors.flush()


def known(frame, like):
    """The true ab of a frame of a `ByLightness` film, at the size of `like`."""
    return F.interpolate(by_lightness(working_lightness(frame, torch.device("cpu"))), like.shape[-2:], mode="area")


def test_a_still_film_has_constant_colors():
    outputs = colorize([texture(0)] * 14)
    assert len(outputs) == 14
    assert all(torch.allclose(ab, outputs[0], atol=1e-3) for ab in outputs)


def test_grain_does_not_make_a_still_film_flicker():
    frames = with_grain([texture(0)] * 24, 6, seed=0)
    apart = colorize(frames, ByLightness(flicker=10), steady=False)
    assert flatness(apart) > 3
    assert flatness(colorize(frames, ByLightness(flicker=10))) < flatness(apart) / 8


def test_unfiltered_frames_are_predicted_as_photographs():
    frames, network = pan(texture(0), 3), ByLightness()
    for frame, ab in zip(frames, colorize(frames, network, steady=False), strict=True):
        alone = predict_within_memory(network, working_lightness(frame, network.device), PredictorConfig(SIZE))
        assert torch.equal(ab, alone)


def test_identical_input_after_a_cut_equals_a_fresh_start():
    first, second = pan(texture(1), 11), pan(texture(2), 12)
    colors = FrameColorizer(ByLightness(flicker=5), FilmConfig(SIZE))
    outputs = [ab for frame in first + second for ab in colors.push(frame)] + colors.flush()
    assert colors.shot == 1
    assert all(map(torch.equal, outputs[11:], colorize(second, ByLightness(flicker=5))))
    assert all(map(torch.equal, outputs[:11], colorize(first, ByLightness(flicker=5))))


@pytest.mark.parametrize("after", [1, 5, 13, 20])
@pytest.mark.parametrize("every", [1, 3])
def test_continuing_from_a_saved_state_is_bit_identical(after, every):
    frames = pan(texture(1), 12) + pan(texture(2), 12)
    references = [Reference(16, frames[16] // 2 + np.array([60, 0, 30], np.uint8))]
    make = lambda: FrameColorizer(ByLightness(flicker=5), FilmConfig(SIZE, every=every), references)  # noqa: E731
    whole = make()
    expected = [ab for frame in frames for ab in whole.push(frame)] + whole.flush()
    before, saved = make(), io.BytesIO()
    outputs = [ab for frame in frames[:after] for ab in before.push(frame)]
    torch.save(before.state_dict(), saved)
    assert saved.tell() < 6_000_000
    resumed = make()
    resumed.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True))
    outputs += [ab for frame in frames[after:] for ab in resumed.push(frame)] + resumed.flush()
    assert len(outputs) == len(expected)
    assert all(map(torch.equal, outputs, expected))
    assert resumed.shot == whole.shot == 1


@pytest.mark.parametrize("options", [{}, {"every": 2}, {"steady": False}, {"steady": False, "every": 3}])
@pytest.mark.parametrize("lengths", [[1], [3, 1, 9], [12, 2]])
def test_each_frame_is_returned_once_and_in_order(options, lengths):
    shots = [[texture(10 + i)] * length for i, length in enumerate(lengths)]
    expected = [frame for shot in shots for frame in shot]
    outputs = colorize(expected, **options)
    assert len(outputs) == len(expected)
    for ab, frame in zip(outputs, expected, strict=True):
        assert (ab - known(frame, ab)).abs().mean() < 3


@pytest.mark.parametrize("every", [2, 3])
def test_every_nth_frame_of_a_shot_is_predicted(every):
    network = ByLightness()
    colorize(pan(texture(1), 11) + pan(texture(2), 8), network, every=every)
    assert network.calls == -(-11 // every) + -(-8 // every)


def test_skipped_frames_follow_the_motion():
    frames = pan(texture(3), 9)
    outputs = colorize(frames, every=9)

    def error(ab, frame):  # away from what enters the frame
        return (ab - known(frame, ab)).abs()[..., :-20, :-40].mean().item()

    errors = list(map(error, outputs, frames))
    assert max(errors) < errors[0] + 0.5
    assert error(outputs[0], frames[-1]) > 4 * max(errors)


def test_what_a_moving_object_uncovers_gets_its_own_prediction():
    frames = []
    for i in range(12):
        frame = pan(texture(4), 1)[0]
        frame[30:70, 10 + 6 * i : 50 + 6 * i] = texture(5)[30:70, :40] // 4
        frames.append(frame)
    for frame, ab in zip(frames, colorize(frames), strict=True):
        assert (ab - known(frame, ab)).abs().mean() < 2


def test_a_fade_and_a_flash_are_no_cuts():
    fade = [(frame * (1 - i / 20)).astype(np.uint8) for i, frame in enumerate(pan(texture(1), 16))]
    flash = pan(texture(2), 8)
    flash[4] = np.minimum(flash[4] * 1.8, 255).astype(np.uint8)
    for frames in (fade, flash):
        colors = FrameColorizer(ByLightness(), FilmConfig(SIZE))
        for frame in frames:
            colors.push(frame)
        assert colors.shot == 0


def test_frames_after_black_begin_a_shot():
    colors = FrameColorizer(ByLightness(), FilmConfig(SIZE))
    for frame in [texture(1)] * 2 + [np.zeros_like(texture(1))] * 3 + [texture(1)] * 2:
        colors.push(frame)
    assert colors.shot == 1


@pytest.mark.parametrize("size", [(1, 1), (9, 300), (300, 9), (40, 40), (2, 2000)])
def test_frames_of_any_shape_are_taken(size):
    frames = [texture(1, 400, 2400)[: size[0], i : size[1] + i].copy() for i in range(3)]
    outputs = colorize(frames)
    assert len(outputs) == 3
    assert all(torch.isfinite(ab).all() for ab in outputs)


def test_a_frame_of_another_size_is_refused():
    colors = FrameColorizer(ByLightness(), FilmConfig(SIZE))
    colors.push(texture(1))
    with pytest.raises(UserError, match="frame 1 is 160 x 96 pixels: expected 320 x 240"):
        colors.push(pan(texture(1), 1)[0])
