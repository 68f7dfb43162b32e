"""The real entry point of the Turing test: every sub-command, and bad command lines in one sentence."""

import csv
import json
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
import torch

from common.checkpoint import save_weights
from common.registry import build_colorizer
from common.turing.static_site import read_key
from scripts import turing
from tests.conftest import ROOT

COUNTS = ["--size=32", "--practice=1", "--test=4", "--vigilance=0.25"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "fresh.safetensors"
    card = {"family": "baselines", "model": {"network": "resnet18"}, "size": 32, "name": "fresh"}
    card["trained_on"] = {"source": "none", "split": "all", "mean_ab": [0.0, 0.0]}
    save_weights(path, build_colorizer("baselines", network="resnet18").state_dict(), card, np.empty((0, 16), np.uint8))
    return str(path)


def test_paper(weights, photos, tmp_path, capsys):
    """sheet with one model, forms filled in, score."""
    out = tmp_path / "sheet"
    assert turing.main(["sheet", "--models", weights, f"--data={photos}", "--pairs=4", f"--out={out}"]) == 0
    assert "key.json, answers.csv" in capsys.readouterr().out
    with open(out / "answers.csv") as file:
        rows = list(csv.reader(file))
    key = json.loads((out / "key.json").read_text())
    (out / "filled.csv").write_text(
        "\n".join(
            ",".join(r) for r in [rows[0], *([*r[:2], p["fake"]] for r, p in zip(rows[1:], key["pairs"], strict=True))]
        )
    )
    assert turing.main(["score", f"--key={out}/key.json", f"--answers={out}/filled.csv"]) == 0
    assert "| fresh | 0.0 % (0.0 to 0.0) | 0 of 4 | 1 | 0 |" in capsys.readouterr().out


def test_files_there_and_back(weights, photos, tmp_path, capsys):
    """export, answers downloaded, merge, report."""
    site, db = tmp_path / "site", tmp_path / "study.db"
    models = ["--models", f"one={weights}", "grey", f"--data={photos}", *COUNTS]
    assert turing.main(["export", *models, f"--out={site}", "--sessions=2"]) == 0
    study, plans = read_key(tmp_path / "site.key.json")
    answers = [
        {"position": i, "pair": pair, "choice": trial.fake, "exposure_ms": 1000, "response_ms": 900, "layout": "row"}
        for i, (pair, trial) in enumerate(zip(plans[0]["pairs"], plans[0]["trials"], strict=True))
    ]
    found = {"study": study.digest(), "plan": 0, "session": "0" * 32, "started": 1, "answers": answers}
    (tmp_path / "a.json").write_text(json.dumps(found))
    (tmp_path / "b.json").write_text("{}")
    merge = ["merge", f"--key={site}.key.json", f"--db={db}", "--answers"]
    assert turing.main([*merge, f"{tmp_path}/a.json"]) == 0
    assert turing.main([*merge, f"{tmp_path}/a.json", f"{tmp_path}/b.json"]) == 1
    printed = capsys.readouterr()
    assert "1 sessions added" in printed.out
    assert "0 sessions added" in printed.out
    assert "b.json holds answers to another study" in printed.err
    assert turing.main(["report", f"--db={db}", f"--out={tmp_path}/report"]) == 0
    assert f"| {plans[0]['model']} | 0.0 % (0.0 to 0.0) | 1 | 1 | 3 |" in capsys.readouterr().out


def test_plan(capsys):
    assert turing.main(["plan", "--share=0.25", "--difference=0.1", "--models=3"]) == 0
    assert "26 people per model (78 for 3 models)" in capsys.readouterr().out


def version_9(path):
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA application_id = 1414877769")
        db.execute("PRAGMA user_version = 9")
        db.execute("CREATE TABLE study (record TEXT)")
    return path


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["play"], "invalid choice: 'play' (choose from"),
        ([], "the following arguments are required: COMMAND"),
        (["serve", "--models", "W", "--data=D", "--db=B"], "one model only"),
        (["export", "--models", "W", "--data=D", "--out=O"], "one model only"),
        (["serve", "--models", "W", "grey", "--data=D", "--db=B", "--size=32"], "fewer than the 50 pairs of a session"),
        (["sheet", "--models", "W", "--data=D", "--out=O", "--size=32"], "fewer than the 20 pairs of the sheet"),
        (["sheet", "--models", "original", "--data=D", "--out=O", "--size=32"], "leave the row original out"),
        (["serve", "--models", "W", "nowhere", "--data=D", "--db=B"], "row nowhere is not a run folder"),
        (
            ["serve", "--models", "W", "grey", "--data=D", "--db=B", "--report_token=short"],
            "has 5 characters: use 16",
        ),
        (["serve", "--models", "W", "grey", "--data=D", "--db=B", "--port=70000"], "port is 70000"),
        (["serve", "--models", "W", "grey", "--data=D", "--db=B", "--host=256.0.0.1"], "host 256.0.0.1"),
        (["serve", "--models", "W", "grey", "--data=D", "--db=V", *COUNTS, "--port=0"], "has version 9"),
        (["serve", "--models", "W", "grey", "--data=D", "--db=/proc/x.db", *COUNTS, "--port=0"], "cannot be written"),
        (["serve", "--models", "W", "grey", "--data=D", "--db=B", "--vigilance=2"], "must be a number between 0 and 1"),
        (["report", "--db=nowhere.db", "--out=O"], "nowhere.db does not exist"),
        (["report", "--db=V", "--out=O"], "has version 9"),
        (["plan", "--share=0.9", "--difference=0.2"], "a share of 1.1 is impossible"),
        (["plan", "--spread=0.6"], "spread is 0.6"),
        (["score", "--key=nowhere.json", "--answers", "x.csv"], "nowhere.json cannot be read"),
        (["merge", "--key=nowhere.json", "--answers", "x.json", "--db=B"], "nowhere.json cannot be read"),
    ],
)
def test_bad_command_lines_are_one_line(argv, says, weights, photos, tmp_path, capsys):
    names = {"W": weights, "D": str(photos), "O": f"{tmp_path}/out", "B": f"{tmp_path}/b.db"}
    names["V"] = str(version_9(tmp_path / "v.db"))
    argv = [names.get(a, a) for a in argv]
    argv = [
        f"{a.split('=')[0]}={names[a.split('=')[1]]}" if a.split("=")[-1] in names and "=" in a else a for a in argv
    ]
    assert turing.main(argv) == 2
    printed = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(str(photos))]
    assert len(printed) == 1
    assert printed[0].startswith("error: ")
    assert says in printed[0]


def test_without_the_web_extra(weights, photos, tmp_path):
    code = f"""
import sys
sys.modules["jinja2"] = None
from scripts import turing
argv = ["--models", {weights!r}, "grey", "--data={photos}", "--db={tmp_path}/b.db", "--port=0"]
sys.exit(turing.main(["serve", *argv]))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 2
    assert run.stderr == "error: jinja2 is not installed: run pip install '.[web]' in the folder of Colorization Lab\n"


@pytest.mark.parametrize("command", [None, "sheet", "score", "serve", "report", "plan", "export", "merge"])
def test_help(command):
    argv = [sys.executable, "-m", "scripts.turing", *([command] if command else []), "--help"]
    shown = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)
    assert shown.returncode == 0
    assert f"python -m scripts.turing {command or 'sheet --model'}" in shown.stdout
