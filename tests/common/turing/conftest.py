"""Fixtures: two small models, photographs in color, a study with its pictures, a server of its own process."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from common.checkpoint import save_weights
from common.data.packing import open_pack
from common.evaluation.rows import load_rows
from common.registry import build_colorizer
from common.turing.pictures import Gallery, StudyInputs, make_gallery, plan_study
from tests.conftest import ROOT, photo_array

TOKEN = "a token for the tests"
COUNTS = {"practice": 2, "test": 5, "vigilance": 0.2}


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """Weights of a freshly built regressor."""
    torch.manual_seed(0)
    colorizer = build_colorizer("baselines", network="resnet18")
    path = tmp_path_factory.mktemp("weights") / "fresh.safetensors"
    card = {"family": "baselines", "model": {"network": "resnet18"}, "size": 32, "name": "fresh"}
    card["trained_on"] = {"source": "none", "split": "all", "mean_ab": [3.0, 5.0]}
    save_weights(path, colorizer.state_dict(), card, np.empty((0, 16), np.uint8))
    return path


@pytest.fixture(scope="session")
def color_folder(tmp_path_factory) -> Path:
    """Sixteen color photographs, and two grey ones."""
    folder = tmp_path_factory.mktemp("study") / "photos"
    folder.mkdir()
    for i in range(16):
        Image.fromarray(photo_array(100 + i)).save(folder / f"photo{i:02d}.png")
    for i in range(2):
        Image.fromarray(photo_array(i)).convert("L").save(folder / f"grey{i}.png")
    return folder


class Made(NamedTuple):
    """A study and its pictures."""

    inputs: StudyInputs
    gallery: Gallery


@pytest.fixture(scope="session")
def made(weights, color_folder, cache) -> Made:
    """A study of two models, with its pictures."""
    rows = load_rows([str(weights), "shuffled"], "cpu")
    inputs = plan_study(rows, open_pack(str(color_folder), 32), photographs=None, seed=3, **COUNTS)
    return Made(inputs, make_gallery(inputs))


class Served(NamedTuple):
    """A server in its own process."""

    process: subprocess.Popen
    url: str


@contextmanager
def serving(weights: Path, folder: Path, db: Path, **counts):
    """Start `scripts.turing serve` on a free port, wait until it answers, and kill it at the end."""
    argv = [sys.executable, "-m", "scripts.turing", "serve", "--models", str(weights), "grey", f"--data={folder}"]
    counts = {"practice": 2, "test": 5, "vigilance": 0.2} | counts
    argv += [
        f"--db={db}",
        "--port=0",
        "--size=32",
        f"--report_token={TOKEN}",
        *(f"--{k}={v}" for k, v in counts.items()),
    ]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = read_line(process, 120)
        found = re.fullmatch(r"serving: (http://\S+)/\n", line)
        assert found, line + process.stderr.read()
        yield Served(process, found[1])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def read_line(process: subprocess.Popen, seconds: float) -> str:
    """The next line that a process prints, or what there is when it ends or the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ready, _, _ = select.select([process.stdout], [], [], 1)
        if ready:
            return process.stdout.readline()
    return ""


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """The system's Chromium. Skips where there is none."""
    pytest.importorskip("playwright", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.skip("no Chromium on this machine: install it (apt-get install chromium) to play a session in a browser")
    return found


@pytest.fixture(scope="module")  # no longer than needed: playwright keeps an event loop running
def browser(chromium_path):
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
