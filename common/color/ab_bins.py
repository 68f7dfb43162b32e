"""Quantization of the ab plane: square bins within the sRGB gamut, and the bins nearest to a color."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from common.color.lab import rgb8_to_lab
from common.utils.errors import UserError

_REACH = 140.0  # the tables are exact for |a|, |b| up to this; sRGB reaches 108, turned by augmentation 134
_FINE = 2.5  # side of the fine cells that candidates are listed for, ab units
NEAREST = 5


def in_gamut_bins(grid: int) -> Tensor:
    """Centres of the cells of side `grid` that some 8-bit sRGB color falls into: float32 [Q, 2], by a, then b.

    A cell's centre is a multiple of `grid`, so a color's cell is its ab rounded. Colors of the cube's six faces
    are enough: whatever ab a color inside has, one of the same ab lies on a face, straight above or below it in L.
    Q is 969, 261 and 77 for grids 5, 10 and 20 (the whole cube of 16.7 million colors gives the same). The list of
    313 in Zhang et al. (2016) counts some cells that sRGB does not reach.
    """
    line = torch.arange(256, dtype=torch.uint8)
    u, v = (x.reshape(-1) for x in torch.meshgrid(line, line, indexing="ij"))
    flat = (torch.full_like(u, edge) for edge in (0, 255))
    faces = [torch.roll(torch.stack([level, u, v]), axis, 0) for level in flat for axis in range(3)]
    ab = rgb8_to_lab(torch.cat(faces, dim=1)[:, None])[1:, 0].T
    return (ab / grid).round().unique(dim=0).add(0.0) * grid  # adding 0 makes -0 a 0


@lru_cache(maxsize=8)
def _tables(grid: int) -> tuple[Tensor, Tensor, Tensor]:
    """(bins [Q, 2], cell -> its bin or -1 [n, n], fine cell -> candidates [m, m, C] padded with Q), on the CPU."""
    bins = in_gamut_bins(grid)
    reach = round(_REACH / grid)
    cells = torch.full((2 * reach + 1, 2 * reach + 1), -1)
    at = (bins / grid).round().long() + reach
    cells[at[:, 0], at[:, 1]] = torch.arange(len(bins))

    # A bin can be among the nearest of some point of a fine cell only if its least distance to that cell is no more
    # than the fifth smallest of all bins' largest distances to it.
    count = 2 * round(_REACH / _FINE) + 1
    centres = (torch.arange(count) - count // 2) * _FINE
    within = torch.empty(count, count, len(bins), dtype=torch.bool)
    for i, a in enumerate(centres):
        away = torch.stack([(bins[:, 0] - a).abs().expand(count, -1), (bins[:, 1] - centres[:, None]).abs()])
        least = (away - _FINE / 2).clamp(min=0).square().sum(dim=0).sqrt()  # [count, Q]
        most = (away + _FINE / 2).square().sum(dim=0).sqrt()
        within[i] = least <= most.kthvalue(NEAREST).values[:, None] + 1e-3
    row, column, index = within.nonzero(as_tuple=True)
    each = within.sum(dim=-1)
    first = each.flatten().cumsum(0) - each.flatten()  # where a fine cell's entries begin
    candidates = torch.full((count, count, int(each.max())), len(bins))
    candidates[row, column, torch.arange(len(index)) - first[row * count + column]] = index
    return bins, cells, candidates


class ABBins(nn.Module):
    """The in-gamut bins of one grid and what is nearest to a color, by tables that move with the module.

    Its buffers are derived from sRGB and not saved. Raises UserError for a grid that is no whole number of 2 to 50.
    """

    ab_bins: Tensor  # [Q, 2]

    def __init__(self, grid: int = 10) -> None:
        super().__init__()
        if not (isinstance(grid, int) and 2 <= grid <= 50):
            raise UserError(f"grid is {grid}: it takes a whole number of ab units from 2 to 50")
        self.grid = grid
        bins, cells, candidates = _tables(grid)
        self.register_buffer("ab_bins", bins.clone(), persistent=False)
        self.register_buffer("_cells", cells, persistent=False)
        self.register_buffer("_candidates", candidates, persistent=False)
        self.register_buffer("_places", torch.cat([bins, torch.full((1, 2), 1e4)]), persistent=False)

    @property
    def num_bins(self) -> int:
        """Q."""
        return len(self.ab_bins)

    def nearest(self, ab: Tensor) -> Tensor:
        """Index of the nearest bin: [N, 2, h, w] in CIELAB units -> int64 [N, h, w].

        For a color of sRGB that is the cell it lies in; one outside goes to the nearest bin there is.
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

        Exact: the tables only leave out bins that cannot be among them.
        """
        with torch.autocast(ab.device.type, enabled=False):
            return self._closest(ab.float().movedim(1, -1), NEAREST)

    def _closest(self, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
        middle = self._candidates.shape[0] // 2
        at = (points / _FINE).round().long().add_(middle).clamp_(0, 2 * middle)
        candidates = self._candidates[at[..., 0], at[..., 1]]
        squares = (self._places[candidates] - points[..., None, :]).square().sum(dim=-1)
        nearest, which = squares.topk(k, dim=-1, largest=False)
        return candidates.gather(-1, which), nearest.sqrt()
