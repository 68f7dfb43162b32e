import tarfile

import pytest
from PIL import Image

from common.data.sources import list_photos
from common.data.splits import split_of
from common.utils.errors import UserError
from tests.conftest import photo_array


def write_shard(path, names, folder):
    folder.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for i, name in enumerate(names):
            file = folder / f"{i}.png"
            Image.fromarray(photo_array(i)).save(file)
            tar.add(file, arcname=name)
    return path


def test_folder_of_any_depth(photos):
    listing = list_photos(str(photos))
    assert len(listing.photos) == 12
    assert {p.name for p in listing.photos} >= {"photo0.png", "deep/er/photo1.png"}
    assert listing.skipped == [("notes.txt", "not a picture file")]


def test_shards_list_and_read(tmp_path):
    write_shard(tmp_path / "a-0.tar", ["x/1.png", "x/2.png", "x/2.txt"], tmp_path / "f")
    write_shard(tmp_path / "a-1.tar", ["x/2.png", "x/3.png"], tmp_path / "f")
    listing = list_photos(str(tmp_path / "a-*.tar"))
    assert [p.name for p in listing.photos] == ["x/1.png", "x/2.png", "x/3.png"]
    assert listing.skipped == [("x/2.txt", "not a picture file"), ("x/2.png", "name seen before")]
    assert listing.photos[2].read() == (tmp_path / "f" / "1.png").read_bytes()
    both = list_photos(f"{tmp_path}/a-0.tar, {tmp_path}/a-1.tar")
    assert [p.name for p in both.photos] == [p.name for p in listing.photos]


@pytest.mark.parametrize("where", ["header", "body", "end", "all"])
def test_a_damaged_shard_is_refused(tmp_path, where):
    path = write_shard(tmp_path / "a.tar", [f"{i}.png" for i in range(6)], tmp_path / "f")
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        third = tar.getmembers()[3]
        end = tar.getmembers()[-1]
    if where == "header":
        data[third.offset : third.offset + 300] = b"\xff" * 300
    elif where == "body":
        del data[third.offset_data + 100 :]
    elif where == "end":
        del data[end.offset_data + (end.size + 511) // 512 * 512 :]
    else:
        data = bytearray(b"no tar")
    path.write_bytes(data)
    with pytest.raises(UserError, match="shard") as caught:
        list_photos(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("{}/nothing", "neither a folder"),
        ("{}/nothing-*.tar", "no tar shard matches"),
        ("{}/photos/photo0.png", "a single file"),
        ("{}/texts", "no picture files"),
        ("{}/shards", r"\*.tar"),
    ],
)
def test_a_source_without_photographs_is_one_sentence(photos, tmp_path, spec, says):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.tar").write_text("")
    with pytest.raises(UserError, match=says) as caught:
        list_photos(spec.format(tmp_path))
    assert "\n" not in str(caught.value)


def test_split_is_stable_and_about_the_fraction():
    names = [f"n{i:05d}.jpg" for i in range(5000)]
    share = sum(split_of(name, 0.1) == "val" for name in names) / len(names)
    assert 0.08 < share < 0.12
    assert split_of("a/b/n1.jpg", 0.3) == split_of("n1.jpg", 0.3)
    # a larger fraction only adds photographs to validation
    assert {n for n in names if split_of(n, 0.1) == "val"} < {n for n in names if split_of(n, 0.2) == "val"}
    # a change of these values would move photographs between training and validation of existing runs
    assert [n for n in names[:40] if split_of(n, 0.1) == "val"] == [
        "n00016.jpg", "n00019.jpg", "n00021.jpg", "n00033.jpg",
    ]  # fmt: skip


def test_train_and_val_folders_are_the_split(tmp_path):
    for part in ("train", "val"):
        (tmp_path / part / "class").mkdir(parents=True)
        Image.fromarray(photo_array(1)).save(tmp_path / part / "class" / "x.png")
    listing = list_photos(str(tmp_path))
    assert [p.name for p in listing.of_split("val", 0.5)] == ["val/class/x.png"]
    assert [p.name for p in listing.of_split("train", 0.5)] == ["train/class/x.png"]


def test_demo_holds_scenes_apart():
    listing = list_photos("demo")
    train = {p.name for p in listing.of_split("train", 0.1)}
    val = {p.name for p in listing.of_split("val", 0.1)}
    assert len(train) == 9
    assert len(val) == 2
    assert not {n.split("_")[0] for n in train} & {n.split("_")[0] for n in val}


def test_named_sets_without_network_are_one_sentence(monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no route to host\nat all")

    monkeypatch.setattr("torchvision.datasets.CIFAR10.__init__", no_network)
    monkeypatch.setattr("fastai.data.external.untar_data", no_network)
    for name in ("cifar10", "imagenette"):
        with pytest.raises(UserError, match=f"the set {name} could not be loaded") as caught:
            list_photos(name)
        assert "\n" not in str(caught.value)


def test_named_sets_read_through_the_library(monkeypatch, photos):
    pictures = [Image.fromarray(photo_array(i, 32, 32)) for i in range(3)]

    def init(self, root, train=True, download=False):
        self.data = pictures[: 2 if train else 1]

    monkeypatch.setattr("torchvision.datasets.CIFAR10.__init__", init)
    monkeypatch.setattr("torchvision.datasets.CIFAR10.__len__", lambda self: len(self.data))
    monkeypatch.setattr("torchvision.datasets.CIFAR10.__getitem__", lambda self, i: (self.data[i], 0))
    listing = list_photos("cifar10")
    assert [p.split for p in listing.photos] == ["train", "train", "val"]
    assert listing.photos[1].read().startswith(b"P6")
    monkeypatch.setattr("fastai.data.external.untar_data", lambda url, data: photos)
    assert len(list_photos("imagenette").photos) == 12
