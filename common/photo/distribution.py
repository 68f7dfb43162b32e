"""What a classifier believes of each place of a photograph: how sure it is, and of which colors."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common.color.gamut import ab_to_rgb8
from common.color.lab import rgb8_to_L
from common.colorizer import Colorizer
from common.predictor import squeezed, working_lightness
from common.utils.errors import PictureError

_SHOWN = 960  # longer side of the picture in the sheet and on the page
_TOP = 12  # colors kept for each place on the page
_TEMPLATE = Path(__file__).with_name("distribution.html")


@dataclass(frozen=True)
class Distribution:
    """Probabilities float32 [h, w, Q] on a coarse raster over the whole photograph, and the bins' ab [Q, 2]."""

    probabilities: np.ndarray
    ab_bins: np.ndarray

    @property
    def entropy(self) -> np.ndarray:
        """Bits, [h, w]: 0 is certain, log2(Q) knows nothing."""
        p = self.probabilities
        return -(p * np.log2(np.maximum(p, 1e-12))).sum(axis=-1)

    def place(self, x: int, y: int, size: tuple[int, int]) -> tuple[int, int]:
        """The raster's (row, column) that a pixel of the photograph of that (height, width) lies in."""
        h, w = self.entropy.shape
        return min(y * h // size[0], h - 1), min(x * w // size[1], w - 1)


@torch.no_grad()
def distribution_of(colorizer: Colorizer, rgb: np.ndarray, size: int) -> Distribution:
    """The distribution that a colorizer predicts for a photograph, uint8 [H, W, 3], seen at `size`.

    Raises UserError where the colorizer predicts none.
    """
    seen = squeezed(working_lightness(rgb, colorizer.device), size)
    probabilities, ab_bins = colorizer.distribution(seen)
    return Distribution(probabilities[0].permute(1, 2, 0).cpu().numpy(), ab_bins.cpu().numpy())


def grey_of(rgb: np.ndarray) -> np.ndarray:
    """A photograph, uint8 [H, W, 3], without its color, at the same lightness."""
    greys = torch.arange(0, 256, dtype=torch.uint8).expand(3, 1, 256)
    levels = rgb8_to_L(greys)[0, 0].numpy()
    L = rgb8_to_L(torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1))[0].numpy()
    nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, L).astype(np.uint8)
    return np.repeat(nearest[..., None], 3, axis=2)


def bin_colors(L: float, ab_bins: np.ndarray) -> np.ndarray:
    """Colors of the bins at a lightness, brought into sRGB: uint8 [Q, 3]."""
    ab = torch.from_numpy(ab_bins).float().T[None, :, None]
    return ab_to_rgb8(torch.full_like(ab[:, :1], L), ab)[0, :, 0].T.numpy()


def typical_pixels(found: Distribution, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Four pixels (x, y) of a photograph of that (height, width): from the surest place to the least sure."""
    order = np.argsort(found.entropy, axis=None, kind="stable")
    h, w = found.entropy.shape
    picked = [np.unravel_index(order[round(share * (len(order) - 1))], (h, w)) for share in (0.02, 0.35, 0.65, 0.98)]
    return [(int((column + 0.5) * size[1] / w), int((row + 0.5) * size[0] / h)) for row, column in picked]


def check_pixels(pixels: list[tuple[int, int]], size: tuple[int, int], name: str) -> None:
    """Raise PictureError for a pixel (x, y) that a photograph of that (height, width) has not."""
    for x, y in pixels:
        if not (0 <= x < size[1] and 0 <= y < size[0]):
            raise PictureError(f"pixel {x},{y} lies outside of {name}, which is {size[1]} x {size[0]}: count from 0,0")


def draw_distribution(
    found: Distribution, grey: np.ndarray, colored: np.ndarray, pixels: list[tuple[int, int]], path: Path
) -> None:
    """Draw the colorization with numbered pixels, the entropy map, and each pixel's distribution, into a PNG.

    grey, colored: uint8 [H, W, 3]. pixels: (x, y). In a pixel's bar each color is as wide as it is probable.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    height, width = colored.shape[:2]
    picture_height = min(9.0, max(2.2, 5.2 * height / width))
    figure = plt.figure(figsize=(12, picture_height + 0.75 + 0.62 * len(pixels)), layout="constrained")
    parts = figure.add_gridspec(1 + len(pixels), 2, height_ratios=[picture_height, *[0.55] * len(pixels)])
    shown, unsure = figure.add_subplot(parts[0, 0]), figure.add_subplot(parts[0, 1])
    extent = (0, width, height, 0)
    shown.imshow(_shrunk(colored), extent=extent)
    shown.set_title("colorization", fontsize=11)
    unsure.imshow(_shrunk(grey), extent=extent)
    top = float(np.log2(found.probabilities.shape[-1]))
    heat = unsure.imshow(
        found.entropy, extent=extent, cmap="magma", vmin=0, vmax=top, alpha=0.75, interpolation="bilinear"
    )
    unsure.set_title("entropy: how unsure of the color", fontsize=11)
    figure.colorbar(heat, ax=unsure, shrink=0.8, label="bits")
    for axis in (shown, unsure):
        axis.set_axis_off()
        for number, (x, y) in enumerate(pixels, 1):
            mark = {"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": "black", "linewidth": 0.8}
            axis.text(x, y, str(number), ha="center", va="center", fontsize=9, bbox=mark)
    for number, (x, y) in enumerate(pixels, 1):
        axis = figure.add_subplot(parts[number, :])
        p = found.probabilities[found.place(x, y, (height, width))]
        colors = bin_colors(_lightness_at(grey, x, y), found.ab_bins) / 255
        left = 0.0
        for i in np.argsort(-p):
            axis.barh(0, p[i], left=left, height=1, color=colors[i])
            if p[i] > 0.045:
                ink = "black" if colors[i] @ [0.3, 0.6, 0.1] > 0.55 else "white"
                a, b = found.ab_bins[i]
                label = f"{p[i]:.0%}" + (f"\na {a:.0f}  b {b:.0f}" if p[i] > 0.075 else "")
                axis.text(left + p[i] / 2, 0, label, ha="center", va="center", fontsize=8, color=ink)
            left += p[i]
        axis.set(xlim=(0, 1), ylim=(-0.5, 0.5), yticks=[0], xticks=[])
        axis.set_yticklabels([f"{number}   pixel {x}, {y}"], fontsize=9)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_page(found: Distribution, grey: np.ndarray, colored: np.ndarray, title: str, path: Path) -> None:
    """Write one self-contained page: a click on the photograph shows the colors believed of that place."""
    h, w, _ = found.probabilities.shape
    best = np.argsort(-found.probabilities, axis=-1)[..., :_TOP]
    shares = np.take_along_axis(found.probabilities, best, axis=-1)
    data = {
        "title": title, "width": w, "height": h, "bins": found.ab_bins.tolist(),
        "best": best.reshape(h * w, -1).tolist(), "shares": np.round(shares, 4).reshape(h * w, -1).tolist(),
        "entropy": np.round(found.entropy, 3).ravel().tolist(), "most": float(np.log2(len(found.ab_bins))),
        "grey": _data_url(grey), "colored": _data_url(colored),
    }  # fmt: skip
    # "<" would end the script element wherever a file's name says so
    text = json.dumps(data).replace("<", "\\u003c")
    path.write_text(_TEMPLATE.read_text().replace("/*DATA*/", text))


def _lightness_at(grey: np.ndarray, x: int, y: int) -> float:
    return float(rgb8_to_L(torch.from_numpy(grey[y : y + 1, x : x + 1].copy()).permute(2, 0, 1)))


def _shrunk(rgb: np.ndarray) -> np.ndarray:
    image = Image.fromarray(rgb)
    image.thumbnail((_SHOWN, _SHOWN), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(image)


def _data_url(rgb: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(_shrunk(rgb)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
