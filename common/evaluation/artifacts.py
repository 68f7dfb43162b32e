"""What goes wrong in pictures and no error of color shows: colors sRGB does not have, bleeding borders, blotches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from common.color.gamut import displayable
from common.color.lab import rgb8_to_L

if TYPE_CHECKING:
    from common.evaluation.metrics import Pictures

_REACH = 4  # pixels to either side of a border over which a color step is looked at
_L_EDGE, _AB_EDGE = 10.0, 10.0  # Lab units: a border has at least that step
_LEAST_STEP, _LEAST_BORDERS = 0.5, 8  # under these, a picture says nothing about bleeding
_CELLS, _WINDOW = 32, 7  # blotches: cells along a side, and cells along a window's side
_L_SMOOTH, _AB_SMOOTH = 8.0, 8.0  # Lab units: the most that a smooth place varies by


def _lightness(picture: Pictures) -> Tensor:
    return rgb8_to_L(picture.rgb) if picture.L is None else picture.L


def gamut_share(predicted: Pictures, true: Pictures) -> Tensor:
    """Share of pixels whose predicted ab, at their L, is no color of sRGB: what has to be brought into gamut.

    A margin of under half an 8-bit step is left. 0 for originals and for grey.
    """
    lab = torch.cat([_lightness(true), predicted.ab], dim=1)
    return 1 - displayable(lab).float().mean(dim=(1, 2))


def bleeding(predicted: Pictures, true: Pictures) -> Tensor:
    """How much of the sharpness of color steps at object borders is lost, as a share: 0 none, towards 1 all.

    Color should change where lightness does (the premise of Levin, Lischinski and Weiss 2004); where it runs over a
    border it bleeds (Huang et al. 2005). A border is a place between two pixels of a row or column where the original's
    L steps by 10 or more over three pixels, most steeply there, and its ab by 10 or more over nine. Of a picture's ab
    step over nine pixels, in its own direction, the part within the three middle ones is summed over all borders and
    divided by the sum of the steps: its sharpness, 1/3 for a ramp, 1 for a jump. The value is 1 - the prediction's
    sharpness / the original's, and 0 where the prediction is the sharper.

    Paler or wrong colors with sharp borders do not bleed, and a step that is not painted at all does not count: that
    is for `colorfulness` and the ab errors to see. NaN where the original has fewer than 8 borders (a grey photograph
    has none) or its own steps there are no sharper than a ramp, and where the prediction's steps are below 0.5 on
    average (one color everywhere). Distances are pixels of the measured size.
    """
    count = len(true.ab)
    sums = torch.zeros(5, count, device=true.ab.device)  # ours within, ours, theirs within, theirs, borders
    for axis in (-1, -2):
        L, ours, theirs = (x.movedim(axis, -1) for x in (_lightness(true), predicted.ab, true.ab))
        picture, row, left = _steepest(L[:, 0])  # few places, so the rest is done on them alone
        steps = [_steps(ab, picture, row, left) for ab in (ours, theirs)]
        border = steps[1][1].norm(dim=1) >= _AB_EDGE
        picture = picture[border]
        for i, (near, far) in enumerate(steps):
            near, far = near[border], far[border]
            length = far.norm(dim=1)
            sums[2 * i].index_add_(0, picture, (far * near).sum(dim=1) / length.clamp(min=1e-6))
            sums[2 * i + 1].index_add_(0, picture, length)
        sums[4].index_add_(0, picture, torch.ones_like(picture, dtype=sums.dtype))
    ours, our_steps, theirs, their_steps, borders = sums
    sharp, truly_sharp = ours / our_steps.clamp(min=1e-6), theirs / their_steps.clamp(min=1e-6)
    told = (borders >= _LEAST_BORDERS) & (our_steps >= _LEAST_STEP * borders) & (truly_sharp >= 1 / 3)
    return torch.where(told, (1 - sharp / truly_sharp.clamp(min=1 / 3)).clamp(0, 1), torch.nan)


def _steepest(L: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where L [N, H, W] steps along its last axis, far enough from the ends: (picture, row, pixel left of the step)."""
    places = L.shape[-1] - 1 - 2 * _REACH
    if places < 1:
        return tuple(torch.zeros(3, 0, dtype=torch.long, device=L.device))
    slope = (L[..., 1:] - L[..., :-1]).abs()
    before, here, after = (slope.narrow(-1, _REACH + k, places) for k in (-1, 0, 1))
    step = (L.narrow(-1, _REACH + 2, places) - L.narrow(-1, _REACH - 1, places)).abs()
    picture, row, left = ((here >= before) & (here > after) & (step >= _L_EDGE)).nonzero(as_tuple=True)
    return picture, row, left + _REACH


def _steps(ab: Tensor, picture: Tensor, row: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """Steps of ab [N, 2, H, W] from left of some places to right of them: over three pixels and nine, each [n, 2]."""
    at = [ab[picture, :, row, left + k] for k in (2, -1, 1 + _REACH, -_REACH)]
    return at[0] - at[1], at[2] - at[3]


def blotch(predicted: Pictures, true: Pictures) -> Tensor:
    """Spread of color within smooth places that the original does not have there, Lab units: patches, stains.

    Pictures are averaged to 32x32 cells (fewer where they have fewer pixels), so pixel noise does not count. A cell is
    smooth where the original's L, a and b each vary by no more than 8 over it and its eight neighbours. For each smooth
    cell the variance of ab over the smooth cells of a 7x7 window, about a fifth of the picture, is taken of prediction
    and original; the value is the root of the mean of what the prediction's is larger by. 0 for originals and for one
    color everywhere. A grey photograph counts like any other: all color variation in its smooth places is too much.
    Color steps between smooth places that are stronger than the original's count, too.
    NaN where nothing is smooth.
    """
    cells = [min(_CELLS, side) for side in true.ab.shape[-2:]]
    L, ours, theirs = (
        F.adaptive_avg_pool2d(x, cells).cpu().double() for x in (_lightness(true), predicted.ab, true.ab)
    )
    smooth = ((_range(L) <= _L_SMOOTH) & (_range(theirs) <= _AB_SMOOTH).all(dim=1, keepdim=True)).double()
    count = smooth.sum(dim=(1, 2, 3))
    excess = (_spread(ours, smooth) - _spread(theirs, smooth)).clamp(min=0) * smooth
    value = (excess.sum(dim=(1, 2, 3)) / count.clamp(min=1)).sqrt()
    return torch.where(count > 0, value, torch.nan)


def _range(x: Tensor) -> Tensor:
    """Largest minus smallest of each cell and its neighbours."""
    return F.max_pool2d(x, 3, 1, 1) + F.max_pool2d(-x, 3, 1, 1)


def _spread(ab: Tensor, smooth: Tensor) -> Tensor:
    """Variance of ab [N, 2, h, w] over the smooth cells of each window: [N, 1, h, w], 0 where there are none."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x * smooth, _WINDOW, 1, _WINDOW // 2) / share.clamp(min=1e-9)

    share = F.avg_pool2d(smooth, _WINDOW, 1, _WINDOW // 2)
    return (mean(ab.square()) - mean(ab).square()).clamp(min=0).sum(dim=1, keepdim=True)
