"""Figure and HTML page of the color distributions that a classifier predicts for a photograph."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common.color.gamut import ab_to_rgb8
from common.color.lab import grey_from_L, rgb8_to_L
from common.colorizer import Colorizer
from common.imaging.write import encode_pages
from common.predictor import network_input, working_lightness
from common.utils.data_uri import data_uri
from common.utils.errors import PictureError, UserError

_SHOWN = 960  # longer side of the picture in the figure and on the page, in pixels
_TOP = 12  # most probable colors of each place that the page contains
_SAME_COLOR = 16.0  # distance in ab within which bins are one color
_MIN_SHARE = 0.01  # probability of a bin below which it starts no color
_TEMPLATE = Path(__file__).with_name("distribution.html")


@dataclass(frozen=True)
class Distribution:
    """Predicted distributions over ab bins, on a coarse grid that covers the photograph."""

    probabilities: np.ndarray  # float32 [h, w, num_bins]
    ab_bins: np.ndarray  # [num_bins, 2], in CIELAB units

    @property
    def entropy(self) -> np.ndarray:
        """Entropy [h, w] in bits, from 0 to log2(num_bins)."""
        p = self.probabilities
        return -(p * np.log2(np.maximum(p, 1e-12))).sum(axis=-1)

    def cell(self, x: int, y: int, size: tuple[int, int]) -> tuple[int, int]:
        """(row, column) of the grid cell that contains pixel (x, y) of a photograph of size (height, width)."""
        h, w = self.entropy.shape
        return min(y * h // size[0], h - 1), min(x * w // size[1], w - 1)


def predict_distribution(colorizer: Colorizer, rgb: np.ndarray, size: int) -> Distribution:
    """Predict the distributions of a photograph, uint8 [H, W, 3] sRGB, resized to a square of `size` pixels.

    Raises UserError if the colorizer predicts none.
    """
    if not hasattr(colorizer, "distribution"):
        raise UserError(f"{type(colorizer).__name__} predicts one color a pixel, not a distribution: use a classifier")
    return distribution_of(colorizer, working_lightness(rgb, colorizer.device), size)


@torch.no_grad()
def distribution_of(colorizer: Colorizer, working: torch.Tensor, size: int) -> Distribution:
    """Predict the distributions of a photograph, L [1, 1, h, w] in 0..100, resized to a square of `size` pixels."""
    probabilities, ab_bins = colorizer.distribution(network_input(working.to(colorizer.device), size))
    return Distribution(probabilities[0].permute(1, 2, 0).cpu().numpy(), ab_bins.cpu().numpy())


def to_grey(rgb: np.ndarray) -> np.ndarray:
    """The grey photograph with the same lightness, uint8 [H, W, 3] sRGB."""
    L = rgb8_to_L(torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1))
    return (grey_from_L(L) * 255).round().to(torch.uint8).expand(3, -1, -1).permute(1, 2, 0).numpy()


def bin_colors(L: float, ab_bins: np.ndarray) -> np.ndarray:
    """Colors of ab bins [num_bins, 2] at one lightness, mapped into the sRGB gamut: uint8 [num_bins, 3]."""
    ab = torch.from_numpy(ab_bins).float().T[None, :, None]
    return ab_to_rgb8(torch.full_like(ab[:, :1], L), ab)[0, :, 0].T.numpy()


def likely_colors(probabilities: np.ndarray, ab_bins: np.ndarray, L: float, count: int = 6) -> list[tuple[str, float]]:
    """The most probable colors of a place, as different ones: (#rrggbb at lightness L, probability) of each.

    The most probable bin and the bins close to it are one color, their mean; then the most probable of the rest.

    Args:
        probabilities: [num_bins].
        ab_bins: [num_bins, 2] in CIELAB units.
        L: lightness of the place, 0..100.
        count: of colors at most; those below 1 % are left out.
    """
    left, colors = probabilities.astype(np.float64), []
    while len(colors) < count and left.max() >= _MIN_SHARE:
        near = np.linalg.norm(ab_bins - ab_bins[left.argmax()], axis=1) < _SAME_COLOR
        mean = (left[near, None] * ab_bins[near]).sum(axis=0, keepdims=True) / left[near].sum()
        colors.append(("#" + bytes(bin_colors(L, mean)[0]).hex(), float(left[near].sum())))
        left[near] = 0
    return colors


def representative_pixels(distribution: Distribution, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Four pixels (x, y) of a photograph of size (height, width), from low to high entropy."""
    order = np.argsort(distribution.entropy, axis=None, kind="stable")
    h, w = distribution.entropy.shape
    cells = [np.unravel_index(order[round(rank * (len(order) - 1))], (h, w)) for rank in (0.02, 0.35, 0.65, 0.98)]
    return [(int((column + 0.5) * size[1] / w), int((row + 0.5) * size[0] / h)) for row, column in cells]


def check_pixels(pixels: list[tuple[int, int]], size: tuple[int, int], name: str) -> None:
    """Raise PictureError if a pixel (x, y) is outside a photograph of size (height, width). name: of its file."""
    for x, y in pixels:
        if not (0 <= x < size[1] and 0 <= y < size[0]):
            raise PictureError(f"pixel {x},{y} lies outside of {name}, which is {size[1]} x {size[0]}: count from 0,0")


def draw_distribution(
    distribution: Distribution, grey: np.ndarray, colored: np.ndarray, pixels: list[tuple[int, int]], path: Path
) -> None:
    """Draw the colorization with numbered pixels, the entropy map and the distribution at each pixel, as a PNG.

    grey, colored: the photograph without color and its colorization, uint8 [H, W, 3]. pixels: (x, y) of each. In the
    bar of a pixel, the width of a color is its probability. Raises OSError if the file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    height, width = colored.shape[:2]
    picture_height = min(9.0, max(2.2, 5.2 * height / width))
    figure = plt.figure(figsize=(12, picture_height + 0.75 + 0.62 * len(pixels)), layout="constrained")
    parts = figure.add_gridspec(1 + len(pixels), 2, height_ratios=[picture_height, *[0.55] * len(pixels)])
    left_axes, right_axes = figure.add_subplot(parts[0, 0]), figure.add_subplot(parts[0, 1])
    extent = (0, width, height, 0)
    left_axes.imshow(_downscale(colored), extent=extent)
    left_axes.set_title("colorization", fontsize=11)
    right_axes.imshow(_downscale(grey), extent=extent)
    top = float(np.log2(distribution.probabilities.shape[-1]))
    heat = right_axes.imshow(
        distribution.entropy, extent=extent, cmap="magma", vmin=0, vmax=top, alpha=0.75, interpolation="bilinear"
    )
    right_axes.set_title("entropy of the predicted distribution", fontsize=11)
    figure.colorbar(heat, ax=right_axes, shrink=0.8, label="bits")
    for axis in (left_axes, right_axes):
        axis.set_axis_off()
        for number, (x, y) in enumerate(pixels, 1):
            mark = {"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": "black", "linewidth": 0.8}
            axis.text(x, y, str(number), ha="center", va="center", fontsize=9, bbox=mark)
    for number, (x, y) in enumerate(pixels, 1):
        axis = figure.add_subplot(parts[number, :])
        p = distribution.probabilities[distribution.cell(x, y, (height, width))]
        colors = bin_colors(_lightness_at(grey, x, y), distribution.ab_bins) / 255
        left = 0.0
        for i in np.argsort(-p):
            axis.barh(0, p[i], left=left, height=1, color=colors[i])
            if p[i] > 0.045:
                ink = "black" if colors[i] @ [0.3, 0.6, 0.1] > 0.55 else "white"
                a, b = distribution.ab_bins[i]
                label = f"{p[i]:.0%}" + (f"\na {a:.0f}  b {b:.0f}" if p[i] > 0.075 else "")
                axis.text(left + p[i] / 2, 0, label, ha="center", va="center", fontsize=8, color=ink)
            left += p[i]
        axis.set(xlim=(0, 1), ylim=(-0.5, 0.5), yticks=[0], xticks=[])
        axis.set_yticklabels([f"{number}   pixel {x}, {y}"], fontsize=9)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_distribution_page(
    distribution: Distribution, grey: np.ndarray, colored: np.ndarray, title: str, path: Path
) -> None:
    """Write a self-contained HTML page that shows the predicted colors of any place that is clicked.

    grey, colored: the photograph without color and its colorization, uint8 [H, W, 3]. Raises OSError if the file
    cannot be written.
    """
    h, w, num_bins = distribution.probabilities.shape
    top = np.argsort(-distribution.probabilities, axis=-1)[..., :_TOP]
    probabilities = np.take_along_axis(distribution.probabilities, top, axis=-1)
    data = {
        "title": title, "width": w, "height": h, "bins": distribution.ab_bins.tolist(),
        "top": top.reshape(h * w, -1).tolist(), "probabilities": np.round(probabilities, 4).reshape(h * w, -1).tolist(),
        "entropy": np.round(distribution.entropy, 3).ravel().tolist(), "max_entropy": float(np.log2(num_bins)),
        "grey": _png_uri(grey), "colored": _png_uri(colored),
    }  # fmt: skip
    # a "<" in a file's name could end the script element
    text = json.dumps(data).replace("<", "\\u003c")
    path.write_text(_TEMPLATE.read_text().replace("/*DATA*/", text))


def _lightness_at(grey: np.ndarray, x: int, y: int) -> float:
    return float(rgb8_to_L(torch.from_numpy(grey[y : y + 1, x : x + 1].copy()).permute(2, 0, 1)))


def _downscale(rgb: np.ndarray) -> np.ndarray:
    image = Image.fromarray(rgb)
    image.thumbnail((_SHOWN, _SHOWN), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(image)


def _png_uri(rgb: np.ndarray) -> str:
    return data_uri(encode_pages([(_downscale(rgb), None)], "PNG"), "image/png")
