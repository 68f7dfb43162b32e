"""Weights and cards that cannot be used: one sentence on loading."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.checkpoint import read_card
from common.registry import load_colorizer
from common.utils.errors import UserError
from tests.conftest import save_painter

MODEL = {"network": "small", "width": 0.25}
CARD = {"family": "classification", "model": MODEL, "size": 32}


@pytest.fixture
def path(tmp_path):
    return save_painter(tmp_path / "w.safetensors")


def rewrite(path, card=CARD, change=lambda tensors: None):
    """Write the weights again with another card, or changed tensors."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"card": card if isinstance(card, str) else json.dumps(card)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_not_finite_are_refused(path, value):
    def change(tensors):
        key = next(k for k, v in tensors.items() if v.is_floating_point() and v.dim() > 1)
        tensors[key] = tensors[key].double()
        tensors[key].view(-1)[3] = value

    rewrite(path, change=change)
    with pytest.raises(UserError, match="hold NaN or infinity in"):
        load_colorizer(path)


def test_integer_weights_are_refused(path):
    rewrite(path, change=lambda tensors: tensors.update({k: v.to(torch.int32) for k, v in tensors.items()}))
    with pytest.raises(UserError, match=r"as torch.int32, not torch.float32"):
        load_colorizer(path)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_load(path, kind):
    def change(tensors):
        tensors.update({k: v.to(kind) if v.is_floating_point() else v for k, v in tensors.items()})

    rewrite(path, change=change)
    assert next(load_colorizer(path).parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("card", "says"),
    [
        (CARD | {"size": 1e9}, "has size 1000000000.0: expected"),
        (CARD | {"size": 10**9}, "has size 1000000000: expected"),
        (CARD | {"size": 0}, "has size 0: expected"),
        (CARD | {"size": "64"}, "has size 64: expected"),
        (CARD | {"size": None}, "has size None: expected"),
        (CARD | {"size": True}, "has size True: expected"),
        ({"family": "classification", "model": MODEL}, "has size None: expected"),
        (CARD | {"model": None}, "has model None"),
        (CARD | {"model": [1]}, r"has model \[1\]"),
        (CARD | {"family": ["gan"]}, "has family"),
        (CARD | {"name": 5}, "has name 5"),
        (CARD | {"trained_on": "photographs"}, "has trained_on photographs"),
        (CARD | {"model": MODEL | {"width": "wide"}}, "describes no network of classification"),
        (CARD | {"model": MODEL | {"width": [1]}}, "describes no network of classification"),
        ({"family": "ensemble", "model": {"members": [{}, {}]}, "size": 32}, "describes no network of ensemble"),
        ("[" * 100_000, "has no card of this project"),
        ('{"family": ' + "[" * 100_000, "has no card of this project"),
        ("not JSON", "has no card of this project"),
    ],
)
def test_cards_of_another_form_are_refused(path, card, says):
    rewrite(path, card)
    with pytest.raises(UserError, match=says) as error:
        load_colorizer(path)
    assert len(str(error.value)) < 500


def test_a_deeply_nested_model_is_refused(path):
    deep = MODEL
    for _ in range(900):
        deep = {"generator": deep}
    rewrite(path, CARD | {"family": "gan", "model": deep})
    with pytest.raises(UserError, match=r"describes no network of gan|has no card"):
        load_colorizer(path)


@pytest.mark.parametrize("member", ["w.safetensors", "mean(w.safetensors,w.safetensors)"])
def test_an_ensemble_that_is_its_own_member_is_refused(path, monkeypatch, member):
    monkeypatch.chdir(path.parent)
    rewrite(path, {"family": "ensemble", "model": {"kind": "mean", "members": [member, member]}, "size": 32})
    with pytest.raises(UserError, match="are a member of their own ensemble"):
        load_colorizer(path)


def test_fingerprints_of_another_form_are_refused(path):
    rewrite(path, change=lambda tensors: tensors.update({"trained_on.fingerprints": torch.ones(3)}))
    with pytest.raises(UserError, match="fingerprints of another form"):
        load_colorizer(path)


def test_the_card_of_a_damaged_file_is_one_sentence(path):
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"not a whole .safetensors"):
        read_card(path)
