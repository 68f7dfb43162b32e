"""Each metric: (predicted, true) pictures -> one value per image, and how a set of values becomes one number.

A metric that is added is a function and an entry in METRICS. Names tell the variant; where the literature
disagrees, the docstring says which one it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
import torch
from skimage.color import deltaE_ciede2000
from skimage.metrics import structural_similarity
from torch import Tensor

from common.lab import lab_to_rgb, rgb8_to_lab


class Pictures(NamedTuple):
    """A batch of pictures, true or predicted."""

    ab: Tensor  # float32 [N, 2, H, W] in CIELAB units, before rounding
    rgb: Tensor  # uint8 [N, 3, H, W]
    rarity: Tensor | None = None  # [N, H, W] of true pictures: 1 / prior of each pixel's bin


def predicted_pictures(L: Tensor, ab: Tensor) -> Pictures:
    """Pictures of predicted colour: brought into sRGB by clipping each channel, then rounded to 8 bits.

    That is scikit-image's `lab2rgb` and what the literature's tables do, so numbers compare; pictures that people
    get reduce chroma instead (`common.lab.ab_to_rgb8`).
    """
    rgb = lab_to_rgb(torch.cat([L.float(), ab.float()], dim=1))
    return Pictures(ab.float(), (rgb * 255).round().to(torch.uint8))


PerImage = Callable[[Pictures, Pictures], Tensor]  # -> [N], or [N, D] where a statistic makes one number of a set


def _error(predicted: Pictures, true: Pictures) -> Tensor:
    return predicted.ab - true.ab


def mse_ab(predicted: Pictures, true: Pictures) -> Tensor:
    """Mean squared error over pixels and both channels, Lab units squared."""
    return _error(predicted, true).square().mean(dim=(1, 2, 3))


def rmse_ab(predicted: Pictures, true: Pictures) -> Tensor:
    """Root of each image's own `mse_ab`, Lab units."""
    return mse_ab(predicted, true).sqrt()


def mae_ab(predicted: Pictures, true: Pictures) -> Tensor:
    """Mean absolute error over pixels and both channels, Lab units."""
    return _error(predicted, true).abs().mean(dim=(1, 2, 3))


def l2_ab(predicted: Pictures, true: Pictures) -> Tensor:
    """Mean over pixels of the Euclidean distance in the ab plane, Lab units."""
    return _error(predicted, true).norm(dim=1).mean(dim=(1, 2))


def auc(predicted: Pictures, true: Pictures) -> Tensor:
    """Area under the share of pixels with ab error <= t, t in 0..150, normalised (Zhang et al. 2016, 3.1).

    By exchanging the integrals this is 1 - mean(min(d, 150)) / 150, with no thresholds to choose.
    """
    return 1 - _error(predicted, true).norm(dim=1).clamp(max=150).mean(dim=(1, 2)) / 150


def rarity_auc(predicted: Pictures, true: Pictures) -> Tensor:
    """`auc` with each pixel weighted by the rarity of its true colour, before the weights are normalised.

    The set's `auc_rebalanced` is the mean of this over the mean of `rarity` (Zhang et al. 2016, 3.1, with lambda = 0):
    one normalisation over all pixels of the set, so a photograph of rare colours counts for more.
    """
    distance = _error(predicted, true).norm(dim=1).clamp(max=150)
    return ((1 - distance / 150) * true.rarity).mean(dim=(1, 2))


def rarity(picture: Pictures) -> Tensor:
    """Mean weight of each true picture's pixels."""
    return picture.rarity.mean(dim=(1, 2))


def psnr(predicted: Pictures, true: Pictures) -> Tensor:
    """Peak signal-to-noise ratio of 8-bit sRGB, dB, data range 255; infinite where the image is exact."""
    mse = (predicted.rgb.float() - true.rgb.float()).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(255**2 / mse)


def _threaded(one: Callable[[np.ndarray, np.ndarray], float], predicted: Tensor, true: Tensor) -> Tensor:
    pairs = [x.permute(0, 2, 3, 1).cpu().numpy() for x in (predicted, true)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy lets go of the interpreter
        return torch.tensor(list(pool.map(one, *pairs)), dtype=torch.float64)


def ssim(predicted: Pictures, true: Pictures) -> Tensor:
    """Structural similarity of 8-bit sRGB (Wang et al. 2004): scikit-image, Gaussian window sigma 1.5, channel mean."""

    def one(p: np.ndarray, t: np.ndarray) -> float:
        return structural_similarity(
            p,
            t,
            data_range=255,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )

    return _threaded(one, predicted.rgb, true.rgb)


def delta_e(predicted: Pictures, true: Pictures) -> Tensor:
    """CIEDE2000 of 8-bit sRGB, mean over pixels: scikit-image."""
    return _threaded(
        lambda p, t: float(deltaE_ciede2000(p, t).mean()), rgb8_to_lab(predicted.rgb), rgb8_to_lab(true.rgb)
    )


def colorfulness_of(rgb: Tensor, absolute: bool = False) -> Tensor:
    """Hasler and Suesstrunk 2003, M(3), of uint8 [N, 3, H, W] -> [N].

    sqrt(var_rg + var_yb) + 0.3 sqrt(mean_rg^2 + mean_yb^2) with rg = R - G and yb = (R + G) / 2 - B; with
    `absolute`, of |rg| and |yb|: the variant of the colorization literature's tables, which reads lower.
    """
    r, g, b = rgb.cpu().double().unbind(1)  # not every device has float64
    rg, yb = r - g, (r + g) / 2 - b
    if absolute:
        rg, yb = rg.abs(), yb.abs()
    spread = sum(x.var(dim=(1, 2), correction=0) for x in (rg, yb))
    centre = sum(x.mean(dim=(1, 2)).square() for x in (rg, yb))
    return spread.sqrt() + 0.3 * centre.sqrt()


def colorfulness(predicted: Pictures, true: Pictures) -> Tensor:
    """Colourfulness of the prediction, signed opponent channels."""
    return colorfulness_of(predicted.rgb)


def true_colorfulness(true: Pictures) -> Tensor:
    """Colourfulness of the original, signed opponent channels."""
    return colorfulness_of(true.rgb)


def colorfulness_abs(predicted: Pictures, true: Pictures) -> Tensor:
    """Colourfulness of the prediction, absolute opponent channels (as in DDColor's tables)."""
    return colorfulness_of(predicted.rgb, absolute=True)


class Metric(NamedTuple):
    """How one column of the table comes about."""

    per_image: PerImage
    better: Literal["higher", "lower", "truth"]  # truth: nearest to the row `original`
    digits: int
    variant: str  # for the protocol card
    against: Literal["", "difference", "ratio"] = ""  # of the set's mean to the mean of `reference`
    reference: Callable[[Pictures], Tensor] = true_colorfulness  # true pictures -> one value (or vector) per image
    statistic: Callable[[np.ndarray, np.ndarray], float] | None = None  # (values, references) of a set -> its number


METRICS: dict[str, Metric] = {
    "mse_ab": Metric(mse_ab, "lower", 1, "pixels and both channels, before rounding"),
    "rmse_ab": Metric(rmse_ab, "lower", 2, "root per image, then mean"),
    "l2_ab": Metric(l2_ab, "lower", 2, "Euclidean distance, mean over pixels"),
    "mae_ab": Metric(mae_ab, "lower", 2, "pixels and both channels"),
    "psnr": Metric(psnr, "higher", 2, "sRGB uint8, per image; exact images counted apart"),
    "ssim": Metric(ssim, "higher", 4, "sRGB uint8, Gaussian window sigma 1.5, population covariance"),
    "delta_e": Metric(delta_e, "lower", 2, "CIEDE2000, sRGB uint8, mean over pixels"),
    "colorfulness": Metric(colorfulness, "truth", 1, "Hasler-Suesstrunk M(3), signed"),
    "colorfulness_abs": Metric(colorfulness_abs, "truth", 1, "Hasler-Suesstrunk M(3) of absolute channels"),
    "delta_colorfulness": Metric(colorfulness, "lower", 1, "|mean predicted - mean true|, signed", "difference"),
    "colorfulness_ratio": Metric(colorfulness, "truth", 3, "mean predicted / mean true, signed", "ratio"),
    "auc": Metric(auc, "higher", 4, "ab error 0..150, exact integral, per image"),
    "auc_rebalanced": Metric(
        rarity_auc, "higher", 4, "pixels weighted by 1 / prior of the true bin, over the set", "ratio", rarity
    ),
}
