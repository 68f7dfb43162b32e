import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.color.gamut import ab_to_rgb8
from common.color.lab import rgb8_to_lab
from common.data.packing import open_pack
from common.photo.restore import assess, restore


def lab_of(rgb):
    return rgb8_to_lab(torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None])


def toned(L, ab):
    """A picture of lightness [h, w] and color [2, h, w]."""
    planes = [torch.from_numpy(np.ascontiguousarray(x)).float() for x in (L[None, None], ab[None])]
    return ab_to_rgb8(*planes)[0].permute(1, 2, 0).numpy()


def grey(L):
    return toned(L, np.zeros((2, *L.shape)))


def scene(seed=0, height=120, width=150):
    """Lightness of a grey photograph with all tones: L 2 to 97, soft shapes and some texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    L = sum(np.sin(rng.uniform(3, 14) * x + rng.uniform(3, 14) * y + rng.uniform(0, 6)) for _ in range(5))
    L = L + rng.normal(0, 0.1, L.shape)
    low, high = np.percentile(L, [1, 99])
    return np.clip(2 + 95 * (L - low) / (high - low), 2, 97)


def sepia(L):
    """Warm in the middle tones, as prints are."""
    warm = 4 * L / 100 * (1 - L / 100)
    return toned(L, np.stack([9 * warm, 6 + 20 * warm]))


def lightness(rgb):
    return lab_of(rgb)[0, 0].numpy()


def is_neutral(rgb):
    return (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all()


@pytest.mark.parametrize(("black", "white"), [(15, 80), (25, 75), (30, 95), (12, 60)])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_faded_photograph_comes_back(black, white, seed):
    original = scene(seed)
    faded = grey(black + (white - black) / 100 * original)
    restored = lightness(restore(faded))
    assert np.abs(restored - original).mean() < 2.5
    assert np.abs(restored - original).max() < 6
    assert np.abs(lightness(faded) - original).mean() > 5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sepia_becomes_grey_of_the_same_lightness(seed):
    original = scene(seed)
    brown = sepia(original)
    restored = restore(brown)
    assert is_neutral(restored)
    assert np.abs(lightness(restored) - lightness(brown)).max() < 0.6


def test_faded_sepia_becomes_the_grey_it_was():
    original = scene(3)
    restored = restore(sepia(20 + 0.6 * original))
    assert is_neutral(restored)
    assert np.abs(lightness(restored) - original).mean() < 2.5


def test_a_tint_that_changes_over_the_print_is_a_tint():
    L = scene(4)
    warm = np.linspace(0.4, 1.2, L.shape[1])[None] * 4 * L / 100 * (1 - L / 100)
    yellowed = toned(L, np.stack([4 * warm, 22 * warm]))
    assert is_neutral(restore(yellowed))


def test_a_stamp_or_a_stain_does_not_make_it_a_photograph_in_color():
    brown = sepia(scene(5))
    brown[60:70, 60:68] = (190, 20, 30)
    assert is_neutral(restore(brown))


@pytest.mark.parametrize("seed", range(3))
def test_a_photograph_in_good_condition_is_unchanged(seed):
    L = scene(seed)
    y, x = np.mgrid[0:120, 0:150] / 150
    color = toned(L, np.stack([30 * np.sin(9 * x), 40 * np.cos(8 * y + 3 * x)]))
    for picture in (grey(L), color):
        restored = restore(picture)
        assert np.array_equal(restored, picture)
        assert restored is not picture
        assert not np.shares_memory(restored, picture)


def test_a_dark_scene_is_left_dark():
    """White is low, but black is not lifted, so the photograph has not faded."""
    night = grey(0.5 * scene())
    assert np.array_equal(restore(night), night)


def test_a_faded_photograph_in_color_stays_in_color():
    L = scene(1)
    y, x = np.mgrid[0:120, 0:150] / 150
    faded = toned(20 + 0.6 * L, np.stack([20 * np.sin(9 * x), 20 * np.cos(8 * y)]))
    assert not assess(faded).toned
    before, after = lab_of(faded), lab_of(restore(faded))
    assert np.abs(after[0, 0].numpy() - L).mean() < 4
    strong = before[0, 1:].norm(dim=0) > 12
    turn = torch.atan2(after[0, 2], after[0, 1]) - torch.atan2(before[0, 2], before[0, 1])
    turn = (turn + torch.pi) % (2 * torch.pi) - torch.pi
    assert float(turn[strong].abs().median()) < np.deg2rad(6)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 40), st.floats(55, 100), st.booleans(), st.integers(0, 9))
def test_restoring_again_changes_next_to_nothing(black, white, brown, seed):
    L = black + (white - black) / 100 * scene(seed, 60, 70)
    once = restore(sepia(L) if brown else grey(L))
    twice = restore(once)
    assert np.abs(lightness(twice) - lightness(once)).max() < 1.5
    assert once.shape == (60, 70, 3)
    assert once.dtype == np.uint8


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 40), st.floats(55, 100), st.integers(0, 9))
def test_the_order_of_lightness_stays(black, white, seed):
    faded = grey(black + (white - black) / 100 * scene(seed, 40, 40))
    order = np.argsort(faded[..., 0], axis=None, kind="stable")
    assert (np.diff(restore(faded)[..., 0].ravel()[order].astype(int)) >= 0).all()


def test_borders_do_not_count():
    """White paper and a black scanner lid around a faded print would look like a full range."""
    original = scene(2, 200, 220)
    inside = (slice(32, -32), slice(32, -32))
    for lid, paper in ((0, 10), (8, 20), (8, 30)):
        faded = np.full(original.shape, 1.0)
        faded[lid : 200 - lid, lid : 220 - lid] = 97
        faded[paper : 200 - paper, paper : 220 - paper] = (20 + 0.6 * original)[
            paper : 200 - paper, paper : 220 - paper
        ]
        restored = lightness(restore(grey(faded)))[inside]
        assert np.abs(restored - original[inside]).mean() < 2.5


def test_dust_does_not_count():
    original = scene(0)
    faded = 20 + 0.6 * original
    faded[np.random.default_rng(0).random(faded.shape) < 0.003] = 99
    restored = lightness(restore(grey(faded)))
    assert np.median(np.abs(restored - original)) < 2.5


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (128, 128, 128), (60, 60, 60)])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (50, 60)])
def test_a_picture_of_one_grey_is_left_alone(color, size):
    picture = np.full((*size, 3), color, dtype=np.uint8)
    assert np.array_equal(restore(picture), picture)


def test_a_sheet_of_brown_paper_becomes_grey_paper():
    picture = np.full((40, 50, 3), (180, 150, 110), dtype=np.uint8)
    restored = restore(picture)
    assert is_neutral(restored)
    assert np.abs(lightness(restored) - lightness(picture)).max() < 0.6


def test_hardly_any_contrast_is_left_alone():
    paper = grey(70 + 0.15 * scene())
    assert np.array_equal(restore(paper), paper)
    faint = restore(grey(50 + 0.3 * scene()))
    assert np.percentile(lightness(faint), [0.5, 99.5]) == pytest.approx([4, 95], abs=1.5)


def test_white_does_not_overflow_the_tables():
    """The sum of the three rounded parts of luminance must fit in 16 bits."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(64, 0)
    brown = ramp.copy()
    brown[..., 2] = (ramp[..., 2] * 0.8).astype(np.uint8)
    brown[:32, -1] = 255
    restored = restore(brown)
    assert (restored[:32, -1] == 255).all()
    assert (np.diff(restored[0, :, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize("brown", [False, True])
def test_scans_of_16_bits_keep_their_depth(brown):
    """The same as with 8 bits, up to their rounding, and finer: the stretch leaves no gaps in the greys."""
    faded = sepia(20 + 0.6 * scene(1)) if brown else grey(20 + 0.6 * scene(1))
    deep = faded.astype(np.uint16) * 257
    deep[:, ::2] += 100
    restored = restore(deep)
    assert restored.dtype == np.uint16
    assert np.abs(restored.astype(float) / 257 - restore(faded)).max() < 2.5
    assert len(np.unique(restored[..., 1])) > 1.5 * len(np.unique(restore(faded)[..., 1]))
    fine = grey(scene()).astype(np.uint16) * 257 + 3
    assert np.array_equal(restore(fine), fine)


def test_memory_beyond_the_result_is_small():
    large = np.repeat(np.repeat(sepia(20 + 0.6 * scene()), 30, axis=0), 30, axis=1)  # 16 megapixels
    tracemalloc.start()
    restored = restore(large)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert is_neutral(restored[::30, ::30])
    assert peak - restored.nbytes < 60e6


def test_photographs_in_color_are_told_from_toned_ones():
    """On photographs of the demo: in color, toned with two colors and grey with noise in ab, each as they are and
    unevenly yellowed.
    """
    pack = open_pack("demo", 128, "all")
    rng = np.random.default_rng(0)
    chosen = [pack.images[i] for i in range(0, len(pack), 5) if not pack.grey[i]]
    found = np.mean([assess(photograph.copy()).colored for photograph in chosen])
    assert found > 0.9
    for photograph in chosen:
        L = lightness(photograph)
        ab = np.stack([3 + L / 10, 20 - L / 8]) + np.linspace(0, 4, L.shape[1])
        assert not assess(toned(L, ab)).colored
        assert not assess(toned(L, rng.normal(0, 4, ab.shape))).colored


def test_what_fading_says():
    assert assess(grey(20 + 0.5 * scene())).fading() == "black is at L 21 and white at L 68"
    assert assess(grey(scene())).fading() == ""
    assert (
        assess(
            toned(20 + 0.5 * scene(), 40 * np.random.default_rng(0).normal(size=(2, 4, 5)).repeat(30, 1).repeat(30, 2))
        ).fading()
        == ""
    )
