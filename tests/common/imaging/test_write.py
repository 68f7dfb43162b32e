import io

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from common.imaging.read import open_image
from common.imaging.tiff import TiffWriter
from common.imaging.write import encode_pages, save_image, write_pages
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


def camera_exif():
    """Tags in the Exif and GPS directories, as cameras write them."""
    exif = Image.Exif()
    exif[0x010F], exif[0x010E] = "A camera", "süß"
    exif.get_ifd(0x8769).update({0x829A: 0.01, 0x9003: "2020:01:01 00:00:00", 0x8827: 100, 0xA005: {1: "R98"}})
    exif.get_ifd(0x8825).update({1: "N", 2: (50.0, 3.0, 2.5)})
    return exif


@pytest.mark.parametrize("values", [photo_array(0), deep_array(0)], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_exif_of_cameras_is_kept(tmp_path, values, suffix):
    Image.fromarray(photo_array(0)).save(tmp_path / "a.jpg", exif=camera_exif().tobytes())
    save_image(tmp_path / f"b{suffix}", values, open_image(tmp_path / "a.jpg"), provenance="a test")
    with Image.open(tmp_path / f"b{suffix}") as image:
        exif = image.getexif()
        assert (exif[0x010F], exif[0x000B]) == ("A camera", "a test")
        assert exif.get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"
        assert exif.get_ifd(0x8769)[0x829A] == 0.01
        assert exif.get_ifd(0x8825)[2] == (50, 3, 2.5)
    assert np.array_equal(open_image(tmp_path / f"b{suffix}", deep=True).finest, values)
    if suffix == ".tif":
        assert tifffile.imread(tmp_path / "b.tif").tolist() == values.tolist()


def test_each_page_is_written_before_the_next_is_made(tmp_path):
    sizes = []

    def pages(file):
        for i in range(4):
            sizes.append(file.tell() and file.seek(0, 2))
            yield deep_array(i), open_image(encode_pages([(photo_array(i), None)], "PNG"))._replace(dpi=(10.0 + i, 10))

    with open(tmp_path / "a.tif", "w+b") as file:
        write_pages(file, pages(file), 4, "TIFF")
    assert sizes == sorted(set(sizes))
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert [page.tags["XResolution"].value[0] for page in file.pages] == [10, 11, 12, 13]
    for i in range(4):
        assert np.array_equal(open_image(tmp_path / "a.tif", page=i, deep=True).deep, deep_array(i))


def test_beyond_4_gb_it_is_a_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr("common.imaging.write._MAX_TIFF_BYTES", 10_000)
    data = encode_pages([(photo_array(i), None) for i in range(2)], "TIFF", provenance="a test")
    assert data[:4] == b"II+\0"
    assert tifffile.imread(io.BytesIO(data), key=1).tolist() == photo_array(1).tolist()
    assert np.array_equal(open_image(data, page=1).rgb, photo_array(1))


def test_unusual_errors_of_encoders_are_one_sentence(monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("Error setting from dictionary")

    monkeypatch.setattr("common.imaging.write._save", fails)
    with pytest.raises(PictureError, match=r"a\.png cannot be written \(Error setting from dictionary\): choose"):
        encode_pages([(photo_array(0), None)], "PNG", "a.png")


def test_pages_that_pillow_cannot_reach_are_refused(tmp_path):
    """Pillow returns a black page if libtiff refuses the directory of a page, or if it is beyond 4 GB."""
    with open(tmp_path / "a.tif", "w+b") as file:
        writer = TiffWriter(file, big=True)
        writer.add(photo_array(0), Image.Exif())
        file.truncate(5 << 30)  # takes no space
        writer.add(photo_array(1), Image.Exif())
    assert np.array_equal(open_image(tmp_path / "a.tif").rgb, photo_array(0))
    with pytest.raises(PictureError, match=r"page 2 of .*a\.tif lies beyond 4 GB: split the file first"):
        open_image(tmp_path / "a.tif", page=1)
    black = np.zeros((40, 48, 3), np.uint8)
    data = bytearray(encode_pages([(black, None), (black, None)], "TIFF"))
    assert not open_image(bytes(data), page=1).rgb.any()
    with Image.open(io.BytesIO(data)) as image:
        image.seek(1)
        rows_per_strip = image.tile[0].args[-1] + 2 + 12 * sorted(image.tag_v2).index(278)
    data[rows_per_strip + 2] = 0  # no type
    with pytest.raises(PictureError, match="page 2 cannot be decoded"):
        open_image(bytes(data), page=1)
