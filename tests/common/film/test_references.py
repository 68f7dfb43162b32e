"""References: the form on the command line, the frames that they lead, and those that they do not."""

from pathlib import Path

import numpy as np
import pytest
import torch

from common.color.lab import rgb8_to_lab
from common.film.config import FilmConfig
from common.film.references import Reference, parse_reference
from common.film.steady import FrameColorizer
from common.utils.errors import UserError
from tests.common.film.made import ByLightness, pan, texture

ONE, OTHER = pan(texture(1), 26), pan(texture(2), 9)


def tinted(frame):
    """The frame with a blue left and a red right half of the scene; the tint is that of its place, not of its grey."""
    tint = np.zeros(frame.shape, int)
    tint[:, :80], tint[:, 80:] = (-20, -10, 50), (50, -20, -20)
    return np.clip(frame + tint, 0, 255).astype(np.uint8)


def colorize(frames, references, **options):
    colors = FrameColorizer(ByLightness(), FilmConfig(64, **options), references)
    return [ab for frame in frames for ab in colors.push(frame)] + colors.flush()


def true_ab(frame):
    return rgb8_to_lab(torch.from_numpy(frame).permute(2, 0, 1)[None])[:, 1:]


@pytest.mark.parametrize(
    "text, path, seconds",
    [("a.png@12.5", "a.png", 12.5), ("me@home/b@2.jpg@1:02:03.5", "me@home/b@2.jpg", 3723.5), ("c@0", "c", 0.0),
     ("d.png@02:10", "d.png", 130.0)],
)  # fmt: skip
def test_a_reference_is_parsed(text, path, seconds):
    assert parse_reference(text) == (Path(path), seconds)


@pytest.mark.parametrize(
    "text", ["", "a.png", "@3", "a.png@", "a.png@-1", "a.png@x", "a.png@1:2:3:4", "a.png@1e5", "a@nan"]
)
def test_a_reference_of_another_form_is_refused(text):
    with pytest.raises(UserError, match="PICTURE@TIME"):
        parse_reference(text)


@pytest.mark.parametrize("options", [{}, {"steady": False}, {"every": 4}])
@pytest.mark.parametrize("frame", [0, 13, 25])
def test_the_frame_of_a_reference_has_its_colors(frame, options):
    reference = tinted(ONE[frame])
    ab = colorize(ONE, [Reference(frame, reference)], **options)[frame]
    assert (ab - true_ab(reference)).abs().max() < 0.1


def test_a_reference_leads_the_frames_before_and_after_it():
    scene = texture(1)
    colored = np.clip(scene + np.where(np.arange(320)[None, :, None] < 110, (-20, -10, 50), (50, -20, -20)), 0, 255)
    true = pan(colored.astype(np.uint8), 26)
    apart = colorize(ONE, [])
    led = colorize(ONE, [Reference(13, true[13])])
    for i in (0, 6, 12, 14, 20, 25):
        error, before = ((ab[i] - true_ab(true[i])).abs().mean().item() for ab in (led, apart))
        assert error < before / 3, i


def test_another_shot_is_unaffected():
    frames = OTHER + ONE[:12] + OTHER
    apart, led = colorize(frames, []), colorize(frames, [Reference(15, tinted(frames[15]))])
    assert all(map(torch.equal, apart[:9], led[:9]))
    assert all(map(torch.equal, apart[21:], led[21:]))
    assert not any(map(torch.equal, apart[9:21], led[9:21]))


def test_two_references_in_one_shot_share_its_frames():
    red, blue = (np.clip(ONE[i] + np.array(c), 0, 255).astype(np.uint8) for i, c in ((2, (60, 0, 0)), (22, (0, 0, 60))))
    b = [ab[:, 1].mean().item() for ab in colorize(ONE, [Reference(2, red), Reference(22, blue)])]
    assert b[2] > b[12] > b[22]
    assert b[2] > 0 > b[22]


def test_a_reference_of_another_size_is_taken():
    reference = np.repeat(np.repeat(tinted(ONE[3]), 2, axis=0), 2, axis=1)
    ab = colorize(ONE[:8], [Reference(3, reference)])[3]
    assert (ab - true_ab(tinted(ONE[3]))).abs().mean() < 0.1


@pytest.mark.parametrize(
    "references, message",
    [
        ([Reference(3, ONE[3], "a.png"), Reference(3, ONE[3], "b.png")], "a.png and b.png are both for frame 3"),
        ([Reference(-1, ONE[3], "a.png")], "a.png is for frame -1"),
        ([Reference(3, ONE[3][:, :90], "a.png")], "a.png is 90 x 96 and the film 160 x 96"),
    ],
)
def test_bad_references_are_refused(references, message):
    with pytest.raises(UserError, match=message):
        colorize(ONE[:1], references)
