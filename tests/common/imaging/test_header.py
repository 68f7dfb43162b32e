"""Files that are small, and pictures that are too large, are refused before their pixels are decoded."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from common.imaging import header
from common.imaging.read import open_image
from common.utils.errors import PictureError
from tests.conftest import photo_array


def encoded(form, *frames, **options):
    file = io.BytesIO()
    images = [Image.fromarray(frame) for frame in frames]
    if len(images) > 1:
        options |= {"save_all": True, "append_images": images[1:]}
    images[0].save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", ["PNG", "WEBP", "AVIF"])
def test_animations_are_refused(form):
    frames = [photo_array(i) for i in range(3)]
    with pytest.raises(PictureError, match=r"a\.x is an animation of 3 frames: save one of them"):
        open_image(encoded(form, *frames), "a.x")
    assert open_image(encoded(form, frames[0]), "a.x").pages == 1


def test_the_pictures_of_a_stereo_jpeg_are_no_animation():
    assert open_image(encoded("MPO", photo_array(0), photo_array(1))).format == "JPEG"


@pytest.mark.parametrize("form", ["WEBP", "AVIF"])
def test_slow_formats_have_a_lower_limit(form, monkeypatch):
    data = encoded(form, np.zeros((4200, 4200, 3), np.uint8), **({"lossless": True} if form == "WEBP" else {}))
    assert len(data) < 4_000
    monkeypatch.setattr("common.imaging.read._decode", None)  # which would be called after the check
    with pytest.raises(PictureError, match=rf"has 4200x4200 pixels, above the limit of .* JPEG or PNG \(of {form}"):
        open_image(data)


def test_more_pixels_than_the_bytes_can_hold(monkeypatch):
    monkeypatch.setattr("common.imaging.read._decode", None)
    data = bytearray(encoded("PNG", photo_array(0)))
    struct.pack_into(">II", data, 16, 12000, 12000)
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    for wrong in (bytes(data), b"P6\n12000 12000\n255\n" + bytes(99)):
        with pytest.raises(PictureError, match=r"damaged or cut short .* bytes for 144000000 pixels"):
            open_image(wrong)


def test_files_are_refused_by_size_without_being_read(tmp_path, monkeypatch):
    monkeypatch.setattr(header, "MAX_BYTES", 1000)
    (tmp_path / "a.png").write_bytes(b"\x89PNG" + bytes(2000))
    with pytest.raises(PictureError, match=r"a\.png has more than 1e-06 GB: make it smaller first"):
        open_image(tmp_path / "a.png", deep=True)
    reading, writing = os.pipe()
    os.write(writing, bytes(5000))
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        with pytest.raises(PictureError, match="has more than"):
            header.seekable(pipe, "pipe")
        assert len(pipe.read(9999)) == 5000 - 1001
    data = encoded("TIFF", photo_array(0))  # may be larger, since one page at a time is read
    assert len(data) > 1000
    assert np.array_equal(open_image(data).rgb, photo_array(0))


def test_a_pipe_is_read(tmp_path):
    data = encoded("PNG", photo_array(0))
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    assert np.array_equal(open_image(f"/dev/fd/{reading}", deep=True).rgb, photo_array(0))
    os.close(reading)


def test_endless_pages_are_refused(monkeypatch):
    monkeypatch.setattr(header, "MAX_PAGES", 3)
    pages = [photo_array(i, 8, 8) for i in range(4)]
    assert open_image(encoded("TIFF", *pages[:3])).pages == 3
    with pytest.raises(PictureError, match="more than 3 pages: split it"):
        open_image(encoded("TIFF", *pages))
