"""The cache of values: what is measured again, and what a killed process loses."""

import importlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
import torch

from common.colorizer import Colorizer
from common.evaluation.cache import ImageValues, ValueCache, file_digest
from common.evaluation.evaluate import damaged, evaluate, model_predictor, trivial_predictor
from common.evaluation.metrics import METRICS
from common.registry import load_colorizer
from common.utils.errors import UserError
from scripts.evaluate import main as evaluate_main
from tests.conftest import ROOT, save_painter

METRIC_NAMES = ["rmse_ab", "psnr", "colorfulness_ratio", "auc_rebalanced", "frechet_color", "bleeding"]


class Half:
    """Half of the true color; records the batches that it predicts."""

    def __init__(self, key="half"):
        self.asked, self.photos = [], []  # batches, and the photographs in them
        self.key = lambda: key

    def __call__(self, batch, rows):
        self.asked.append(list(rows))
        self.photos += list(rows)
        return batch.ab / 2


def same(one, other):
    assert one.table == other.table
    for row, columns in one.values.items():
        for metric, values in columns.items():
            np.testing.assert_array_equal(values, other.values[row][metric])


def batches(folder):
    with sqlite3.connect(folder / "values.sqlite") as database:
        return database.execute("SELECT count(*) FROM batches").fetchone()[0]


def test_what_is_cached_is_not_measured_again(demo_pack, tmp_path):
    plain = evaluate({"half": Half()}, demo_pack, METRIC_NAMES, batch_size=7)
    first, second = Half(), Half()
    same(evaluate({"half": first}, demo_pack, METRIC_NAMES, batch_size=7, cache=tmp_path), plain)
    same(evaluate({"half": second}, demo_pack, METRIC_NAMES, batch_size=5, cache=tmp_path), plain)
    assert (len(first.asked), second.asked) == (3, [])


def test_a_subset_of_photographs_or_metrics_is_reused(demo_pack, tmp_path):
    few, more, others = Half(), Half(), Half()
    evaluate({"half": few}, demo_pack, ["rmse_ab"], limit=5, batch_size=4, cache=tmp_path)
    result = evaluate({"half": more}, demo_pack, ["rmse_ab"], batch_size=1, cache=tmp_path)
    assert few.photos == [0, 5, 10, 14, 19]
    assert not set(few.photos) & set(more.photos)
    same(result, evaluate({"half": Half()}, demo_pack, ["rmse_ab"]))
    evaluate({"half": others}, demo_pack, ["rmse_ab", "mae_ab"], cache=tmp_path)
    assert others.photos == list(range(20))  # for mae_ab alone


def test_values_of_another_key_are_not_reused(demo_pack, tmp_path, monkeypatch):
    evaluate({"half": Half()}, demo_pack, ["mae_ab"], cache=tmp_path)
    for change in ("key", "variant", "pack"):
        half, pack = Half("other" if change == "key" else "half"), demo_pack
        with monkeypatch.context() as patch:
            if change == "variant":
                patch.setitem(METRICS, "mae_ab", METRICS["mae_ab"]._replace(variant="another"))
            if change == "pack":
                patch.setitem(demo_pack.manifest, "content", "another")
            evaluate({"half": half}, pack, ["mae_ab"], cache=tmp_path)
        assert half.asked, change
    nameless = {"half": lambda batch, rows: batch.ab / 2}  # no key: not cached
    before = batches(tmp_path)
    evaluate(nameless, demo_pack, ["mae_ab"], cache=tmp_path)
    assert batches(tmp_path) == before


def test_different_predictors_have_different_keys(demo_pack, tmp_path):
    path = save_painter(tmp_path / "a.safetensors")
    again, changed = load_colorizer(path), load_colorizer(path)
    with torch.no_grad():
        next(changed.parameters()).add_(1e-6)
    one = model_predictor(load_colorizer(path)).key()
    assert model_predictor(again).key() == one
    others = [model_predictor(changed), model_predictor(again, 0.1), damaged(model_predictor(again), "grain")]
    others += [damaged(model_predictor(again), "grain", seed=1), damaged(model_predictor(again), "blur")]
    others += [trivial_predictor(name, demo_pack) for name in ("grey", "mean", "original", "shuffled")]
    others += [trivial_predictor("shuffled", demo_pack, seed=1), trivial_predictor("mean", demo_pack, [1, 2])]
    keys = [predict.key() for predict in others]
    assert len({one, *keys}) == 1 + len(keys)
    assert not hasattr(damaged(lambda batch, rows: batch.ab, "grain"), "key")


@pytest.mark.parametrize("harm", ["cut", "flipped", "emptied", "garbage"])
def test_a_damaged_database_loses_values_and_nothing_else(demo_pack, tmp_path, harm, capsys):
    whole = evaluate({"half": Half()}, demo_pack, ["mae_ab"], batch_size=5, cache=tmp_path)
    path = tmp_path / "values.sqlite"
    data = bytearray(path.read_bytes())
    if harm == "flipped":  # a byte within the values of one batch
        (stored,) = sqlite3.connect(path).execute("SELECT array FROM batches ORDER BY rowid DESC LIMIT 1").fetchone()
        data[data.index(stored) + len(stored) - 1] ^= 1
    path.write_bytes({"cut": data[:-5000], "flipped": data, "emptied": b"", "garbage": b"garbage" * 99}[harm])
    half = Half()
    same(evaluate({"half": half}, demo_pack, ["mae_ab"], batch_size=5, cache=tmp_path), whole)
    assert len(half.asked) == {"cut": 4, "flipped": 1, "emptied": 4, "garbage": 4}[harm]
    logged = capsys.readouterr().err.splitlines()
    assert [("is damaged" in line) for line in logged] == ([True] if harm in ("cut", "garbage") else [])
    last = Half()
    same(evaluate({"half": last}, demo_pack, ["mae_ab"], batch_size=5, cache=tmp_path), whole)
    assert last.asked == []


KILLED = """
import os, signal, sys
from pathlib import Path
from common.evaluation.evaluate import evaluate, keyed
from common.data.packing import open_pack
asked = []
def predict(batch, rows):
    asked.append(rows)
    if len(asked) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return batch.ab / 2
evaluate({"half": keyed(predict, lambda: "half")}, open_pack("demo", 32, "val"), ["mae_ab", "ssim"], batch_size=3,
         cache=Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_kill_loses_one_batch_at_most(demo_pack, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    half = Half()
    result = evaluate({"half": half}, demo_pack, ["mae_ab", "ssim"], batch_size=3, cache=tmp_path)
    assert half.photos == list(range(9, 20))  # three batches were done
    same(result, evaluate({"half": Half()}, demo_pack, ["mae_ab", "ssim"], batch_size=3))


@pytest.fixture
def one_thread():
    """One thread for this test only: sums depend on the number of threads, also in the tests that follow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(demo_pack, tmp_path, one_thread):
    weights = save_painter(tmp_path / "a.safetensors", name="a", parameters=1, steps=1, images=1, seconds=1,
                           trained_on={"mean_ab": [1, 2], "split": "train", "source": "x"})  # fmt: skip
    argv = [str(weights), "grey", "shuffled", "--data=demo", "--split=val", "--size=32", "--batch_size=3"]
    argv += ["--damage", "grain", "--metrics", "default", "lpips"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "--", "scripts.evaluate"]
    two = subprocess.run(
        [*command, *argv, f"--json={tmp_path}/two.json", f"--keep={tmp_path}/kept"],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert two.returncode == 0, two.stderr[-3000:]
    assert two.stdout.count("| grey | ") == 3  # the table is printed once, and two lines of damage
    assert evaluate_main([*argv, f"--json={tmp_path}/one.json", "--no_keep"]) == 0
    results = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two")]
    assert results[0] == results[1]
    # one process reads what two have cached
    assert evaluate_main([*argv, f"--json={tmp_path}/three.json", f"--keep={tmp_path}/kept"]) == 0
    assert json.loads((tmp_path / "three.json").read_text()) == results[0]


def test_a_folder_that_cannot_be_written_is_one_sentence(demo_pack, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be cached.*--no_keep"):
        evaluate({"half": Half()}, demo_pack, ["mae_ab"], cache=tmp_path / "file")
    argv = ["grey", "--data=demo", "--size=32", "--metrics", "auc_rebalanced", f"--keep={tmp_path / 'file'}"]
    assert evaluate_main(argv) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_vectors_and_other_photographs(tmp_path):
    with ValueCache(tmp_path) as cache:
        values = ImageValues(np.array([3, 5, 9]), ["a", "b", "c"], cache, "key")
        vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
        values.add(np.array([0, 2]), {"a": vectors, "b": vectors})
        values.add(np.array([1]), {"c": np.array([True])})
        again = ImageValues(np.array([9, 3, 4]), ["a", "b", "c"], cache, "key")
        np.testing.assert_array_equal(again["a"], [[3, 4, 5], [0, 1, 2], [np.nan] * 3])
        assert again.missing(np.array([0, 1])) == ["c"]
        assert ImageValues(np.array([9, 3, 4]), ["a"], cache, "key").missing(np.array([2])) == ["a"]
        assert ImageValues(np.array([9]), ["a"], cache, "another key").missing(np.array([0])) == ["a"]


FAMILY = """
from common.colorizer import Colorizer

class Constant(Colorizer):
    def forward(self, L):
        return L.new_full((len(L), 2, *L.shape[2:]), {color}) + 0 * L

    def training_step(self, batch):
        yield from ()

    def networks(self):
        return {{}}
"""


def import_family(folder, color, monkeypatch):
    """The class of a family, after its source code has been written, as in a new process."""
    (folder / "constant_family").mkdir(exist_ok=True)
    (folder / "constant_family" / "__init__.py").write_text("")
    (folder / "constant_family" / "model.py").write_text(FAMILY.format(color=color))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("constant_family", "constant_family.model"):
        sys.modules.pop(name, None)
    file_digest.cache_clear()
    return importlib.import_module("constant_family.model").Constant


class Wrapper(Colorizer):
    """Holds a colorizer of another family, as an ensemble does."""

    def __init__(self, member):
        super().__init__()
        self.members = torch.nn.ModuleList([member])

    def forward(self, L):
        return self.members[0](L)

    def training_step(self, batch):
        yield from ()

    def networks(self):
        return {}


@pytest.mark.parametrize("wrap", [lambda colorizer: colorizer, Wrapper], ids=["family", "ensemble"])
def test_a_changed_family_is_measured_again(demo_pack, tmp_path, monkeypatch, wrap):
    numbers = []
    for color in (10, 20, 20):
        predictor = model_predictor(wrap(import_family(tmp_path, color, monkeypatch)()))
        result = evaluate({"model": predictor}, demo_pack, ["mae_ab"], cache=tmp_path / "cache")
        numbers.append((result.table["model"]["mae_ab"]["mean"], batches(tmp_path / "cache")))
    assert numbers[0] != numbers[1] == numbers[2]  # the third time, nothing is measured


def test_changed_prediction_code_is_measured_again(demo_pack, tmp_path, monkeypatch):
    copy = tmp_path / "common"
    shutil.copytree(ROOT / "common", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr("common.evaluation.cache._COMMON", copy)
    weights, keys = load_colorizer(save_painter(tmp_path / "a.safetensors")), set()
    for name in ("predictor.py", "colorizer.py", "color/lab.py", "imaging/read.py"):
        with (copy / name).open("a") as file:
            file.write("# changed\n")
        file_digest.cache_clear()
        keys.add(model_predictor(weights).key())
        rows = {"model": model_predictor(weights), "grey": trivial_predictor("grey", demo_pack)}
        before = batches(tmp_path) if (tmp_path / "values.sqlite").exists() else 0
        evaluate(rows, demo_pack, ["mae_ab"], cache=tmp_path)
        assert batches(tmp_path) == before + 3  # the model, the row grey, and the references
    assert len(keys) == 4
