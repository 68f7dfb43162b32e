"""Splits of a source itself: photographs for validation or test are never trained on."""

import pytest
from PIL import Image

from common.data.batches import DataConfig, training_packs
from common.data.packing import open_pack
from common.data.sources import list_photos
from common.data.splits import folder_splits, shard_splits
from common.utils.errors import UserError
from common.utils.progress import Progress
from tests.common.data.test_sources import write_shard
from tests.conftest import photo_array


def make(root, **counts):
    """Photographs in folders: make(root, train=3) gives root/train/0.png to 2.png; `here` is the root itself."""
    seed = 0
    for folder, count in counts.items():
        target = root if folder == "here" else root / folder
        target.mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            Image.fromarray(photo_array(seed)).save(target / f"photo{seed}.png")
            seed += 1
    return root


def packs(tmp_path, source, **options):
    config = DataConfig(train=str(source), size=16, cache=str(tmp_path / "c"), **options)
    train, val = training_packs(config, Progress(quiet=True))
    return set(train.names), set(val.names)


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "VALID", "testing"), ("TRAIN", "validation", "Test")]
)
@pytest.mark.parametrize("inside", ["", "set", "a/b"])
def test_folders_are_the_splits_in_every_spelling(tmp_path, names, inside):
    root = tmp_path / "photos"
    make(root / inside, **dict(zip(names, (4, 2, 3), strict=True)))
    train, val = packs(tmp_path, root)
    assert {n.split("/")[-2] for n in train} == {names[0]} and len(train) == 4
    assert {n.split("/")[-2] for n in val} == {names[1]} and len(val) == 2
    test = open_pack(str(root), 16, "test", cache=str(tmp_path / "c"))
    assert {n.split("/")[-2] for n in test.names} == {names[2]} and len(test) == 3


def test_splits_within_each_class_are_used(tmp_path):
    make(tmp_path / "in" / "cats", train=3, val=2)
    make(tmp_path / "in" / "dogs", train=3, val=1)
    train, val = packs(tmp_path, tmp_path / "in")
    assert {n.split("/")[1] for n in train} == {"train"} and len(train) == 6
    assert {n.split("/")[1] for n in val} == {"val"} and len(val) == 3


def test_without_val_a_part_of_train_is_held_out_and_test_is_left_alone(tmp_path):
    source = make(tmp_path / "in", train=12, test=8)
    train, val = packs(tmp_path, source, val_fraction=0.4)
    assert train and val and {n.split("/")[0] for n in train | val} == {"train"} and len(train | val) == 12
    assert list_photos(str(source)).measured_split == "test"
    other = make(tmp_path / "other", here=2)
    for photo in other.iterdir():
        Image.fromarray(255 - photo_array(99)).save(photo)
    train, val = packs(tmp_path, source, val=str(other))  # nothing needs to be held out then
    assert len(train) == 12 and len(val) == 2


def test_a_train_folder_alone_is_no_split(tmp_path):
    listing = list_photos(str(make(tmp_path / "in", train=5)))
    assert not listing.has_split and listing.measured_split == "all"


def test_nothing_is_learned_from_a_test_folder_alone(tmp_path):
    source = make(tmp_path / "in", test=4)
    with pytest.raises(UserError, match=r"no photographs for 'train' \(of 4, its own splits: test\)"):
        packs(tmp_path, source)
    with pytest.raises(UserError, match="no photographs for 'val'"):
        packs(tmp_path, make(tmp_path / "other", here=3), val=str(source))


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"train": 3, "val": 2, "here": 1}, r"\(train/, val/\) and 1 outside of them \(such as photo5.png\)"),
        ({"train": 3, "val": 2, "Extra": 2}, r"\(train/, val/\) and 2 outside of them \(such as Extra/photo5.png\)"),
        ({"val": 2, "people": 3}, r"\(val/\) and 3 outside"),
        ({"val": 2}, r"no train folder \(found: val/\)"),
        ({"val": 2, "test": 2}, r"no train folder \(found: test/, val/\)"),
    ],
)
def test_ambiguous_folders_are_refused_with_their_names(tmp_path, counts, says):
    with pytest.raises(UserError, match=says) as caught:
        list_photos(str(make(tmp_path / "in", **counts)))
    assert "\n" not in str(caught.value)


def test_a_deep_folder_that_happens_to_be_called_test_is_no_split():
    assert folder_splits("x", ["2019/test/a.png", "2019/b.png", "2020/c.png"]) == [None] * 3


def test_shards_are_the_splits_by_their_names(tmp_path):
    for part, seeds in (("train-000000", 3), ("train-000001", 3), ("people-val", 2), ("Test", 2)):
        write_shard(tmp_path / f"set128-{part}.tar", [f"x/{part[-1]}{i}.png" for i in range(seeds)], tmp_path / "f")
    listing = list_photos(str(tmp_path / "*.tar"))
    assert [len(listing.of_split(s, 0.1)) for s in ("train", "val", "test")] == [6, 2, 2]
    val_and_test = list_photos(f"{tmp_path}/set128-people-val.tar,{tmp_path}/set128-Test.tar")
    assert [len(val_and_test.of_split(s, 0.1)) for s in ("train", "val", "test")] == [0, 2, 2]
    for alone in ("set128-train-*.tar", "set128-people-val.tar", "set128-Test.tar"):
        assert not list_photos(str(tmp_path / alone)).has_split


def test_shards_of_two_splits_may_use_the_same_names(tmp_path):
    for part in ("train", "val"):
        write_shard(tmp_path / f"{part}.tar", ["0.png", "1.png"], tmp_path / "f")
    listing = list_photos(f"{tmp_path}/train.tar,{tmp_path}/val.tar")
    assert [p.name for p in listing.of_split("val", 0.1)] == ["val/0.png", "val/1.png"]
    assert not listing.skipped


def test_shards_are_the_splits_by_their_folders():
    assert shard_splits("x", ["a/train/0.tar", "a/val/0.tar"]) == ["train", "val"]
    assert shard_splits("x", ["a/test_of_something/0.tar", "a/1.tar"]) == [None, None]
    assert shard_splits("x", ["trainval-0.tar", "a-train-val-1.tar"]) == [None, None]


def test_shards_of_which_some_name_no_split_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"\(b-val.tar\) and shards with no split .* \(such as a.tar\)"):
        shard_splits("*.tar", ["a.tar", "b-val.tar"])


def test_folders_within_a_shard_are_the_splits(tmp_path):
    write_shard(tmp_path / "a.tar", ["set/train/0.png", "set/train/1.png", "set/val/0.png"], tmp_path / "f")
    assert [p.split for p in list_photos(f"{tmp_path}/a.tar").photos] == ["train", "train", "val"]
    write_shard(tmp_path / "b.tar", ["val/0.png", "val/1.png"], tmp_path / "f")
    assert not list_photos(f"{tmp_path}/b.tar").has_split


@pytest.mark.parametrize("folder", ["x.tar", "a.tar/photos", "a.tar.d/b"])
def test_a_folder_with_tar_in_its_path_is_a_folder(tmp_path, folder):
    make(tmp_path / folder, here=2)
    for spec in (f"{tmp_path}/{folder}", f"{tmp_path}/{folder}/"):
        assert [p.name for p in list_photos(spec).photos] == ["photo0.png", "photo1.png"]
    with pytest.raises(UserError, match="neither a folder"):
        list_photos(f"{tmp_path}/x.tar/missing")
