"""Sources of several sizes and shares: how often each is drawn, and which photographs are left out of training."""

import tarfile
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from common.data.augment import AugmentConfig
from common.data.batches import DataConfig, TrainingData, grey_photographs, index_stream, runs_of, training_packs
from common.data.packing import open_pack
from common.data.sources import list_photos
from common.training.parser import config_from_dict
from common.utils.errors import UserError
from common.utils.progress import Progress
from tests.common.data.test_sources import write_shard
from tests.conftest import photo_array

QUIET = Progress(quiet=True)
EPOCHS = 6
share = st.floats(0.01, 100) | st.integers(1, 4).map(float)


@given(st.lists(st.tuples(share, st.integers(1, 30)), min_size=2, max_size=4), st.integers(1, 50), st.integers(0, 5))
def test_sources_are_drawn_in_proportion_to_share_times_photographs(runs, batch_size, seed):
    assume(all(one != other for (one, _), (other, _) in pairwise(runs)))
    shares = np.repeat(*zip(*runs, strict=True))
    total, weights = len(shares), shares * len(shares) / shares.sum()
    assert runs_of(shares) == tuple(runs)
    steps = -(-EPOCHS * total // batch_size)
    stream = np.concatenate([index_stream(np.arange(total), i, batch_size, seed, tuple(runs)) for i in range(steps)])
    drawn = np.stack([np.bincount(stream[e * total : (e + 1) * total], minlength=total) for e in range(EPOCHS)])
    assert (abs(drawn - weights) < 1 + 1e-9).all()
    for start, end in pairwise(np.cumsum([0, *(count for _, count in runs)])):
        assert (abs(drawn[:, start:end].sum(axis=1) - weights[start:end].sum()) < 1 + 1e-9).all()


def test_a_share_below_the_mean_leaves_out_other_photographs_in_every_epoch():
    runs = ((1.0, 40), (2.0, 20))
    drawn = [index_stream(np.arange(60), epoch, 60, 0, runs) for epoch in range(200)]
    counts = np.bincount(np.concatenate(drawn), minlength=60)
    assert counts.sum() == 200 * 60
    assert abs(counts[:40] / 200 - 0.75).max() < 0.12
    assert abs(counts[40:] / 200 - 1.5).max() < 0.12


def test_the_order_without_shares_never_changes():
    assert index_stream(np.arange(7), 1, 5, 3).tolist() == [3, 0, 2, 1, 4]  # as runs were trained
    assert runs_of(None) == runs_of(np.full(7, 2.0)) == ()


@pytest.fixture
def shards(tmp_path):
    """Shards a and b of ten and five photographs of 40 px, and c of four of 20 px."""
    write_shard(tmp_path / "a.tar", [f"a{i}.png" for i in range(10)], tmp_path / "f")
    write_shard(tmp_path / "b.tar", [f"b{i}.png" for i in range(5)], tmp_path / "f")
    small = tmp_path / "c"
    small.mkdir()
    for i in range(4):
        Image.fromarray(photo_array(50 + i, 20, 24)).save(small / f"c{i}.png")
    with tarfile.open(tmp_path / "c.tar", "w") as tar:
        for file in sorted(small.iterdir()):
            tar.add(file, arcname=file.name)
    return tmp_path


def packs(shards, spec, **options):
    spec = ",".join(f"{shards}/{part}" for part in spec.split(","))
    config = DataConfig(spec, size=32, val_fraction=0.2, cache=str(shards / "cache"), **options)
    return training_packs(config, QUIET)


def test_a_pack_holds_the_shares_and_is_reused(shards):
    plain, val = packs(shards, "a.tar,b.tar")
    train, same_val = packs(shards, "a.tar@0.5,b.tar@2")
    assert plain.shares is None
    assert train.names == plain.names and val.names == same_val.names
    assert train.manifest["content"] == plain.manifest["content"]
    assert {(name[0], share) for name, share in zip(train.names, train.shares, strict=True)} == {("a", 0.5), ("b", 2)}
    assert len(list((shards / "cache" / "packs").glob("a-tar-*"))) == 2
    assert packs(shards, "a.tar@3,b.tar@3")[0].shares is None


def test_training_draws_by_shares(shards):
    train, _ = packs(shards, "a.tar,b.tar@3")
    data = TrainingData(train, 32, 4, 0, AugmentConfig(), torch.device("cpu"))
    count = len(data.indices)
    drawn = index_stream(data.indices, 0, 20 * count, 0, data._runs)
    of_b = np.mean([train.names[i].startswith("b") for i in drawn])
    total = {letter: sum(train.names[i][0] == letter for i in data.indices) for letter in "ab"}
    assert of_b == pytest.approx(3 * total["b"] / (total["a"] + 3 * total["b"]), abs=0.02)
    expected = index_stream(data.indices, 5, 4, 0, data._runs)
    assert torch.equal(data.gather(5).images, torch.from_numpy(train.images[expected]))


def test_grey_photographs_of_unpaired_runs_have_shares(shards):
    config = DataConfig(f"{shards}/a.tar,{shards}/b.tar@3", size=32, cache=str(shards / "cache"))
    train, val = training_packs(config, QUIET)
    grey = grey_photographs(config, train, val, QUIET)
    data = TrainingData(train, 32, 4, 0, AugmentConfig(), torch.device("cpu"), grey)
    assert {share for share, _ in data._grey_runs} == {share for share, _ in data._runs} == {1.0, 3.0}


@pytest.mark.parametrize("text", ["0", "-1", "x", "1e9", "", "nan"])
def test_an_impossible_share_is_one_sentence(shards, text):
    with pytest.raises(UserError, match="has the share") as caught:
        list_photos(f"{shards}/a.tar,{shards}/b.tar@{text}")
    assert str(caught.value).endswith(f"b.tar@{text} has the share {text!r}: expected a number from 0.01 to 100")


def test_a_share_is_for_training(shards, capsys):
    from scripts.evaluate import main as evaluate

    with pytest.raises(UserError, match=r"data.val is b.tar@2: shares are for data.train"):
        DataConfig(val="b.tar@2")
    assert evaluate(["grey", "--data", f"{shards}/b.tar@2"]) == 2
    assert "b.tar@2: shares are for training, leave them out" in capsys.readouterr().err


def test_photographs_that_are_too_small_are_left_out_and_counted(shards, capsys):
    config = DataConfig(f"{shards}/[bc].tar", size=32, val_fraction=0.2, cache=str(shards / "cache"))
    train, val = training_packs(config, Progress())
    small = sum(why == "smaller than 29 px" for _, why in train.manifest["left_out"])
    assert not any(name.startswith("c") for name in train.names)
    assert small == sum(p.name.startswith("c") for p in list_photos(config.train).of_split("train", 0.2)) > 0
    assert (
        f"{small} photographs are left out of training, because they would be enlarged to 36 px by a factor above 1.25"
        in "".join(capsys.readouterr())
    )
    assert len(train) + len(val) + small == 9
    whole, _ = packs(shards, "[bc].tar", max_enlargement=8.0)
    assert len(whole) == len(train) + small


@pytest.mark.parametrize("spec", ["c.tar", "a.tar,c.tar"])
def test_a_source_whose_photographs_are_all_too_small_is_one_sentence(shards, spec):
    for _ in range(2):  # packed and not packed
        with pytest.raises(UserError, match=r"all \d photographs of .*c.tar are smaller than 29 px") as caught:
            packs(shards, spec)
        assert "\n" not in str(caught.value)


def test_a_quarter_is_the_limit(tmp_path):
    (tmp_path / "p").mkdir()
    for side in (31, 32, 33):
        Image.fromarray(photo_array(side, side, side)).save(tmp_path / "p" / f"{side}.png")
    kept = open_pack(str(tmp_path / "p"), 40, max_enlargement=1.25, cache=str(tmp_path / "c"))
    assert kept.names == ["32.png", "33.png"]
    assert len(open_pack(str(tmp_path / "p"), 40, cache=str(tmp_path / "c"))) == 3


def test_tiles_that_are_too_small_are_left_out():
    small = open_pack("demo", 252, "train", max_enlargement=1.25)
    assert "chelsea.png" in small.names
    assert "chelsea.png#1" not in small.names  # 150 px
    assert ["chelsea.png#1", "smaller than 202 px"] in small.manifest["left_out"]
    assert open_pack("demo", 72, "train", max_enlargement=1.25).names == open_pack("demo", 72, "train").names


def test_the_largest_enlargement_is_no_part_of_what_a_run_is(photos, tmp_path):
    from common.training.run_dir import check_run_dir

    values = {"family": "baselines", "run": str(tmp_path / "run")}
    config = config_from_dict(values)
    (tmp_path / "run").mkdir()
    config.save(tmp_path / "run" / "config.yaml")
    (tmp_path / "run" / "state.pt").write_bytes(b"")
    check_run_dir(config_from_dict(values | {"data": {"max_enlargement": 8.0}}), tmp_path / "run")
    with pytest.raises(UserError, match=r"data.max_enlargement is 0.5"):
        config_from_dict(values | {"data": {"max_enlargement": 0.5}})
