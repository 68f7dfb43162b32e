"""One contract, checked on every experiment file."""

import pytest
import torch

from common.checkpoint import only_trains, published_state, save_weights
from common.color.lab import rgb8_to_lab
from common.colorizer import Batch
from common.registry import build_colorizer, load_colorizer
from common.training.parser import parse_config
from common.training.run import make_optimizer
from tests.conftest import ROOT, photo_array

EXPERIMENTS = sorted(p for p in (ROOT / "experiments").glob("*/*.yaml") if p.parent.name != "suites")
SIZE = 32
HALVED_SIX_TIMES = ("mean_chroma", "transposed_tanh", "transposed_sigmoid", "transposed_long")  # 64 px or more


@pytest.fixture(params=EXPERIMENTS, ids=lambda path: path.stem)
def config(request):
    size = 64 if request.param.stem in HALVED_SIX_TIMES else SIZE
    arguments = ["--config", str(request.param), "--data.size", str(size)]
    config = parse_config(arguments, "", "train")
    # published weights need not be here
    if config.model.get("perceptual", {}).get("weight"):
        config = parse_config([*arguments, "--model.perceptual.random", "true"], "", "train")
    if config.model.get("pretrained"):
        config = parse_config([*arguments, "--model.pretrained", "false"], "", "train")
    if config.model.get("generator", {}).get("pretrained"):
        config = parse_config([*arguments, "--model.generator.pretrained", "false"], "", "train")
    return config


@pytest.fixture
def colorizer(config):
    torch.manual_seed(0)
    return build_colorizer(config.family, **config.model)


@pytest.fixture
def batch(config):
    size = config.data.size
    rgb = torch.stack([torch.from_numpy(photo_array(i, size, size)).permute(2, 0, 1) for i in range(4)])
    lab = rgb8_to_lab(rgb)
    return Batch(lab[:, :1], lab[:, 1:], grey=lab[:, :1].roll(1, 0))  # what unpaired families see in grey


def test_forward_is_ab_of_the_same_size(colorizer, batch):
    colorizer.eval()
    with torch.no_grad():
        ab = colorizer(batch.L)
        wide = colorizer(torch.rand(1, 1, colorizer.multiple * 2, colorizer.multiple * 3) * 100)
    assert ab.shape == batch.ab.shape
    assert wide.shape == (1, 2, colorizer.multiple * 2, colorizer.multiple * 3)
    assert ab.isfinite().all()
    assert ab.abs().max() < 150


def test_networks_are_attributes_and_hold_all_parameters(colorizer):
    networks = colorizer.networks()
    assert all(getattr(colorizer, name) is network for name, network in networks.items())
    held = {id(p) for network in networks.values() for p in network.parameters()}
    assert held == {id(p) for p in colorizer.parameters()}
    state = colorizer.state_dict()
    assert all(any(only_trains(colorizer, key) for key in state if key.startswith(n)) for n in colorizer.training_only)
    assert not all(only_trains(colorizer, key) for key in state)


def test_each_objective_reaches_only_its_own_network(colorizer, config, batch):
    """In every stage of its recipe."""
    networks = colorizer.networks()
    with torch.no_grad():  # a last layer that starts at zero would stop the gradient there
        for parameter in colorizer.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    seen = []
    for objective in every_stage(colorizer, config, batch):
        for network in networks.values():
            network.zero_grad(set_to_none=True)
        assert objective.loss.ndim == 0
        assert objective.loss.isfinite()
        assert all(term.isfinite() for term in objective.terms.values())
        objective.loss.backward()
        seen.append(objective.optimizer)
        for name, network in networks.items():
            reached = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters()]
            if name == objective.optimizer:
                assert sum(reached) > len(reached) / 3, f"{name} is hardly reached"
            else:
                assert not any(reached), f"the objective of {objective.optimizer} reaches {name}"
    assert set(seen) == set(networks)


def every_stage(colorizer, config, batch):
    """The objectives of a first step, and of one in each further stage."""
    done = 0.0
    yield from colorizer.training_step(batch)
    for stage in (config.model.get("stages") or [])[:-1]:
        done += stage["share"]
        colorizer.hooks.after_step(done)
        yield from colorizer.training_step(batch)


@pytest.mark.slow
def test_thirty_steps_on_one_batch_lower_the_loss(colorizer, config, batch):
    """The first term of the first objective is the distance to the truth: it falls. An adversary need not lose."""
    optimizers = {name: make_optimizer(net, config.optim) for name, net in colorizer.networks().items()}
    history = []
    for step in range(30):
        torch.manual_seed(step)
        distance = None
        for objective in colorizer.training_step(batch):
            optimizers[objective.optimizer].zero_grad()
            objective.loss.backward()
            optimizers[objective.optimizer].step()
            if distance is None:
                distance = next(iter(objective.terms.values())).item()
        history.append(distance)
    assert sum(history[-5:]) < 0.95 * sum(history[:5])


def test_published_weights_predict_the_same(colorizer, config, batch, tmp_path):
    card = {"family": config.family, "model": config.model, "size": config.data.size}
    save_weights(tmp_path / "w.safetensors", published_state(colorizer), card)
    loaded = load_colorizer(tmp_path / "w.safetensors")
    assert loaded.card == card
    with torch.no_grad():
        torch.testing.assert_close(loaded(batch.L), colorizer.eval()(batch.L), atol=5e-4, rtol=1e-4)
