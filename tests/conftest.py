"""Fixtures: small photographs made from seeds, and one cache for the whole test session."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from common.checkpoint import save_weights
from common.colorizer import Batch
from common.data.packing import Pack, open_pack
from common.registry import build_colorizer

settings.register_profile("fixed", derandomize=True, database=None)  # the same examples in every run
settings.load_profile("fixed")

ROOT = Path(__file__).resolve().parent.parent
SIDE = 16


def fuzz_examples(default: int) -> int:
    """Number of examples of a test of random requests: $COLORIZATION_FUZZ, if it is set."""
    return int(os.environ.get("COLORIZATION_FUZZ", default))


def photo_array(seed: int, height: int = 40, width: int = 48) -> np.ndarray:
    """A smooth colorful picture, uint8 [H, W, 3], different for every seed."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def save_painter(path: Path, **card: object) -> Path:
    """Weights of an untrained classifier that holds some colors likelier than others, so it paints something."""
    torch.manual_seed(0)
    model = {"network": "small", "width": 0.25}
    colorizer = build_colorizer("classification", **model)
    with torch.no_grad():
        colorizer.network[-1].weight.mul_(300)
    save_weights(path, colorizer.state_dict(), {"family": "classification", "model": model, "size": 32, **card})
    return path


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache folder for the session, away from the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["COLORIZATION_CACHE"] = str(folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of twelve small color photographs, some in a sub-folder, and one text file."""
    folder = tmp_path / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    for i in range(12):
        target = folder / ("deep/er" if i % 3 else ".") / f"photo{i}.png"
        Image.fromarray(photo_array(i)).save(target)
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="session")
def demo_pack() -> Pack:
    """The demo's held-out photographs at 32 px."""
    return open_pack("demo", 32, "val")


@pytest.fixture
def batch() -> Batch:
    """Four random pictures of SIDE."""
    torch.manual_seed(1)
    side = SIDE
    return Batch(torch.rand(4, 1, side, side) * 100, torch.rand(4, 2, side, side) * 80 - 40)
