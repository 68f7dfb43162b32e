import numpy as np
import pytest
import torch

from common.color.lab import grey_from_L, rgb8_to_L
from common.data.degradations import damage, index_noise
from common.data.packing import open_pack
from common.imaging.read import open_image
from common.imaging.write import save_image
from common.photo.repair import find_marks, repair
from scripts import colorize
from tests.conftest import photo_array, save_painter


def grey(L):
    values = (grey_from_L(L) * 255).round().to(torch.uint8)
    return values.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()


def psnr(one, other):
    return 20 * np.log10(255) - 10 * np.log10(np.square(one.astype(float) - other).mean() + 1e-3)


def test_scratches_of_the_damage_model_are_filled_in():
    pack = open_pack("demo", 160, "all")
    rgb = torch.from_numpy(pack.images[:40].copy()).permute(0, 3, 1, 2)
    L = rgb8_to_L(rgb)
    clean, scratched = (
        grey(L),
        grey(damage(L, torch.zeros(len(L), 2, 160, 160), "scratches", index_noise(np.arange(40), 0))),
    )
    before = np.mean([psnr(a, b) for a, b in zip(scratched, clean, strict=True)])
    after = np.mean([psnr(repair(a)[0], b) for a, b in zip(scratched, clean, strict=True)])
    assert after > before + 0.3
    untouched = [find_marks(photograph).mean() for photograph in clean]
    assert np.mean(untouched) < 0.02


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_scratch_is_filled_with_its_surroundings(dtype):
    scale = 257 if dtype == np.uint16 else 1
    original = (np.repeat(photo_array(2, 200, 240).mean(axis=2, keepdims=True), 3, axis=2)).astype(dtype) * scale
    scratched = original.copy()
    scratched[20:180, 120:122] = np.iinfo(dtype).max
    mended, mask = repair(scratched)
    assert mended.dtype == dtype
    assert mask[25:175, 120:122].mean() > 0.95
    assert mask.mean() < 0.05
    assert np.array_equal(mended[~mask], scratched[~mask])
    assert np.abs(mended.astype(float) - original).max() < 40 * scale


def test_the_command_shows_what_it_filled_in(tmp_path, capsys):
    weights = save_painter(tmp_path / "w.safetensors")
    rgb = np.repeat(photo_array(2, 200, 240).mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    rgb[:, 120:122] = 255
    save_image(tmp_path / "a.png", rgb)
    argv = [str(tmp_path / "a.png"), f"--model={weights}", "--repair"]
    assert colorize.main(argv) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / f"a.{kind}.png") for kind in ("color", "repair")]
    shown = open_image(tmp_path / "a.repair.png").rgb
    assert (shown[:, 120:122] == (255, 0, 0)).all(axis=2).mean() > 0.9
    L = rgb8_to_L(torch.from_numpy(open_image(tmp_path / "a.color.png").rgb.copy()).permute(2, 0, 1))[0]
    assert L[:, 120:122].mean() < 90
    assert colorize.main(argv) == 0  # both exist, from this model
    assert "exists already, from an earlier run" in capsys.readouterr().err
