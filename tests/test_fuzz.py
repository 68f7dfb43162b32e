"""Damaged and hand-edited cards, training states and manifests: an error of the house, or a file that loads.

COLORIZATION_FUZZ sets the number of tries of each kind (default: 40).
"""

import contextlib
import json
import os
import random
import shutil

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from common.data.packing import open_pack
from common.registry import load_colorizer
from common.training.loop import train
from common.training.parser import config_from_dict
from common.training.run import Run
from common.training.state import STATE, read_state, restoring, save_state
from common.utils.errors import UserError
from common.utils.progress import Progress
from tests.conftest import photo_array, save_painter

TRIES = int(os.environ.get("COLORIZATION_FUZZ", "40"))
QUIET = Progress(quiet=True)
VALUES = [None, True, 0, -1, 3, 1e9, 10**30, float("nan"), float("inf"), "", "text", "é" * 300, [], [1], {}, {"a": 1}]


def flipped(data, choose):
    """A file with changed, removed or inserted bytes."""
    data = bytearray(data)
    for _ in range(choose.randint(1, 4)):
        place = choose.randrange(len(data))
        kind = choose.randrange(4)
        if kind == 0:
            data[place] ^= 1 << choose.randrange(8)
        elif kind == 1:
            data[place] = choose.randrange(256)
        elif kind == 2:
            del data[place : place + choose.randint(1, 9)]
        else:
            data[place:place] = bytes(choose.randrange(256) for _ in range(choose.randint(1, 9)))
        if not data:
            return b""
    return bytes(data)


def edited(values, choose):
    """Nested values, one of which is replaced or removed, somewhere."""
    if not isinstance(values, (dict, list)) or not values or choose.random() < 0.1:
        return choose.choice(VALUES)
    copy = dict(values) if isinstance(values, dict) else list(values)
    key = choose.choice(list(copy)) if isinstance(copy, dict) else choose.randrange(len(copy))
    if choose.random() < 0.1:
        del copy[key]
    else:
        copy[key] = edited(copy[key], choose)
    return copy


@pytest.fixture
def choose():
    return random.Random(0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run of one step, and its config."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "photos").mkdir()
    for i in range(6):
        Image.fromarray(photo_array(i)).save(folder / "photos" / f"{i}.png")
    config = config_from_dict({
        "family": "baselines", "data": {"train": str(folder / "photos"), "size": 32, "val_fraction": 0.5}, "steps": 1,
        "batch_size": 2, "sample_every": 0, "device": "cpu", "run": str(folder / "run"),
    })  # fmt: skip
    train(config, QUIET)
    return config


def test_bytes_of_weights(tmp_path, choose):
    path = save_painter(tmp_path / "w.safetensors")
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(TRIES):
        path.write_bytes(flipped(whole[:end], choose) + whole[end:])
        with contextlib.suppress(UserError):
            load_colorizer(path)


@pytest.mark.parametrize("of", ["card", "members"])
def test_values_of_cards(tmp_path, choose, of):
    path = save_painter(tmp_path / "w.safetensors", name="w", steps=1, trained_on={"count": 3, "mean_ab": [1, 2]})
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["card"])
    if of == "members":
        tensors = {f"members.{i}.{key}": value.clone() for i in (0, 1) for key, value in tensors.items()}
        card = card | {"family": "ensemble", "model": {"kind": "mean", "members": [card, card]}}
    loaded = 0
    for _ in range(TRIES):
        save_file(tensors, path, metadata={"card": json.dumps(edited(card, choose))})
        with contextlib.suppress(UserError):
            load_colorizer(path)
            loaded += 1
    save_file(tensors, path, metadata={"card": json.dumps(card)})
    assert load_colorizer(path).card["size"] == 32
    assert loaded < TRIES


def test_bytes_of_states(choose, tmp_path):
    save_state(tmp_path, {"step": 1, "weights": {"x": torch.ones(300)}})
    whole = (tmp_path / STATE).read_bytes()
    for _ in range(TRIES):
        (tmp_path / STATE).write_bytes(flipped(whole, choose))
        with pytest.raises(UserError):
            read_state(tmp_path)


def test_values_of_states(run, choose, tmp_path):
    state = torch.load(run.loop.run + "/" + STATE, weights_only=True) | {"version": 3}  # which has no checksum
    opened = Run(run, QUIET)
    opened.close()
    for _ in range(TRIES):
        torch.save(edited(state, choose), tmp_path / STATE)
        with contextlib.suppress(UserError), restoring(tmp_path):
            opened.load_state_dict(read_state(tmp_path))


@pytest.mark.parametrize("how", ["bytes", "values"])
@pytest.mark.parametrize("name", ["manifest.json", "rows.json"])
def test_manifests_of_packs(run, choose, tmp_path, how, name):
    options = {"val_fraction": 0.5, "cache": str(tmp_path)}
    pack = open_pack(run.data.train, 32, "val", **options)
    (home,) = (path for path in (tmp_path / "packs").iterdir() if path.is_dir())
    whole = (home / name).read_bytes()
    for _ in range(TRIES):
        new = flipped(whole, choose) if how == "bytes" else json.dumps(edited(json.loads(whole), choose)).encode()
        (home / name).write_bytes(new)
        with contextlib.suppress(UserError):
            again = open_pack(run.data.train, 32, "val", **options)
            assert again.describe()
            assert again.images.shape == pack.images.shape
            assert len(again.photographs) == len(again.indices) == len(pack)
    (home / name).write_bytes(whole)
    assert open_pack(run.data.train, 32, "val", **options).names == pack.names
    shutil.rmtree(home)
