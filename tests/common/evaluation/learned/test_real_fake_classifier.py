"""The classifier distinguishes what can be distinguished, and nothing else."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.evaluation.evaluate import trivial_predictor
from common.evaluation.learned import real_fake_classifier
from common.evaluation.learned.real_fake_classifier import accuracy_values, random_share
from common.evaluation.learned.small_classifier import (
    SIDE,
    Recipe,
    build_network,
    coarse_color,
    logits_of,
    network_input,
)
from common.evaluation.sheets import render
from common.utils.errors import UserError
from tests.common.packs import flat, pack_of, painted

TINY = Recipe(width=8, blocks=(1, 1, 1, 1), steps=40, batch_size=32, checks=4, cell=4)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pack():
    """Forty colored photographs and two grey ones, in places 3 and 30."""
    images = [painted(i) for i in range(42)]
    for i in (3, 30):
        images[i] = images[i].mean(axis=2, keepdims=True).astype(np.uint8).repeat(3, axis=2)
    return pack_of(images)


def turned(batch, rows):
    """Every hue turned by half a circle."""
    return -batch.ab


def hardly(batch, rows):
    """The truth, off by less than the rounding to 8 bits shows."""
    noise = [torch.randn(2, *batch.ab.shape[2:], generator=torch.Generator().manual_seed(int(row))) for row in rows]
    return batch.ab + 0.1 * torch.stack(noise)


@pytest.mark.slow
def test_accuracy_is_1_for_evident_fakes_and_a_half_for_invisible_ones(pack):
    predictors = {
        "grey": trivial_predictor("grey", pack),
        "turned": turned,
        "original": trivial_predictor("original", pack),
        "hardly": hardly,
    }
    values = {row: accuracy_values(predict, pack, recipe=TINY) for row, predict in predictors.items()}
    for row, found in values.items():
        assert found.shape == (42,), row
        assert np.flatnonzero(np.isnan(found)).tolist() == [3, 30]
        assert set(found[~np.isnan(found)]) <= {0, 0.5, 1}
    means = {row: np.nanmean(found) for row, found in values.items()}
    assert means["grey"] > 0.95
    assert means["turned"] > 0.95
    assert np.nanmin(values["original"]) == np.nanmax(values["original"]) == 0.5  # equal pictures, equal verdicts
    assert abs(means["hardly"] - 0.5) < 1.96 * np.sqrt(0.25 / 80)  # 80 pictures: neither float nor rounding is a cue


@pytest.mark.slow
def test_the_values_do_not_depend_on_the_batch_size(pack):
    values = accuracy_values(turned, pack, recipe=TINY, seed=3)
    np.testing.assert_array_equal(values, accuracy_values(turned, pack, recipe=TINY, seed=3, batch_size=5))


def test_values_are_in_the_order_of_the_photographs_and_steps_are_reported(pack, monkeypatch):
    """A classifier that takes bright pictures for originals, so the order of values can be read off the photographs."""
    trained = []

    def remember(pairs, digests, recipe, device, seed, report):
        trained.append(digests)
        report(recipe.steps, recipe.steps)

    def bright(network, pairs, device):
        return pairs[0].mean(axis=(1, 2, 3))

    monkeypatch.setattr(real_fake_classifier, "train_classifier", remember)
    monkeypatch.setattr(real_fake_classifier, "correct_share", bright)
    rows = np.array([41, 3, *range(10, 25)])
    told = []
    values = accuracy_values(turned, pack, indices=rows, recipe=TINY, progress=lambda *a: told.append(a))
    assert np.isnan(values[1])
    expected = [pack.images[row].mean() for row in rows if row != 3]
    np.testing.assert_allclose(values[~np.isnan(values)], expected)
    assert told == [(40, 80), (80, 80)]
    first, second = map(set, trained)
    assert not first & second
    assert first | second == {pack.digests[row] for row in rows if row != 3}


def test_no_photograph_is_classified_by_a_network_trained_on_it(pack, monkeypatch):
    seen, judged = [], []
    monkeypatch.setattr(real_fake_classifier, "train_classifier", lambda pairs, *_: seen.append(pairs[0]))
    monkeypatch.setattr(
        real_fake_classifier, "correct_share", lambda _, pairs, __: judged.append(pairs[0]) or np.zeros(len(pairs[0]))
    )
    accuracy_values(turned, pack, recipe=TINY)
    for learned, tested in zip(seen, judged, strict=True):
        assert not {x.tobytes() for x in learned} & {x.tobytes() for x in tested}
    other = pack_of([painted(i) for i in [*range(100, 110), *range(5)]])  # five of them are measured, too
    seen.clear()
    accuracy_values(turned, pack, training=(turned, other), recipe=TINY)
    assert {x.tobytes() for x in seen[0]} == {other.images[i].tobytes() for i in range(10)} | {
        other.images[13].tobytes()  # number 3 is grey in the measured pack: another file
    }


@pytest.mark.slow
def test_training_on_another_source(pack):
    other = pack_of([painted(i) for i in range(100, 140)])
    values = accuracy_values(turned, pack, training=(turned, other), recipe=TINY)
    assert np.nanmean(values) > 0.95
    assert np.isnan(values).sum() == 2


@given(st.lists(st.sampled_from("abcdefghij"), min_size=2), st.integers(0, 100))
def test_squares_of_one_photograph_stay_together(digests, seed):
    chosen = random_share(digests, 0.5, seed)
    sides = {}
    for digest, side in zip(digests, chosen, strict=True):
        assert sides.setdefault(digest, side) == side
    count = len(sides)
    assert abs(sum(sides.values()) - count / 2) <= 0.5 or count == 1


def test_logits_of_a_picture_do_not_depend_on_its_batch():
    """The network is in eval mode: batch statistics would depend on the other pictures."""
    network = build_network(2, TINY, 0, CPU)
    network.train()
    with torch.no_grad():
        for seed in range(5):  # running statistics that are not the initial ones
            network(torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(seed)))
    pictures = np.stack([painted(i) for i in range(6)])
    together = logits_of(network, pictures, CPU)
    alone = torch.cat([logits_of(network, pictures[i : i + 1], CPU) for i in range(6)])
    torch.testing.assert_close(together, alone, atol=0.02, rtol=0.02)  # bfloat16, in another order of sums
    assert not network.training


def test_originals_pass_unchanged_and_colors_lose_their_sharpness(pack):
    rows = np.arange(4)
    same = render(lambda batch, rows: batch.ab, pack, rows, device=CPU)
    np.testing.assert_array_equal(same, pack.images[:4])
    L = torch.zeros(1, 1, 32, 32)
    checks = torch.ones(1, 2, 32, 32)
    checks[..., ::2, ::2], checks[..., 1::2, 1::2] = -1, -1
    x = network_input(L, 60 * checks)
    assert float(coarse_color(x, 4)[:, 1:].abs().max()) < 1e-6
    x = network_input(L + 30, torch.full((1, 2, 32, 32), 25.0))
    torch.testing.assert_close(coarse_color(x, 4), x)
    large = pack_of([painted(i, 128) for i in range(2)])
    assert render(lambda batch, rows: batch.ab, large, np.arange(2), side=SIDE).shape == (2, 64, 64, 3)


def test_too_few_photographs():
    few = pack_of([painted(i) for i in range(7)], source="few")
    with pytest.raises(UserError, match="real_fake_classifier needs 8 color photographs or more, and few has 7"):
        accuracy_values(turned, few)
    tiles = pack_of([painted(i) for i in range(20)])
    tiles.digests[:] = ["one", "two"] * 10
    with pytest.raises(UserError, match="has 2"):
        accuracy_values(turned, tiles)
    enough = pack_of([painted(i) for i in range(9)])
    with pytest.raises(UserError, match="and few has 0: give more"):
        accuracy_values(turned, enough, training=(turned, few))
    grey = pack_of([flat((90, 90, 90), i) for i in range(20)], source="old")
    with pytest.raises(UserError, match="old has 0"):
        accuracy_values(turned, grey)
    with pytest.raises(UserError, match="not finite"):
        accuracy_values(lambda batch, rows: batch.ab * float("nan"), enough)
