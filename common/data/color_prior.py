"""The color prior: the smoothed distribution of the pixels of photographs over ab bins."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.color.ab_bins import ABBins
from common.data.packing import Pack
from common.utils.errors import UserError, one_sentence
from common.utils.files import write_atomically

SIGMA = 5.0
_FORMAT = "colorization-lab prior 1"


@dataclass(frozen=True)
class Prior:
    """Probabilities of the bins of `ABBins(grid)`. Bins that do not occur in the photographs have probability 0."""

    grid: int
    p: Tensor  # float64 [Q], sums to 1
    sigma: float  # of the Gaussian smoothing, in ab units
    source: str  # the photographs, as `--data` names them
    photographs: int  # their number

    def describe(self) -> str:
        """Source, grid and smoothing in one line, for model cards."""
        return f"{self.photographs} photographs of {self.source}, grid {self.grid}, smoothed by {self.sigma:g}"

    def save(self, path: Path) -> None:
        """Write the prior as JSON. Raises UserError if that fails."""
        values = {"format": _FORMAT, "grid": self.grid, "sigma": self.sigma, "source": self.source,
                  "photographs": self.photographs, "p": self.p.tolist()}  # fmt: skip
        write_atomically(path, lambda p: p.write_text(json.dumps(values, indent=1)))


def compute_prior(
    pack: Pack, grid: int = 10, sigma: float = SIGMA, indices: np.ndarray | None = None, batch_size: int = 64
) -> Prior:
    """Compute the prior of photographs: the smoothed histogram of their pixels over bins (Zhang et al. 2016, 2.2).

    Each photograph counts once, whatever the share of its source.

    Args:
        pack: the photographs.
        grid: side of the bins, in ab units.
        sigma: of the Gaussian smoothing, in ab units.
        indices: which photographs of the pack are used (default: `pack.color_indices`).
        batch_size: photographs in memory at once.

    Raises:
        UserError: there are no color photographs.
    """
    indices = pack.color_indices if indices is None else indices
    source = pack.manifest["source"]
    if not len(indices):
        raise UserError(f"all photographs of {source} are grey: a prior needs color")
    bins = ABBins(grid)
    counts = torch.zeros(bins.num_bins, dtype=torch.int64)
    for start in range(0, len(indices), batch_size):
        _, ab = pack.lab(indices[start : start + batch_size])
        counts += torch.bincount(bins.nearest(ab).flatten(), minlength=bins.num_bins)
    return Prior(grid, smoothed(counts, bins.ab_bins, sigma), sigma, source, len(indices))


def smoothed(counts: Tensor, ab_bins: Tensor, sigma: float) -> Tensor:
    """Smooth counts [Q] of bins [Q, 2] by a Gaussian in the ab plane and normalize them: float64 [Q].

    The Gaussian is normalized within the gamut. Bins with count 0 stay at 0; otherwise the tails of the Gaussian would
    give them tiny probabilities, and so the largest class weights. sigma: in ab units; 0 turns smoothing off.
    """
    share = counts.double()
    if sigma > 0:
        kernel = torch.exp(-torch.cdist(ab_bins.double(), ab_bins.double()).square() / (2 * sigma**2))
        share = (kernel / kernel.sum(dim=1, keepdim=True)).T @ share
    share = torch.where(counts > 0, share, 0.0)
    return share / share.sum()


def read_prior(path: str | Path) -> Prior:
    """Read a file that `Prior.save` wrote. Raises UserError for other files and for invalid probabilities."""
    path = Path(path)
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"prior {path} cannot be read ({one_sentence(error)}): check the path") from None
    except ValueError:
        values = None
    if not isinstance(values, dict) or values.get("format") != _FORMAT:
        raise UserError(f"{path} is not a prior: run python -m scripts.compute_prior --data SOURCE --out FILE")
    try:
        p = torch.tensor(values["p"], dtype=torch.float64)
        prior = Prior(values["grid"], p, values["sigma"], values["source"], values["photographs"])
        expected = ABBins(prior.grid).num_bins
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"prior {path} is damaged ({one_sentence(error)}): compute it again") from None
    bad = "NaN or infinity" if not p.isfinite().all() else "a negative value" if (p < 0).any() else ""
    if bad:
        raise UserError(f"prior {path} holds {bad}: compute it again")
    if p.shape != (expected,) or abs(float(p.sum()) - 1) > 1e-6:
        raise UserError(
            f"prior {path} holds {p.numel()} values of sum {float(p.sum()):.6g}: grid {prior.grid} has {expected} bins,"
            " and probabilities sum to 1; compute it again"
        )
    return prior


def ab_planes(panels: dict[str, Tensor], grid: int, label: str) -> np.ndarray:
    """Plot values of bins in the ab plane, in panels side by side with one logarithmic color scale.

    panels: title -> non-negative values [Q]; bins with value 0 are not colored. label: label of the color bar.
    Returns the plot, uint8 [H, W, 3].
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.colors import LogNorm

    bins = (ABBins(grid).ab_bins / grid).round().long()
    reach = int(bins.abs().max()) + 1
    size = (3.9 * len(panels) + 1.2, 4.6)
    figure, axes = plt.subplots(1, len(panels), figsize=size, layout="compressed", squeeze=False, sharey=True)
    seen = torch.cat([values[values > 0] for values in panels.values()])
    norm = LogNorm(max(float(seen.min()), float(seen.max()) * 1e-6), float(seen.max()))
    edge = (reach + 0.5) * grid
    for axis, (title, values) in zip(axes[0], panels.items(), strict=True):
        plane = np.full((2 * reach + 1, 2 * reach + 1), np.nan)
        plane[bins[:, 1] + reach, bins[:, 0] + reach] = np.where(values > 0, values, np.nan)
        gamut = np.full_like(plane, np.nan)
        gamut[bins[:, 1] + reach, bins[:, 0] + reach] = 0.08
        extent = (-edge, edge, -edge, edge)
        axis.imshow(gamut, extent=extent, origin="lower", cmap="Greys", vmin=0, vmax=1)
        shown = axis.imshow(plane, extent=extent, origin="lower", cmap="viridis", norm=norm)
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("a (green to red)", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("b (blue to yellow)", fontsize=9)
    figure.colorbar(shown, ax=axes[0], label=label, shrink=0.85)
    figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    return picture
