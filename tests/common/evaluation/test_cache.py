"""Values that are kept on disk: what is measured again, and what a kill costs."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from common.evaluation.cache import Columns
from common.evaluation.evaluate import damaged, evaluate, model_predictor, trivial_predictor
from common.evaluation.metrics import METRICS
from common.registry import load_colorizer
from common.utils.errors import UserError
from scripts.evaluate import main as evaluate_main
from tests.conftest import ROOT, save_painter

METRIC_NAMES = ["rmse_ab", "psnr", "colorfulness_ratio", "auc_rebalanced", "frechet_color", "bleeding"]


class Half:
    """Half of the true color; counts the batches that it is asked for."""

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


def test_what_is_kept_is_not_measured_again(demo_pack, tmp_path):
    plain = evaluate({"half": Half()}, demo_pack, METRIC_NAMES, batch_size=7)
    first, second = Half(), Half()
    same(evaluate({"half": first}, demo_pack, METRIC_NAMES, batch_size=7, cache=tmp_path), plain)
    same(evaluate({"half": second}, demo_pack, METRIC_NAMES, batch_size=5, cache=tmp_path), plain)
    assert (len(first.asked), second.asked) == (3, [])
    assert len(list(tmp_path.glob("*.values"))) == 2  # the row, and the truth


def test_a_subset_of_photographs_or_metrics_is_reused(demo_pack, tmp_path):
    few, more, others = Half(), Half(), Half()
    evaluate({"half": few}, demo_pack, ["rmse_ab"], limit=5, batch_size=4, cache=tmp_path)
    result = evaluate({"half": more}, demo_pack, ["rmse_ab"], batch_size=1, cache=tmp_path)
    assert few.photos == [0, 5, 10, 14, 19]
    assert not set(few.photos) & set(more.photos)
    same(result, evaluate({"half": Half()}, demo_pack, ["rmse_ab"]))
    evaluate({"half": others}, demo_pack, ["rmse_ab", "mae_ab"], cache=tmp_path)
    assert others.photos == list(range(20))  # for mae_ab alone


def test_a_changed_key_starts_anew(demo_pack, tmp_path, monkeypatch):
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
    nameless = {"half": lambda batch, rows: batch.ab / 2}  # no key: not kept
    before = len(list(tmp_path.iterdir()))
    evaluate(nameless, demo_pack, ["mae_ab"], cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == before


def test_keys_tell_predictors_apart(demo_pack, tmp_path):
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
def test_a_torn_file_loses_what_is_torn_alone(demo_pack, tmp_path, harm):
    whole = evaluate({"half": Half()}, demo_pack, ["mae_ab"], batch_size=5, cache=tmp_path)
    for path in tmp_path.glob("*.values"):
        data = bytearray(path.read_bytes())
        if harm == "flipped":
            data[len(data) // 2] ^= 1
        new = {"cut": data[:-3], "flipped": data, "emptied": b"", "garbage": b"\n\x00values\x00" + data}[harm]
        path.write_bytes(new)
    half = Half()
    same(evaluate({"half": half}, demo_pack, ["mae_ab"], batch_size=5, cache=tmp_path), whole)
    assert len(half.asked) == {"cut": 1, "flipped": 1, "emptied": 4, "garbage": 0}[harm]
    last = Half()
    same(evaluate({"half": last}, demo_pack, ["mae_ab"], batch_size=5, cache=tmp_path), whole)
    assert last.asked == []  # what was appended to the torn file is found


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


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(demo_pack, tmp_path):
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
    torch.set_num_threads(1)
    assert evaluate_main([*argv, f"--json={tmp_path}/one.json", "--no_keep"]) == 0
    results = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two")]
    assert results[0] == results[1]
    # and what two have kept, one goes on with
    assert evaluate_main([*argv, f"--json={tmp_path}/three.json", f"--keep={tmp_path}/kept"]) == 0
    assert json.loads((tmp_path / "three.json").read_text()) == results[0]


def test_a_folder_that_takes_no_values_is_said(demo_pack, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be (kept|read).*--no_keep"):
        evaluate({"half": Half()}, demo_pack, ["mae_ab"], cache=tmp_path / "file")
    argv = ["grey", "--data=demo", "--size=32", "--metrics", "auc_rebalanced", f"--keep={tmp_path / 'file'}"]
    assert evaluate_main(argv) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_columns_of_vectors(tmp_path):
    rows, path = np.array([3, 5, 9]), tmp_path / "x.values"
    columns = Columns(rows, path)
    columns.add(np.array([0, 2]), [(["a", "b"], np.arange(6, dtype=np.float32).reshape(2, 3))])
    columns.add(np.array([1]), [(["c"], np.array([True]))])
    again = Columns(np.array([9, 3, 4]), path)
    np.testing.assert_array_equal(again["a"], [[3, 4, 5], [0, 1, 2], [np.nan] * 3])
    assert again.lacking(["a", "b", "c"], np.array([0, 1])) == ["c"]
    assert again.lacking(["a"], np.array([2])) == ["a"]
