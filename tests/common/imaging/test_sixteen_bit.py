"""16 bits per channel in every layout of TIFF and PNG that scanners and image editors write."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from common.imaging.read import open_image
from common.imaging.write import save_image
from common.utils.errors import PictureError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 65536, (70, 90, 3), dtype=np.uint16)
ALPHA = RNG.integers(0, 65536, (70, 90), dtype=np.uint16)
RGBA = np.dstack([RGB, ALPHA])
LAYOUTS = [
    {},
    {"byteorder": ">"},
    {"compression": "zlib", "predictor": True, "rowsperstrip": 7},
    {"tile": (16, 32)},
    {"tile": (16, 32), "compression": "zlib", "predictor": True, "byteorder": ">"},
    {"bigtiff": True},
]


def tiff(array, **layout):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **layout)
    return file.getvalue()


def png(array, color_type, transparent=None):
    """A 16-bit PNG. color_type: 0 grey, 2 RGB, 4 grey and alpha. transparent: the value in a tRNS chunk."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0))
    extra = b"" if transparent is None else chunk(b"tRNS", np.array(transparent).astype(">u2").tobytes())
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def check(data, rgb, alpha=None):
    picture = open_image(data, deep=True)
    assert np.array_equal(picture.deep, rgb)
    assert np.array_equal(picture.rgb, rgb >> 8)
    assert np.array_equal(open_image(data).rgb, rgb >> 8)
    assert (picture.alpha is None) == (picture.deep_alpha is None) == (alpha is None)
    if alpha is not None:
        assert np.array_equal(picture.deep_alpha, alpha)
        assert np.array_equal(picture.alpha, alpha >> 8)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_layout_of_tiff_is_exact(layout):
    grey = np.repeat(RGB[..., :1], 3, axis=2)
    check(tiff(RGB, photometric="rgb", **layout), RGB)
    check(tiff(RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", **layout), RGB)
    check(tiff(RGBA, photometric="rgb", extrasamples=["unassalpha"], **layout), RGB, ALPHA)
    planes = RGBA.transpose(2, 0, 1)
    check(tiff(planes, photometric="rgb", extrasamples=["unassalpha"], planarconfig="separate", **layout), RGB, ALPHA)
    check(tiff(RGB[..., 0], photometric="minisblack", **layout), grey)
    if layout.get("byteorder") != ">":  # which Pillow refuses
        check(tiff(RGB[..., 0], photometric="miniswhite", **layout), 65535 - grey)
    check(tiff(RGBA, photometric="rgb", extrasamples=["unspecified"], **layout), RGB)


def test_planes_are_never_filled_with_other_memory():
    """OpenCV decodes one of the three planes, and returns the rest as it found it in memory."""
    for _ in range(3):
        np.full((160, 160, 3), 12345, np.uint16).copy()  # memory that is freed with recognizable values
        planes = np.zeros((3, 160, 160), np.uint16)
        picture = open_image(tiff(planes, photometric="rgb", planarconfig="separate"), deep=True)
        assert not picture.finest.any()


def test_lzw_of_opencv():
    check(cv2.imencode(".tif", RGB[..., ::-1])[1].tobytes(), RGB)


def test_premultiplied_alpha_is_divided_out():
    premultiplied = RGBA.copy()
    premultiplied[..., :3] = np.round(RGB * (ALPHA[..., None] / 65535))
    picture = open_image(tiff(premultiplied, photometric="rgb", extrasamples=["assocalpha"]), deep=True)
    opaque = ALPHA > 32768
    assert np.abs(picture.deep.astype(int) - RGB)[opaque].max() <= 1
    assert np.array_equal(picture.deep_alpha, ALPHA)


def test_12_bits_use_the_whole_range():
    grey = RGB[..., 0] >> 4
    a, b = grey[:, ::2], grey[:, 1::2]
    data = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], axis=2).astype(np.uint8).tobytes()
    page = ImageFileDirectory_v2()
    for tag, value in {256: 90, 257: 70, 258: 12, 259: 1, 262: 1, 273: 0, 277: 1, 278: 70, 279: len(data)}.items():
        page[tag] = value
    file = io.BytesIO()
    page.save(file)
    file.write(data)
    check(file.getvalue(), np.repeat((grey << 4 | grey >> 8)[..., None], 3, axis=2))


def test_transparent_values_of_png():
    grey, place = RGB[..., 0], RGB[3, 4]
    check(png(grey, 0, place[0]), np.repeat(grey[..., None], 3, axis=2), np.where(grey == place[0], 0, 65535))
    check(png(RGB, 2, place), RGB, np.where((place == RGB).all(axis=2), 0, 65535))
    check(png(RGBA[..., [0, 3]], 4), np.repeat(grey[..., None], 3, axis=2), ALPHA)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_of_alpha_are_written(tmp_path, suffix):
    picture = open_image(tiff(RGBA, photometric="rgb", extrasamples=["unassalpha"]), deep=True)
    save_image(tmp_path / f"a{suffix}", picture.deep, picture)
    check((tmp_path / f"a{suffix}").read_bytes(), RGB, ALPHA)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("photometric", ["rgb", "miniswhite"])
def test_orientation_of_tiff(orientation, photometric):
    values = RGB if photometric == "rgb" else RGB[..., 0]
    deep = tiff(values, photometric=photometric, extratags=[(274, 3, 1, orientation, True)])
    flat = tiff((values >> 8).astype(np.uint8), photometric=photometric, extratags=[(274, 3, 1, orientation, True)])
    assert np.array_equal(open_image(deep, deep=True).deep >> 8, open_image(flat).rgb)


def test_the_profile_of_a_palette_is_applied_and_kept():
    image = Image.fromarray((RGB >> 8).astype(np.uint8)).quantize(16)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = bytearray(profile)  # red and blue exchange their primaries
    red, blue = swapped.find(b"rXYZ"), swapped.find(b"bXYZ")
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"
    name = swapped.find("sRGB".encode("utf-16-be"))
    swapped[name : name + 8] = "odd!".encode("utf-16-be")
    files = []
    for one in (image, image.convert("RGB")):
        files.append(io.BytesIO())
        one.save(files[-1], "PNG", icc_profile=bytes(swapped))
    palette, full = (open_image(file) for file in files)
    assert np.array_equal(palette.rgb, full.rgb)
    assert np.abs(palette.rgb.astype(int) - np.asarray(image.convert("RGB"))).max() > 50
    assert palette.icc == bytes(swapped)


@pytest.mark.parametrize("cut", [0.3, 0.7, 0.95])
def test_truncated_planes_are_refused(cut):
    data = tiff(RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", compression="zlib")
    with pytest.raises(PictureError):
        open_image(data[: int(len(data) * cut)], deep=True)


def test_strips_that_overlap_are_refused():
    """A small file whose strips all lie at one place would take the memory of their sum."""
    data = bytearray(tiff(RGB, photometric="rgb", compression="zlib", rowsperstrip=1))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        lengths = file.pages[0].tags["StripByteCounts"]
        struct.pack_into(f"<{lengths.count}L", data, lengths.valueoffset, *[len(data) // 2] * lengths.count)
    with pytest.raises(PictureError, match="damaged"):
        open_image(bytes(data), deep=True)


def test_what_pillow_decodes_wrongly_without_an_error_is_refused():
    planes = tiff(RGBA.transpose(2, 0, 1), photometric="separated", planarconfig="separate")
    signed = tiff((RGB[..., 0] >> 1).astype(np.int16), photometric="minisblack")
    missing = bytearray(tiff(RGB, photometric="rgb"))
    with tifffile.TiffFile(io.BytesIO(missing)) as file:
        struct.pack_into("<L", missing, file.pages[0].tags["RowsPerStrip"].valueoffset, 1)
    for data, says in (
        (planes, "a.tif has separate planes of 16-bit CMYK"),
        (signed, "a.tif has signed values"),
        (bytes(missing), "strips or tiles are missing"),
    ):
        with pytest.raises(PictureError, match=says):
            open_image(data, "a.tif")
