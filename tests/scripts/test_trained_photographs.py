"""Photographs that a model was trained on are found, counted and not measured."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from common.data.packing import open_pack
from common.registry import load_colorizer
from scripts.compare import main as compare
from scripts.evaluate import main as evaluate
from scripts.train import main as train


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(run folder of a short training on 20 photographs, folder of 10 of them as smaller JPEGs and 12 others)."""
    home = tmp_path_factory.mktemp("leakage")
    images = np.array(open_pack("demo", 64).images)
    training, measured = home / "training", home / "measured"
    training.mkdir()
    measured.mkdir()
    for i in range(20):
        Image.fromarray(images[i]).save(training / f"{i}.png")
    for i in range(10):
        Image.fromarray(images[i]).resize((48, 48), Image.Resampling.BICUBIC).save(
            measured / f"copy{i}.jpg", quality=80
        )
    rng = np.random.default_rng(3)
    for i in range(12):
        small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        small.resize((64, 64), Image.Resampling.BICUBIC).save(measured / f"new{i}.png")
    run = home / "run"
    code = train([
        "--config", "experiments/baselines/cnn.yaml", "--data.train", str(training), "--data.val", str(measured),
        "--data.size", "32", "--batch_size", "4", "--steps", "2", "--run", str(run), "--device", "cpu",
    ])  # fmt: skip
    assert code == 0
    return run, measured, training


def protocol(path):
    return json.loads(path.read_text())["protocol"]


def test_planted_training_photographs_are_left_out(folders, tmp_path, capsys):
    run, measured, _ = folders
    assert evaluate([str(run), "grey", "--data", str(measured), "--json", str(tmp_path / "a.json")]) == 0
    assert "was trained on 10 of the 22 photographs" in capsys.readouterr().err
    assert protocol(tmp_path / "a.json")["count"] == 12
    assert protocol(tmp_path / "a.json")["trained_on"] == 10
    options = ["--include_trained", "--json", str(tmp_path / "b.json")]
    assert evaluate([str(run), "grey", "--data", str(measured), *options]) == 0
    assert protocol(tmp_path / "b.json")["count"] == 22


def test_a_comparison_with_planted_photographs_equals_one_without(folders, tmp_path):
    run, measured, _ = folders
    clean = tmp_path / "clean"
    shutil.copytree(measured, clean, ignore=shutil.ignore_patterns("copy*"))
    tables = []
    for data, name in ((measured, "planted"), (clean, "without")):
        assert (
            compare(
                [str(run), "other=" + str(run / "best.safetensors"), "--data", str(data), "--out", str(tmp_path / name)]
            )
            == 0
        )
        tables.append(json.loads((tmp_path / name / "results.json").read_text()))
    assert tables[0]["run"] == tables[1]["run"] and tables[0]["grey"] == tables[1]["grey"]


def test_the_same_folder_by_another_path_is_recognized(folders, monkeypatch, tmp_path, capsys):
    run, _, training = folders
    monkeypatch.chdir(training.parent)
    assert evaluate([str(run), "--data", "./training/../training"]) == 2
    assert "were trained on all photographs" in capsys.readouterr().err


def test_weights_without_fingerprints_are_named(folders, tmp_path, capsys):
    from common.checkpoint import read_weights, save_weights

    run, measured, _ = folders
    state, card, found = read_weights(run)
    assert len(found) == 20 == len(load_colorizer(run).fingerprints)
    save_weights(tmp_path / "old.safetensors", state, card)
    assert evaluate([str(tmp_path / "old.safetensors"), "--data", str(measured)]) == 0
    out = capsys.readouterr()
    assert "do not record their training photographs" in out.err and "do not record" in out.out


def test_a_mean_has_the_photographs_of_its_members(folders, tmp_path):
    from common.checkpoint import read_weights, save_weights

    run, _, _ = folders
    state, card, found = read_weights(run)
    save_weights(tmp_path / "other.safetensors", state, card, found[:3] ^ 255)
    assert len(load_colorizer(f"mean({run},{tmp_path}/other.safetensors)").fingerprints) == 23
    save_weights(tmp_path / "old.safetensors", state, card)
    assert load_colorizer(f"mean({run},{tmp_path}/old.safetensors)").fingerprints is None
