"""Ensembles: the mean is the mean, a stack starts as it and learns, and neither touches its members."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.checkpoint import published_state, read_card, save_weights
from common.colorizer import Batch
from common.data.packing import open_pack
from common.ensemble.stacks import StackOptions, resolve_stacks, train_stack
from common.evaluation.options import MeasureOptions
from common.evaluation.rows import load_rows
from common.photo import colorize
from common.registry import build_colorizer, load_colorizer
from common.utils.errors import UserError
from common.utils.expressions import parse_ensemble, split_title
from common.utils.progress import Progress
from scripts import evaluate, export, publish, train
from tests.conftest import photo_array, save_painter

MODELS = {
    "cnn": ("baselines", {"network": "resnet18"}),
    "painter": ("classification", {"network": "small", "width": 0.25}),
    "unet": ("gan", {"size": 32, "generator": {"width": 8}, "discriminator": {"width": 8, "receptive_field": 16}}),
    "cycle": (
        "gan",
        {
            "size": 32,
            "method": "cyclegan",
            "generator": {"width": 8},
            "discriminator": {"width": 8, "receptive_field": 16},
        },
    ),
}


def save_member(folder, name, seed=0):
    """Untrained weights whose batch norm has seen something, with the card of a model trained on the demo."""
    torch.manual_seed(seed)
    family, model = MODELS[name]
    colorizer = build_colorizer(family, **model)
    for part in colorizer.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
    if name == "painter":
        with torch.no_grad():
            colorizer.network[-1].weight.mul_(300)
    card = {
        "name": name, "family": family, "model": model, "size": 32, "parameters": 1, "steps": 1, "images": 1,
        "seconds": 1.0, "trained_on": {"source": "demo", "split": "train", "content": "c", "mean_ab": [1.0, 2.0]},
        "config": {"data": {"train": "demo", "val": None, "val_fraction": 0.1, "margin": 0.125}, "batch_size": 4,
                   "run": name},
    }  # fmt: skip
    path = folder / f"{name}.safetensors"
    save_weights(path, published_state(colorizer), card)
    return str(path)


@pytest.fixture
def members(tmp_path):
    return [save_member(tmp_path, name, seed) for seed, name in enumerate(("cnn", "painter", "unet"))]


@pytest.fixture(scope="module")
def L():
    return torch.rand(2, 1, 32, 64, generator=torch.Generator().manual_seed(0)) * 100


def options(tmp_path):
    return StackOptions(MeasureOptions("demo", device="cpu"), tmp_path / "stacks", budget="2s")


def predict(colorizer, L):
    with torch.no_grad():
        return colorizer(L)


def test_the_mean_is_the_mean(members, L):
    each = [predict(load_colorizer(member), L) for member in members]
    together = load_colorizer(f"mean({','.join(members)})")
    torch.testing.assert_close(predict(together, L), sum(each) / 3, atol=1e-4, rtol=0)
    assert together.multiple == 32  # of 8, 8 and 32
    nested = load_colorizer(f"mean(mean({members[0]},{members[1]}),{members[2]})")
    torch.testing.assert_close(predict(nested, L), (each[0] + each[1] + 2 * each[2]) / 4, atol=1e-4, rtol=0)


def test_a_temperature_is_that_of_the_members_that_have_one(members, L):
    together = load_colorizer(f"mean({members[0]},{members[1]})")
    cold, painter = predict(together, L), load_colorizer(members[1])
    assert together.temperature == painter.temperature == 0.38
    together.temperature = painter.temperature = 1.0
    expected = (predict(load_colorizer(members[0]), L) + predict(painter, L)) / 2
    torch.testing.assert_close(predict(together, L), expected, atol=1e-4, rtol=0)
    assert (cold - expected).abs().max() > 0.1
    assert load_colorizer(f"mean({members[0]},{members[2]})").temperature is None


def test_a_stack_starts_as_the_mean_and_its_members_are_nobodys_to_train(members, L):
    stack = build_colorizer("ensemble", members=members)
    torch.testing.assert_close(predict(stack, L), predict(load_colorizer(f"mean({','.join(members)})"), L))
    before = {key: value.clone() for key, value in stack.state_dict().items() if key.startswith("members.")}
    assert before
    assert not any("discriminator" in key for key in before)
    stack.train()
    assert stack.network.training
    assert not any(part.training for part in stack.members.modules())
    optimizer = torch.optim.SGD(stack.parameters(), lr=0.1)
    for _ in range(3):
        (objective,) = stack.training_step(Batch(L, torch.rand(2, 2, 32, 64) * 50))
        optimizer.zero_grad()
        objective.loss.backward()
        optimizer.step()
    after = stack.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert (predict(stack.eval(), L) - predict(load_colorizer(f"mean({','.join(members)})"), L)).abs().max() > 0.01


def test_what_only_training_needs_stays_behind(members, tmp_path, L):
    cycle = save_member(tmp_path, "cycle")
    stack = build_colorizer("ensemble", members=[members[0], cycle])
    assert {key.split(".")[2] for key in stack.state_dict() if key.startswith("members.1.")} == {"generators"}
    assert not any("greyer" in key for key in stack.state_dict())
    expected = (predict(load_colorizer(members[0]), L) + predict(load_colorizer(cycle), L)) / 2
    torch.testing.assert_close(predict(stack.eval(), L), expected, atol=1e-4, rtol=0)
    learned = sum(tensor.numel() for key, tensor in load_file(cycle).items() if _is_learned(key))
    resnet = sum(p.numel() for p in _parameters("cnn"))
    assert stack.member_parameters == learned + resnet


def _is_learned(key):
    return not any(word in key for word in ("running_", "num_batches"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A stack of a classifier and a regressor, trained on the demo photographs by the real entry point."""
    folder = tmp_path_factory.mktemp("stack")
    members = [save_member(folder, name, seed) for seed, name in enumerate(("cnn", "painter"))]
    argv = ["--family=ensemble", f"--model.members={json.dumps(members)}", "--data.size=32", "--steps=25"]
    argv += ["--batch_size=8", "--optim.lr=0.003", "--optim.ema=0.5", "--sample_every=0", f"--run={folder / 'run'}"]
    assert train.main(argv) == 0
    return folder, members


@pytest.mark.slow
def test_training_makes_a_stack_no_worse_on_what_it_learns_from(trained):
    folder, members = trained
    pack = open_pack("demo", 32, "train")
    L, ab = pack.lab(np.arange(len(pack)))
    stack, mean = load_colorizer(folder / "run"), load_colorizer(f"mean({','.join(members)})")
    errors = [float((predict(model, L) - ab).square().mean()) for model in (stack, mean)]
    assert errors[0] < 0.9 * errors[1]
    saved = load_file(folder / "run" / "weights.safetensors")
    for i, member in enumerate(members):  # moving averages, bf16 and the optimizer have left them alone
        own = load_file(member)
        assert all(torch.equal(saved[f"members.{i}.{key}"], value) for key, value in own.items())


@pytest.mark.slow
def test_a_saved_stack_needs_none_of_its_members_files(trained, tmp_path, L):
    folder, members = trained
    expected = predict(load_colorizer(folder / "run"), L)
    shutil.copy(folder / "run" / "weights.safetensors", tmp_path / "alone.safetensors")
    for member in members:
        shutil.move(member, f"{member}.away")
    try:
        alone = load_colorizer(tmp_path / "alone.safetensors")
        assert torch.equal(predict(alone, L), expected)
        assert colorize(alone, photo_array(1)).shape == photo_array(1).shape
        assert [card["name"] for card in alone.card["model"]["members"]] == ["cnn", "painter"]
        learned = sum(p.numel() for m in ("cnn", "painter") for p in _parameters(m))
        mixing = sum(p.numel() for p in alone.network.parameters())
        assert alone.card["parameters"] == learned + mixing
        out = tmp_path / "published.safetensors"
        assert publish.main([str(tmp_path / "alone.safetensors"), "--name=both", f"--out={out}"]) == 0
        assert str(folder) not in json.dumps(read_card(out)["model"])
        assert (predict(load_colorizer(out), L) - expected).abs().max() < 1
    finally:
        for member in members:
            shutil.move(f"{member}.away", member)


def _parameters(name):
    family, model = MODELS[name]
    return build_colorizer(family, **model).parameters()


@pytest.mark.slow
def test_a_stack_is_exported(trained, tmp_path):
    pytest.importorskip("onnxruntime")
    assert export.main([str(trained[0] / "run"), f"--onnx={tmp_path / 's.onnx'}"]) == 0


@pytest.mark.slow
def test_a_row_stack_is_trained_once_and_never_on_what_is_measured(tmp_path, capsys):
    members = [save_member(tmp_path, name) for name in ("cnn", "painter")]
    row = f"stack({','.join(members)})"
    argv = [row, f"m=mean({','.join(members)})", "--data=demo", "--metrics", "rmse_ab", "--stack_budget=2s"]
    argv.append(f"--stacks={tmp_path / 'stacks'}")
    assert evaluate.main(argv) == 0
    told = capsys.readouterr()
    assert "| stack(cnn,painter) | " in told.out
    assert "| m | " in told.out
    assert "(val, " in told.out  # the part that the members did not see
    (folder,) = (tmp_path / "stacks").iterdir()
    written = (folder / "weights.safetensors").stat().st_mtime_ns
    assert evaluate.main(argv) == 0
    assert "training for" not in capsys.readouterr().err
    assert (folder / "weights.safetensors").stat().st_mtime_ns == written
    save_member(tmp_path, "painter", seed=9)  # another model under the old name makes another stack
    assert str(train_stack(members, options(tmp_path), Progress(quiet=True))) != str(folder)
    assert evaluate.main([*argv, "--split=all"]) == 1  # the mean is still measured
    assert "would be trained on" in capsys.readouterr().err


def test_rows_of_ensembles_have_cards_like_any_other(members):
    rows = load_rows([f"mean({members[0]},{members[1]})", "calm64", "n=mean(calm64,vivid64)"], "cpu", [0.3, 1])
    assert rows.failures == []
    titles = ["mean(cnn,painter)", "calm64", "n"]
    assert list(rows.cards) == [f"{title} T={t}" for title in titles for t in ("0.3", "1")]
    wanted = {"size", "parameters", "trained_on", "steps", "images", "seconds"}  # by the protocol of a table
    assert all(wanted <= set(card) for card in rows.cards.values())
    assert [title for title in rows.cards if title not in rows.paths] == [t for t in rows.cards if "calm64" not in t]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mean()", "has no model"),
        ("mean(calm64,vivid64", "not closed"),
        ("mean(calm64,vivid64))", "after its closing bracket"),
        ("mean(calm64,,vivid64)", "comma"),
        ("mean(calm64)", "one model"),
        ("mean(calm64,mean(vivid64))", "one model"),
        ("maen(calm64,vivid64)", "did you mean 'mean'"),
        ("mean(calm64,vivid6)", "did you mean 'vivid64'"),
        ("stack(calm64,grey)", "weights grey do not exist"),
        ("stack(calm64,vivid64)", "is not on this machine: name training photographs with --stack_data"),
        ("clam64", "did you mean 'calm64'"),
    ],
)
def test_what_is_no_ensemble_is_one_sentence_and_the_others_are_loaded(name, told, tmp_path):
    names, failures = resolve_stacks([name, "calm64"], options(tmp_path), Progress(quiet=True))
    rows = load_rows(names, "cpu")
    (failure,) = failures + rows.failures
    assert told in failure
    assert "\n" not in failure
    assert list(rows.cards) == ["calm64"]


def test_bad_options_of_the_family_are_one_sentence(tmp_path, capsys):
    argv = ["--family=ensemble", "--data.size=32", "--steps=1", f"--run={tmp_path / 'r'}"]
    for more, told in (
        ([], "names 0 models"),
        (["--model.members=[calm64]"], "names 1 models"),
        (["--model.members=[calm64,vivid64]", "--model.width=0"], "width is 0"),
        (["--model.members=[calm64,vivid64]", "--model.kind=mean"], "nothing to learn"),
        (["--model.members=[calm64,nobody]"], "nobody do not exist"),
    ):
        assert train.main([*argv, *more]) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("error: ")
        assert told in last
    with pytest.raises(UserError, match="has to be trained first"):
        load_colorizer("stack(calm64,vivid64)")


def test_names_are_taken_apart(tmp_path):
    assert split_title("x=mean(a,stack(b,c))") == ("x", "mean(a,stack(b,c))")
    assert split_title("mean(a,b)=mean(p,q)") == ("mean(a,b)", "mean(p,q)")
    assert split_title("mean(a,b)") == ("", "mean(a,b)")
    assert split_title("x=runs/a") == ("x", "runs/a")
    assert str(parse_ensemble("mean( a , stack(b,c) )")) == "mean(a,stack(b,c))"
    odd = tmp_path / "mean(1)"
    odd.mkdir()
    assert parse_ensemble(str(odd)) is None
    assert parse_ensemble("runs/a") is None


def test_a_mean_of_the_same_model_twice_scores_as_the_model(tmp_path, demo_pack):
    path = save_painter(tmp_path / "p.safetensors", name="p")
    L = demo_pack.lab(np.arange(4))[0]
    twice, once = load_colorizer(f"mean({path},{path})"), load_colorizer(path)
    torch.testing.assert_close(predict(twice, L), predict(once, L))
    photo = photo_array(1)
    assert abs(colorize(twice, photo).astype(int) - colorize(once, photo)).max() <= 1  # of any size, by the whole way
