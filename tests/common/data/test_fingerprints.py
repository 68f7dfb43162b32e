"""Fingerprints find copies of photographs, and no other photographs."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn
from skimage.color import rgb2lab

from common.data.fingerprints import BYTES, MAX_DISTANCE, fingerprints, resembling
from common.data.packing import open_pack


@pytest.fixture(scope="module")
def squares():
    """The demo photographs at 128 px, uint8 [N, 128, 128, 3]."""
    return np.array(open_pack("demo", 128).images)


def changed(images, size=None, quality=None):
    """The images at another size, then encoded as JPEG."""
    out = []
    for image in images:
        picture = Image.fromarray(image)
        if size:
            picture = picture.resize((size, size), Image.Resampling.BICUBIC)
        if quality:
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=quality)
            picture = Image.open(file).convert("RGB")
        out.append(np.array(picture))
    return np.stack(out)


@pytest.mark.parametrize("size, quality", [(None, 40), (64, None), (300, None), (64, 75)])
def test_copies_are_found(squares, size, quality):
    found = resembling(fingerprints(changed(squares, size, quality)), fingerprints(squares))
    assert found.mean() >= 0.98


def test_grey_copies_are_found(squares):
    grey = np.repeat(np.stack([np.array(Image.fromarray(x).convert("L")) for x in squares])[..., None], 3, axis=3)
    assert resembling(fingerprints(grey), fingerprints(squares)).mean() >= 0.95


def test_different_photographs_are_not_found():
    hashes = fingerprints(np.array(open_pack("demo", 64).images))
    strangers = fingerprints(np.random.default_rng(0).integers(0, 256, (50, 64, 64, 3), dtype=np.uint8))
    assert not resembling(strangers, hashes).any()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 127), max_size=40, unique=True))
def test_the_distance_counts_bits(bits):
    first = np.random.default_rng(1).integers(0, 2, 8 * BYTES, dtype=np.uint8)
    second = first.copy()
    second[bits] ^= 1
    found = resembling(np.packbits(second)[None], np.packbits(first)[None])
    assert found.tolist() == [len(bits) <= MAX_DISTANCE]


def test_nothing_resembles_an_empty_set(squares):
    assert not resembling(fingerprints(squares[:3]), np.empty((0, BYTES), np.uint8)).any()
    assert fingerprints(np.empty((0, 16, 16, 3), np.uint8)).shape == (0, BYTES)


def test_signs_are_those_of_the_dct_of_scipy(squares):
    """The first three bits: the lowest horizontal, the lowest vertical, and the next horizontal frequency."""
    L = rgb2lab(squares[0])[..., 0].reshape(32, 4, 32, 4).mean(axis=(1, 3))
    frequencies = dctn(L, norm="ortho")
    bits = np.unpackbits(fingerprints(squares[:1])[0])[:3]
    assert bits.tolist() == [int(frequencies[i, j] > 0) for i, j in ((0, 1), (1, 0), (0, 2))]


def test_a_pack_stores_the_fingerprints_of_its_squares():
    pack = open_pack("demo", 48)
    assert np.array_equal(pack.fingerprints, fingerprints(np.array(pack.images)))
