"""Artifacts that color errors do not measure: colors outside of sRGB, color bleeding, and blotches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from common.color.gamut import displayable
from common.evaluation.pictures import Pictures

_REACH = 4  # a color step is measured over this many pixels on each side of a border
_L_EDGE, _AB_EDGE = 10.0, 10.0  # Lab units: smallest step at a border
_LEAST_STEP, _LEAST_BORDERS = 0.5, 8  # bleeding is not measured below these
_CELLS, _WINDOW = 32, 7  # blotches: cells along a side of the picture and of a window
_L_SMOOTH, _AB_SMOOTH = 8.0, 8.0  # Lab units: largest range within a smooth cell and its neighbors


def gamut_share(predicted: Pictures, true: Pictures) -> Tensor:
    """Share of pixels whose predicted ab, at their L, is outside of the sRGB gamut: [N].

    Before gamut mapping, with a tolerance of less than half an 8-bit step. It is 0 for originals and for grey.
    """
    lab = torch.cat([true.lightness, predicted.ab if predicted.unmapped_ab is None else predicted.unmapped_ab], dim=1)
    return 1 - displayable(lab).float().mean(dim=(1, 2))


def bleeding(predicted: Pictures, true: Pictures) -> Tensor:
    """Relative loss of sharpness of the color steps at object borders: [N], from 0 (no bleeding) towards 1.

    Color should change where lightness changes (Levin, Lischinski and Weiss 2004); color that crosses a border bleeds
    (Huang et al. 2005). A border is a position between two pixels of a row or column where the original's L changes by
    10 or more over three pixels, with a local maximum of the slope, and its ab by 10 or more over nine pixels. The
    sharpness of a picture is the sum over all borders of the ab step over the middle three pixels, projected onto the
    direction of the step over nine pixels, divided by the sum of the steps over nine pixels: 1/3 for a ramp, 1 for a
    jump. The value is 1 - (sharpness of the prediction) / (sharpness of the original), and at least 0.

    Pale or wrong colors with sharp borders do not bleed, and a missing color step does not count; `colorfulness` and
    the ab errors measure these. NaN if the original has fewer than 8 borders (a grey photograph has none) or is not
    sharper than a ramp, or if the prediction's steps are below 0.5 on average (one color everywhere). Distances are in
    pixels of the measured size.
    """
    count = len(true.ab)
    sums = torch.zeros(
        5, count, device=true.ab.device
    )  # predicted middle and whole steps, true middle and whole steps, borders
    for axis in (-1, -2):
        L, predicted_ab, true_ab = (x.movedim(axis, -1) for x in (true.lightness, predicted.ab, true.ab))
        picture, row, left = _steepest(L[:, 0])  # few positions, so the rest is computed for these alone
        steps = [_steps(ab, picture, row, left) for ab in (predicted_ab, true_ab)]
        border = steps[1][1].norm(dim=1) >= _AB_EDGE
        picture = picture[border]
        for i, (near, far) in enumerate(steps):
            near, far = near[border], far[border]
            length = far.norm(dim=1)
            sums[2 * i].index_add_(0, picture, (far * near).sum(dim=1) / length.clamp(min=1e-6))
            sums[2 * i + 1].index_add_(0, picture, length)
        sums[4].index_add_(0, picture, torch.ones_like(picture, dtype=sums.dtype))
    predicted_middle, predicted_steps, true_middle, true_steps, borders = sums
    sharpness = predicted_middle / predicted_steps.clamp(min=1e-6)
    true_sharpness = true_middle / true_steps.clamp(min=1e-6)
    measurable = (borders >= _LEAST_BORDERS) & (predicted_steps >= _LEAST_STEP * borders) & (true_sharpness >= 1 / 3)
    return torch.where(measurable, (1 - sharpness / true_sharpness.clamp(min=1 / 3)).clamp(0, 1), torch.nan)


def _steepest(L: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Steps of L [N, H, W] along its last axis, not at its ends: (picture, row, pixel left of the step), [n] each."""
    places = L.shape[-1] - 1 - 2 * _REACH
    if places < 1:
        return tuple(torch.zeros(3, 0, dtype=torch.long, device=L.device))
    slope = (L[..., 1:] - L[..., :-1]).abs()
    before, here, after = (slope.narrow(-1, _REACH + k, places) for k in (-1, 0, 1))
    step = (L.narrow(-1, _REACH + 2, places) - L.narrow(-1, _REACH - 1, places)).abs()
    picture, row, left = ((here >= before) & (here > after) & (step >= _L_EDGE)).nonzero(as_tuple=True)
    return picture, row, left + _REACH


def _steps(ab: Tensor, picture: Tensor, row: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """Steps of ab [N, 2, H, W] from left to right of these positions, over three and over nine pixels: [n, 2] each."""
    at = [ab[picture, :, row, left + k] for k in (2, -1, 1 + _REACH, -_REACH)]
    return at[0] - at[1], at[2] - at[3]


def blotch(predicted: Pictures, true: Pictures) -> Tensor:
    """Variation of color in smooth regions beyond that of the original, such as patches and stains, in Lab units: [N].

    Pictures are averaged to 32x32 cells (fewer for smaller pictures), so that pixel noise does not count. A cell is
    smooth if the original's L, a and b each vary by at most 8 over it and its eight neighbors. For each smooth cell,
    the variance of ab over the smooth cells of a 7x7 window, about a fifth of the picture, is computed for prediction
    and original. The value is the root of the mean excess of the prediction's variance, 0 where it is smaller. It is 0
    for originals and for one color everywhere. In a grey photograph all color variation of smooth regions counts, and
    so do color steps between smooth regions that are larger than the original's. NaN if no cell is smooth.
    """
    cells = [min(_CELLS, side) for side in true.ab.shape[-2:]]
    L, predicted_ab, true_ab = (
        F.adaptive_avg_pool2d(x, cells).cpu().double() for x in (true.lightness, predicted.ab, true.ab)
    )
    smooth = ((_range(L) <= _L_SMOOTH) & (_range(true_ab) <= _AB_SMOOTH).all(dim=1, keepdim=True)).double()
    count = smooth.sum(dim=(1, 2, 3))
    excess = (_variance(predicted_ab, smooth) - _variance(true_ab, smooth)).clamp(min=0) * smooth
    value = (excess.sum(dim=(1, 2, 3)) / count.clamp(min=1)).sqrt()
    return torch.where(count > 0, value, torch.nan)


def _range(x: Tensor) -> Tensor:
    """Largest minus smallest value over each cell and its neighbors: [N, C, h, w] -> the same shape."""
    return F.max_pool2d(x, 3, 1, 1) + F.max_pool2d(-x, 3, 1, 1)


def _variance(ab: Tensor, smooth: Tensor) -> Tensor:
    """Variance of ab [N, 2, h, w] over the smooth cells of each window: [N, 1, h, w]; 0 if there are none."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x * smooth, _WINDOW, 1, _WINDOW // 2) / share.clamp(min=1e-9)

    share = F.avg_pool2d(smooth, _WINDOW, 1, _WINDOW // 2)
    return (mean(ab.square()) - mean(ab).square()).clamp(min=0).sum(dim=1, keepdim=True)
