"""Conversion between sRGB and CIELAB in torch: differentiable, batched, and in fp32 also under autocast.

sRGB is IEC 61966-2-1. CIELAB is CIE 1976 with illuminant D65 and the 2 degree observer, white (0.95047, 1, 1.08883).
The constants are those of `skimage.color.rgb2lab`.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Linear sRGB -> XYZ, rows X, Y, Z, each already divided by the white point.
_WHITE = (0.95047, 1.0, 1.08883)
_XYZ_FROM_RGB = (
    (0.412453 / _WHITE[0], 0.357580 / _WHITE[0], 0.180423 / _WHITE[0]),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / _WHITE[2], 0.119193 / _WHITE[2], 0.950227 / _WHITE[2]),
)
# The inverse matrix, as constants because ONNX has no torch.linalg.inv.
_RGB_FROM_XYZ = (
    (3.0799803022718044, -1.5371515162713185, -0.5428213080224702),
    (-0.9212477523232382, 1.8759900014898907, 0.045247339514465974),
    (0.052890461098811827, -0.20404133836651123, 1.1512320119619404),
)
_EPSILON = 0.008856  # (6/29)^3, rounded as in the standard
_KAPPA = 7.787  # (29/6)^2 / 3

# Network range, in all docstrings: L / 50 - 1 and ab / 110. Outside of networks and losses, colors are in CIELAB units.
AB_SCALE = 110.0


def L_to_unit(L: Tensor) -> Tensor:
    """Lightness 0..100 -> network range -1..1."""
    return L / 50 - 1


def L_from_unit(L: Tensor) -> Tensor:
    """Network range -1..1 -> lightness 0..100."""
    return (L + 1) * 50


def ab_to_unit(ab: Tensor) -> Tensor:
    """ab in CIELAB units -> network range. sRGB colors are within -1..1."""
    return ab / AB_SCALE


def ab_from_unit(ab: Tensor) -> Tensor:
    """ab in network range, any floating dtype -> CIELAB units, float32."""
    return ab.float() * AB_SCALE


def as_float(x: Tensor) -> Tensor:
    """Convert to float32. float64 is unchanged."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _mix(matrix: tuple[tuple[float, ...], ...], x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    # not a matmul, which is slower here and which autocast would run in bf16
    return [row[0] * x + row[1] * y + row[2] * z for row in matrix]


def _linear_from_srgb(rgb: Tensor) -> Tensor:
    curve = ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(rgb > 0.04045, curve, rgb / 12.92)


def _srgb_from_linear(linear: Tensor) -> Tensor:
    # clamp before the power: the gradient of 0 ** x is infinite, and `where` would turn it into NaN
    curve = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curve, linear * 12.92)


def _f(t: Tensor) -> Tensor:
    return torch.where(t > _EPSILON, t.clamp(min=_EPSILON) ** (1 / 3), _KAPPA * t + 16 / 116)


def _f_inverse(f: Tensor) -> Tensor:
    return torch.where(f > 0.2068966, f**3, (f - 16 / 116) / _KAPPA)


def _lab_from_linear(linear: Tensor) -> Tensor:
    fx, fy, fz = map(_f, _mix(_XYZ_FROM_RGB, *linear.unbind(-3)))
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], dim=-3)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB -> CIELAB.

    rgb: float [..., 3, H, W] in 0..1. Returns float32 (float64 for float64 input) of the same shape: L in 0..100, a in
    about -86..98, b in about -108..95. Raises TypeError for integer input, and ValueError for another shape or values
    outside 0..1.
    """
    if not rgb.is_floating_point():
        raise TypeError(f"rgb_to_lab takes floats in 0..1, got {rgb.dtype}: use rgb8_to_lab for uint8")
    _check_channels(rgb, "rgb")
    if not torch.compiler.is_compiling() and rgb.numel():
        low, high = torch.aminmax(rgb.detach())
        if not (low >= -1e-4 and high <= 1 + 1e-4):  # NaN fails too
            raise ValueError(f"rgb_to_lab takes values in 0..1, got {low.item():.4g}..{high.item():.4g}")
    with torch.autocast(rgb.device.type, enabled=False):
        return _lab_from_linear(_linear_from_srgb(as_float(rgb).clamp(0, 1)))


def rgb8_to_lab(rgb: Tensor) -> Tensor:
    """8-bit sRGB -> CIELAB. It is faster than `rgb_to_lab` because it linearizes values with a lookup table.

    rgb: uint8 [..., 3, H, W]. Returns float32 of the same shape. Raises TypeError for another dtype, and ValueError for
    another shape.
    """
    if rgb.dtype != torch.uint8:
        raise TypeError(f"rgb8_to_lab takes uint8, got {rgb.dtype}: use rgb_to_lab for floats in 0..1")
    _check_channels(rgb, "rgb")
    with torch.autocast(rgb.device.type, enabled=False):
        table = _linear_from_srgb(torch.arange(256, dtype=torch.float64) / 255).float().to(rgb.device)
        return _lab_from_linear(table[rgb.int()])


def rgb8_to_L(rgb: Tensor) -> Tensor:
    """8-bit sRGB -> L only, in a third of the time of `rgb8_to_lab`.

    rgb: uint8 [..., 3, H, W]. Returns float32 [..., 1, H, W] in 0..100. Raises TypeError for another dtype, and
    ValueError for another shape.
    """
    if rgb.dtype != torch.uint8:
        raise TypeError(f"rgb8_to_L takes uint8, got {rgb.dtype}")
    _check_channels(rgb, "rgb")
    levels = torch.arange(256, dtype=torch.float64) / 255
    tables = [(weight * _linear_from_srgb(levels)).float().to(rgb.device) for weight in _XYZ_FROM_RGB[1]]
    Y = sum(table[channel.int()] for table, channel in zip(tables, rgb.unbind(-3), strict=True))
    return (116 * _f(Y) - 16).unsqueeze(-3)


def linear_from_lab(lab: Tensor) -> Tensor:
    """CIELAB -> linear sRGB, both float [..., 3, H, W]. Colors outside sRGB have values outside 0..1."""
    L, a, b = lab.unbind(-3)
    fy = (L + 16) / 116
    # fz is clamped as in scikit-image; it is negative only for colors far outside sRGB
    xyz = map(_f_inverse, (fy + a / 500, fy, (fy - b / 200).clamp(min=0)))
    return torch.stack(_mix(_RGB_FROM_XYZ, *xyz), dim=-3)


def film_lightness(lab: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """The lightness that black-and-white film records, if its exposure is a weighted sum of linear sRGB.

    lab: float [..., 3, H, W]; colors outside sRGB are clipped per channel. weights: of red, green and blue. They must
    sum to 1, so that the L of greys does not change. Returns L [..., 1, H, W] in 0..100. Raises ValueError for another
    shape.
    """
    _check_channels(lab, "lab")
    with torch.autocast(lab.device.type, enabled=False):
        red, green, blue = linear_from_lab(as_float(lab)).clamp(0, 1).unbind(-3)
        exposure = weights[0] * red + weights[1] * green + weights[2] * blue
        return _lab_from_linear(exposure.unsqueeze(-3).expand(lab.shape))[..., :1, :, :].clamp(0, 100)


def lab_to_rgb(lab: Tensor, clip: bool = True) -> Tensor:
    """CIELAB -> sRGB.

    lab: float [..., 3, H, W]. clip: clip each channel to 0..1. This changes the L and the hue of colors outside sRGB;
    `common.color.gamut.ab_to_rgb` does not. Returns float32 (float64 for float64 input) of the same shape. Raises
    ValueError for another shape.
    """
    _check_channels(lab, "lab")
    with torch.autocast(lab.device.type, enabled=False):
        rgb = _srgb_from_linear(linear_from_lab(as_float(lab)))
        return rgb.clamp(0, 1) if clip else rgb


def grey_from_L(L: Tensor) -> Tensor:
    """L, any shape, in 0..100 -> the sRGB value of the grey with that lightness, same shape, in 0..1."""
    with torch.autocast(L.device.type, enabled=False):
        return _srgb_from_linear(_f_inverse((as_float(L) + 16) / 116)).clamp(0, 1)


def _check_channels(x: Tensor, name: str) -> None:
    if x.ndim < 3 or x.shape[-3] != 3:
        raise ValueError(f"{name} must have shape [..., 3, H, W], got {list(x.shape)}")
