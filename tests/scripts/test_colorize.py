"""The colorize command: inputs, outputs and reports."""

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.color import rgb2lab

from common import checkpoint
from common.imaging.read import open_image
from common.imaging.write import encode_pages, save_image
from common.photo import batch
from common.utils.errors import PictureError
from scripts import colorize
from tests.conftest import ROOT, photo_array, save_painter


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_painter(
        tmp_path_factory.mktemp("weights") / "w.safetensors", name="painter", parameters=1234567,
        trained_on={"source": "somewhere", "count": 7}, validation={"rmse_ab": 12.5, "colorfulness_ratio": 0.9},
    )  # fmt: skip


@pytest.fixture
def album(tmp_path):
    """Two pictures, one of them in a sub-folder, and a file that is not a picture."""
    folder = tmp_path / "album"
    (folder / "deep").mkdir(parents=True)
    save_image(folder / "a.png", photo_array(0))
    save_image(folder / "deep" / "b.jpg", photo_array(1))
    (folder / "bad.png").write_text("not a picture")
    return folder


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_sub_folders_are_recreated_below_out(weights, album, tmp_path, capsys):
    argv = [str(album), f"--model={weights}", "--anyway", f"--out={tmp_path / 'out'}"]
    assert colorize.main(argv) == 1
    assert names(tmp_path / "out") == ["a.png"]
    printed = capsys.readouterr().err.splitlines()
    assert printed[-1] == "1 colorized, 0 skipped, 1 refused"
    assert colorize.main([*argv, "--recursive", "--overwrite"]) == 1
    assert names(tmp_path / "out") == ["a.png", "deep/b.jpg"]


def test_patterns_that_the_shell_did_not_expand(weights, album, monkeypatch, capsys):
    monkeypatch.chdir(album)
    assert colorize.main(["**/*.jpg", f"--model={weights}", "--anyway"]) == 0
    assert (album / "deep" / "b.color.jpg").exists()
    assert colorize.main(["*.tif", f"--model={weights}", "--anyway"]) == 1
    assert "*.tif matches no file: check the pattern" in capsys.readouterr().err


def test_outcomes_as_json(weights, album, tmp_path, capsys):
    argv = [str(album / "a.png"), str(album / "bad.png"), "nowhere.jpg", f"--model={weights}", "--anyway", "--json"]
    assert colorize.main([*argv, f"--out={tmp_path / 'out'}"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["summary"] == {"done": 1, "skipped": 0, "refused": 2}
    done, refused = result["pictures"]
    assert done["outputs"] == [str(tmp_path / "out" / "a.png")]
    assert (done["width"], done["height"], done["pages"], done["status"]) == (48, 40, 1, "done")
    assert "bad.png is not a picture" in refused["reason"]
    assert result["not_found"] == ["nowhere.jpg does not exist: check the path"]
    assert colorize.main([*argv, f"--out={tmp_path / 'out'}"]) == 1
    assert json.loads(capsys.readouterr().out)["summary"] == {"done": 0, "skipped": 1, "refused": 2}


def test_through_a_pipe(weights, monkeypatch, capsysbinary):
    data = encode_pages([(photo_array(0), None)], "PNG")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert colorize.main(["-", f"--model={weights}", "--anyway"]) == 0
    found = open_image(capsysbinary.readouterr().out)
    assert found.format == "PNG"
    assert found.rgb.shape == (40, 48, 3)
    assert np.abs(found.rgb.astype(int) - photo_array(0)).max() > 5


def test_16_bits_stay_16_bits(weights, tmp_path):
    values = np.linspace(3000, 60000, 40 * 48).reshape(40, 48).astype(np.uint16)
    tifffile.imwrite(tmp_path / "scan.tif", values)
    Image.fromarray(values).save(tmp_path / "scan.png")
    assert colorize.main([str(tmp_path), f"--model={weights}", "--anyway", f"--out={tmp_path / 'out'}"]) == 0
    for name in ("scan.tif", "scan.png"):
        found = open_image(tmp_path / "out" / name, deep=True).deep
        assert found.shape == (40, 48, 3)
        linear = np.where(found / 65535 > 0.04045, ((found / 65535 + 0.055) / 1.055) ** 2.4, found / 65535 / 12.92)
        before = values / 65535
        before = np.where(before > 0.04045, ((before + 0.055) / 1.055) ** 2.4, before / 12.92)
        assert np.abs(linear @ [0.212671, 0.715160, 0.072169] - before).max() < 2e-4
        assert np.abs(found[..., 0].astype(int) - found[..., 2]).max() > 2000  # in color


def test_every_page_is_colorized(weights, tmp_path, capsys):
    pages = [photo_array(i, 30 + i, 40) for i in range(3)]
    (tmp_path / "album.tif").write_bytes(encode_pages([(page, None) for page in pages], "TIFF"))
    argv = [str(tmp_path / "album.tif"), f"--model={weights}", "--anyway"]
    assert colorize.main(argv) == 0
    with Image.open(tmp_path / "album.color.tif") as image:
        assert image.n_frames == 3
        assert [(image.seek(i), image.size)[1] for i in range(3)] == [(40, 30), (40, 31), (40, 32)]
    assert colorize.main([*argv, f"--out={tmp_path / 'album.png'}"]) == 1
    assert "cannot hold 3 pages: write .tif instead" in capsys.readouterr().err


def test_the_metadata_name_the_model(weights, album):
    assert colorize.main([str(album / "a.png"), str(album / "deep" / "b.jpg"), f"--model={weights}", "--anyway"]) == 0
    for path in (album / "a.color.png", album / "deep" / "b.color.jpg"):
        with Image.open(path) as image:
            assert image.getexif()[0x000B].startswith("colorized by Colorization Lab 0")
            assert image.getexif()[0x000B].endswith("with painter")


def test_before_and_after_in_one_picture(weights, album):
    assert colorize.main([str(album / "a.png"), f"--model={weights}", "--anyway", "--compare"]) == 0
    pair = open_image(album / "a.compare.png").rgb
    assert np.array_equal(pair[:, :48], photo_array(0))
    assert np.array_equal(pair[:, 48:], open_image(album / "a.color.png").rgb)


def test_saturation_zero_is_grey_and_a_size_is_a_size(weights, album, capsys):
    argv = [str(album / "a.png"), f"--model={weights}", "--anyway", "--overwrite"]
    assert colorize.main([*argv, "--saturation=0", "--size=48"]) == 0
    note = "note: --size is 48, and the model was trained at 32 px: its colors are usually better at that size\n"
    assert capsys.readouterr().err == note
    rgb = open_image(album / "a.color.png").rgb.astype(int)
    assert (rgb.max(axis=2) - rgb.min(axis=2)).max() <= 1
    for more, says in (
        (["--size=8"], "--size is 8: expected 16 to 2048"),
        (["--saturation=-1"], "saturation is -1"),
        (["--temperature-kelvin=3"], "expected kelvin"),
        (["--palette=nowhere.jpg"], "nowhere.jpg does not exist"),
        ([f"--hints={album / 'deep' / 'b.jpg'}"], "has no transparency"),
        (["--json", "--out=-"], "would both go to standard output"),
    ):
        assert colorize.main([*argv, *more]) == 2
        assert says in capsys.readouterr().err


def test_hints_palette_and_restoration_reach_the_picture(weights, tmp_path, capsys):
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(60, 200, (6, 8, 1), dtype=np.uint8), 3, axis=2)
    grey = np.asarray(Image.fromarray(grey).resize((96, 72), Image.Resampling.BICUBIC))
    save_image(tmp_path / "a.png", grey)
    argv = [str(tmp_path / "a.png"), f"--model={weights}", "--anyway", f"--out={tmp_path / 'b.png'}", "--overwrite"]

    def colored(*more):
        assert colorize.main([*argv, *more]) == 0
        return rgb2lab(open_image(tmp_path / "b.png").rgb)

    plain = colored("--saturation=0")
    red = colored("--hint", "48,36,#ff2020")
    assert red[36, 48, 1] > 20  # as red as its lightness has room for
    dots = np.zeros((72, 96, 4), np.uint8)
    dots[30:34, 20:24] = (20, 60, 255, 255)
    Image.fromarray(dots).save(tmp_path / "dots.png")
    assert colored(f"--hints={tmp_path / 'dots.png'}")[32, 22, 2] < -15
    Image.fromarray(dots[:, :50]).save(tmp_path / "narrow.png")
    assert colorize.main([*argv, f"--hints={tmp_path / 'narrow.png'}"]) == 1
    assert colorize.main([*argv, "--hint", "96,0,#ff0000"]) == 1
    assert "lies outside of the photograph" in capsys.readouterr().err

    green = np.full((40, 40, 3), (60, 140, 60), np.uint8)
    green[::2] = (90, 160, 80)
    save_image(tmp_path / "mood.png", green)
    mood = colored(f"--palette={tmp_path / 'mood.png'}")
    assert mood[..., 1].mean() < -10
    assert np.abs(mood[..., 0] - plain[..., 0]).max() < 1.5

    faded = (grey * 0.6 + 60).astype(np.uint8)
    save_image(tmp_path / "a.png", faded)
    assert np.ptp(colored("--restore")[..., 0]) > 1.3 * np.ptp(colored()[..., 0])


def test_photographs_in_color_are_refused_and_toned_ones_are_not(weights, album, capsys):
    """The other pictures are colorized, and --anyway colorizes all of them."""
    grey = np.array(Image.fromarray(photo_array(2)).convert("L"))
    sepia = (grey[..., None] * [1.0, 0.85, 0.65]).round().astype(np.uint8)
    save_image(album / "grey.png", np.repeat(grey[..., None], 3, axis=2))
    save_image(album / "sepia.png", sepia)
    (album / "bad.png").unlink()
    argv = [str(album), f"--model={weights}", f"--out={album / 'out'}"]
    assert colorize.main(argv) == 1
    assert names(album / "out") == ["grey.png", "sepia.png"]
    assert f"error: {album / 'a.png'} is in color already: use --anyway" in capsys.readouterr().err
    assert colorize.main([*argv, "--anyway", "--overwrite"]) == 0
    assert names(album / "out") == ["a.png", "grey.png", "sepia.png"]


def test_a_page_in_color_is_refused_too(weights, tmp_path, capsys):
    grey = np.repeat(photo_array(2)[..., :1], 3, axis=2)
    (tmp_path / "album.tif").write_bytes(encode_pages([(grey, None), (photo_array(1), None)], "TIFF"))
    assert colorize.main([str(tmp_path / "album.tif"), f"--model={weights}"]) == 1
    assert "is in color already" in capsys.readouterr().err
    assert names(tmp_path) == ["album.tif"]  # no half file


@pytest.mark.parametrize(
    ("argv", "kept", "noted"),
    [([], True, True), (["--restore", "auto"], True, True), (["--restore", "off"], True, False)]
    + [(restore, False, False) for restore in (["--restore"], ["--restore=on"], ["--restore", "on"])],
)
def test_a_faded_print_keeps_its_lightness_unless_restored(weights, tmp_path, capsys, argv, kept, noted):
    grey = np.array(Image.fromarray(photo_array(3)).convert("L"))
    grey = (grey.astype(float) - grey.min()) / np.ptp(grey)
    faded = np.repeat((80 + 100 * grey[..., None]).astype(np.uint8), 3, axis=2)
    save_image(tmp_path / "a.png", faded)
    # a file after a --restore without value
    assert colorize.main([*argv, str(tmp_path / "a.png"), f"--model={weights}", f"--out={tmp_path / 'b.png'}"]) == 0
    error = np.abs(rgb2lab(open_image(tmp_path / "b.png").rgb) - rgb2lab(faded))[..., 0].max()
    assert (error < 1.5) == kept
    assert ("a.png is faded (black is at L" in capsys.readouterr().err) == noted


def test_installed_models_are_listed_and_found_by_name(weights, album, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "installed_models", lambda: {"painter": weights})
    assert colorize.main(["models"]) == 0
    printed = capsys.readouterr().out
    assert "painter" in printed
    assert "1.23 M parameters, input 32 px" in printed
    assert "rmse_ab 12.5, colorfulness_ratio 0.9" in printed
    assert colorize.main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["painter"]["size"] == 32
    assert colorize.main([str(album / "a.png"), "--model=painter", "--anyway"]) == 0
    assert colorize.main([str(album / "a.png"), "--model=painted"]) == 2
    assert "(did you mean 'painter'?)" in capsys.readouterr().err


def test_a_bad_file_does_not_stop_the_others(weights, tmp_path, monkeypatch, capsys):
    """Outcomes come in the order of the files, whichever thread finishes first."""
    for i in range(9):
        save_image(tmp_path / f"{i}.png", photo_array(i))
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:200])
    real = batch.write_picture

    def full(path, data):
        if path.name == "6.png":
            raise PictureError(f"{path} cannot be written (No space left on device)")
        real(path, data)

    monkeypatch.setattr(batch, "write_picture", full)
    assert colorize.main([str(tmp_path), f"--model={weights}", "--anyway", f"--out={tmp_path / 'out'}"]) == 1
    captured = capsys.readouterr()
    assert [line.rsplit("/", 1)[1] for line in captured.out.split()] == [f"{i}.png" for i in (0, 1, 2, 3, 5, 7, 8)]
    assert "4.png is damaged or cut short" in captured.err
    assert "No space left" in captured.err
    assert names(tmp_path / "out") == [f"{i}.png" for i in (0, 1, 2, 3, 5, 7, 8)]  # no half file


def test_two_inputs_of_one_name_do_not_overwrite_each_other(weights, album, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    save_image(other / "a.png", photo_array(5))
    argv = [str(album / "a.png"), str(other / "a.png"), f"--model={weights}", "--anyway", f"--out={tmp_path / 'out'}"]
    assert colorize.main([*argv, "--overwrite"]) == 1
    assert "1 colorized, 1 skipped" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["own", "photo"])
def test_nothing_heavy_is_imported_that_is_not_used(weights, album, model):
    """Start-up is most of the time that one picture takes. Nor is anything imported that only an extra installs."""
    model = weights if model == "own" else model
    code = (
        "import sys; from scripts.colorize import main; from common.utils.errors import EXTRAS;"
        f" assert main([{str(album / 'a.png')!r}, '--model', {str(model)!r}, '--anyway']) == 0;"
        " heavy = {'skimage', 'scipy', 'matplotlib', 'fastai', 'timm', 'torchvision', 'accelerate', 'cv2', 'sklearn',"
        " 'tensorboard', 'pandas', 'jsonargparse'}.union(*EXTRAS.values());"
        " print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "[]"
