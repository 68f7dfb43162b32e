"""The reference rows, all metrics of pixels, computed with scikit-image and numpy alone."""

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from common.evaluation.evaluate import TRIVIAL, evaluate, trivial_predictor
from tests.common.packs import in_gamut


def colorfulness(rgb, absolute=False):
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)
    rg, yb = r - g, (r + g) / 2 - b
    if absolute:
        rg, yb = np.abs(rg), np.abs(yb)
    return np.sqrt(rg.var() + yb.var()) + 0.3 * np.hypot(rg.mean(), yb.mean())


def rarity_of_cells(images):
    """(a, b) multiples of 10 -> 1 / p, p counted in images that are not grey and smoothed by 5 over what sRGB shows."""
    line = np.arange(256, dtype=np.uint8)
    u, v = (x.ravel() for x in np.meshgrid(line, line))
    faces = [np.roll(np.stack([np.full_like(u, edge), u, v]), k, 0) for edge in (0, 255) for k in range(3)]
    shown = np.unique(np.round(rgb2lab(np.concatenate(faces, axis=1).T[None])[0, :, 1:] / 10), axis=0)
    counts = {tuple(cell): 0 for cell in shown}
    for image in images:
        ab = rgb2lab(image)[..., 1:]
        if np.abs(ab).max() >= 5:
            cells, seen = np.unique(np.round(ab / 10).reshape(-1, 2), axis=0, return_counts=True)
            for cell, n in zip(cells, seen, strict=True):
                counts[tuple(cell)] += n
    share = np.array([counts[tuple(cell)] for cell in shown], float)
    kernel = np.exp(-100 * np.square(shown[:, None] - shown[None]).sum(axis=-1) / 50)
    smooth = np.where(share > 0, (share / kernel.sum(axis=1)) @ kernel, 0)
    smooth /= smooth.sum()
    return {tuple(cell): 1 / p if p else 0.0 for cell, p in zip(shown, smooth, strict=True)}


def oracle(images, ab_of, rarity):
    """The numbers of one row: `ab_of(i, lab)` is its prediction for image i."""
    found, weights, gained = [], [], []
    for i, image in enumerate(images):
        lab = rgb2lab(image)
        guess = lab.copy()
        guess[..., 1:] = ab_of(i, lab)
        guess = in_gamut(guess)
        rgb = np.round(lab2rgb(guess) * 255).astype(np.uint8)
        error = (guess - lab)[..., 1:]
        distance = np.minimum(np.linalg.norm(error, axis=-1), 150)
        with np.errstate(divide="ignore"):
            psnr = peak_signal_noise_ratio(image, rgb, data_range=255)
        options = {"channel_axis": 2, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        found.append(
            {
                "mse_ab": (error**2).mean(), "rmse_ab": np.sqrt((error**2).mean()), "mae_ab": np.abs(error).mean(),
                "l2_ab": np.linalg.norm(error, axis=-1).mean(), "psnr": psnr,
                "ssim": structural_similarity(image, rgb, data_range=255, **options),
                "delta_e": deltaE_ciede2000(rgb2lab(rgb), lab).mean(), "auc": 1 - distance.mean() / 150,
                "colorfulness": colorfulness(rgb), "colorfulness_abs": colorfulness(rgb, absolute=True),
                "true": colorfulness(image),
            }
        )  # fmt: skip
        cells, which = np.unique(np.round(lab[..., 1:] / 10).reshape(-1, 2), axis=0, return_inverse=True)
        weight = np.array([rarity[tuple(cell)] for cell in cells])[which.ravel()].reshape(distance.shape)
        weights.append(weight.mean())
        gained.append((weight * (1 - distance / 150)).mean())
    columns = {name: np.array([each[name] for each in found]) for name in found[0]}
    numbers = {name: values[np.isfinite(values)].mean() if np.isfinite(values).any() else None
               for name, values in columns.items()}  # fmt: skip
    numbers["delta_colorfulness"] = abs(numbers["colorfulness"] - numbers["true"])
    numbers["colorfulness_ratio"] = numbers["colorfulness"] / numbers.pop("true")
    numbers["auc_rebalanced"] = np.mean(gained) / np.mean(weights)
    return numbers


def trivial_rows_by_oracle(pack, images):
    """Row -> its `ab_of`, for images that are all of a pack."""
    mean = np.mean([rgb2lab(image)[..., 1:].mean(axis=(0, 1)) for image in images], axis=0)
    cycle = np.random.default_rng(0).permutation(len(images))
    following = dict(zip(cycle.tolist(), np.roll(cycle, -1).tolist(), strict=True))
    return {
        "grey": lambda i, lab: 0,
        "mean": lambda i, lab: mean,
        "shuffled": lambda i, lab: rgb2lab(images[following[i]])[..., 1:],
        "original": lambda i, lab: lab[..., 1:],
    }


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
def test_trivial_rows_agree_with_scikit_image_in_every_metric(demo_pack):
    images = [np.asarray(image) for image in demo_pack.images]
    table = evaluate({name: trivial_predictor(name, demo_pack) for name in TRIVIAL}, demo_pack, intervals=False).table
    rarity = rarity_of_cells(images)
    for row, ab_of in trivial_rows_by_oracle(demo_pack, images).items():
        for metric, expected in oracle(images, ab_of, rarity).items():
            got = table[row][metric]["mean"]
            if expected is None:
                assert got is None
            else:
                assert got == pytest.approx(expected, rel=1e-3, abs=1e-3 if row == "original" else 1e-6), (row, metric)
