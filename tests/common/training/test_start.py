"""Training that starts from published weights."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from classification.rebalancing import class_weights
from common.checkpoint import published_state, read_card, read_weights, save_weights
from common.registry import build_colorizer, load_colorizer
from common.training.parser import config_from_dict, parse_config
from common.training.run import Run
from common.utils.errors import UserError
from scripts import publish
from scripts.train import main
from tests.common.training.test_loop import assert_same_state

MODEL = {"width": 0.25, "rebalancing_lambda": 1.0, "temperature": 0.7, "prior": "/home/p.json"}
FINGERPRINTS = np.arange(48, dtype=np.uint8).reshape(3, 16)


def save(path, family="classification", model=MODEL | {"grid": 10}, fingerprints=FINGERPRINTS, **card):
    """Weights of a classifier whose shift of 0.5 is in the bias, as in those of older versions."""
    torch.manual_seed(0)
    colorizer = build_colorizer(family, **model)
    if family == "classification":
        colorizer.prior.copy_(torch.rand(261).softmax(dim=0))
        with torch.no_grad():
            colorizer.network.head.weight.mul_(30)
            colorizer.network.head.bias.add_(0.5 * class_weights(colorizer.prior).log())
        card = {"shifted": "logits + 0.5 log(class weights of lambda 0.5)"} | card
    config = {"optim": {"lr": 0.02, "clip": 1.0}, "augment": {"hue": 5.0}, "batch_size": 4,
              "data": {"margin": 0.0, "train": "/home/a.tar", "val": None}, "run": "/home/runs/old"}  # fmt: skip
    trained_on = {"source": "/home/somebody/a.tar", "count": 3, "content": "ab"}
    card = {"family": family, "model": model, "size": 24, "name": "old", "steps": 7, "trained_on": trained_on,
            "config": config} | card  # fmt: skip
    save_weights(path, published_state(colorizer), card, fingerprints)
    return path


@pytest.fixture
def weights(tmp_path):
    return save(tmp_path / "old.safetensors")


def parse(*argv):
    return parse_config([str(word) for word in argv], "", "train")


def arguments(weights, photos, run, steps):
    return [
        "--init", str(weights), "--data.train", str(photos), "--run", str(run), "--steps", str(steps),
        "--device=cpu", "--sample_every=0", "--eval_every=4", "--save_every=2", "--optim.ema=0.9",
    ]  # fmt: skip


def test_the_card_gives_the_defaults(weights):
    config = parse("--init", weights, "--optim.clip", "0.5")
    assert (config.family, config.model["width"], config.model["temperature"]) == ("classification", 0.25, 0.7)
    assert (config.model["shift"], config.model["prior"]) == (0.5, None)
    assert (config.data.size, config.data.margin, config.augment.hue, config.loop.batch_size) == (24, 0.0, 5.0, 4)
    assert config.optim.lr == pytest.approx(0.006)  # 0.3 times 0.02
    assert config.optim.clip == 0.5
    assert config_from_dict({"init": str(weights), "optim": {"clip": 0.5}}).to_dict() == config.to_dict()
    assert parse("--init", "null", "--family", "baselines").data.size == 64


def test_every_installed_model_can_be_started_from():
    for name, size in (("photo", 128), ("calm64", 64), ("regression128", 128), ("gan128", 128)):
        config = parse("--init", name)
        assert (config.loop.init, config.data.size) == (name, size)
        assert config.optim.lr == pytest.approx(read_weights(name)[1]["config"]["optim"]["lr"] * 0.3)
    assert parse("--init", "photo").model["shift"] == 0.7


def test_a_run_predicts_what_the_weights_predict_and_trains_unshifted_logits(weights, photos, tmp_path):
    base = load_colorizer(weights)
    config = parse(*arguments(weights, photos, tmp_path / "run", 4))
    run = Run(config)
    run.close()
    L = torch.rand(2, 1, 24, 24) * 100
    with torch.no_grad():
        torch.testing.assert_close(run.colorizer.eval()(L), base(L), atol=1e-3, rtol=0)
        unshifted = run.colorizer.network(L / 50 - 1)
        shift = 0.5 * class_weights(base.prior).log()[:, None, None]
        torch.testing.assert_close(unshifted + shift, base.logits(L), atol=1e-4, rtol=0)
    assert torch.equal(run.colorizer.prior, base.prior)  # the same shift needs the same prior


def test_the_shift_is_not_part_of_the_loss(batch):
    losses = []
    for shift in (0.0, 0.8):
        torch.manual_seed(0)
        colorizer = build_colorizer("classification", **MODEL | {"prior": None, "shift": shift})
        colorizer.prior.copy_(torch.linspace(1, 5, 261) / 783)
        losses.append(next(colorizer.training_step(batch)).loss)
        predicted = colorizer.distribution(batch.L)[0].detach()
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-4)
    assert float(predicted[:, 0].mean() / predicted[:, -1].mean()) > 1.2  # rare colors are likelier
    with pytest.raises(UserError, match=r"model.shift is 0.5 and model.rebalancing_lambda 0.5"):
        build_colorizer("classification", shift=0.5)


def test_resuming_is_exact_and_does_not_read_the_weights(weights, photos, tmp_path):
    assert main([*arguments(weights, photos, tmp_path / "cut", 6), "--steps=3", "--optim.schedule=constant"]) == 0
    weights.rename(tmp_path / "elsewhere.safetensors")
    resumed = [*arguments(weights, photos, tmp_path / "cut", 6), "--optim.schedule=constant"]
    assert main(resumed) == 0
    (tmp_path / "elsewhere.safetensors").rename(weights)
    assert main([*arguments(weights, photos, tmp_path / "whole", 6), "--optim.schedule=constant"]) == 0
    assert_same_state(tmp_path / "cut", tmp_path / "whole")
    one, other = (load_file(tmp_path / name / "weights.safetensors") for name in ("cut", "whole"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert read_card(tmp_path / "cut" / "weights.safetensors")["base"]["name"] == "old"


def test_the_card_names_the_base_and_the_fingerprints_are_of_both(weights, photos, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "new.safetensors"
    assert main(arguments(weights, photos, run, 2)) == 0
    own = Run(parse(*arguments(weights, photos, run, 2)))
    own.close()
    assert publish.main([str(run), "--name=new", f"--out={out}"]) == 0
    _, card, fingerprints = read_weights(out)
    both = {bytes(row) for row in np.concatenate([FINGERPRINTS, own.data.fingerprints])}
    assert {bytes(row) for row in fingerprints} == both
    assert len(both) == 3 + len(own.data.indices)
    assert (card["base"]["name"], card["base"]["steps"], len(card["base"]["sha256"])) == ("old", 7, 64)
    assert card["base"]["trained_on"]["source"] == "a.tar"
    assert (card["config"]["init"], card["model"]["shift"], card["model"]["pretrained"]) == (weights.name, 0.5, False)
    assert "/" not in json.dumps(card)
    again = parse("--init", out)  # and this can be started from too, at the same rate
    assert (again.optim.lr, again.model["shift"]) == (pytest.approx(0.006), 0.5)
    assert main([*arguments(out, photos, tmp_path / "third", 1), "--data.val_fraction=0.3"]) == 0
    assert read_card(tmp_path / "third" / "weights.safetensors")["base"]["base"]["name"] == "old"


def test_unknown_training_photographs_stay_unknown(photos, tmp_path):
    weights = save(tmp_path / "old.safetensors", fingerprints=None)
    assert main(arguments(weights, photos, tmp_path / "run", 1)) == 0
    assert load_colorizer(tmp_path / "run").fingerprints is None


def test_publishing_replaces_the_shift(weights, tmp_path):
    out = tmp_path / "out.safetensors"
    assert publish.main([str(weights), "--name=mine", f"--out={out}", "--shift=0.2"]) == 0
    before, after = load_colorizer(weights), load_colorizer(out)
    L = torch.rand(1, 1, 24, 24) * 100
    with torch.no_grad():
        added = (after.logits(L) - before.logits(L)).mean(dim=(0, 2, 3))
    torch.testing.assert_close(added, -0.3 * class_weights(before.prior).log(), atol=2e-2, rtol=0)
    assert "shifted" not in after.card


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--family=gan"], "family is gan and init is {}, of the family classification: leave the family out"),
        (["--model.width=0.5"], "leave out what changes it, model.width is 0.5 (theirs: 0.25)"),
        (["--model.grid=20"], "leave out what changes it, model.grid is 20 (theirs: 10)"),
        (["--init=nothing"], "weights nothing do not exist"),
        (["--init=README.md"], "README.md is not a whole .safetensors file"),
    ],
)
def test_contradictions_are_one_sentence(weights, photos, tmp_path, capsys, more, says):
    assert main([*arguments(weights, photos, tmp_path / "run", 1), *more]) == 2
    error = capsys.readouterr().err
    assert says.format(weights) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_options_that_leave_the_network_as_it_is_may_be_given(weights, photos, tmp_path):
    more = ["--model.temperature=0.4", "--model.shift=0", "--model.upsample=logits"]
    assert main([*arguments(weights, photos, tmp_path / "run", 1), *more]) == 0
    assert read_card(tmp_path / "run" / "weights.safetensors")["model"]["temperature"] == 0.4


def test_another_start_is_another_run(weights, photos, tmp_path, capsys):
    assert main(arguments(weights, photos, tmp_path / "run", 1)) == 0
    other = save(tmp_path / "other.safetensors")
    assert main(arguments(other, photos, tmp_path / "run", 2)) == 2
    assert f"was begun with init {weights}, and now it is {other}" in capsys.readouterr().err


def test_a_generator_starts_a_gan_with_a_new_discriminator(photos, tmp_path):
    model = {"size": 32, "generator": {"width": 8, "depth": 3}, "discriminator": {"width": 8, "receptive_field": 16}}
    weights = save(tmp_path / "gan.safetensors", "gan", model, size=32)
    run = Run(parse(*arguments(weights, photos, tmp_path / "run", 1)))
    run.close()
    state = read_weights(weights)[0]
    own = run.colorizer.state_dict()
    assert all(torch.equal(own[key].cpu(), value) for key, value in state.items())
    assert len(own) > len(state)


def test_a_config_file_may_hold_a_mapping_of_losses(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("family: baselines\nmodel:\n  loss: {l1: 1, mse: 0.5}\n")
    assert parse("--config", file).model["loss"] == {"l1": 1, "mse": 0.5}
    file.write_text("family: baselines\nmodel:\n  perceptual: {wight: 1}\n")
    with pytest.raises(UserError, match=r"unknown option model.perceptual.wight"):
        parse("--config", file)
