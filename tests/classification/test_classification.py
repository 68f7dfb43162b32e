import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from classification.ab_quantizer import ABQuantizer
from classification.classification import ClassificationColorizer, enlarge, quarter, three_greyest
from classification.network import Trunk
from classification.rebalancing import class_weights
from common.checkpoint import parameter_count
from common.colorizer import Batch
from common.data.color_prior import compute_prior
from common.data.packing import open_pack
from common.registry import build_colorizer, load_colorizer
from common.utils.errors import UserError
from scripts import compute_prior as compute_prior_script
from scripts import train
from tests.classification.test_ab_quantizer import dense
from tests.conftest import photo_array


def test_the_papers_network_has_the_papers_size():
    """Table 1 of the paper: 129 MB of parameters, with its 313 bins."""
    network = Trunk("zhang2016", 313)
    assert parameter_count(network) == 32_235_385
    assert round(parameter_count(network) * 4 / 1e6) == 129
    convolutions = [m for m in network if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 22  # conv1_1 to conv8_3, and the classifier
    assert [m.dilation for m in convolutions].count((2, 2)) == 6


@pytest.mark.parametrize(("name", "width"), [("zhang2016", 0.25), ("zhang2016", 0.5), ("small", 1.0), ("small", 0.25)])
def test_logits_are_at_a_quarter_of_the_size(name, width):
    network = Trunk(name, 261, width).eval()
    with torch.no_grad():
        logits = network(torch.rand(1, 1, 32, 64) * 2 - 1)
    assert logits.shape == (1, 261, 8, 16)
    assert torch.softmax(logits, dim=1).max() < 0.1  # it begins knowing nothing


def test_weights_by_their_closed_form():
    prior = torch.tensor([0.7, 0.2, 0.1, 0.0], dtype=torch.float64)
    weights = class_weights(prior, 0.5)
    raw = 1 / (0.5 * prior + 0.5 / 4)
    assert weights[:3].tolist() == pytest.approx((raw[:3] / (raw * prior).sum()).tolist())
    assert float(weights[3]) == 1  # never seen: neither infinite nor the largest
    assert float(weights[2]) > float(weights[3])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_expected_weight_is_one(share):
    prior = torch.from_numpy(np.random.default_rng(0).dirichlet(np.full(261, 0.05)))
    weights = class_weights(prior, share)
    assert float((prior * weights).sum()) == pytest.approx(1)
    assert weights.isfinite().all()
    if share == 1:
        assert torch.allclose(weights, torch.ones_like(weights))


def test_a_lambda_outside_of_a_share_is_refused():
    for share in (-0.1, 1.5):
        with pytest.raises(UserError, match=f"lambda is {share}"):
            build_colorizer("classification", rebalancing_lambda=share)


class Constant(torch.nn.Module):
    """The same logits everywhere, whatever it sees: the only thing to learn is how often each color comes."""

    def __init__(self, bins):
        super().__init__()
        self.free = torch.nn.Parameter(torch.zeros(bins))

    def forward(self, L):
        return self.free.view(1, -1, 1, 1).expand(len(L), -1, L.shape[2] // 4, L.shape[3] // 4)


@pytest.mark.parametrize(("share", "winner"), [(1.0, "common"), (0.0, "rare"), (0.5, "rare")])
def test_rebalancing_changes_the_winner_of_two_colors(share, winner):
    """Three pixels of four have a color between four bins, one of four a color that is a bin.

    Unweighted, the least loss is at the mean of the soft targets, and the most likely bin is one of the common color.
    With rebalancing the rare pixels weigh more, and its bin wins.
    """
    quantizer = ABQuantizer(10)
    colors = {"common": (5.0, 15.0), "rare": (60.0, 40.0)}  # between four bins, and on one
    colorizer = ClassificationColorizer(Constant(quantizer.num_bins), quantizer, share)
    ab = torch.empty(1, 2, 16, 16)
    ab[:] = torch.tensor(colors["common"]).view(1, 2, 1, 1)
    ab[..., 12:] = torch.tensor(colors["rare"]).view(1, 2, 1, 1)
    hard = torch.bincount(quantizer.nearest(ab).flatten(), minlength=quantizer.num_bins)
    colorizer.prior.copy_(hard / hard.sum())
    optimizer = torch.optim.Adam(colorizer.parameters(), lr=0.3)
    for _ in range(300):
        (objective,) = colorizer.training_step(Batch(torch.zeros(1, 1, 16, 16), ab))
        optimizer.zero_grad()
        objective.loss.backward()
        optimizer.step()
    # the known minimum: probabilities in proportion to the weighted soft targets
    indices, weights = quantizer.soft_encode(quarter(ab))
    target = torch.zeros(quantizer.num_bins).scatter_add_(
        0,
        indices.flatten(),
        (class_weights(colorizer.prior, share)[indices[..., :1]] * weights).flatten(),
    )
    p = torch.softmax(colorizer.network.free.detach(), dim=0)
    torch.testing.assert_close(p, target / target.sum(), atol=5e-3, rtol=0)
    mode = quantizer.ab_bins[p.argmax()]
    nearest = min(colors, key=lambda name: float((mode - torch.tensor(colors[name])).norm()))
    assert nearest == winner


def test_the_loss_of_a_perfect_prediction_is_the_targets_entropy():
    """And the unweighted term is logged beside the weighted one."""
    colorizer = build_colorizer("classification", width=0.25)
    ab = torch.zeros(1, 2, 32, 32)
    _, weights = colorizer.quantizer.soft_encode(ab[:, :, :1, :1])
    target = dense(colorizer.quantizer, *colorizer.quantizer.soft_encode(quarter(ab)))
    colorizer.unshifted_logits = lambda L: target.clamp(min=1e-30).log()
    colorizer.prior.copy_(torch.full_like(colorizer.prior, 0.5 / 260))
    colorizer.prior[colorizer.quantizer.nearest(ab[:, :, :1, :1])] = 0.5
    (objective,) = colorizer.training_step(Batch(torch.zeros(1, 1, 32, 32), ab))
    entropy = float(-(weights * weights.log()).sum())
    assert objective.terms["cross_entropy"].item() == pytest.approx(entropy, rel=1e-4)
    weight = float(class_weights(colorizer.prior)[colorizer.quantizer.nearest(ab[:, :, :1, :1])])
    assert weight < 0.6
    assert objective.loss.item() == pytest.approx(weight * entropy, rel=1e-4)


def test_what_the_trunk_sees_lies_where_its_output_is():
    """Subsampling, then enlarging, moves nothing: a ramp stays within a quarter step of itself."""
    ramp = torch.arange(64, dtype=torch.float32).expand(1, 2, 64, 64)
    assert float((enlarge(quarter(ramp)) - ramp)[..., 4:-4].abs().max()) <= 0.5


@pytest.mark.parametrize("upsample", ["ab", "logits"])
def test_both_ways_of_enlarging_agree_on_a_flat_picture(upsample):
    torch.manual_seed(0)
    colorizer = build_colorizer("classification", width=0.25, upsample=upsample).eval()
    logits = torch.randn(1, 261, 1, 1).expand(-1, -1, 4, 4)
    colorizer.unshifted_logits = lambda L: logits
    ab = colorizer(torch.zeros(1, 1, 16, 16))
    expected = colorizer.quantizer.annealed_mean(logits)[..., :1, :1].expand(-1, -1, 16, 16)
    torch.testing.assert_close(ab, expected, atol=1e-4, rtol=1e-4)


def test_a_lower_temperature_is_more_colorful():
    torch.manual_seed(0)
    colorizer = build_colorizer("classification", width=0.25).eval()
    logits = torch.randn(1, 261, 8, 8) * 2
    colorizer.unshifted_logits = lambda L: logits
    chroma = []
    for colorizer.temperature in (0.05, 0.38, 1.0):
        chroma.append(float(colorizer(torch.zeros(1, 1, 32, 32)).norm(dim=1).mean()))
    assert chroma == sorted(chroma, reverse=True)


def test_the_prior_of_the_training_photographs_is_stored_with_the_run(photos, tmp_path):
    run = tmp_path / "run"
    argv = ["--family=classification", "--model.width=0.25", "--steps=2", "--data.size=32", "--batch_size=2"]
    assert train.main([*argv, f"--run={run}", f"--data.train={photos}", "--data.margin=0"]) == 0
    colorizer = load_colorizer(run)
    expected = compute_prior(open_pack(str(photos), 32, "train")).p.float()
    assert torch.equal(colorizer.prior, expected)
    assert int((expected > 0).sum()) > 5


def test_a_given_prior_is_used_and_not_needed_afterwards(photos, tmp_path, capsys):
    file = tmp_path / "prior.json"
    assert compute_prior_script.main([f"--data={photos}", f"--out={file}", "--size=32", "--split=all"]) == 0
    printed = capsys.readouterr().out
    assert "12 photographs of" in printed
    assert Image.open(tmp_path / "prior.png").size[0] > 800
    run = tmp_path / "run"
    argv = ["--family=classification", "--model.width=0.25", "--data.size=32", "--batch_size=2", f"--run={run}"]
    argv += [f"--model.prior={file}", "--data.train=demo"]
    assert train.main([*argv, "--steps=1"]) == 0
    file.unlink()
    assert train.main([*argv, "--steps=2"]) == 0  # a run that goes on has it, and so have its weights
    colorizer = load_colorizer(run)
    assert torch.equal(colorizer.prior, compute_prior(open_pack(str(photos), 32, "all")).p.float())


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--model.prior=GRID5"], "is of grid 5 and model.grid is 10"),
        (["--model.prior=nowhere.json"], "prior nowhere.json cannot be read"),
        (["--model.temperature=0"], "temperature is 0.0: expected a number above 0"),
        (["--model.temperature=-2"], "temperature is -2.0"),
        (["--model.network=large"], "model.network is large: expected zhang2016, small"),
        (["--model.width=0"], "model.width is 0.0: expected a factor"),
        (["--model.grid=0"], "grid is 0: expected a whole number"),
        (["--data.size=36"], "multiples of 8"),
        (["--data.train=GREY"], "are grey: there is no color to learn"),
    ],
)
def test_what_a_user_can_do_wrong_is_one_sentence(more, says, photos, tmp_path, capsys):
    for i in range(3):
        (tmp_path / "grey").mkdir(exist_ok=True)
        Image.fromarray(np.repeat(photo_array(i)[..., :1], 3, axis=2)).save(tmp_path / "grey" / f"{i}.png")
    prior = tmp_path / "grid5.json"
    if "GRID5" in more[0]:
        assert compute_prior_script.main([f"--data={photos}", f"--out={prior}", "--size=32", "--grid=5"]) == 0
        capsys.readouterr()
    more = [m.replace("GRID5", str(prior)).replace("GREY", str(tmp_path / "grey")) for m in more]
    argv = ["--family=classification", "--steps=1", "--data.size=32", "--batch_size=2", f"--run={tmp_path / 'r'}"]
    assert train.main([*argv, *more]) == 2
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert says in told
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--grid=1"], "grid is 1"),
        (["--sigma=-1"], "--sigma is -1"),
        (["--lambda=2"], "--lambda is 2"),
        (["--size=4"], "--size is 4"),
        (["--picture=x.gif"], "ends in .png"),
        (["--data=nowhere"], "source nowhere"),
    ],
)
def test_compute_prior_refuses_in_one_sentence(more, says, tmp_path, capsys):
    assert compute_prior_script.main(["--data=demo", f"--out={tmp_path / 'p.json'}", *more]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("error: ")
    assert says in told


def test_the_diagnosis_counts_bins(photos):
    torch.manual_seed(0)
    colorizer = build_colorizer("classification", width=0.25).eval()
    pack = open_pack(str(photos), 32)
    colorizer.hooks.prepare(pack)
    grey = colorizer.quantizer.nearest(torch.zeros(1, 2, 1, 1)).item()
    logits = torch.zeros(12, 261, 8, 8)
    logits[:, grey] = 30
    colorizer.unshifted_logits = lambda L: logits
    with torch.no_grad():
        diagnosis = colorizer.hooks.diagnose(Batch(*pack.lab(slice(None))))
    assert diagnosis.scalars["greyest_bins/most_likely"] == 1
    assert diagnosis.scalars["greyest_bins/annealed_mean"] == 1
    assert 0 < diagnosis.scalars["greyest_bins/true"] < 0.5
    picture = diagnosis.pictures["bins"]()
    assert picture.ndim == 3
    assert picture.dtype == np.uint8
    three = colorizer.quantizer.ab_bins[three_greyest(colorizer.quantizer.ab_bins, colorizer.prior)]
    assert three[0].tolist() == [0, 0]
    assert three.norm(dim=1).tolist() == [0, 10, 10]


class WrittenElements(TorchDispatchMode):
    """Counts the elements of all tensors that operators return."""

    count = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        self.count += sum(x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor))
        return result


def test_encoding_writes_fewer_elements_than_one_dense_target():
    """A dense implementation computes the distances of all pixels to all bins several times."""
    quantizer = build_colorizer("classification", width=0.25).quantizer
    ab = torch.randn(8, 2, 16, 16) * 25
    with WrittenElements() as written:
        quantizer.soft_encode(ab)
    assert written.count < 8 * 16 * 16 * quantizer.num_bins
