"""Metrics: (predicted, true) pictures -> one value per image, and how the values of a set become one number.

A metric is a function and one entry in METRICS: it then has a column in every table, `monitor` may name it in
training, and a report shows it first if its entry has a `headline`. Where the literature disagrees on a definition,
the docstring names the variant. Larger metrics have files of their own: `artifacts`, `frechet`, `lpips`, `rarity`,
`feature_networks`, and `learned/` for metrics that train a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from skimage.color import deltaE_ciede2000
from torch import Tensor

from common.color.lab import rgb8_to_lab
from common.evaluation.artifacts import bleeding, blotch, gamut_share
from common.evaluation.feature_networks import (
    DEFAULT_FEATURES,
    features_files,
    features_missing,
    features_variant,
    network_features,
)
from common.evaluation.frechet import (
    color_embedding,
    frechet_disjoint,
    frechet_disjoint_influence,
    frechet_distance,
    frechet_influence,
    true_color_embedding,
)
from common.evaluation.lpips import lpips, lpips_files, lpips_missing
from common.evaluation.pictures import Pictures
from common.evaluation.rarity import rarity, rarity_auc
from common.utils.errors import UserError, near

# (predicted, true) -> one value per image, float [N]; or one vector, [N, D], for a metric with a `statistic`
PerImage = Callable[[Pictures, Pictures], Tensor]


def _error(predicted: Pictures, true: Pictures) -> Tensor:
    return predicted.ab - true.ab


def mse_ab(predicted: Pictures, true: Pictures) -> Tensor:
    """Mean squared error over pixels and both ab channels, in squared Lab units: [N]."""
    return _error(predicted, true).square().mean(dim=(1, 2, 3))


def rmse_ab(predicted: Pictures, true: Pictures) -> Tensor:
    """Square root of `mse_ab` of each image, in Lab units: [N]."""
    return mse_ab(predicted, true).sqrt()


def mae_ab(predicted: Pictures, true: Pictures) -> Tensor:
    """Mean absolute error over pixels and both ab channels, in Lab units: [N]."""
    return _error(predicted, true).abs().mean(dim=(1, 2, 3))


def l2_ab(predicted: Pictures, true: Pictures) -> Tensor:
    """Mean over pixels of the Euclidean distance in the ab plane, in Lab units: [N]."""
    return _error(predicted, true).norm(dim=1).mean(dim=(1, 2))


def auc(predicted: Pictures, true: Pictures) -> Tensor:
    """Area under the curve of the share of pixels with ab error <= t, for t in 0..150, divided by 150: [N].

    Zhang et al. 2016, section 3.1. Exchanging the integrals gives 1 - mean(min(d, 150)) / 150, with d the Euclidean
    distance in the ab plane, which needs no discrete thresholds.
    """
    return 1 - _error(predicted, true).norm(dim=1).clamp(max=150).mean(dim=(1, 2)) / 150


def psnr(predicted: Pictures, true: Pictures) -> Tensor:
    """Peak signal-to-noise ratio of 8-bit sRGB, in dB, data range 255: [N]. Infinite if an image is exact."""
    mse = (predicted.rgb.float() - true.rgb.float()).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(255**2 / mse)


def ssim(predicted: Pictures, true: Pictures) -> Tensor:
    """Structural similarity of 8-bit sRGB (Wang et al. 2004), Gaussian window of sigma 1.5: float64 [N].

    Mean over channels and over the pixels whose window of 11 pixels is within the picture. Equal to
    `skimage.metrics.structural_similarity` with `gaussian_weights=True, use_sample_covariance=False` to 1e-12, in half
    the time. NaN for pictures that are smaller than the window.
    """
    if min(true.rgb.shape[-2:]) < len(_SSIM_TAPS):
        return torch.full((len(true.rgb),), torch.nan)
    # one picture at a time fits into the processor's cache
    return torch.stack(
        [_ssim(p, t) for p, t in zip(predicted.rgb.cpu().double(), true.rgb.cpu().double(), strict=True)]
    )


_SSIM_TAPS = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
_SSIM_TAPS /= _SSIM_TAPS.sum()


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    means = torch.stack([x, y, x * x + y * y, x * y])
    for axis in (-1, -2):  # the window is separable and symmetric
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
    """CIEDE2000 color difference of 8-bit sRGB, mean over pixels: [N]."""
    true_lab = rgb8_to_lab(true.rgb) if true.L is None else torch.cat([true.L, true.ab], dim=1)
    pairs = zip(rgb8_to_lab(predicted.rgb).cpu().numpy(), true_lab.cpu().numpy(), strict=True)
    return torch.tensor([deltaE_ciede2000(p, t, channel_axis=0).mean(dtype=float) for p, t in pairs])


def colorfulness_of(rgb: Tensor, absolute: bool = False) -> Tensor:
    """Colorfulness M(3) of Hasler and Suesstrunk 2003: rgb uint8 [N, 3, H, W] -> float64 [N].

    sqrt(var_rg + var_yb) + 0.3 sqrt(mean_rg^2 + mean_yb^2) with rg = R - G and yb = (R + G) / 2 - B. absolute: use |rg|
    and |yb|, as in the tables of the colorization literature, which gives smaller numbers.
    """
    r, g, b = rgb.cpu().double().unbind(1)  # some devices have no float64
    rg, yb = r - g, (r + g) / 2 - b
    if absolute:
        rg, yb = rg.abs(), yb.abs()
    spread = sum(x.var(dim=(1, 2), correction=0) for x in (rg, yb))
    centre = sum(x.mean(dim=(1, 2)).square() for x in (rg, yb))
    return spread.sqrt() + 0.3 * centre.sqrt()


def colorfulness(predicted: Pictures, true: Pictures) -> Tensor:
    """Colorfulness of the prediction, signed opponent channels: [N]."""
    return colorfulness_of(predicted.rgb)


def true_colorfulness(true: Pictures) -> Tensor:
    """Colorfulness of the original, signed opponent channels: [N]."""
    return colorfulness_of(true.rgb)


def colorfulness_abs(predicted: Pictures, true: Pictures) -> Tensor:
    """Colorfulness of the prediction, absolute opponent channels, as in DDColor's tables: [N]."""
    return colorfulness_of(predicted.rgb, absolute=True)


def _trains_a_network() -> str:
    return "it trains a network on many photographs, which scripts.evaluate and scripts.compare do"


class Metric(NamedTuple):
    """One column of a table.

    The number of a set of images is the mean of their values (if `relation` is set, compared with the mean of their
    references), or `statistic` of their vectors. A value of NaN excludes an image.

    Attributes:
        per_image: None for a metric that is not computed per batch, because it trains a network
            (`common.evaluation.learned.studies`).
        better: `truth`: the number of the row `original` is the best.
        digits: decimals that are printed.
        variant: the exact definition, in words, for the protocol.
        relation: of the set's mean to the mean of its references.
        reference: true pictures -> one value or vector per image, [N] or [N, D].
        statistic: (values, references) of a set, [n, D] each -> its number.
        influence: (values, references) of a set -> derivative of n times `statistic` by each image's weight, [n], of
            mean 0; the interval is computed from it.
        default: measured if no metrics are named: cheap, and no network is needed.
        training: measured at each validation of a training run.
        brief: shown in tables of few columns: damage, and validation curves.
        headline: the question that the metric answers first in a report; "" if another metric answers it.
        missing: what this machine lacks to measure it and how to get that; "" if nothing.
        files: files, of network weights, whose content changes its values.
    """

    per_image: PerImage | None
    better: Literal["higher", "lower", "truth"]
    digits: int
    variant: str
    relation: Literal["", "difference", "ratio"] = ""
    reference: Callable[[Pictures], Tensor] = true_colorfulness
    statistic: Callable[[np.ndarray, np.ndarray], float] | None = None
    influence: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    default: bool = True
    training: bool = False
    brief: bool = False
    headline: str = ""
    missing: Callable[[], str] | None = None
    files: Callable[[], list[Path]] | None = None

    @property
    def ideal(self) -> float | None:
        """The number of the originals, if it is the same for all sets of photographs and the best one."""
        return 1.0 if self.better == "truth" and self.relation == "ratio" else None


METRICS: dict[str, Metric] = {
    "mse_ab": Metric(mse_ab, "lower", 1, "pixels and both channels, before rounding"),
    "rmse_ab": Metric(
        rmse_ab, "lower", 2, "root per image, then mean", training=True, brief=True, headline="how large is the error?"
    ),
    "l2_ab": Metric(l2_ab, "lower", 2, "Euclidean distance, mean over pixels"),
    "mae_ab": Metric(mae_ab, "lower", 2, "pixels and both channels", training=True),
    "psnr": Metric(psnr, "higher", 2, "sRGB uint8, per image; exact images are excluded and counted", training=True),
    "ssim": Metric(ssim, "higher", 4, "sRGB uint8, Gaussian window sigma 1.5, population covariance"),
    "delta_e": Metric(
        delta_e, "lower", 2, "CIEDE2000, sRGB uint8, mean over pixels", headline="how large does the error look?"
    ),
    "colorfulness": Metric(colorfulness, "truth", 1, "Hasler-Suesstrunk M(3), signed"),
    "colorfulness_abs": Metric(colorfulness_abs, "truth", 1, "Hasler-Suesstrunk M(3) of absolute channels"),
    "delta_colorfulness": Metric(colorfulness, "lower", 1, "|mean predicted - mean true|, signed", "difference"),
    "colorfulness_ratio": Metric(
        colorfulness, "truth", 3, "mean predicted / mean true, signed", "ratio",
        training=True, brief=True, headline="is it as colorful as photographs are?",
    ),
    "auc": Metric(auc, "higher", 4, "ab error 0..150, exact integral, per image", training=True, brief=True),
    "auc_rebalanced": Metric(
        rarity_auc, "higher", 4, "pixels weighted by 1 / prior of the true bin, over the set", "ratio", rarity,
        headline="are rare colors right, too?",
    ),
    "gamut_share": Metric(gamut_share, "lower", 4, "share of pixels whose ab at their L is outside of sRGB"),
    "bleeding": Metric(bleeding, "lower", 4, "loss of sharpness of color steps at true color borders, share"),
    "blotch": Metric(
        blotch, "lower", 2, "spread of ab in smooth places beyond the truth's, Lab units",
        headline="are smooth surfaces blotchy?",
    ),
    "frechet_color": Metric(
        color_embedding, "lower", 4, "Frechet distance of Hellinger ab histograms, grid 20, to the same images",
        reference=true_color_embedding, statistic=frechet_distance, influence=frechet_influence,
        headline="does the set have the palette of photographs?",
    ),
    "lpips": Metric(
        lpips, "lower", 4, "lpips 0.1 AlexNet, sRGB uint8", default=False, missing=lpips_missing, files=lpips_files
    ),
    "real_fake_classifier": Metric(
        None, "lower", 3, "accuracy of a network trained to distinguish originals from colorizations", default=False,
        missing=_trains_a_network,
    ),
    "semantics": Metric(
        None, "higher", 3, "top-1 of a network that recognizes classes", default=False, missing=_trains_a_network
    ),
}  # fmt: skip

_ALIASES = {"judge": "real_fake_classifier"}  # names that metrics had


def feature_metrics(features: str = DEFAULT_FEATURES) -> dict[str, Metric]:
    """Distances on the features of a named network (`common.evaluation.feature_networks`): FID by two protocols."""
    of_prediction, of_truth, distance = network_features(features)
    variant = features_variant(features)
    needs = {"default": False, "missing": partial(features_missing, features),
             "files": partial(features_files, features)}  # fmt: skip
    shared = needs | {"reference": of_truth}
    return {
        "feature_distance": Metric(
            distance, "lower", 4, f"{variant}; 1 - cosine similarity to the truth, mean over images", **needs
        ),
        "fid_paired": Metric(
            of_prediction, "lower", 2, f"{variant}; predictions to the truth of the same photographs",
            statistic=frechet_distance, influence=frechet_influence, **shared,
        ),
        "fid_disjoint": Metric(
            of_prediction, "lower", 2, f"{variant}; predictions of every other photograph to the truth of the"
            " rest, and the reverse, mean of both",
            statistic=frechet_disjoint, influence=frechet_disjoint_influence, **shared,
        ),
    }  # fmt: skip


METRICS |= feature_metrics()


def metric_name(name: str) -> str:
    """The present name of a metric that was renamed; any other name unchanged."""
    return _ALIASES.get(name, name)


def pick_metrics(names: Iterable[str] | None, features: str = DEFAULT_FEATURES) -> dict[str, Metric]:
    """The named metrics; `default`, or None, stands for those that are cheap and need no network.

    features: the network of `feature_distance` and both FIDs. Raises UserError for an unknown name.
    """
    known = METRICS | (feature_metrics(features) if features != DEFAULT_FEATURES else {})
    cheap = [name for name, metric in known.items() if metric.default]
    chosen: dict[str, Metric] = {}
    for name in map(metric_name, names or ["default"]):
        if name != "default" and name not in known:
            raise UserError(f"'{name}' is not a metric: expected {', '.join(known)}{near(name, [*known, *_ALIASES])}")
        chosen |= {each: known[each] for each in (cheap if name == "default" else [name])}
    return chosen


def headline_metrics() -> list[str]:
    """Metrics that a report shows first: one for each question."""
    return [name for name, metric in METRICS.items() if metric.headline]


def brief_metrics() -> list[str]:
    """Metrics of tables with few columns."""
    return [name for name, metric in METRICS.items() if metric.brief]


def monitorable_metrics() -> list[str]:
    """Metrics by which a training run can choose its best weights; those that it always measures come first."""
    names = [name for name, metric in METRICS.items() if metric.default and metric.better != "truth"]
    return sorted(names, key=lambda name: not METRICS[name].training)


def training_metrics(monitor: str = "") -> list[str]:
    """Metrics that a training run measures at each validation, `monitor` among them."""
    return [name for name, metric in METRICS.items() if metric.training or name == monitor]
