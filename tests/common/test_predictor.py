import numpy as np
import pytest
import torch

from common.color.gamut import ab_to_rgb8
from common.color.lab import rgb8_to_L
from common.data.packing import open_pack
from common.evaluation.evaluate import evaluate, model_predictor
from common.predictor import PredictorConfig, colorize_photo, predict_photographs
from common.registry import load_colorizer
from tests.conftest import photo_array


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 160), (48, 40)])
def test_photographs_are_predicted_as_colorize_does(height, width):
    colorizer = load_colorizer("calm64")
    photographs = [photo_array(i, height, width) for i in range(3)]
    rgb = torch.stack([torch.from_numpy(p).permute(2, 0, 1) for p in photographs])
    L = rgb8_to_L(rgb)
    predicted = ab_to_rgb8(L, predict_photographs(colorizer, L, 64)).permute(0, 2, 3, 1).numpy()
    for photograph, found in zip(photographs, predicted, strict=True):
        expected = colorize_photo(colorizer, photograph, PredictorConfig(64))
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_larger_photographs_go_the_same_way():
    colorizer = load_colorizer("calm64")
    fine = np.random.default_rng(0).integers(0, 256, (600, 700, 1), dtype=np.uint8)  # its mean depends on the encoding
    photograph = (photo_array(5, 600, 700)[..., :1] // 2 + fine // 2).repeat(3, axis=2)
    L = rgb8_to_L(torch.from_numpy(photograph).permute(2, 0, 1)[None])
    found = ab_to_rgb8(L, predict_photographs(colorizer, L, 64))[0].permute(1, 2, 0).numpy().astype(int)
    expected = colorize_photo(colorizer, photograph, PredictorConfig(64))
    assert np.abs(found - expected).max() <= 1


def test_evaluation_measures_what_colorize_writes():
    """A network that was trained at 64 px is shown 64 px, also where photographs are measured at 160 px."""
    skimage = pytest.importorskip("skimage.color")
    pack, colorizer = open_pack("demo", 160, "val"), load_colorizer("calm64")
    measured = evaluate({"model": model_predictor(colorizer)}, pack, ["rmse_ab", "delta_e"], limit=6)
    errors = []
    for i in np.linspace(0, len(pack) - 1, 6).round().astype(int):
        written = skimage.rgb2lab(colorize_photo(colorizer, pack.images[i], PredictorConfig(64)))
        true = skimage.rgb2lab(pack.images[i])
        rmse = np.sqrt(((written - true)[..., 1:] ** 2).mean())
        errors.append((rmse, skimage.deltaE_ciede2000(true, written).mean()))
    for name, expected in zip(("rmse_ab", "delta_e"), np.mean(errors, axis=0), strict=True):
        assert measured.table["model"][name]["mean"] == pytest.approx(expected, rel=0.005)
