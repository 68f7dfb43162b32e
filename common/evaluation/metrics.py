"""Each metric: (predicted, true) pictures -> one value per image, and how a set of values becomes one number.

A metric that is added is a function and an entry in METRICS. Names tell the variant; where the literature
disagrees, the docstring says which one it is. Metrics with more to them have files of their own: `artefacts`
(gamut, bleeding, blotches), `frechet` (distances between sets), `lpips_metric` and `features` (published networks).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.color.ciede2000 import ciede2000
from common.color.lab import lab_to_rgb, rgb8_to_lab
from common.evaluation.artifacts import bleeding, blotch, gamut_share
from common.evaluation.feature_networks import DEFAULT_FEATURES, features_missing, features_variant, network_features
from common.evaluation.frechet import (
    color_embedding,
    frechet_disjoint,
    frechet_disjoint_influence,
    frechet_distance,
    frechet_influence,
    true_color_embedding,
)
from common.evaluation.lpips import lpips, lpips_missing
from common.utils.errors import UserError, near


class Pictures(NamedTuple):
    """A batch of pictures, true or predicted."""

    ab: Tensor  # float32 [N, 2, H, W] in CIELAB units, before rounding
    rgb: Tensor  # uint8 [N, 3, H, W]
    rarity: Tensor | None = None  # [N, H, W] of true pictures: 1 / prior of each pixel's bin
    L: Tensor | None = None  # float32 [N, 1, H, W], 0..100: of the photograph, the same for both


def predicted_pictures(L: Tensor, ab: Tensor) -> Pictures:
    """Pictures of predicted color: brought into sRGB by clipping each channel, then rounded to 8 bits.

    That is scikit-image's `lab2rgb` and what the literature's tables do, so numbers compare; pictures that people
    get reduce chroma instead (`common.color.gamut.ab_to_rgb8`).
    """
    rgb = lab_to_rgb(torch.cat([L.float(), ab.float()], dim=1))
    return Pictures(ab.float(), (rgb * 255).round().to(torch.uint8), L=L.float())


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
    """`auc` with each pixel weighted by the rarity of its true color, before the weights are normalised.

    The set's `auc_rebalanced` is the mean of this over the mean of `rarity` (Zhang et al. 2016, 3.1, with lambda = 0):
    one normalisation over all pixels of the set, so a photograph of rare colors counts for more.
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


def ssim(predicted: Pictures, true: Pictures) -> Tensor:
    """Structural similarity of 8-bit sRGB (Wang et al. 2004): Gaussian window sigma 1.5, population covariance.

    Mean over channels, and over the places where the window of 11 pixels lies within the picture. In float64 it is
    `skimage.metrics.structural_similarity` with `gaussian_weights=True, use_sample_covariance=False` to 1e-12, in half
    the time. NaN for pictures that are smaller than the window.
    """
    if min(true.rgb.shape[-2:]) < len(_SSIM_TAPS):
        return torch.full((len(true.rgb),), torch.nan)
    # picture by picture, which stays in the processor's cache
    return torch.stack(
        [_ssim(p, t) for p, t in zip(predicted.rgb.cpu().double(), true.rgb.cpu().double(), strict=True)]
    )


_SSIM_TAPS = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
_SSIM_TAPS /= _SSIM_TAPS.sum()


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    means = torch.stack([x, y, x * x + y * y, x * y])
    for axis in (-1, -2):  # the window is separable, and symmetric
        count = means.shape[axis] - 10
        total = means.narrow(axis, 5, count) * _SSIM_TAPS[5]
        for k in range(1, 6):
            total.add_(means.narrow(axis, 5 - k, count) + means.narrow(axis, 5 + k, count), alpha=_SSIM_TAPS[5 + k])
        means = total
    mx, my, squares, product = means
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    centre, power = mx * my, mx * mx + my * my
    return (((2 * centre + c1) * (2 * (product - centre) + c2)) / ((power + c1) * (squares - power + c2))).mean()


def delta_e(predicted: Pictures, true: Pictures) -> Tensor:
    """CIEDE2000 of 8-bit sRGB, mean over pixels."""
    true_lab = rgb8_to_lab(true.rgb) if true.L is None else torch.cat([true.L, true.ab], dim=1)
    return ciede2000(rgb8_to_lab(predicted.rgb), true_lab)


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
    """Colorfulness of the prediction, signed opponent channels."""
    return colorfulness_of(predicted.rgb)


def true_colorfulness(true: Pictures) -> Tensor:
    """Colorfulness of the original, signed opponent channels."""
    return colorfulness_of(true.rgb)


def colorfulness_abs(predicted: Pictures, true: Pictures) -> Tensor:
    """Colorfulness of the prediction, absolute opponent channels (as in DDColor's tables)."""
    return colorfulness_of(predicted.rgb, absolute=True)


def by_study(predicted: Pictures, true: Pictures) -> Tensor:
    """In place of a metric that no batch can tell: see `common.evaluation.learned.studies`."""
    return torch.full((len(true.ab),), torch.nan)


def _no_batch_tells() -> str:
    return "it trains a network on many photographs, which scripts.evaluate and scripts.compare do"


class Metric(NamedTuple):
    """How one column of the table comes about.

    A set's number is the mean of its images' values, `against` that of their references, or what `statistic` makes of
    vectors; `influence` then says how each image moves it, for the interval. `per_image` gives NaN where a metric says
    nothing about an image.
    """

    per_image: PerImage
    better: Literal["higher", "lower", "truth"]  # truth: nearest to the row `original`
    digits: int
    variant: str  # for the protocol card
    against: Literal["", "difference", "ratio"] = ""  # of the set's mean to the mean of `reference`
    reference: Callable[[Pictures], Tensor] = true_colorfulness  # true pictures -> one value (or vector) per image
    statistic: Callable[[np.ndarray, np.ndarray], float] | None = None  # (values, references) of a set -> its number
    influence: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None  # of each image on it: [n], of mean 0
    default: bool = True  # measured where no metrics are named: cheap, and in need of nothing
    missing: Callable[[], str] | None = None  # what it lacks on this machine and how to get that, "" where nothing


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
    "gamut_share": Metric(gamut_share, "lower", 4, "share of pixels whose ab at their L lies outside of sRGB"),
    "bleeding": Metric(bleeding, "lower", 4, "loss of sharpness of color steps at true color borders, share"),
    "blotch": Metric(blotch, "lower", 2, "spread of ab in smooth places beyond the truth's, Lab units"),
    "frechet_color": Metric(
        color_embedding, "lower", 4, "Frechet distance of Hellinger ab histograms, grid 20, against the same images",
        reference=true_color_embedding, statistic=frechet_distance, influence=frechet_influence,
    ),
    "lpips": Metric(lpips, "lower", 4, "lpips 0.1 AlexNet, sRGB uint8", default=False, missing=lpips_missing),
    "judge": Metric(
        by_study, "lower", 3, "accuracy of a network trained to tell originals from colorizations", default=False,
        missing=_no_batch_tells,
    ),
    "semantics": Metric(
        by_study, "higher", 3, "top-1 of a network that recognizes classes", default=False, missing=_no_batch_tells
    ),
}  # fmt: skip


def feature_metrics(features: str = DEFAULT_FEATURES) -> dict[str, Metric]:
    """FID in both of its protocols, over the features of a named network (`common.evaluation.feature_networks`)."""
    of_prediction, of_truth = network_features(features)
    said = features_variant(features)
    shared = {"default": False, "missing": partial(features_missing, features), "reference": of_truth}
    return {
        "fid_paired": Metric(
            of_prediction, "lower", 2, f"{said}; predictions against the truth of the same photographs",
            statistic=frechet_distance, influence=frechet_influence, **shared,
        ),
        "fid_disjoint": Metric(
            of_prediction, "lower", 2, f"{said}; predictions of every other photograph against the truth of the rest,"
            " and the reverse, mean of both",
            statistic=frechet_disjoint, influence=frechet_disjoint_influence, **shared,
        ),
    }  # fmt: skip


METRICS |= feature_metrics()


def pick_metrics(names: Iterable[str] | None, features: str = DEFAULT_FEATURES) -> dict[str, Metric]:
    """The named metrics; where none is named, those that are cheap and need nothing. `default` among names means those.

    features: the network of `fid_paired` and `fid_disjoint`. Raises UserError for a name that is none.
    """
    known = METRICS | (feature_metrics(features) if features != DEFAULT_FEATURES else {})
    cheap = [name for name, metric in known.items() if metric.default]
    chosen: dict[str, Metric] = {}
    for name in names or ["default"]:
        if name != "default" and name not in known:
            raise UserError(f"'{name}' is no metric: it takes {', '.join(known)}{near(name, known)}")
        chosen |= {each: known[each] for each in (cheap if name == "default" else [name])}
    return chosen
