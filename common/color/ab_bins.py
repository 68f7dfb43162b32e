"""Quantization of the ab plane into square bins within the sRGB gamut."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from common.color.lab import rgb8_to_lab
from common.utils.errors import UserError

_REACH = 140.0  # the tables are exact for |a|, |b| up to this; sRGB reaches 108, and 134 if hues are rotated
_FINE = 2.5  # side of the fine cells, in ab units; each has a list of the bins that can be nearest
NEAREST = 5


def in_gamut_bins(grid: int) -> Tensor:
    """Centers of the bins that contain at least one 8-bit sRGB color.

    A bin is a square of side `grid` ab units whose center is a multiple of `grid`, so the bin of a color is its rounded
    ab. Only the six faces of the RGB cube are tested: for each color inside the cube, a face has one with the same ab.
    Q is 969, 261 and 77 for grids 5, 10 and 20, the same as from all 16.7 million colors. Zhang et al. (2016) use 313
    bins at grid 10, some of which contain no sRGB color.

    Returns float32 [Q, 2], sorted by a, then b.
    """
    line = torch.arange(256, dtype=torch.uint8)
    u, v = (x.reshape(-1) for x in torch.meshgrid(line, line, indexing="ij"))
    flat = (torch.full_like(u, edge) for edge in (0, 255))
    faces = [torch.roll(torch.stack([level, u, v]), axis, 0) for level in flat for axis in range(3)]
    ab = rgb8_to_lab(torch.cat(faces, dim=1)[:, None])[1:, 0].T
    at = (ab / grid).round().long() + (reach := round(_REACH / grid))
    found = torch.zeros(2 * reach + 1, 2 * reach + 1, dtype=torch.bool)  # many times faster than `unique`
    found[at[:, 0], at[:, 1]] = True
    return (found.nonzero() - reach).float() * grid


@lru_cache(maxsize=8)
def _tables(grid: int) -> tuple[Tensor, Tensor]:
    """Lookup tables on the CPU: (bins [Q, 2], index of each cell's bin or -1 [n, n])."""
    bins = in_gamut_bins(grid)
    reach = round(_REACH / grid)
    cells = torch.full((2 * reach + 1, 2 * reach + 1), -1)
    at = (bins / grid).round().long() + reach
    cells[at[:, 0], at[:, 1]] = torch.arange(len(bins))
    return bins, cells


@lru_cache(maxsize=8)
def _candidates(grid: int, device: torch.device) -> Tensor:
    """The bins that can be among the nearest of a color in each fine cell [m, m, C], padded with Q."""
    bins, _ = _tables(grid)
    # Let d be the fifth smallest of the bins' largest distances to a fine cell. At least five bins are within d of each
    # point in the cell. So a bin whose smallest distance to the cell is above d cannot be among the five nearest.
    count = 2 * round(_REACH / _FINE) + 1
    centers = (torch.arange(count) - count // 2) * _FINE
    within = torch.empty(count, count, len(bins), dtype=torch.bool)
    for i, a in enumerate(centers):
        away = torch.stack([(bins[:, 0] - a).abs().expand(count, -1), (bins[:, 1] - centers[:, None]).abs()])
        least = (away - _FINE / 2).clamp(min=0).square().sum(dim=0).sqrt()  # [count, Q]
        most = (away + _FINE / 2).square().sum(dim=0).sqrt()
        within[i] = least <= most.kthvalue(NEAREST).values[:, None] + 1e-3
    row, column, index = within.nonzero(as_tuple=True)
    each = within.sum(dim=-1)
    first = each.flatten().cumsum(0) - each.flatten()  # where a fine cell's entries begin
    candidates = torch.full((count, count, int(each.max())), len(bins))
    candidates[row, column, torch.arange(len(index)) - first[row * count + column]] = index
    return candidates.to(device)


class ABBins(nn.Module):
    """The in-gamut bins of one grid, and fast search for the bins nearest to a color.

    The lookup tables are non-persistent buffers: they follow the module's device and are not in its `state_dict`. The
    largest is computed when it is first used, which colorizing does not do.
    Raises UserError unless `grid` is a whole number from 2 to 50.
    """

    ab_bins: Tensor  # [Q, 2]

    def __init__(self, grid: int = 10) -> None:
        super().__init__()
        if not (isinstance(grid, int) and 2 <= grid <= 50):
            raise UserError(f"grid is {grid}: expected a whole number of ab units from 2 to 50")
        self.grid = grid
        bins, cells = _tables(grid)
        self.register_buffer("ab_bins", bins.clone(), persistent=False)
        self.register_buffer("_cells", cells, persistent=False)
        self.register_buffer("_places", torch.cat([bins, torch.full((1, 2), 1e4)]), persistent=False)

    @property
    def num_bins(self) -> int:
        """The number of bins, Q."""
        return len(self.ab_bins)

    def nearest(self, ab: Tensor) -> Tensor:
        """Index of the nearest bin: [N, 2, h, w] in CIELAB units -> int64 [N, h, w].

        For an sRGB color this is the bin that contains it.
        """
        with torch.autocast(ab.device.type, enabled=False):
            ab = ab.float()
            middle = self._cells.shape[0] // 2
            at = (ab / self.grid).round().long().add_(middle).clamp_(0, 2 * middle)
            found = self._cells[at[:, 0], at[:, 1]]
            lost = found < 0
            if lost.any():
                outside = ab.movedim(1, -1)[lost]  # [n, 2]
                found[lost] = self._closest(outside, 1)[0][:, 0]
            return found

    def k_nearest(self, ab: Tensor) -> tuple[Tensor, Tensor]:
        """The five nearest bins: [N, 2, h, w] -> (indices int64, distances float32), each [N, h, w, 5], nearest first.

        The result is exact: the tables omit only bins that cannot be among the five nearest.
        """
        with torch.autocast(ab.device.type, enabled=False):
            return self._closest(ab.float().movedim(1, -1), NEAREST)

    def _closest(self, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
        table = _candidates(self.grid, self._places.device)
        middle = table.shape[0] // 2
        at = (points / _FINE).round().long().add_(middle).clamp_(0, 2 * middle)
        candidates = table[at[..., 0], at[..., 1]]
        squares = (self._places[candidates] - points[..., None, :]).square().sum(dim=-1)
        nearest, which = squares.topk(k, dim=-1, largest=False)
        return candidates.gather(-1, which), nearest.sqrt()
