import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from common.imaging.read import open_image, square
from common.imaging.write import save_image
from common.utils.errors import PictureError
from tests.conftest import photo_array

RGB = photo_array(0)


def written(mode="RGB", suffix=".png", array=RGB, **options):
    out = io.BytesIO()
    form = {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:].upper())
    Image.fromarray(array).convert(mode).save(out, form, **options)
    return out.getvalue()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".ppm"])
def test_lossless_formats_are_read_exactly(tmp_path, suffix):
    save_image(tmp_path / f"x{suffix}", RGB)
    assert np.array_equal(open_image(tmp_path / f"x{suffix}").rgb, RGB)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
def test_lossy_formats_are_read_approximately(tmp_path, suffix):
    save_image(tmp_path / f"x{suffix}", RGB)
    assert np.abs(open_image(tmp_path / f"x{suffix}").rgb.astype(int) - RGB).mean() < 1.5


def test_16_bit_grey_is_divided_not_clipped(tmp_path):
    grey = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "x.png")
    rgb = open_image(tmp_path / "x.png").rgb
    assert np.array_equal(rgb, np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_and_other_tags_are_kept(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, "the harbour"
    data = written(suffix=".png", exif=exif.tobytes())
    picture = open_image(data)
    turned = {
        1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.swapaxes(0, 1),
        6: np.rot90(RGB, -1), 7: RGB[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(RGB),
    }[orientation]  # fmt: skip
    assert np.array_equal(picture.rgb, turned)
    save_image(tmp_path / "out.jpg", picture.rgb, like=picture)
    kept = Image.open(tmp_path / "out.jpg").getexif()
    assert kept[0x010E] == "the harbour"
    assert kept.get(0x0112, 1) == 1


def test_cmyk_jpeg_is_near_its_rgb():
    assert np.abs(open_image(written("CMYK", ".jpg", quality=95)).rgb.astype(int) - RGB).mean() < 4


def test_palette_with_transparency_keeps_alpha(tmp_path):
    image = Image.fromarray(RGB).quantize(16)
    image.save(tmp_path / "x.png", transparency=3)
    picture = open_image(tmp_path / "x.png")
    assert np.array_equal(picture.alpha == 0, np.asarray(image) == 3)
    assert (picture.on_white()[picture.alpha == 0] == 255).all()
    save_image(tmp_path / "out.png", picture.rgb, like=picture)
    again = open_image(tmp_path / "out.png")
    assert np.array_equal(again.alpha, picture.alpha)
    assert np.array_equal(again.rgb, picture.rgb)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "RGBA", "P"])
def test_other_modes_become_rgb(mode):
    picture = open_image(written(mode))
    assert picture.rgb.shape == RGB.shape
    assert picture.rgb.dtype == np.uint8
    if mode in ("L", "LA", "1"):
        assert np.ptp(picture.rgb, axis=2).max() == 0


def test_icc_profile_is_converted_to_srgb():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = open_image(written(icc_profile=profile)).rgb
    assert np.abs(same.astype(int) - RGB).max() <= 1
    assert np.array_equal(open_image(written(icc_profile=b"no profile at all")).rgb, RGB)


def test_tiff_layout_tags_are_dropped(tmp_path):
    Image.fromarray(RGB[..., 0]).convert("1").save(tmp_path / "x.tif", compression="group4", description="a barn")
    picture = open_image(tmp_path / "x.tif")
    save_image(tmp_path / "out.tif", picture.rgb, like=picture)
    assert np.array_equal(open_image(tmp_path / "out.tif").rgb, picture.rgb)
    assert Image.open(tmp_path / "out.tif").getexif()[0x010E] == "a barn"


def test_resolution_is_kept(tmp_path):
    picture = open_image(written(dpi=(300, 300)))
    save_image(tmp_path / "out.png", picture.rgb, like=picture)
    assert Image.open(tmp_path / "out.png").info["dpi"] == pytest.approx((300, 300), abs=0.1)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("cut.jpg", written(suffix=".jpg")[:400], "cut short"),
        ("cut.png", written()[:-300], "cut short"),
        ("text.jpg", b"hello, I am text", "not a picture"),
        ("empty.png", b"", "empty"),
        ("movie.gif", b"GIF89a" + bytes(40), "not a picture"),
    ],
)
def test_refuses_in_one_sentence(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PictureError, match=says) as caught:
        open_image(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refuses_missing_folders_and_bombs(tmp_path):
    with pytest.raises(PictureError, match="does not exist"):
        open_image(tmp_path / "nothing.png")
    with pytest.raises(PictureError, match="is a folder"):
        open_image(tmp_path)
    with pytest.raises(PictureError, match="above the limit"):
        open_image(written(), name="x.png", max_pixels=1000)
    bomb = io.BytesIO()
    Image.new("1", (30000, 30000)).save(bomb, "PNG")
    with pytest.raises(PictureError, match="above the limit"):
        open_image(bomb.getvalue(), name="bomb.png")


def test_writing_refuses_what_the_format_cannot_hold(tmp_path):
    with pytest.raises(PictureError, match="names no picture format"):
        save_image(tmp_path / "x.xyz", RGB)
    picture = open_image(written("RGBA"))._replace(alpha=np.zeros(RGB.shape[:2], np.uint8))
    with pytest.raises(PictureError, match="transparency"):
        save_image(tmp_path / "x.jpg", RGB, like=picture)
    (tmp_path / "file").write_text("")
    with pytest.raises(PictureError, match="cannot be written"):
        save_image(tmp_path / "file" / "x.png", RGB)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_draft_decodes_smaller():
    large = written(suffix=".jpg", array=photo_array(1, 800, 1000))
    assert open_image(large, draft=64).rgb.shape[:2] == (100, 125)
    assert open_image(large).rgb.shape[:2] == (800, 1000)


def test_square_is_the_center():
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 20:60] = 200
    assert (square(picture, 40) == 200).all()
    assert square(picture, 16).shape == (16, 16, 3)
    exact = photo_array(3, 32, 32)
    assert square(exact, 32) is exact
