import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.photo.edit import DAYLIGHT, Edit, adjust_chroma, blackbody_white, change_illuminant
from common.utils.errors import UserError


def planes(values):
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def test_an_empty_edit_changes_nothing():
    L, ab = torch.rand(1, 1, 4, 5) * 100, torch.randn(1, 2, 4, 5) * 30
    assert torch.equal(Edit()(L, ab), ab)
    torch.testing.assert_close(Edit(kelvin=DAYLIGHT)(L, ab), ab, atol=1e-3, rtol=0)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 3), st.floats(-360, 360), st.floats(-80, 80), st.floats(-80, 80))
def test_chroma_is_scaled_and_hue_turned(saturation, hue, a, b):
    found = adjust_chroma(planes([a, b]), saturation, hue).flatten().numpy()
    expected = complex(a, b) * saturation * np.exp(1j * np.radians(hue))
    assert found == pytest.approx([expected.real, expected.imag], abs=1e-3)


def test_the_white_of_daylight_and_of_a_lamp():
    """Chromaticities of black bodies as tabulated: 6504 K (0.3135, 0.3236), 2856 K (0.4475, 0.4074)."""
    for kelvin, x, y in ((6504, 0.3135, 0.3236), (2856, 0.4475, 0.4074)):
        X, Z = blackbody_white(kelvin)
        total = X + 1 + Z
        assert [X / total, 1 / total] == pytest.approx([x, y], abs=1e-3)


@pytest.mark.parametrize("kelvin", [2222, 4000])
def test_the_fits_meet(kelvin):
    assert blackbody_white(kelvin - 0.5) == pytest.approx(blackbody_white(kelvin + 0.5), rel=2e-3)


def test_lower_temperatures_are_warmer_and_black_stays_black():
    grey = planes([0, 0])
    b = [float(change_illuminant(planes([60]), grey, kelvin)[0, 1]) for kelvin in (2500, 4000, 6504, 10000, 20000)]
    assert b == sorted(b, reverse=True)
    assert b[2] == pytest.approx(0, abs=1e-3)
    assert float(change_illuminant(planes([0]), grey, 2500).abs().max()) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"saturation": -0.1}, "saturation is -0.1: expected a factor"),
        ({"saturation": float("nan")}, "saturation is nan"),
        ({"hue": 400}, "hue is 400: expected degrees"),
        ({"kelvin": 500}, "the color temperature is 500: expected kelvin"),
    ],
)
def test_values_out_of_range_are_refused(values, says):
    with pytest.raises(UserError, match=says):
        Edit(**values)
