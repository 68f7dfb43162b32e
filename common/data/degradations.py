"""Simulated damage of old photographs, applied to the lightness that a network sees and not to the target ab.

Pure functions of a batch and of given random numbers, on the device. Random fields are a hash of these numbers and of
the pixel's position, so they are the same on every device and do not depend on the rest of the batch.
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

NOISE = 4  # random numbers a photograph: whether it is damaged, by which kinds, and a key for all the rest

# Sensitivity to linear red, green, blue. Orthochromatic film does not see red; collodion plates see blue only.
_ORTHOCHROMATIC = (0.0, 0.55, 0.45)
_COLLODION = (0.0, 0.1, 0.9)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_BLUR = (0.002, 0.01)  # sigma as a share of the longer side
_WHITE, _BLACK = 96.0, 6.0  # L of scratches and dust


def _mix(x: Tensor) -> Tensor:
    """An invertible 32-bit hash (lowbias32, Wellons 2018), computed in int64."""
    x = (x ^ (x >> 16)) * 0x7FEB352D & 0xFFFFFFFF
    x = (x ^ (x >> 15)) * 0x846CA68B & 0xFFFFFFFF
    return x ^ (x >> 16)


def uniform(noise: Tensor, salt: int, *shape: int) -> Tensor:
    """Uniform numbers in [0, 1) that depend only on each photograph's key: float32 [n, *shape].

    noise: [n, 4], of which the last two are the key. salt: selects an independent stream.
    """
    one, other = (noise[:, 2:4].double() * 2**24).long().unbind(1)
    state = _mix(_mix(one + (salt << 24)) ^ other)
    place = _mix(torch.arange(math.prod(shape), device=noise.device))
    return ((_mix(state[:, None] ^ place) >> 8).float() / 2**24).view(len(noise), *shape)


def _between(noise: Tensor, salt: int, low: float, high: float) -> Tensor:
    return low + (high - low) * uniform(noise, salt, 1, 1, 1)


def orthochromatic(L: Tensor, ab: Tensor, noise: Tensor) -> Tensor:
    """Orthochromatic film, which is not sensitive to red: lips and bricks are black, blue skies white."""
    return film_lightness(torch.cat([L, ab], dim=1), _ORTHOCHROMATIC)


def collodion(L: Tensor, ab: Tensor, noise: Tensor) -> Tensor:
    """Wet collodion plates of the nineteenth century, which are sensitive to little but blue."""
    return film_lightness(torch.cat([L, ab], dim=1), _COLLODION)


def luma(L: Tensor, ab: Tensor, noise: Tensor) -> Tensor:
    """BT.601 luma, the weighted sum of gamma-encoded channels by which most software converts to grey."""
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
    """Film grain: Gaussian, of standard deviation 2 to 8 in L at mid grey and less towards black and white.

    Fine in some photographs (each pixel alone), coarse in others (some two pixels wide).
    """
    first, second = uniform(noise, 2, 2, *L.shape[-2:]).unbind(1)
    field = ((-2 * torch.log(1 - first)).sqrt() * torch.cos(2 * math.pi * second))[:, None]  # Box and Muller 1958
    coarse = F.avg_pool2d(F.pad(field, (1, 0, 1, 0), mode="replicate"), 2, stride=1) * 2  # keeps the deviation
    field = torch.where(uniform(noise, 3, 1, 1, 1) < 0.5, field, coarse)
    t = L / 100
    return L + _between(noise, 4, 2.0, 8.0) * (0.3 + 2.8 * t * (1 - t)) * field


def fading(L: Tensor, ab: Tensor, noise: Tensor) -> Tensor:
    """A faded print: black lies at L 5 to 30, white at 70 to 95."""
    black, white = _between(noise, 5, 5.0, 30.0), _between(noise, 6, 70.0, 95.0)
    return black + (white - black) / 100 * L


def scratches(L: Tensor, ab: Tensor, noise: Tensor) -> Tensor:
    """One to five scratches, nearly upright, and up to sixteen specks of dust, most white and some black."""
    height, width = L.shape[-2:]
    side = max(height, width)
    y = torch.arange(height, device=L.device).view(1, -1, 1) + 0.5
    x = torch.arange(width, device=L.device).view(1, 1, -1) + 0.5

    def covered(under: Tensor, beyond: Tensor, there: Tensor, white: Tensor, opacity: Tensor) -> Tensor:
        share = ((0.5 - beyond).clamp(0, 1) * opacity * there)[:, None]  # beyond: pixels from the mark's rim
        return under + share * (torch.where(white < 0.75, _WHITE, _BLACK)[:, None] - under)

    for i in range(5):
        at, slope, bend, phase, start, length, breadth, there, white, opacity = (
            uniform(noise, 10 + i, 10)[..., None, None].unbind(1)
        )  # fmt: skip
        line = (0.05 + 0.9 * at) * width + (slope - 0.5) * 0.16 * (y - height / 2)
        line = line + (bend * 0.01 * side) * torch.sin(2 * math.pi * (y / height + phase))
        top = (1.2 * start - 0.5).clamp(min=0) * height  # nearly half of them come from beyond the upper edge
        there = ((there < 0.6) | (i == 0)) & (y > top) & (y < top + (0.3 + length) * height)
        beyond = (x - line).abs() - (0.001 + 0.002 * breadth) * side
        L = covered(L, beyond, there, white, 0.4 + 0.5 * opacity)
    for i in range(16):
        across, down, size, there, white, opacity = uniform(noise, 20 + i, 6)[..., None, None].unbind(1)
        distance = ((x - across * width).square() + (y - down * height).square()).sqrt()
        beyond = distance - (0.002 + 0.012 * size**3) * side
        L = covered(L, beyond, (there < 0.6) | (i == 0), white, 0.6 + 0.4 * opacity)
    return L


# In the order in which they are applied: film, lens, grain, print, album.
DAMAGES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "orthochromatic": orthochromatic, "collodion": collodion, "luma": luma,
    "blur": blur, "grain": grain, "fading": fading, "scratches": scratches,
}  # fmt: skip
_FILMS = ("orthochromatic", "collodion", "luma")  # a photograph is on one of them
_OTHERS = tuple(kind for kind in DAMAGES if kind not in _FILMS)


def damage(L: Tensor, ab: Tensor, kind: str, noise: Tensor) -> Tensor:
    """The lightness of photographs with one kind of damage.

    L: [n, 1, H, W] in 0..100, ab: [n, 2, H, W] in CIELAB units, kind: of DAMAGES, noise: [n, 4] uniform in [0, 1).
    Returns L [n, 1, H, W] in 0..100, float32.
    """
    return DAMAGES[kind](L.float(), ab.float(), noise).clamp(0, 100)


def damage_some(L: Tensor, ab: Tensor, noise: Tensor, probability: float) -> Tensor:
    """Damage each photograph with a probability, by one to five kinds at once.

    All non-empty combinations of film, blur, grain, fading and scratches are equally probable. Shapes are those of
    `damage`.
    """
    chosen = 1 + (noise[:, 1] * (2 ** (1 + len(_OTHERS)) - 1)).long()  # bits: film, then the others
    chosen = torch.where(noise[:, 0] < probability, chosen, 0)
    film = (uniform(noise, 0, 1)[:, 0] * len(_FILMS)).long()
    befallen = {kind: (chosen & 1 == 1) & (film == i) for i, kind in enumerate(_FILMS)}
    befallen |= {kind: (chosen >> i) & 1 == 1 for i, kind in enumerate(_OTHERS, 1)}
    for kind, rows in befallen.items():
        index = rows.nonzero()[:, 0]
        if len(index):
            L = L.index_copy(0, index, damage(L[index], ab[index], kind, noise[index]))
    return L


def index_noise(indices: np.ndarray, seed: int) -> Tensor:
    """Random numbers for photographs of a pack: float32 [n, 4], each row a pure function of (seed, index)."""
    drawn = [np.random.default_rng((seed, int(index))).random(NOISE, dtype=np.float32) for index in indices]
    return torch.from_numpy(np.stack(drawn))


def pick_damages(kinds: Iterable[str]) -> list[str]:
    """The named kinds of damage; all where none is named. Raises UserError for an unknown name."""
    named = list(dict.fromkeys(kinds))
    for kind in named:
        if kind not in DAMAGES:
            raise UserError(f"'{kind}' is no damage: it takes {', '.join(DAMAGES)}{near(kind, DAMAGES)}")
    return named or list(DAMAGES)
