import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.color.lab import film_lightness, rgb8_to_lab
from common.colorizer import Batch
from common.comparison.report.tables import damage_table
from common.data.augment import AugmentConfig, augment
from common.data.batches import TrainingData
from common.data.degradations import DAMAGES, damage, damage_some, index_noise, pick_damages, uniform
from common.data.packing import open_pack
from common.evaluation.evaluate import damaged, evaluate, trivial_predictor
from common.utils.errors import UserError
from scripts.evaluate import main as evaluate_main
from scripts.train import main as train_main
from tests.common.training.test_loop import state
from tests.conftest import photo_array

IMAGES = torch.from_numpy(np.stack([photo_array(i, 24, 32) for i in range(8)])).permute(0, 3, 1, 2)
LAB = rgb8_to_lab(IMAGES)
L, AB = LAB[:, :1], LAB[:, 1:]
NOISE = index_noise(np.arange(8), 5)


def flat(color, size=4):
    """Lab of a picture of one color."""
    return rgb8_to_lab(torch.tensor(color, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, size, size))


@pytest.mark.parametrize("kind", DAMAGES)
def test_every_kind_changes_every_photograph_and_stays_in_range(kind):
    out = damage(L, AB, kind, NOISE)
    assert out.shape == L.shape
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 100
    assert ((out - L).abs().flatten(1).max(1).values > 0.5).all()
    assert torch.equal(out, damage(L, AB, kind, NOISE))


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_does_not_depend_on_the_rest_of_the_batch(kind):
    whole = damage(L, AB, kind, NOISE)
    for i in (0, 5):
        alone = damage(L[i : i + 1], AB[i : i + 1], kind, NOISE[i : i + 1])
        torch.testing.assert_close(alone[0], whole[i], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["blur", "grain", "fading", "scratches"])
def test_another_seed_is_another_damage(kind):
    one, other = (damage(L, AB, kind, index_noise(np.arange(8), seed)) for seed in (0, 1))
    assert ((one - other).abs().flatten(1).max(1).values > 0.01).all()


def test_random_numbers_are_uniform_and_uncorrelated():
    noise = index_noise(np.arange(200), 0)
    field = uniform(noise, 7, 50, 60)
    assert field.shape == (200, 50, 60)
    assert field.min() >= 0
    assert field.max() < 1
    expected = field.numel() / 20
    chi_squared = ((torch.histc(field, 20, 0, 1) - expected).square() / expected).sum()
    assert 5 < float(chi_squared) < 45  # 19 degrees of freedom: p = 0.001 on either side
    for shifted in (field.roll(1, 2), field.roll(1, 1), field.roll(1, 0), uniform(noise, 8, 50, 60)):
        correlation = torch.corrcoef(torch.stack([field.flatten(), shifted.flatten()]))[0, 1]
        assert abs(float(correlation)) < 0.0052  # 4 standard deviations of 600,000 pairs


def test_orthochromatic_film_is_not_sensitive_to_red():
    """Closed form: exposure 0 for red, 0.55 for green, 0.45 for blue; L = 116 exposure^(1/3) - 16."""
    for color, exposure in (((255, 0, 0), 0.0), ((0, 255, 0), 0.55), ((0, 0, 255), 0.45), ((0, 255, 255), 1.0)):
        lab = flat(color)
        expected = 116 * exposure ** (1 / 3) - 16 if exposure else 0.0
        got = damage(lab[:, :1], lab[:, 1:], "orthochromatic", NOISE[:1])
        torch.testing.assert_close(got, torch.full_like(got, expected), atol=0.02, rtol=0)


def test_conversions_order_colors_as_their_films_do():
    seen = {
        kind: [float(damage(lab[:, :1], lab[:, 1:], kind, NOISE[:1]).mean()) for lab in map(flat, COLORS)]
        for kind in ("orthochromatic", "collodion", "luma")
    }
    red, green, blue = range(3)
    assert seen["orthochromatic"][red] < seen["orthochromatic"][blue] < seen["orthochromatic"][green]
    assert seen["collodion"][red] < seen["collodion"][green] < seen["collodion"][blue]
    assert seen["luma"][blue] < seen["luma"][red] < seen["luma"][green]
    # luma of pure red is the grey level 0.299 * 255
    assert seen["luma"][red] == pytest.approx(float(flat((76, 76, 76))[0, 0, 0, 0]), abs=0.2)


COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


@given(st.integers(0, 255), st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_grey_keeps_its_lightness_on_every_film(level, shares):
    low, high = sorted(shares)
    lab = flat((level, level, level))
    got = film_lightness(lab, (low, high - low, 1 - high))
    torch.testing.assert_close(got, lab[:, :1], atol=0.02, rtol=0)


def test_luminance_weights_give_lightness_itself():
    torch.testing.assert_close(film_lightness(LAB, (0.212671, 0.715160, 0.072169)), L, atol=0.05, rtol=0)


def test_fading_lifts_black_and_lowers_white():
    ramp = torch.linspace(0, 100, 11).view(1, 1, 1, 11).expand(8, 1, 1, 11)
    out = damage(ramp, torch.zeros(8, 2, 1, 11), "fading", NOISE)[:, 0, 0]
    assert ((out[:, 0] >= 5) & (out[:, 0] <= 30) & (out[:, -1] >= 70) & (out[:, -1] <= 95)).all()
    torch.testing.assert_close(out.diff(dim=1), out.diff(dim=1)[:, :1].expand(-1, 10), atol=1e-4, rtol=0)


def test_blur_keeps_the_mean_and_lowers_the_contrast():
    side = 40
    checks = ((torch.arange(side)[:, None] + torch.arange(side)) % 2 * 60.0 + 20).expand(8, 1, side, side)
    out = damage(checks, torch.zeros(8, 2, side, side), "blur", NOISE)
    torch.testing.assert_close(out.mean(dim=(1, 2, 3)), torch.full((8,), 50.0), atol=0.5, rtol=0)
    assert (out.std(dim=(1, 2, 3)) < checks.std(dim=(1, 2, 3))).all()


def test_standard_deviation_of_grain():
    grey = torch.full((64, 1, 48, 48), 50.0)
    out = damage(grey, torch.zeros(64, 2, 48, 48), "grain", index_noise(np.arange(64), 1))
    strength = out.std(dim=(1, 2, 3))
    assert 1.8 < strength.min() < 2.6
    assert 7.4 < strength.max() < 8.3
    torch.testing.assert_close(out.mean(), torch.tensor(50.0), atol=0.05, rtol=0)


def test_scratches_change_a_small_part_of_a_photograph():
    out = damage(L, AB, "scratches", NOISE)
    touched = (out != L).float().mean(dim=(1, 2, 3))
    assert (touched < 0.5).all()
    assert (touched > 0).all()


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1), st.integers(0, 100))
def test_the_probability_is_the_share_that_is_damaged(probability, seed):
    noise = index_noise(np.arange(300) + 1000 * seed, 0)
    grey = torch.full((300, 1, 8, 8), 40.0)
    blue = torch.tensor([30.0, -60.0]).view(1, 2, 1, 1).expand(300, 2, 8, 8)  # every film records another lightness
    out = damage_some(grey, blue, noise, probability)
    share = (out != grey).flatten(1).any(1).float().mean()
    assert float(share) == pytest.approx(probability, abs=0.13)  # 4.5 standard deviations
    assert out.min() >= 0
    assert out.max() <= 100


def test_damage_does_not_change_the_other_random_numbers():
    """With and without damage, training uses the same windows of the same photographs."""
    images = IMAGES.permute(0, 2, 3, 1)[:, :, :24].contiguous()
    noise = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    plain = augment(images, noise, 16, AugmentConfig())
    harmed = augment(images, noise, 16, AugmentConfig(damage=1.0), NOISE)
    assert torch.equal(plain[1], harmed[1])
    assert ((plain[0] != harmed[0]).flatten(1).any(1)).all()


def test_shards_of_damaged_photographs_make_up_the_batch(photos, tmp_path):
    pack = open_pack(str(photos), 20, cache=str(tmp_path))
    device = torch.device("cpu")
    data = TrainingData(pack, 16, 12, 3, AugmentConfig(damage=0.6), device)
    clean = TrainingData(pack, 16, 12, 3, AugmentConfig(), device).batch(5)
    whole = data.batch(5)
    parts = [data.batch(5, shard, 4) for shard in range(4)]
    torch.testing.assert_close(torch.cat([part.L for part in parts]), whole.L, atol=1e-4, rtol=0)
    assert torch.equal(whole.ab, clean.ab)
    same = (whole.L == clean.L).flatten(1).all(1)
    assert same.any()
    assert not same.all()
    assert not torch.equal(whole.L, data.batch(6).L)


def test_the_wrapper_damages_only_the_input(demo_pack):
    seen = []

    def look(batch, rows):
        seen.append(batch)
        return batch.L.expand(-1, 2, -1, -1)

    rows = np.array([3, 7, 8])
    batch = Batch(*demo_pack.lab(rows))
    damaged(look, "fading", 4)(batch, rows)
    damaged(look, "fading", 4)(Batch(batch.L[1:2], batch.ab[1:2]), rows[1:2])
    assert torch.equal(seen[0].ab, batch.ab)
    assert not torch.equal(seen[0].L, batch.L)
    torch.testing.assert_close(seen[1].L, seen[0].L[1:2])


def test_original_is_original_under_every_damage(demo_pack):
    predict = trivial_predictor("original", demo_pack)
    shown = {kind: damaged(predict, kind) for kind in DAMAGES}
    table = evaluate(shown, demo_pack, ["rmse_ab", "colorfulness_ratio"]).table
    assert all(row["rmse_ab"]["mean"] == 0 and row["colorfulness_ratio"]["mean"] == 1 for row in table.values())


def test_the_robustness_table(tmp_path, capsys):
    file = tmp_path / "out.json"
    command = ["grey", "original", "--data=demo", "--size=32", "--split=val", "--limit=6", "--device=cpu"]
    assert evaluate_main([*command, "--metrics=mae_ab", "--json", str(file), "--damage", "grain", "fading"]) == 0
    told = capsys.readouterr().out
    found = json.loads(file.read_text())
    assert set(found) == {"grey", "original", "protocol", "damage"}
    assert list(found["damage"]["grey"]) == ["none", "grain", "fading"]
    assert set(found["damage"]["grey"]["grain"]) == {"rmse_ab", "auc", "colorfulness_ratio"}
    assert set(found["damage"]["grey"]["grain"]["auc"]) == {"mean", "low", "high"}
    assert found["damage"]["grey"]["none"] == found["damage"]["grey"]["fading"]  # it ignores its input
    assert damage_table(found["damage"]) in told
    assert "| original | fading | 0.00" in told
    assert (
        evaluate_main(["damage=grey", *command[1:], "--metrics=mae_ab", "--json", str(file), "--damage", "luma"]) == 0
    )
    found = json.loads(file.read_text())
    assert list(found["damage"]) == ["damage (2)", "original"]  # a row of that name does not hide the table
    assert evaluate_main([*command, "--metrics=mae_ab", "--json", str(file)]) == 0
    assert "damage" not in json.loads(file.read_text())


def test_scores_are_worse_on_damaged_input(demo_pack):
    """The predictor looks up ab by lightness, so it is right without damage and wrong on faded photographs."""
    truth = {tuple(x.L.flatten()[:64].tolist()): x.ab for x in (single(demo_pack, i) for i in range(4))}

    def recall(batch, rows):
        return torch.stack([truth.get(tuple(x.flatten()[:64].tolist()), batch.ab[0] * 0) for x in batch.L])

    result = evaluate({"none": recall, "fading": damaged(recall, "fading")}, first(demo_pack, 4), ["rmse_ab"]).table
    assert result["none"]["rmse_ab"]["mean"] == 0
    assert result["fading"]["rmse_ab"]["mean"] > 5


def single(pack, i):
    return Batch(*(x[0] for x in pack.lab(np.array([i]))))


def first(pack, count):
    return replace(pack, images=pack.images[:count], names=pack.names[:count], grey=pack.grey[:count])


def test_names(capsys):
    assert pick_damages([]) == list(DAMAGES)
    assert pick_damages(["blur", "grain", "blur"]) == ["blur", "grain"]
    with pytest.raises(UserError, match=r"'grian' is not a kind of damage: .*did you mean 'grain'"):
        pick_damages(["grian"])
    with pytest.raises(SystemExit):
        evaluate_main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert ", ".join(DAMAGES) in told
    with pytest.raises(UserError, match=r"augment.damage is 1.5"):
        AugmentConfig(damage=1.5)


@pytest.mark.slow
def test_training_with_damage_resumes_exactly(tmp_path):
    def go(run, steps, *more):
        return train_main([
            "--family=baselines", "--model.network=cnn", "--device=cpu", "--data.size=32", "--batch_size=4",
            f"--run={tmp_path / run}", f"--steps={steps}", "--optim.schedule=constant", "--optim.warmup=0",
            "--eval_every=100", "--sample_every=0", *more,
        ])  # fmt: skip

    harm = "--augment.damage=0.7"
    assert go("halted", 3, harm) == 0
    assert go("halted", 6, harm) == 0
    assert go("straight", 6, harm) == 0
    assert go("clean", 6) == 0
    one, other, clean = (state(tmp_path / name)["weights"] for name in ("halted", "straight", "clean"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not all(torch.equal(one[key], clean[key]) for key in one)
    # a run from before the option existed resumes, without damage
    config = tmp_path / "clean" / "config.yaml"
    config.write_text("".join(line for line in config.open() if "damage:" not in line))
    assert go("clean", 7, harm) == 2
    assert go("clean", 7) == 0
