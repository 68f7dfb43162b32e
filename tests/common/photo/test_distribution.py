import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab

from common.checkpoint import save_weights
from common.color.lab import rgb8_to_lab
from common.imaging.read import open_image
from common.imaging.write import save_image
from common.photo import distribution as d
from common.registry import build_colorizer, load_colorizer
from scripts import colorize
from tests.conftest import photo_array, save_painter


@pytest.fixture
def weights(tmp_path):
    return save_painter(tmp_path / "w.safetensors")


def test_entropy_of_one_hot_and_uniform_distributions():
    p = np.zeros((1, 2, 8), np.float32)
    p[0, 0, 3] = 1
    p[0, 1] = 1 / 8
    assert d.Distribution(p, np.zeros((8, 2))).entropy.tolist() == [[0, 3]]


def test_pixels_belong_to_the_cells_that_cover_them():
    found = d.Distribution(np.full((4, 8, 3), 1 / 3, np.float32), np.zeros((3, 2)))
    assert found.cell(0, 0, (100, 200)) == (0, 0)
    assert found.cell(199, 99, (100, 200)) == (3, 7)
    assert found.cell(100, 24, (100, 200)) == (0, 4)
    for x, y in d.representative_pixels(found, (100, 200)):
        assert 0 <= x < 200
        assert 0 <= y < 100


def test_grey_has_the_lightness_of_the_photograph():
    rgb = photo_array(4)
    grey = d.to_grey(rgb)
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (grey[..., 1] == grey[..., 2]).all()
    assert np.abs(rgb2lab(grey)[..., 0] - rgb2lab(rgb)[..., 0]).max() < 0.7  # half a level of black, where L is steep


def test_colors_of_bins_keep_the_lightness():
    bins = np.array([[0, 0], [20, 30], [80, -60]], np.float32)
    lab = rgb2lab(d.bin_colors(60.0, bins)[None])[0]
    assert np.abs(lab[:, 0] - 60).max() < 0.5
    assert np.abs(lab[:2, 1:] - bins[:2]).max() < 0.7
    assert np.arctan2(lab[2, 2], lab[2, 1]) == pytest.approx(np.arctan2(-60, 80), abs=0.03)  # less chroma, same hue


def test_colorize_shows_the_distribution(weights, tmp_path, capsys):
    save_image(tmp_path / "a<b.png", photo_array(3, 60, 90))
    argv = [
        str(tmp_path / "a<b.png"),
        f"--weights={weights}",
        "--anyway",
        f"--out={tmp_path / 'out'}",
        "--distribution",
    ]
    assert colorize.main([*argv, "--pixel=80,50", "--pixel", "0,0"]) == 0
    printed = capsys.readouterr().out.split()
    assert [line.rsplit("/", 1)[1] for line in printed] == ["a<b.png", "a<b.distribution.png", "a<b.distribution.html"]
    assert Image.open(tmp_path / "out" / "a<b.distribution.png").size[0] > 1000

    page = (tmp_path / "out" / "a<b.distribution.html").read_text()
    assert "http" not in page.replace("data:image/png", "")  # it needs no network
    data = json.loads(re.search(r"const data = (\{.*\});", page)[1])
    assert data["title"] == "a<b.png"
    assert "a<b" not in page
    assert (data["width"], data["height"]) == (8, 8)
    colorizer = load_colorizer(weights)
    found = d.predict_distribution(colorizer, open_image(tmp_path / "a<b.png").rgb, 32)
    np.testing.assert_allclose(found.probabilities.sum(axis=-1), 1, rtol=1e-5)
    p = found.probabilities.reshape(64, -1)
    for place in (0, 17, 63):
        assert data["probabilities"][place] == pytest.approx(sorted(p[place], reverse=True)[:12], abs=1e-4)
        assert p[place][data["top"][place]] == pytest.approx(data["probabilities"][place], abs=1e-4)
        assert data["entropy"][place] == pytest.approx(float(found.entropy.ravel()[place]), abs=1e-3)


def test_existing_files_are_not_overwritten(weights, tmp_path, capsys):
    save_image(tmp_path / "a.png", photo_array(3))
    argv = [str(tmp_path / "a.png"), f"--weights={weights}", "--anyway", "--distribution"]
    assert colorize.main(argv) == 0
    (tmp_path / "a.color.png").unlink()
    capsys.readouterr()
    assert colorize.main(argv) == 1
    assert "a.distribution.png exists already" in capsys.readouterr().err
    assert colorize.main([*argv, "--overwrite"]) == 0
    capsys.readouterr()
    # the sheet is no photograph of the folder
    assert colorize.main([str(tmp_path), f"--weights={weights}", "--anyway", "--overwrite"]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "a.color.png")]


def test_a_temperature_changes_the_picture(weights, tmp_path):
    save_image(tmp_path / "a.png", photo_array(3))
    for name, temperature in (("hot", "1"), ("cold", "0.05")):
        argv = [f"--weights={weights}", "--anyway", f"--temperature={temperature}", f"--out={tmp_path / name}.png"]
        assert colorize.main([str(tmp_path / "a.png"), *argv]) == 0
    chroma = [np.abs(rgb2lab(open_image(tmp_path / f"{n}.png").rgb)[..., 1:]).mean() for n in ("hot", "cold")]
    assert chroma[1] > 1.5 * chroma[0]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--temperature=0"], "--temperature: must be a number above 0, got 0"),
        (["--temperature=-1"], "must be a number above 0"),
        (["--pixel=1,2"], "--pixel is given without --distribution"),
        (["--distribution", "--pixel=here"], "must be two whole numbers"),
        (["--distribution", "--pixel=48,0"], "pixel 48,0 lies outside of"),
        (["--distribution", "--pixel=-1,0"], "lies outside of"),
    ],
)
def test_bad_requests_are_one_sentence(weights, tmp_path, capsys, more, says):
    save_image(tmp_path / "a.png", photo_array(3))
    assert colorize.main([str(tmp_path / "a.png"), f"--weights={weights}", "--anyway", *more]) in (1, 2)
    (printed,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert says in printed
    assert not (tmp_path / "a.color.png").exists()


def test_a_regressor_has_no_distribution(tmp_path, capsys):
    save_image(tmp_path / "a.png", photo_array(3))
    card = {"family": "baselines", "model": {"network": "resnet18"}, "size": 32}
    state = build_colorizer("baselines", network="resnet18").state_dict()
    save_weights(tmp_path / "w.safetensors", state, card)
    for more in (["--distribution"], ["--temperature=0.5"]):
        assert colorize.main([str(tmp_path / "a.png"), f"--weights={tmp_path / 'w.safetensors'}", *more]) == 2
        assert "requires a classifier" in capsys.readouterr().err
    assert not (tmp_path / "a.color.png").exists()


def test_likely_colors_are_different_ones_in_the_order_of_their_probability():
    bins = np.array([(40.0, 30.0), (50.0, 30.0), (-40.0, 40.0), (0.0, -50.0), (0.0, 0.0)])
    p = np.array([0.3, 0.1, 0.35, 0.246, 0.004])
    colors = d.likely_colors(p, bins, 55.0)
    assert [share for _, share in colors] == pytest.approx([0.35, 0.4, 0.246])
    rgb = [torch.tensor(list(bytes.fromhex(name[1:])), dtype=torch.uint8).view(3, 1, 1) for name, _ in colors]
    lab = torch.stack([rgb8_to_lab(color)[:, 0, 0] for color in rgb]).numpy()
    assert lab[:, 0] == pytest.approx([55] * 3, abs=0.5)
    assert lab[0, 1:] == pytest.approx([-40, 40], abs=2)
    assert lab[1, 1:] == pytest.approx([42.5, 30], abs=2)
    assert len(d.likely_colors(p, bins, 55.0, 2)) == 2
