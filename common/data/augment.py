"""Augmentation of batches on the device, a pure function of the batch and of given random numbers.

All augmentations except damage change L and ab consistently. Damage changes only the input L.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from common.color.lab import rgb8_to_lab, rgb_to_lab
from common.data.degradations import damage_some
from common.utils.options import check_value, refuse_unused


@dataclass
class AugmentConfig:
    """How training batches are augmented.

    Attributes:
        crop: `random`: a random window of the training size; `resized`: a random window of random size, resized to the
            training size; `centre`: the central window.
        min_scale: smallest side of a `resized` window, as a fraction of the side of the packed square.
        flip: mirror each photograph horizontally with probability 0.5.
        brightness: largest relative change of sRGB values.
        intensity: smallest factor on sRGB values; the factor is uniform between it and 1 (instead of `brightness`).
        contrast: largest relative change of the distance of sRGB values from their mean.
        saturation: largest relative change of chroma, at constant L.
        rotate: largest rotation of the photograph, in degrees, either way. The window is reduced so that it lies
            within the photograph, so there are no empty corners.
        hue: largest rotation of ab, in degrees, at constant L.
        hue_shift: rotation of ab of every training photograph, in degrees, at constant L: the model learns shifted
            colors. Colors that leave sRGB are not changed further. Photographs for validation, and the color prior of
            a classifier, are not shifted.
        damage: probability that defects of old photographs are added to a photograph's L, but not to its ab: film
            sensitivity, blur, grain, fading, scratches.
    """

    crop: Literal["random", "resized", "centre"] = "random"
    min_scale: float = 0.6
    flip: bool = True
    brightness: float = 0.0
    intensity: float = 1.0
    contrast: float = 0.0
    saturation: float = 0.0
    rotate: float = 0.0
    hue: float = 0.0
    hue_shift: float = 0.0
    damage: float = 0.0

    def __post_init__(self) -> None:
        check_value("augment.min_scale", self.min_scale, 0 < self.min_scale <= 1, "a share in (0, 1]")
        if self.crop != "resized":
            refuse_unused("augment", self, ("min_scale",), f"the crop {self.crop}")
        for name in ("brightness", "contrast", "saturation"):
            check_value(f"augment.{name}", getattr(self, name), 0 <= getattr(self, name) < 1, "a share in [0, 1)")
        check_value("augment.intensity", self.intensity, 0 < self.intensity <= 1, "a factor in (0, 1]")
        if self.intensity < 1:
            refuse_unused("augment", self, ("brightness",), f"augment.intensity {self.intensity}")
        check_value("augment.rotate", self.rotate, 0 <= self.rotate <= 45, "degrees in [0, 45]")
        check_value("augment.hue", self.hue, 0 <= self.hue <= 180, "degrees in [0, 180]")
        check_value("augment.hue_shift", self.hue_shift, -180 <= self.hue_shift <= 180, "degrees in [-180, 180]")
        check_value("augment.damage", self.damage, 0 <= self.damage <= 1, "a probability in [0, 1]")


def augment(
    images: Tensor, noise: Tensor, size: int, config: AugmentConfig, damage_noise: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Augment packed photographs and convert them to CIELAB.

    Args:
        images: uint8 [N, S, S, 3] sRGB with S >= size.
        noise: float [N, 8], uniform in [0, 1): all random numbers that the augmentation uses, except for damage.
        size: side of the result, in pixels.
        config: the augmentation.
        damage_noise: float [N, 4], uniform in [0, 1). Needed if `config.damage` is above 0.

    Returns:
        L [N, 1, size, size] and ab [N, 2, size, size], float32 in CIELAB units.
    """
    flip = noise[:, 2] < 0.5 if config.flip else torch.zeros_like(noise[:, 2], dtype=torch.bool)
    if config.crop == "resized" or config.rotate:
        rgb = _sampled_crop(images, noise, size, config, flip)
    else:
        rgb = _crop(images, noise, size, config.crop == "random", flip)
    if config.brightness or config.contrast or config.intensity < 1:
        rgb = _adjust_light(rgb, noise, config)
    lab = rgb8_to_lab(rgb) if rgb.dtype == torch.uint8 else rgb_to_lab(rgb)
    L, ab = lab[:, :1], lab[:, 1:]
    if config.saturation or config.hue or config.hue_shift:
        ab = _adjust_color(ab, noise, config)
    if config.damage:
        L = damage_some(L, ab, damage_noise, config.damage)
    return L, ab


def _crop(images: Tensor, noise: Tensor, size: int, random: bool, flip: Tensor) -> Tensor:
    room = images.shape[1] - size
    offset = (noise[:, :2] * (room + 1)).long() if random else torch.full_like(noise[:, :2], room // 2).long()
    line = torch.arange(size, device=images.device)
    rows = offset[:, 0, None] + line
    columns = offset[:, 1, None] + torch.where(flip[:, None], line.flip(0), line)
    index = torch.arange(len(images), device=images.device)[:, None, None]
    return images[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _sampled_crop(images: Tensor, noise: Tensor, size: int, config: AugmentConfig, flip: Tensor) -> Tensor:
    """Windows of any size and direction, interpolated. Windows that would leave the photograph are reduced."""
    if config.crop == "resized":
        scale = config.min_scale + (1 - config.min_scale) * noise[:, 3]
    else:
        scale = torch.full_like(noise[:, 3], size / images.shape[1])
    # the flip takes only the first binary digit of its random number; the others are as random
    angle = torch.deg2rad(config.rotate * (2 * (2 * noise[:, 2] % 1) - 1))
    cos, sin = angle.cos(), angle.sin()
    width = cos + sin.abs()  # of the upright square around a turned square of width 1
    scale = torch.minimum(scale, 1 / width)
    theta = images.new_zeros((len(images), 2, 3), dtype=torch.float32)
    theta[:, :, 0] = torch.where(flip, -scale, scale)[:, None] * torch.stack([cos, sin], dim=1)
    theta[:, :, 1] = scale[:, None] * torch.stack([-sin, cos], dim=1)
    if config.crop != "centre":
        theta[:, :, 2] = (noise[:, :2] * 2 - 1) * (1 - scale * width)[:, None]
    grid = F.affine_grid(theta, [len(images), 3, size, size], align_corners=False)
    pictures = images.permute(0, 3, 1, 2).float() / 255
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False).clamp(0, 1)


def _adjust_light(rgb: Tensor, noise: Tensor, config: AugmentConfig) -> Tensor:
    rgb = rgb.float() / 255 if rgb.dtype == torch.uint8 else rgb
    brightness = (1 + config.brightness * (2 * noise[:, 4] - 1)) * (1 - (1 - config.intensity) * noise[:, 4])
    contrast = 1 + config.contrast * (2 * noise[:, 5] - 1)
    mean = rgb.mean(dim=(1, 2, 3), keepdim=True)
    return (((rgb - mean) * contrast[:, None, None, None] + mean) * brightness[:, None, None, None]).clamp(0, 1)


def _adjust_color(ab: Tensor, noise: Tensor, config: AugmentConfig) -> Tensor:
    chroma = 1 + config.saturation * (2 * noise[:, 6] - 1)
    angle = torch.deg2rad(config.hue_shift + config.hue * (2 * noise[:, 7] - 1))
    cos, sin = (chroma * angle.cos())[:, None, None], (chroma * angle.sin())[:, None, None]
    a, b = ab.unbind(1)
    return torch.stack([cos * a - sin * b, sin * a + cos * b], dim=1)
