"""Decoding in another process: equal to decoding here, and hostile files fail alone."""

import io

import numpy as np
import pytest
from PIL import Image

from common.imaging.limited import DecodeLimits, Decoder, LargePicture
from common.imaging.read import open_image
from common.utils.errors import PictureError
from tests.common.imaging.hostile import slow_jpeg
from tests.conftest import photo_array


def encoded(array, form="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, form, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def decoder():
    return Decoder()


def test_it_decodes_as_open_image(decoder):
    deep = photo_array(6)[..., 0].astype(np.uint16) * 257 + 3
    alpha = np.dstack([photo_array(7), photo_array(8)[..., 0]])
    files = (
        encoded(photo_array(3), "JPEG"),
        encoded(alpha),
        encoded(deep, "TIFF", dpi=(300, 300)),
        encoded(alpha, "AVIF"),
    )
    for data in files:
        here, there = open_image(data, "x", deep=True), decoder.open(data, "x", 10**6)
        for one, other in zip(here, there, strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize(
    "data", [b"", b"text", encoded(photo_array(1))[:-900], encoded(photo_array(1, 80, 80))], ids=str
)
def test_refusals_are_those_of_open_image(decoder, data):
    with pytest.raises(PictureError) as here:
        open_image(data, "x", max_pixels=6000, deep=True)
    with pytest.raises(PictureError) as there:
        decoder.open(data, "x", 6000)
    assert str(there.value) == str(here.value)


def test_a_file_that_takes_too_long_is_refused():
    decoder = Decoder(DecodeLimits(quick_seconds=0.3, seconds=0.3, seconds_per_megapixel=0))
    bomb = slow_jpeg()
    assert len(bomb) < 80_000
    with pytest.raises(LargePicture):  # not in the process that other pictures need
        decoder.open(bomb, "bomb.jpg", 10**7)
    with pytest.raises(PictureError, match=r"^bomb\.jpg takes too long to decode: save it again as JPEG or PNG$"):
        decoder.open(bomb, "bomb.jpg", 10**7, large=True)
    assert decoder.open(encoded(photo_array(3)), "x", 10**6).rgb.shape == (40, 48, 3)


def test_a_file_that_takes_too_much_memory_is_refused():
    decoder = Decoder(DecodeLimits(memory=8_000_000, memory_per_pixel=0))
    with pytest.raises(PictureError, match=r"x does not fit in memory: make it smaller first"):
        decoder.open(encoded(np.zeros((2000, 2000, 3), np.uint8)), "x", 10**7)
    assert decoder.open(encoded(photo_array(3)), "x", 10**6).rgb.shape == (40, 48, 3)


def test_large_pictures_get_a_process_of_their_own(decoder):
    data = encoded(np.zeros((1001, 5000), np.uint8))
    with pytest.raises(LargePicture):
        decoder.open(data, "x", 10**7)
    assert decoder.open(data, "x", 10**7, large=True).rgb.shape == (1001, 5000, 3)
    with pytest.raises(PictureError, match="above the limit of 5 megapixels"):  # no need for another process
        decoder.open(data, "x", 5 * 10**6)
