import numpy as np
import pytest
import torch
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from common.color.gamut import ab_to_rgb8
from common.color.lab import rgb8_to_lab
from common.comparison.report.findings import headline
from common.comparison.report.tables import markdown_table
from common.evaluation import metrics as m
from common.evaluation.evaluate import evaluate, trivial_predictor
from common.evaluation.metrics import METRICS, pick_metrics
from common.evaluation.pictures import Pictures, predicted_pictures
from common.training.config import RunConfig
from common.utils.errors import UserError
from tests.conftest import photo_array

TRUE = np.stack([photo_array(i, 32, 40) for i in range(4)])
PREDICTED = np.stack([photo_array(i + 20, 32, 40) for i in range(4)])


def pictures(rgb):
    tensor = torch.from_numpy(rgb).permute(0, 3, 1, 2)
    return Pictures(rgb8_to_lab(tensor)[:, 1:], tensor)


P, T = pictures(PREDICTED), pictures(TRUE)
LAB_P, LAB_T = rgb2lab(PREDICTED), rgb2lab(TRUE)
D = LAB_P[..., 1:] - LAB_T[..., 1:]
PAIRS = list(zip(PREDICTED, TRUE, strict=True))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mse_ab", [mean_squared_error(p[..., 1:], t[..., 1:]) for p, t in zip(LAB_P, LAB_T, strict=True)]),
        ("rmse_ab", np.sqrt((D**2).mean(axis=(1, 2, 3)))),
        ("l2_ab", np.linalg.norm(D, axis=-1).mean(axis=(1, 2))),
        ("mae_ab", np.abs(D).mean(axis=(1, 2, 3))),
        ("psnr", [peak_signal_noise_ratio(t, p, data_range=255) for p, t in PAIRS]),
        (
            "ssim",
            [
                structural_similarity(
                    p, t, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
                )
                for p, t in PAIRS
            ],
        ),
        ("delta_e", [deltaE_ciede2000(a, b).mean() for a, b in zip(LAB_P, LAB_T, strict=True)]),
    ],
)
def test_against_scikit_image(name, expected):
    np.testing.assert_allclose(METRICS[name].per_image(P, T).numpy(), expected, rtol=1e-4)


def test_auc_is_the_limit_of_many_thresholds():
    distance = np.linalg.norm(D, axis=-1)
    thresholds = np.linspace(0, 150, 30001)
    curve = np.stack([(distance <= t).mean(axis=(1, 2)) for t in thresholds[::10]])
    area = ((curve[1:] + curve[:-1]) / 2).mean(axis=0)
    np.testing.assert_allclose(m.auc(P, T).numpy(), area, atol=2e-4)


@pytest.mark.parametrize("absolute", [False, True])
def test_colorfulness_by_its_formula(absolute):
    for i, rgb in enumerate(TRUE.astype(float)):
        rg, yb = rgb[..., 0] - rgb[..., 1], (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]
        if absolute:
            rg, yb = np.abs(rg), np.abs(yb)
        expected = np.sqrt(rg.var() + yb.var()) + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
        assert float(m.colorfulness_of(T.rgb, absolute)[i]) == pytest.approx(expected)


def test_colorfulness_of_constructed_pictures():
    grey = torch.full((1, 3, 8, 8), 77, dtype=torch.uint8)
    assert float(m.colorfulness_of(grey)) == 0
    red = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    red[:, 0] = 200  # rg = 200, yb = 100 everywhere: no variance
    assert float(m.colorfulness_of(red)) == pytest.approx(0.3 * np.hypot(200, 100))
    half = red.clone()
    half[..., 4:] = torch.tensor([0, 200, 0], dtype=torch.uint8).view(3, 1, 1)  # rg = +-200, yb = 100
    assert float(m.colorfulness_of(half)) == pytest.approx(200 + 0.3 * 100)
    assert float(m.colorfulness_of(half, absolute=True)) == pytest.approx(0.3 * np.hypot(200, 100))


def test_every_metric_is_perfect_for_the_truth():
    true = T._replace(rarity=torch.rand(T.ab[:, 0].shape) + 1)
    for name, metric in METRICS.items():
        if metric.missing:
            continue
        values = metric.per_image(true, true)
        if metric.statistic:
            assert metric.statistic(values.numpy(), metric.reference(true).numpy()) < 1e-9
            continue
        assert values.shape == (4,)
        if metric.better == "lower" and not metric.relation:
            assert float(values.nan_to_num().abs().max()) < 1e-9, name  # NaN: it has no borders to bleed over
        if metric.better == "higher" and metric.relation == "ratio":
            torch.testing.assert_close(values, metric.reference(true))
    assert torch.isinf(m.psnr(T, T)).all()


def test_predictions_are_converted_as_colorize_does():
    """Colors inside sRGB as scikit-image converts them; others keep their L and hue, and lose chroma."""
    rng = np.random.default_rng(0)
    lab = np.stack([rng.uniform(0, 100, (9, 9)), *rng.uniform(-120, 120, (2, 9, 9))], axis=-1)
    tensor = torch.from_numpy(lab).permute(2, 0, 1)[None].float()
    L, ab = tensor[:, :1], tensor[:, 1:]
    predicted = predicted_pictures(L, ab)
    assert torch.equal(predicted.rgb, ab_to_rgb8(L, ab))
    assert torch.equal(predicted.unmapped_ab, ab)
    mapped = torch.cat([L, predicted.ab], dim=1)[0].permute(1, 2, 0).numpy()
    expected = np.round(lab2rgb(mapped) * 255).astype(int)
    assert np.abs(predicted.rgb[0].permute(1, 2, 0).numpy() - expected).max() <= 1
    assert (predicted.ab.norm(dim=1) <= ab.norm(dim=1) + 1e-4).all()
    assert (predicted.ab.norm(dim=1) < ab.norm(dim=1) - 1).any()


def test_ssim_is_scikit_images_to_the_last_digits():
    expected = [
        structural_similarity(
            p, t, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for p, t in PAIRS
    ]
    np.testing.assert_allclose(m.ssim(P, T).numpy(), expected, rtol=1e-12)
    assert m.ssim(*(Pictures(x.ab[..., :9, :9], x.rgb[..., :9, :9]) for x in (P, T))).isnan().all()


def test_which_metrics_are_measured_by_default():
    cheap = pick_metrics(None)
    assert "frechet_color" in cheap
    assert not {"lpips", "fid_paired", "fid_disjoint"} & set(cheap)
    assert not any(metric.missing for metric in cheap.values())
    assert list(pick_metrics(["fid_paired", "default", "rmse_ab"])) == ["fid_paired", *cheap]
    assert "resnet18 of timm" in pick_metrics(["fid_disjoint"], "resnet18")["fid_disjoint"].variant
    with pytest.raises(UserError, match=r"'bleding' is not a metric.*did you mean 'bleeding'"):
        pick_metrics(["bleding"])


def test_one_entry_makes_a_metric_known_everywhere(demo_pack, monkeypatch):
    def error(predicted, true):
        return (predicted.ab - true.ab).abs().amax(dim=(1, 2, 3))

    entry = m.Metric(error, "lower", 1, "largest error", headline="how bad is the worst pixel?")
    monkeypatch.setitem(METRICS, "largest", entry)
    assert "largest" in pick_metrics(None)
    assert "largest" in headline(METRICS)
    assert RunConfig(monitor="largest").monitor == "largest"
    assert "largest" in m.training_metrics("largest")
    assert "largest" not in m.training_metrics()
    result = evaluate({"grey": trivial_predictor("grey", demo_pack)}, demo_pack)
    assert "| largest " in markdown_table(result.table, result.protocol)
    assert result.table["grey"]["largest"]["mean"] > 10


def test_a_renamed_metric_is_found_by_its_old_name():
    assert list(pick_metrics(["judge", "real_fake_classifier"])) == ["real_fake_classifier"]
