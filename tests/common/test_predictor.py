import numpy as np
import pytest
import torch

from common.color.gamut import ab_to_rgb8
from common.color.lab import rgb8_to_L, rgb_to_lab
from common.data.degradations import damage, index_noise
from common.data.packing import open_pack
from common.evaluation.evaluate import evaluate, model_predictor
from common.predictor import PredictorConfig, colorize_photo, predict_photographs, unfade
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


def test_fading_costs_at_most_a_tenth_of_the_error():
    pack, colorizer = open_pack("demo", 64, "all"), load_colorizer("calm64")
    lab = rgb_to_lab(torch.from_numpy(pack.images[:60].copy()).permute(0, 3, 1, 2) / 255)
    L, ab = lab[:, :1], lab[:, 1:]

    def error(seen):
        return float((predict_photographs(colorizer, seen, 64) - ab).square().mean((1, 2, 3)).sqrt().mean())

    clean = error(L)
    for faded in (damage(L, ab, "fading", index_noise(np.arange(len(L)), 0)), 18 + 0.54 * L):
        assert error(faded) < 1.1 * clean


def test_only_faded_lightness_is_stretched():
    rng = torch.Generator().manual_seed(0)
    full = torch.rand(1, 1, 40, 50, generator=rng) * 96 + 2
    faded, dark, flat = 20 + 0.5 * full, 0.3 * full, 30 + full / 20
    out = unfade(torch.cat([full, faded, dark, flat]))
    for kept, of in ((0, full), (2, dark), (3, flat)):
        assert torch.equal(out[kept], of[0])
    assert torch.quantile(out[1], torch.tensor([0.005, 0.995])).tolist() == pytest.approx([4, 95], abs=1)
    slope = (out[1] - 4).flatten() / (faded[0] - faded.min()).flatten().clamp(min=1e-3)
    inside = (out[1].flatten() > 6) & (out[1].flatten() < 99)
    assert slope[inside].std() < 0.05  # a straight line


def test_the_stretch_does_not_jump():
    """A scene that brightens frame by frame from L 6 to L 18 as its darkest tone."""
    full = torch.rand(1, 1, 40, 50, generator=torch.Generator().manual_seed(0)) * 70
    out = unfade(torch.cat([full + black for black in torch.linspace(6, 18, 25)]))
    assert out.diff(dim=0).abs().max() < 4


def test_the_border_of_a_print_is_ignored():
    print_ = 25 + 0.4 * torch.rand(1, 1, 100, 100, generator=torch.Generator().manual_seed(0)) * 100
    framed = print_.clone()
    framed[..., :5, :], framed[..., -5:, :], framed[..., :5], framed[..., -5:] = 99, 99, 99, 0
    assert torch.equal(unfade(framed)[..., 5:-5, 5:-5], unfade(print_)[..., 5:-5, 5:-5])
