import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from common.color.lab import lab_to_rgb
from common.training.perceptual import PerceptualConfig, PerceptualLoss, vgg_layers
from common.utils.errors import UserError
from tests.gan.conftest import small

LAYERS = ["relu1_2", "relu2_1"]


@pytest.fixture(scope="module")
def loss():
    torch.manual_seed(0)
    return PerceptualLoss(PerceptualConfig(1.0, layers=LAYERS, random=True))


def test_it_is_zero_for_equal_pictures_and_not_for_others(loss, batch):
    assert float(loss(batch.L, batch.ab, batch.ab)) == 0
    assert float(loss(batch.L, batch.ab.flip(1), batch.ab)) > 0.01


def test_it_does_not_depend_on_the_order_of_the_batch(loss, batch):
    order = torch.tensor([2, 0, 3, 1])
    fake = batch.ab.flip(1)
    torch.testing.assert_close(loss(batch.L[order], fake[order], batch.ab[order]), loss(batch.L, fake, batch.ab))


def test_it_is_the_distance_of_torchvisions_feature_maps(loss, batch):
    """Oracle: torchvision's own VGG16 with the same weights, layer by layer, on ImageNet's normalization."""
    vgg = models.vgg16().features.eval()
    vgg.load_state_dict(loss.features.state_dict(), strict=False)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    fake = 0.5 * batch.ab
    maps = []
    for ab in (fake, batch.ab):
        x = (lab_to_rgb(torch.cat([batch.L, ab], 1), clip=False) - mean) / std
        maps.append([vgg[:4](x), vgg[:7](x)])  # relu1_2 and relu2_1
    expected = sum((one - other).abs().mean() for one, other in zip(*maps, strict=True))
    torch.testing.assert_close(loss(batch.L, fake, batch.ab), expected, rtol=1e-4, atol=1e-5)


def test_weights_of_layers_and_distances(batch):
    fake = 0.5 * batch.ab
    values = {}
    for name, options in {
        "one": {"layers": ["relu1_1"]}, "other": {"layers": ["relu2_1"]},
        "both": {"layers": ["relu1_1", "relu2_1"], "layer_weights": [2.0, 0.5]},
    }.items():  # fmt: skip
        torch.manual_seed(0)
        values[name] = float(PerceptualLoss(PerceptualConfig(1.0, random=True, **options))(batch.L, fake, batch.ab))
    assert values["both"] == pytest.approx(2 * values["one"] + 0.5 * values["other"], rel=1e-4)


def test_under_bf16_it_is_nearly_the_same(batch):
    values = []
    for enabled in (False, True):
        torch.manual_seed(0)
        made = PerceptualLoss(PerceptualConfig(1.0, layers=LAYERS, random=True))
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            values.append(made(batch.L, 0.5 * batch.ab, batch.ab))
    assert values[1].dtype == torch.float32
    assert float(values[1]) == pytest.approx(float(values[0]), rel=0.02)
    assert not torch.equal(*values)


def test_gradients_reach_the_generator_only(batch):
    colorizer = small(perceptual={"weight": 2.0, "random": True, "layers": ["relu1_1"]}, loss={"l1_weight": 0.0})
    generator, _ = colorizer.training_step(batch)
    assert "perceptual_random" in generator.terms
    generator.loss.backward()
    assert all(p.grad is not None for p in colorizer.generator.parameters())
    assert all(p.grad is None for p in colorizer.discriminator.parameters())
    network = colorizer.pixel_loss._network.features
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    held = {id(p) for p in colorizer.parameters()}
    assert not any(id(p) in held for p in network.parameters())
    assert not any("perceptual" in key for key in colorizer.state_dict())


def test_the_term_is_weighed(batch):
    colorizer = small(perceptual={"weight": 2.0, "random": True, "layers": ["relu1_1"]}, loss={"l1_weight": 5.0})
    generator, _ = colorizer.training_step(batch)
    terms = generator.terms
    torch.testing.assert_close(generator.loss, 5 * terms["l1"] + 2 * terms["perceptual_random"] + terms["adversarial"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file(tmp_path, batch, suffix):
    torch.manual_seed(0)
    state = {f"features.{k}": v for k, v in models.vgg16().features.state_dict().items()}
    path = str(tmp_path / f"vgg{suffix}")
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loss = PerceptualLoss(PerceptualConfig(1.0, layers=LAYERS, weights=path))
    assert torch.equal(loss.features.get_submodule("0").weight, state["features.0.weight"])
    assert loss.config.term == "perceptual"


def test_any_timm_network(batch):
    loss = PerceptualLoss(PerceptualConfig(1.0, network="resnet18", layers=["act1", "layer2"], random=True))
    assert float(loss(batch.L, batch.ab, batch.ab)) == 0
    assert float(loss(batch.L, 0 * batch.ab, batch.ab)) > 0


def test_layer_names():
    assert vgg_layers("vgg16")[:4] == ["relu1_1", "relu1_2", "relu2_1", "relu2_2"]
    assert (len(vgg_layers("vgg16")), vgg_layers("vgg16")[-1]) == (13, "relu5_3")
    assert (len(vgg_layers("vgg19")), vgg_layers("vgg19")[-1]) == (16, "relu5_4")


def test_missing_weights_are_one_download_and_one_sentence(tmp_path, monkeypatch):
    attempts = []

    def unreachable(*arguments, **options):
        attempts.append(arguments)
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(UserError) as caught:
        PerceptualLoss(PerceptualConfig(1.0))
    assert len(attempts) == 1
    told = str(caught.value)
    assert told.startswith("vgg16-397923af.pth of vgg16 cannot be loaded through torchvision")
    assert f"put them into {tmp_path}/hub/checkpoints" in told
    assert "model.perceptual.weights" in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": ["relu3_9"]}, "has relu3_9, which is not a layer of vgg16"),
        ({"layers": ["relu3_"]}, "did you mean 'relu3_"),
        ({"layers": []}, "is empty"),
        ({"network": "resnet81"}, "model.perceptual.network is resnet81"),
        ({"network": "resnet18", "layers": ["layer9"]}, "which is not a layer of resnet18: expected act1, layer1"),
        ({"layer_weights": [1.0]}, "a weight of 0 or more for each of the 3 layers"),
        ({"random": True, "weights": "x.pth"}, "exclude each other"),
        ({"weight": -1.0}, "model.perceptual.weight is -1.0"),
    ],
)
def test_bad_options_are_one_sentence(options, says):
    with pytest.raises(UserError) as caught:
        PerceptualConfig(**{"weight": 1.0} | options).check()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a network", None])
def test_bad_files_are_one_sentence(tmp_path, content):
    path = tmp_path / "vgg.pth"
    if content is None:
        torch.save(nn.Linear(2, 2).state_dict(), path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"model.perceptual.weights is .*vgg.pth, which") as caught:
        PerceptualLoss(PerceptualConfig(1.0, weights=str(path)))
    assert "\n" not in str(caught.value)
