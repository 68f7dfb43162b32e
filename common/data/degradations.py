"""Simulated defects of old photographs, which change the input L of a network and not the target ab.

All functions are pure functions of a batch and of given random numbers. Noise per pixel is a hash of these numbers and
of the pixel's position, so it is the same on every device and does not depend on the rest of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.color.lab import film_lightness, lab_to_rgb, rgb_to_lab
from common.utils.errors import UserError, near

NOISE = 4  # random numbers per photograph: whether it is damaged, by which kinds, and two that seed `uniform`

# Sensitivity to linear red, green and blue.
_ORTHOCHROMATIC = (0.0, 0.55, 0.45)
_COLLODION = (0.0, 0.1, 0.9)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_BLUR = (0.002, 0.01)  # range of sigma, as a fraction of the longer side
_WHITE, _BLACK = 96.0, 6.0  # L of scratches and dust


def _mix(x: Tensor) -> Tensor:
    """An invertible 32-bit hash (lowbias32, Wellons 2018), computed in int64."""
    x = (x ^ (x >> 16)) * 0x7FEB352D & 0xFFFFFFFF
    x = (x ^ (x >> 15)) * 0x846CA68B & 0xFFFFFFFF
    return x ^ (x >> 16)


def uniform(noise: Tensor, salt: int, *shape: int) -> Tensor:
    """Uniform random numbers in [0, 1) for each photograph: float32 [n, *shape].

    noise: [n, 4]; columns 2 and 3 are the seed. salt: selects an independent sequence.
    """
    first, second = (noise[:, 2:4].double() * 2**24).long().unbind(1)
    state = _mix(_mix(first + (salt << 24)) ^ second)
    position = _mix(torch.arange(math.prod(shape), device=noise.device))
    return ((_mix(state[:, None] ^ position) >> 8).float() / 2**24).view(len(noise), *shape)


def _between(noise: Tensor, salt: int, low: float, high: float) -> Tensor:
    return low + (high - low) * uniform(noise, salt, 1, 1, 1)


def orthochromatic(L: Tensor, ab: Tensor, noise: Tensor) -> Tensor:
    """Orthochromatic film, which is not sensitive to red: red lips look black, a blue sky white."""
    return film_lightness(torch.cat([L, ab], dim=1), _ORTHOCHROMATIC)


def collodion(L: Tensor, ab: Tensor, noise: Tensor) -> Tensor:
    """Wet collodion plates of the nineteenth century, which are sensitive mostly to blue."""
    return film_lightness(torch.cat([L, ab], dim=1), _COLLODION)


def luma(L: Tensor, ab: Tensor, noise: Tensor) -> Tensor:
    """BT.601 luma, a weighted sum of gamma-encoded channels: how most software converts to grey."""
    red, green, blue = lab_to_rgb(torch.cat([L, ab], dim=1)).unbind(1)
    grey = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
    return rgb_to_lab(grey[:, None].expand(-1, 3, -1, -1))[:, :1]


def blur(L: Tensor, ab: Tensor, noise: Tensor) -> Tensor:
    """Defocus: a Gaussian blur with a sigma of 0.4 pixels plus 0.2 to 1 % of the longer side."""
    side = max(L.shape[-2:])
    radius = math.ceil(3 * (0.4 + _BLUR[1] * side))
    sigma = 0.4 + _between(noise, 1, *_BLUR).view(-1, 1) * side
    line = torch.arange(-radius, radius + 1, device=L.device)
    kernel = torch.exp(-0.5 * (line / sigma).square())
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).view(len(L), 1, 1, -1)  # a kernel for each photograph
    x = F.pad(L.transpose(0, 1), (radius, radius, radius, radius), mode="replicate")
    x = F.conv2d(F.conv2d(x, kernel, groups=len(L)), kernel.transpose(2, 3), groups=len(L))
    return x.transpose(0, 1)


def grain(L: Tensor, ab: Tensor, noise: Tensor) -> Tensor:
    """Film grain: Gaussian noise with a standard deviation of 2 to 8 in L at mid grey, less near black and white.

    In half of the photographs it is independent for each pixel, in the others about two pixels wide.
    """
    first, second = uniform(noise, 2, 2, *L.shape[-2:]).unbind(1)
    field = ((-2 * torch.log(1 - first)).sqrt() * torch.cos(2 * math.pi * second))[:, None]  # Box and Muller 1958
    coarse = F.avg_pool2d(F.pad(field, (1, 0, 1, 0), mode="replicate"), 2, stride=1) * 2  # 2: keeps the deviation
    field = torch.where(uniform(noise, 3, 1, 1, 1) < 0.5, field, coarse)
    t = L / 100
    return L + _between(noise, 4, 2.0, 8.0) * (0.3 + 2.8 * t * (1 - t)) * field


def fading(L: Tensor, ab: Tensor, noise: Tensor) -> Tensor:
    """A faded print: black is at L 5 to 30, white at 70 to 95."""
    black, white = _between(noise, 5, 5.0, 30.0), _between(noise, 6, 70.0, 95.0)
    return black + (white - black) / 100 * L


def scratches(L: Tensor, ab: Tensor, noise: Tensor) -> Tensor:
    """One to five nearly vertical scratches and one to sixteen specks of dust; most are white, some black."""
    height, width = L.shape[-2:]
    side = max(height, width)
    y = torch.arange(height, device=L.device).view(1, -1, 1) + 0.5
    x = torch.arange(width, device=L.device).view(1, 1, -1) + 0.5

    def covered(L: Tensor, distance: Tensor, present: Tensor, white: Tensor, opacity: Tensor) -> Tensor:
        share = ((0.5 - distance).clamp(0, 1) * opacity * present)[:, None]  # distance: from the mark's rim, in pixels
        return L + share * (torch.where(white < 0.75, _WHITE, _BLACK)[:, None] - L)

    for i in range(5):
        position, slope, bend, phase, start, length, breadth, present, white, opacity = (
            uniform(noise, 10 + i, 10)[..., None, None].unbind(1)
        )  # fmt: skip
        line = (0.05 + 0.9 * position) * width + (slope - 0.5) * 0.16 * (y - height / 2)
        line = line + (bend * 0.01 * side) * torch.sin(2 * math.pi * (y / height + phase))
        top = (1.2 * start - 0.5).clamp(min=0) * height  # four of ten begin at the upper edge
        present = ((present < 0.6) | (i == 0)) & (y > top) & (y < top + (0.3 + length) * height)
        distance = (x - line).abs() - (0.001 + 0.002 * breadth) * side
        L = covered(L, distance, present, white, 0.4 + 0.5 * opacity)
    for i in range(16):
        across, down, size, present, white, opacity = uniform(noise, 20 + i, 6)[..., None, None].unbind(1)
        to_center = ((x - across * width).square() + (y - down * height).square()).sqrt()
        distance = to_center - (0.002 + 0.012 * size**3) * side
        L = covered(L, distance, (present < 0.6) | (i == 0), white, 0.6 + 0.4 * opacity)
    return L


# In the order in which they are applied.
DAMAGES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "orthochromatic": orthochromatic, "collodion": collodion, "luma": luma,
    "blur": blur, "grain": grain, "fading": fading, "scratches": scratches,
}  # fmt: skip
_FILMS = ("orthochromatic", "collodion", "luma")  # mutually exclusive
_OTHERS = tuple(kind for kind in DAMAGES if kind not in _FILMS)


def damage(L: Tensor, ab: Tensor, kind: str, noise: Tensor) -> Tensor:
    """Apply one kind of damage to the lightness of photographs.

    L: [n, 1, H, W] in 0..100. ab: [n, 2, H, W] in CIELAB units. kind: a key of `DAMAGES`. noise: [n, 4], uniform in
    [0, 1). Returns float32 [n, 1, H, W] in 0..100.
    """
    return DAMAGES[kind](L.float(), ab.float(), noise).clamp(0, 100)


def damage_some(L: Tensor, ab: Tensor, noise: Tensor, probability: float) -> Tensor:
    """Damage each photograph with the given probability, by one to five kinds at once.

    All non-empty combinations of film, blur, grain, fading and scratches are equally probable. Arguments and result
    have the shapes of `damage`.
    """
    chosen = 1 + (noise[:, 1] * (2 ** (1 + len(_OTHERS)) - 1)).long()  # bits: film, then the others
    chosen = torch.where(noise[:, 0] < probability, chosen, 0)
    film = (uniform(noise, 0, 1)[:, 0] * len(_FILMS)).long()
    affected = {kind: (chosen & 1 == 1) & (film == i) for i, kind in enumerate(_FILMS)}
    affected |= {kind: (chosen >> i) & 1 == 1 for i, kind in enumerate(_OTHERS, 1)}
    for kind, mask in affected.items():
        index = mask.nonzero()[:, 0]
        if len(index):
            L = L.index_copy(0, index, damage(L[index], ab[index], kind, noise[index]))
    return L


def index_noise(indices: np.ndarray, seed: int) -> Tensor:
    """Random numbers for photographs of a pack, float32 [n, 4]. Each row is a pure function of (seed, index)."""
    drawn = [np.random.default_rng((seed, int(index))).random(NOISE, dtype=np.float32) for index in indices]
    return torch.from_numpy(np.stack(drawn))


def pick_damages(kinds: Iterable[str]) -> list[str]:
    """The named kinds of damage without repetitions, or all kinds if none is named.

    Raises UserError for an unknown name.
    """
    named = list(dict.fromkeys(kinds))
    for kind in named:
        if kind not in DAMAGES:
            raise UserError(f"'{kind}' is not a kind of damage: expected {', '.join(DAMAGES)}{near(kind, DAMAGES)}")
    return named or list(DAMAGES)
