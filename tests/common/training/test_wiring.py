"""The parts of a run are connected as the configuration says."""

import pytest
import torch

from common.colorizer import predict_ab
from common.data.batches import training_packs
from common.evaluation.evaluate import evaluate
from common.registry import load_colorizer
from common.training.logger import read_metrics
from common.training.loop import train
from common.training.parser import config_from_dict
from common.training.run import Run
from common.utils.progress import Progress

QUIET = Progress(quiet=True)
CNN = {"family": "baselines", "data": {"size": 32}, "batch_size": 4, "sample_every": 0, "device": "cpu"}
GAN = CNN | {
    "family": "gan",
    "model": {"generator": {"width": 4}, "discriminator": {"width": 4, "receptive_field": 16}},
}


def test_lr_ratio_scales_the_learning_rate_of_its_network(tmp_path):
    values = GAN | {"optim": {"lr": 0.01, "lr_ratio": {"discriminator": 0.25}, "schedule": "constant", "warmup": 0.0}}
    train(config_from_dict(values | {"steps": 2, "log_every": 1, "run": str(tmp_path / "a")}), QUIET)
    for line in read_metrics(tmp_path / "a", "train"):
        assert line["lr/generator"] == pytest.approx(0.01)
        assert line["lr/discriminator"] == pytest.approx(0.0025)


def test_the_plateau_schedule_lowers_the_learning_rate(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "measure", lambda run: {"rmse_ab": 5.0, "colorfulness_ratio": 1.0})
    optim = {"lr": 0.01, "schedule": "plateau", "plateau_factor": 0.1, "plateau_patience": 2, "warmup": 0.0}
    values = CNN | {"optim": optim, "steps": 6, "eval_every": 1, "log_every": 1, "run": str(tmp_path / "a")}
    train(config_from_dict(values), QUIET)
    # the first validation is the best, the next two bring no improvement
    rates = [line["lr/network"] for line in read_metrics(tmp_path / "a", "train")]
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.001, 0.001, 0.0001])


def test_best_weights_are_those_of_the_best_validation(tmp_path, monkeypatch):
    scores = iter([9.0, 5.0, 3.0, 4.0, 3.5])  # the first is that of the untrained network, which does not count
    monkeypatch.setattr(Run, "measure", lambda run: {"rmse_ab": next(scores), "colorfulness_ratio": 1.0})
    values = CNN | {"steps": 4, "eval_every": 1, "keep_every": 1, "run": str(tmp_path / "a")}
    train(config_from_dict(values), QUIET)
    best = load_colorizer(tmp_path / "a" / "best.safetensors")
    assert best.card["steps"] == 2
    second = load_colorizer(tmp_path / "a" / "weights-00000002.safetensors").state_dict()
    assert all(torch.equal(value, second[key]) for key, value in best.state_dict().items())


def test_validation_measures_the_averaged_weights_that_are_published(tmp_path):
    values = CNN | {"model": {"network": "cnn_deep"}, "optim": {"ema": 0.9, "lr": 0.01}, "precision": "fp32"}
    config = config_from_dict(values | {"steps": 6, "run": str(tmp_path / "a")})
    train(config, QUIET)
    logged = read_metrics(tmp_path / "a", "val")[-1]["rmse_ab"]
    pack = training_packs(config.data, QUIET)[1]
    published = load_colorizer(tmp_path / "a" / "weights.safetensors")
    found = evaluate({"model": at_its_size(published)}, pack, ["rmse_ab"], limit=config.data.val_limit)
    assert logged == pytest.approx(found.table["model"]["rmse_ab"]["mean"], rel=1e-5)
    run = Run(config, QUIET)
    try:
        own = evaluate({"model": at_its_size(run.colorizer.eval())}, pack, ["rmse_ab"], limit=config.data.val_limit)
        assert own.table["model"]["rmse_ab"]["mean"] != pytest.approx(logged, rel=1e-4)
    finally:
        run.close()


def at_its_size(colorizer):
    return lambda batch, indices: predict_ab(colorizer, batch.L)


def test_the_monitored_metric_is_measured(tmp_path):
    values = CNN | {"steps": 1, "monitor": "delta_e", "run": str(tmp_path / "a")}
    train(config_from_dict(values), QUIET)
    assert "delta_e" in read_metrics(tmp_path / "a", "val")[-1]
