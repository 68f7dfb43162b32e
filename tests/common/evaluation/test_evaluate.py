import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from common.colorizer import Batch, Colorizer, predict_ab
from common.comparison.report.tables import markdown_table
from common.evaluation.bootstrap import summarize
from common.evaluation.evaluate import TRIVIAL, evaluate, model_predictor, trivial_predictor
from common.evaluation.metrics import METRICS, colorfulness_of
from common.registry import load_colorizer
from common.utils.errors import UserError
from tests.common.packs import in_gamut
from tests.conftest import save_painter


def predictors(pack, names=TRIVIAL, **options):
    return {name: trivial_predictor(name, pack, **options) for name in names}


def whole_batch(pack):
    return Batch(*pack.lab(slice(None)))


def test_trivial_rows_by_scikit_image_alone(demo_pack):
    """Grey and mean, computed from the packed pictures by scikit-image."""
    table = evaluate(predictors(demo_pack), demo_pack).table
    truth = [np.asarray(image) for image in demo_pack.images]
    labs = [rgb2lab(image) for image in truth]
    mean = np.mean([lab[..., 1:].mean(axis=(0, 1)) for lab in labs], axis=0)
    for row, color in {"grey": np.zeros(2), "mean": mean}.items():
        rmse, psnr, ssim = [], [], []
        for image, lab in zip(truth, labs, strict=True):
            guess = lab.copy()
            guess[..., 1:] = color
            guess = in_gamut(guess)
            rgb = np.round(lab2rgb(guess) * 255).astype(np.uint8)
            rmse.append(np.sqrt(((guess - lab)[..., 1:] ** 2).mean()))
            psnr.append(peak_signal_noise_ratio(image, rgb, data_range=255))
            ssim.append(
                structural_similarity(
                    image, rgb, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
                )
            )
        assert table[row]["rmse_ab"]["mean"] == pytest.approx(np.mean(rmse), rel=1e-3)
        assert table[row]["psnr"]["mean"] == pytest.approx(np.mean(psnr), rel=1e-3)
        assert table[row]["ssim"]["mean"] == pytest.approx(np.mean(ssim), rel=1e-3)


def test_the_original_is_perfect(demo_pack):
    row = evaluate(predictors(demo_pack, ["original"]), demo_pack).table["original"]
    assert row["psnr"] == {"mean": None, "low": None, "high": None, "exact": len(demo_pack)}
    assert row["ssim"]["mean"] == row["auc"]["mean"] == row["colorfulness_ratio"]["mean"] == 1
    assert row["delta_e"]["mean"] == row["delta_colorfulness"]["mean"] == row["rmse_ab"]["mean"] == 0


def test_shuffled_gives_each_photograph_the_colors_of_another(demo_pack):
    predict = trivial_predictor("shuffled", demo_pack, seed=1)
    whole = predict(whole_batch(demo_pack), np.arange(len(demo_pack)))
    true = demo_pack.lab(slice(None))[1]
    assert not any(torch.equal(whole[i], true[i]) for i in range(len(true)))
    assert sorted(x.sum().item() for x in whole) == pytest.approx(sorted(x.sum().item() for x in true))


def test_batches_do_not_matter(demo_pack):
    tables = [evaluate(predictors(demo_pack), demo_pack, batch_size=n).table for n in (1, 7, 64)]
    for other in tables[1:]:
        for row, columns in tables[0].items():
            for metric, result in columns.items():
                if result["mean"] is None:
                    assert other[row][metric] == result
                else:
                    assert other[row][metric]["mean"] == pytest.approx(result["mean"], rel=1e-6), (row, metric)


def test_mean_predicts_the_color_of_the_training_set(demo_pack):
    predict = trivial_predictor("mean", demo_pack, mean_ab=[3.0, -4.0])
    batch = whole_batch(demo_pack)
    ab = predict(batch, np.arange(len(demo_pack)))
    assert ab.shape == batch.ab.shape
    assert ab[:, 0].unique().tolist() == [3.0]
    assert ab[:, 1].unique().tolist() == [-4.0]


def test_the_interval_covers_the_mean_19_times_of_20():
    rng = np.random.default_rng(0)
    metric = METRICS["mae_ab"]
    hits = 0
    for _ in range(200):
        values = rng.normal(10, 3, 100)
        result = summarize(metric, values, np.ones(100))
        assert result["low"] < result["mean"] < result["high"]
        hits += result["low"] <= 10 <= result["high"]
    assert 180 <= hits <= 199


def test_metrics_of_a_set_compare_means_over_the_set(demo_pack):
    predict = {"half": lambda batch, rows: batch.ab / 2}
    result = evaluate(predict, demo_pack)
    values = result.values["half"]["colorfulness"]
    true = colorfulness_of(torch.from_numpy(np.array(demo_pack.images)).permute(0, 3, 1, 2)).numpy()
    row = result.table["half"]
    assert row["colorfulness_ratio"]["mean"] == pytest.approx(values.mean() / true.mean())
    assert row["delta_colorfulness"]["mean"] == pytest.approx(true.mean() - values.mean())
    assert 0.4 < row["colorfulness_ratio"]["mean"] < 0.6


def test_bad_requests(demo_pack):
    with pytest.raises(UserError, match="'rmse' is not a metric"):
        evaluate({}, demo_pack, ["rmse"])
    with pytest.raises(UserError, match="not a reference row"):
        trivial_predictor("gray", demo_pack)
    with pytest.raises(UserError, match="not finite"):
        evaluate({"bad": lambda batch, rows: batch.ab * float("nan")}, demo_pack)
    with pytest.raises(UserError, match="shape"):
        evaluate({"bad": lambda batch, rows: batch.L}, demo_pack)


def test_a_limit_is_spread_over_the_pack(demo_pack):
    seen = []
    predict = {"x": lambda batch, rows: seen.extend(rows) or batch.ab}
    result = evaluate(predict, demo_pack, ["mae_ab"], limit=5, batch_size=2)
    assert seen == [0, 5, 10, 14, 19]
    assert (result.protocol["count"], result.protocol["of"]) == (5, 20)


class Stretch(Colorizer):
    """Takes multiples of 32; its ab is its L."""

    multiple = 32

    def forward(self, L):
        assert not (L.shape[-1] % 32 or L.shape[-2] % 32)
        return L.expand(-1, 2, -1, -1)

    def training_step(self, batch):
        yield from ()

    def networks(self):
        return {}


@pytest.mark.parametrize("size", [(32, 64), (30, 60), (8, 8), (50, 41)])
def test_prediction_at_sizes_that_a_network_does_not_take(size):
    ramp = torch.linspace(20, 80, size[1]).expand(1, 1, *size)
    ab = predict_ab(Stretch(), ramp)
    assert ab.shape == (1, 2, *size)
    torch.testing.assert_close(ab[:, :1], ramp, atol=4, rtol=0)


def test_the_table_has_its_protocol(demo_pack):
    result = evaluate(predictors(demo_pack), demo_pack)
    text = markdown_table(result.table, result.protocol)
    assert "| grey | " in text
    assert "20 squares of 2 photographs of `demo`" in text
    assert demo_pack.manifest["content"] in text
    assert "| original | " in text
    assert "exact" in text


def test_a_temperature_leaves_the_colorizer_as_it_was(demo_pack, tmp_path):
    paths = [save_painter(tmp_path / f"{name}.safetensors", name=name) for name in "ab"]
    for name in (str(paths[0]), f"mean({paths[0]},{paths[1]})"):
        colorizer = load_colorizer(name)
        for part, own in zip(getattr(colorizer, "members", [colorizer]), (0.5, 0.9), strict=False):
            part.temperature = own
        rows = {"own": model_predictor(colorizer), "hot": model_predictor(colorizer, 1.0)}
        keys = {row: predict.key() for row, predict in rows.items()}
        alone = evaluate({"own": rows["own"]}, demo_pack, ["mae_ab"]).table["own"]
        reverse = evaluate(dict(reversed(rows.items())), demo_pack, ["mae_ab"], batch_size=5).table
        assert reverse["own"]["mae_ab"]["mean"] == pytest.approx(alone["mae_ab"]["mean"], rel=1e-5)
        assert reverse["hot"]["mae_ab"]["mean"] != pytest.approx(alone["mae_ab"]["mean"], rel=1e-4)
        assert [part.temperature for part in getattr(colorizer, "members", [colorizer])] in ([0.5], [0.5, 0.9])
        assert keys == {
            row: predict.key()
            for row, predict in {"own": model_predictor(colorizer), "hot": model_predictor(colorizer, 1.0)}.items()
        }
