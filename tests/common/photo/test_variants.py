import numpy as np
import pytest
import torch

from common.color.lab import rgb8_to_lab
from common.imaging.read import open_image
from common.imaging.write import encode_pages, save_image
from common.photo.variants import check_variants, predict_variants, random_tilts
from common.predictor import PredictorConfig, working_lightness
from common.registry import load_colorizer
from common.utils.errors import UserError
from scripts import colorize
from tests.conftest import photo_array, save_painter


class TwoColors(torch.nn.Module):
    """Predicts for the left half a shirt that is red or blue, and for the right half grass, which is green."""

    multiple, temperature, device = 8, 0.38, torch.device("cpu")

    def distribution(self, L):
        p = torch.full((1, 3, 16, 16), 0.02)
        p[:, 0, :, :8] = p[:, 1, :, :8] = 0.49
        p[:, 2, :, 8:] = 0.9999
        return p / p.sum(dim=1, keepdim=True), torch.tensor([(60.0, 40.0), (10.0, -60.0), (-40.0, 40.0)])

    def embed(self, L):
        features = torch.zeros(1, 4, 16, 16)
        features[:, 0, :, :8], features[:, 1, :, 8:] = 1, 1
        return features


def test_variants_choose_other_colors_where_there_are_several_and_the_same_for_a_whole_object():
    L = torch.full((1, 1, 64, 64), 50.0)
    variants = predict_variants(TwoColors(), L, PredictorConfig(64), 4)
    shirts = torch.stack([ab[0, :, :, :7] for ab in variants])
    grass = torch.stack([ab[0, :, :, 9:] for ab in variants])
    assert shirts.std(dim=(2, 3)).max() < 1  # one color for an object, without noise
    hues = shirts.mean(dim=(2, 3))
    assert (hues[:, None] - hues[None]).norm(dim=-1).max() > 60  # red in one, blue in another
    assert (grass - torch.tensor([-40.0, 40.0]).view(1, 2, 1, 1)).abs().max() < 10


def test_a_seed_repeats_its_variants():
    colorizer = load_colorizer("photo")
    working = working_lightness(photo_array(0, 64, 80), colorizer.device)
    one, again, other = (predict_variants(colorizer, working, PredictorConfig(64), 2, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)) > 1


def test_tilts_are_equal_where_features_are_equal():
    features = torch.randn(5, 1, 3, generator=torch.Generator().manual_seed(0)).expand(5, 4, 3)
    tilts = random_tilts(features, 6, 0)
    assert tilts.shape == (6, 2, 4, 3)
    torch.testing.assert_close(tilts, tilts[:, :, :1].expand_as(tilts))
    assert tilts[..., 0, 0].sub(tilts[..., 0, 1]).abs().min() > 0


def test_counts_and_models_that_have_no_variants_are_refused():
    for count in (0, 9):
        with pytest.raises(UserError, match=f"the number of variants is {count}: expected 1 to 8"):
            check_variants(TwoColors(), count, "two")
    with pytest.raises(UserError, match="variants require a classifier, and plain is not one"):
        check_variants(torch.nn.Identity(), 2, "plain")
    check_variants(torch.nn.Identity(), 1, "plain")


def test_the_command_writes_them_beside_the_first(tmp_path, capsys):
    weights = save_painter(tmp_path / "w.safetensors")
    grey = np.repeat(photo_array(4)[..., :1], 3, axis=2)
    save_image(tmp_path / "old.png", grey)
    argv = [str(tmp_path / "old.png"), f"--model={weights}", "--variants=3"]
    assert colorize.main(argv) == 0
    paths = [tmp_path / f"old.color{number}.png" for number in ("", ".2", ".3")]
    assert capsys.readouterr().out.split() == [str(path) for path in paths]
    found = [rgb8_to_lab(torch.from_numpy(open_image(path).rgb.copy()).permute(2, 0, 1)) for path in paths]
    assert max(float((a - found[0])[1:].abs().max()) for a in found[1:]) > 1
    assert max(float((a - found[0])[0].abs().max()) for a in found) < 1.5
    assert colorize.main(argv) == 0  # they exist already, from this model
    assert "exists already, from an earlier run" in capsys.readouterr().err
    assert colorize.main([str(tmp_path), f"--model={weights}", "--overwrite"]) == 0
    assert not list(tmp_path.glob("*.color*.color*"))
    capsys.readouterr()
    assert colorize.main([*argv, "--out=-"]) == 2
    assert "standard output takes one picture" in capsys.readouterr().err
    (tmp_path / "pages.tif").write_bytes(encode_pages([(grey, None), (grey, None)], "TIFF"))
    assert colorize.main([str(tmp_path / "pages.tif"), *argv[1:]]) == 1
    assert "has 2 pages, and variants are of one" in capsys.readouterr().err
