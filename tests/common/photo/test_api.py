import numpy as np
import pytest
import torch
from PIL import Image

from common import predictor as module
from common.color.lab import rgb8_to_lab
from common.colorizer import Colorizer
from common.photo import colorize
from common.photo.edit import Edit
from common.predictor import PredictorConfig
from common.utils.errors import UserError
from tests.conftest import photo_array


class Orange(Colorizer):
    """Paints everything in one color."""

    def __init__(self):
        super().__init__()
        self.ab = torch.nn.Parameter(torch.tensor([20.0, 40.0]).view(1, 2, 1, 1))
        self.card = {"size": 16}

    def forward(self, L):
        return self.ab.expand(len(L), 2, *L.shape[2:])

    def training_step(self, batch):
        yield from ()

    def networks(self):
        return {}


def lab_of(rgb):
    return rgb8_to_lab(torch.from_numpy(np.asarray(rgb)).permute(2, 0, 1))


def check(before, after):
    before, after = lab_of(before), lab_of(after)
    assert float((before[0] - after[0]).abs().max()) <= 1
    middle = (before[0] > 40) & (before[0] < 80)
    assert float((after[1:] - torch.tensor([20.0, 40.0]).view(2, 1, 1))[:, middle].abs().max()) < 2


def test_every_kind_of_picture_gets_the_same_colors():
    colorizer, rgb = Orange(), photo_array(3)
    check(rgb, colorize(colorizer, rgb))
    expected = colorize(colorizer, rgb)
    assert np.array_equal(np.asarray(colorize(colorizer, Image.fromarray(rgb))), expected)
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    flat = colorize(colorizer, grey)
    assert np.array_equal(flat, colorize(colorizer, grey[..., None]))
    check(np.repeat(grey[..., None], 3, axis=2), flat)
    batch = np.stack([rgb, photo_array(4)])
    assert np.array_equal(colorize(colorizer, batch)[0], expected)
    assert [x.shape for x in colorize(colorizer, [rgb, Image.fromarray(rgb)])[:1]] == [rgb.shape]


def test_tensors_keep_their_shape_and_type():
    colorizer, rgb = Orange(), photo_array(3)
    tensor = torch.from_numpy(rgb).permute(2, 0, 1).float() / 255
    found = colorize(colorizer, tensor)
    assert found.shape == tensor.shape
    assert found.dtype == tensor.dtype
    expected = torch.from_numpy(colorize(colorizer, rgb)).permute(2, 0, 1).float() / 255
    assert float((found - expected).abs().max()) < 0.6 / 255
    batch = colorize(colorizer, torch.rand(2, 1, 20, 30, dtype=torch.float64))
    assert batch.shape == (2, 3, 20, 30)
    assert batch.dtype == torch.float64


def test_16_bits_stay_16_bits_with_their_lightness():
    deep = np.linspace(8000, 60000, 40 * 48).astype(np.uint16).reshape(40, 48)
    found = colorize(Orange(), deep)
    assert found.dtype == np.uint16
    assert found.shape == (40, 48, 3)
    assert len(np.unique(found[..., 1])) > 1500  # more than 8 bits could hold
    linear = ((found / 65535 + 0.055) / 1.055) ** 2.4
    Y = linear @ [0.212671, 0.715160, 0.072169]
    Y0 = ((deep / 65535 + 0.055) / 1.055) ** 2.4
    assert np.abs(Y - Y0).max() < 1e-4


def test_transparency_is_kept():
    image = Image.fromarray(photo_array(1))
    alpha = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48), dtype=np.uint8))
    image.putalpha(alpha)
    found = colorize(Orange(), image)
    assert found.mode == "RGBA"
    assert np.array_equal(np.asarray(found.getchannel("A")), np.asarray(alpha))


def test_16_bit_pil_pictures_are_divided_not_clipped():
    grey = np.linspace(0, 65535, 40 * 48).reshape(40, 48).astype(np.uint16)
    expected = colorize(Orange(), (grey >> 8).astype(np.uint8))
    assert np.array_equal(np.asarray(colorize(Orange(), Image.fromarray(grey))), expected)
    assert np.array_equal(np.asarray(colorize(Orange(), Image.fromarray(grey.astype(np.int32)))), expected)
    with pytest.raises(UserError, match="the picture has floating-point values"):
        colorize(Orange(), Image.fromarray(grey.astype(np.float32)))


def test_an_edit_is_applied():
    rgb = photo_array(3)
    grey = colorize(Orange(), rgb, edit=Edit(saturation=0))
    assert float(lab_of(grey)[1:].abs().max()) < 1
    blue = lab_of(colorize(Orange(), rgb, edit=Edit(hue=180)))
    assert float(blue[2].mean()) < 0


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("old.jpg", "colorize got str: expected PIL pictures"),
        (np.zeros((4, 5, 2), np.uint8), "uint8 of shape"),
        (np.zeros((4, 5, 3), np.float32), "float32 of shape"),
        (torch.zeros(3, 4, 5, dtype=torch.uint8), "expected floats"),
        (torch.full((1, 4, 5), 200.0), "values 200 to 200: expected 0 to 1"),
        (torch.full((1, 4, 5), float("nan")), "values nan"),
        (torch.zeros(2, 4, 5), "of shape"),
    ],
)
def test_other_types_are_refused_in_one_sentence(image, says):
    with pytest.raises(UserError, match=says):
        colorize(Orange(), image)


def test_a_colorizer_without_card_asks_for_a_size():
    colorizer = Orange()
    colorizer.card = None
    with pytest.raises(UserError, match="size is not given"):
        colorize(colorizer, photo_array(0))
    assert colorize(colorizer, photo_array(0), size=16).shape == (40, 48, 3)


def test_out_of_memory_falls_back_to_a_smaller_size_and_reports_it(monkeypatch):
    """If no size fits it is an error, never a grey copy."""
    limit = {"side": 64}

    def tight(colorizer, L):
        if L.shape[-1] > limit["side"]:
            raise torch.OutOfMemoryError("out of memory")
        return torch.ones(1, 2, *L.shape[2:])

    monkeypatch.setattr(module, "predict_ab", tight)
    reports = []
    working = torch.rand(1, 1, 300, 400)
    assert module.predict_within_memory(Orange(), working, PredictorConfig(256), reports.append).shape == (1, 2, 64, 64)
    assert reports == ["out of memory: predicted at 64 px on cpu instead of 256 px on cpu"]
    limit["side"] = 8
    with pytest.raises(UserError, match="does not fit in memory"):
        module.predict_within_memory(Orange(), working, PredictorConfig(256), reports.append)
    monkeypatch.setattr(module, "predict_ab", lambda colorizer, L: torch.zeros(1) + torch.zeros(2, 2).view(3))
    with pytest.raises(RuntimeError, match="invalid"):  # other errors are not taken for that
        module.predict_within_memory(Orange(), working, PredictorConfig(64))
