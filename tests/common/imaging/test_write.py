import io

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from common.imaging.read import open_image
from common.imaging.write import encode_pages, save_image
from common.utils.errors import PictureError
from tests.conftest import photo_array


def deep_array(seed, height=40, width=48):
    """A smooth picture whose low bytes matter, uint16 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    coarse = photo_array(seed, height, width).astype(np.uint16) * 257
    return np.minimum(coarse.astype(np.int64) + rng.integers(0, 200, coarse.shape), 65535).astype(np.uint16)


def test_16_bit_color_round_trip_is_exact(tmp_path):
    values = deep_array(0)
    for suffix in (".png", ".tif"):
        save_image(tmp_path / f"a{suffix}", values)
        picture = open_image(tmp_path / f"a{suffix}", deep=True)
        assert np.array_equal(picture.deep, values)
        assert np.abs(picture.rgb.astype(int) - values / 257).max() <= 1
        assert open_image(tmp_path / f"a{suffix}").deep is None  # only if requested
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), values)


def test_16_bit_grey_is_deep_in_three_channels(tmp_path):
    values = np.linspace(0, 65535, 40 * 48).reshape(40, 48).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", values)
    for suffix in (".png", ".tif"):
        picture = open_image(tmp_path / f"a{suffix}", deep=True)
        assert np.array_equal(picture.deep, np.repeat(values[..., None], 3, axis=2))
        assert picture.finest is picture.deep


def test_8_bits_are_not_deep(tmp_path):
    for suffix in (".png", ".tif", ".jpg"):
        save_image(tmp_path / f"a{suffix}", photo_array(0))
        picture = open_image(tmp_path / f"a{suffix}", deep=True)
        assert picture.deep is None
        assert picture.finest is picture.rgb


def test_deep_transparency_resolution_exif_and_provenance_are_kept(tmp_path):
    alpha = np.random.default_rng(0).integers(0, 256, (40, 48), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    like = open_image(encode_pages([(photo_array(0), None)], "PNG"))._replace(
        alpha=alpha, dpi=(300.0, 300.0), exif=exif.tobytes()
    )
    values = deep_array(1)
    for suffix in (".png", ".tif"):
        save_image(tmp_path / f"a{suffix}", values, like, provenance="colorized by a test")
        found = open_image(tmp_path / f"a{suffix}", deep=True)
        assert np.array_equal(found.deep, values)
        assert np.array_equal(found.alpha, alpha)
        assert found.dpi == pytest.approx((300, 300), abs=0.02)
    with Image.open(tmp_path / "a.png") as image:
        assert image.getexif()[0x010F] == "A camera"
        assert image.getexif()[0x000B] == "colorized by a test"
    assert tifffile.TiffFile(tmp_path / "a.tif").pages[0].tags["Software"].value == "colorized by a test"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_16_bits(tmp_path, orientation):
    values = deep_array(2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    like = open_image(encode_pages([(photo_array(0), None)], "PNG"))._replace(exif=exif.tobytes())
    save_image(tmp_path / "a.png", values, like)
    picture = open_image(tmp_path / "a.png", deep=True)
    assert picture.deep.shape == picture.rgb.shape
    assert np.abs(picture.rgb.astype(int) - picture.deep / 257).max() <= 1  # as Pillow rotates 8 bits


def test_16_bits_are_reduced_to_8_for_8_bit_formats(tmp_path):
    values = deep_array(3)
    save_image(tmp_path / "a.webp", values)
    assert np.array_equal(open_image(tmp_path / "a.webp").rgb, np.round(values / 257).astype(np.uint8))


def test_an_srgb_profile_is_kept_and_changes_nothing(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(photo_array(0)).save(tmp_path / "a.png", icc_profile=profile)
    picture = open_image(tmp_path / "a.png")
    assert np.array_equal(picture.rgb, photo_array(0))
    for suffix in (".png", ".jpg", ".tif", ".webp"):
        save_image(tmp_path / f"b{suffix}", picture.rgb, picture)
        with Image.open(tmp_path / f"b{suffix}") as image:
            assert image.info["icc_profile"] == profile
    deep = deep_array(0)
    for suffix in (".png", ".tif"):
        save_image(tmp_path / f"c{suffix}", deep, picture)
        with Image.open(tmp_path / f"c{suffix}") as image:
            assert image.info["icc_profile"] == profile


def test_all_pages_of_a_tiff(tmp_path):
    pages = [photo_array(i, 30 + i, 40) for i in range(3)]
    (tmp_path / "a.tif").write_bytes(encode_pages([(page, None) for page in pages], "TIFF"))
    for i, page in enumerate(pages):
        picture = open_image(tmp_path / "a.tif", page=i)
        assert (picture.page, picture.pages) == (i, 3)
        assert np.array_equal(picture.rgb, page)
    deep = [deep_array(i, 30 + i, 40) for i in range(2)]
    (tmp_path / "b.tif").write_bytes(encode_pages([(page, None) for page in deep], "TIFF"))
    for i, page in enumerate(deep):
        assert np.array_equal(open_image(tmp_path / "b.tif", page=i, deep=True).deep, page)


def test_what_a_format_cannot_hold_is_refused():
    pages = [(photo_array(0), None), (photo_array(1), None)]
    with pytest.raises(PictureError, match=r"cannot hold 2 pages: write \.tif instead"):
        encode_pages(pages, "PNG")
    with pytest.raises(PictureError, match="cannot be written"):
        encode_pages([(np.zeros((1, 17000, 3), np.uint8), None)], "WEBP")  # the limit of WebP is 16383 pixels


def test_a_damaged_16_bit_file_is_refused(tmp_path):
    save_image(tmp_path / "a.png", deep_array(0))
    data = (tmp_path / "a.png").read_bytes()
    with pytest.raises(PictureError):
        open_image(io.BytesIO(data[: len(data) // 2]), "half", deep=True)
