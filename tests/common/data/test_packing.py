import json
import multiprocessing
import os
import threading

import numpy as np
import pytest
from PIL import Image

from common.data import packing
from common.data.batches import DataConfig, training_packs
from common.data.packing import open_pack
from common.imaging.header import MAX_PIXELS
from common.imaging.read import open_image, square
from common.utils.errors import UserError
from common.utils.progress import Progress
from tests.conftest import photo_array

QUIET = Progress(quiet=True)


def save(folder, name, array):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(folder / name)


def test_a_pack_holds_the_photographs(photos, tmp_path):
    pack = open_pack(str(photos), 24, cache=str(tmp_path / "c"))
    assert pack.images.shape == (12, 24, 24, 3)
    for name, packed in zip(pack.names, pack.images, strict=True):
        assert np.array_equal(packed, square(open_image(photos / name).rgb, 24))
    assert pack.manifest["left_out"] == [["notes.txt", "not a picture file"]]
    assert "left out: 1 not a picture file" in pack.describe()
    L, ab = pack.lab(slice(0, 3))
    assert L.shape == (3, 1, 24, 24)
    assert ab.shape == (3, 2, 24, 24)


def test_a_pack_is_reused_and_rewritten_when_a_photograph_changes(photos, tmp_path):
    cache = tmp_path / "c"
    open_pack(str(photos), 24, cache=str(cache))
    (made,) = (cache / "packs").glob("photos-*")
    stamp = (made / "images.u8").stat().st_mtime_ns
    open_pack(str(photos), 24, cache=str(cache))
    assert (made / "images.u8").stat().st_mtime_ns == stamp
    save(photos, "photo0.png", photo_array(99))
    assert np.array_equal(
        open_pack(str(photos), 24, cache=str(cache)).images[[*open_pack(str(photos), 24).names].index("photo0.png")],
        square(photo_array(99), 24),
    )


def test_grey_and_unreadable_photographs(tmp_path):
    folder = tmp_path / "p"
    for i in range(4):
        save(folder, f"{i}.png", photo_array(i))
    save(folder, "grey.png", np.repeat(photo_array(9)[..., :1], 3, axis=2))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    pack = open_pack(str(folder), 16, cache=str(tmp_path / "c"))
    assert len(pack) == 5
    assert [pack.names[i] for i in np.flatnonzero(pack.grey)] == ["grey.png"]
    assert len(pack.color_indices) == 4
    assert [name for name, _ in pack.manifest["left_out"]] == ["broken.jpg"]
    color = np.stack([pack.lab(slice(i, i + 1))[1].mean(dim=(2, 3)).numpy()[0] for i in pack.color_indices])
    assert pack.manifest["mean_ab"] == pytest.approx(color.mean(axis=0), abs=1e-4)


def test_no_photograph_in_both_parts(tmp_path):
    folder = tmp_path / "p"
    for i in range(60):
        save(folder, f"{i}.png", photo_array(i, 16, 16))
    train, val = training_packs(DataConfig(train=str(folder), size=16, cache=str(tmp_path / "c")), QUIET)
    assert len(train) + len(val) == 60
    assert not set(train.names) & set(val.names)
    assert train.size == 18
    assert val.size == 16


def test_photographs_in_both_sources_are_not_trained_on(tmp_path):
    for i in range(8):
        save(tmp_path / "train", f"{i}.png", photo_array(i))
    for i in range(6, 10):
        save(tmp_path / "val", f"other{i}.png", photo_array(i))  # the same files under other names
    config = DataConfig(train=str(tmp_path / "train"), val=str(tmp_path / "val"), size=16, cache=str(tmp_path / "c"))
    train, val = training_packs(config, QUIET)
    assert [train.names[i] for i in train.color_indices] == [f"{i}.png" for i in range(6)]
    assert len(val) == 4
    assert "2 held out" in train.describe()


@pytest.mark.parametrize("case", ["one", "grey", "unreadable", "same"])
def test_useless_sources_are_refused_in_one_sentence(tmp_path, case):
    folder = tmp_path / "p"
    config = {"train": str(folder), "size": 16, "cache": str(tmp_path / "c")}
    if case == "one":
        save(folder, "a.png", photo_array(0))
    elif case == "grey":
        for i in range(30):
            save(folder, f"{i}.png", np.repeat(photo_array(i)[..., :1], 3, axis=2))
    elif case == "unreadable":
        folder.mkdir()
        for i in range(30):
            (folder / f"{i}.png").write_bytes(b"nothing")
    else:
        for i in range(4):
            save(folder, f"{i}.png", photo_array(i))
        config["val"] = str(folder)
    with pytest.raises(UserError) as caught:
        training_packs(DataConfig(**config), QUIET)
    assert "\n" not in str(caught.value)
    says = {"one": "no photographs for 'val'", "grey": "grey", "unreadable": "no usable", "same": "hold out a part"}[
        case
    ]
    assert says in str(caught.value)


def test_a_cache_that_cannot_be_written_is_one_sentence(photos, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        open_pack(str(photos), 16, cache=str(tmp_path / "file"))

    class Full:
        free = 10

    monkeypatch.setattr("common.data.packing.shutil.disk_usage", lambda path: Full)
    with pytest.raises(UserError, match="GB free"):
        open_pack(str(photos), 16, cache=str(tmp_path / "c"))
    assert not [p for p in (tmp_path / "c" / "packs").iterdir() if p.suffix != ".lock"]


def test_a_disk_that_fills_up_leaves_nothing_half_written(photos, tmp_path, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("common.data.packing.os.fsync", full)
    with pytest.raises(UserError, match="No space left"):
        open_pack(str(photos), 16, cache=str(tmp_path / "c"))
    assert not [p for p in (tmp_path / "c" / "packs").iterdir() if p.suffix != ".lock"]
    monkeypatch.undo()
    assert len(open_pack(str(photos), 16, cache=str(tmp_path / "c"))) == 12


def test_an_incomplete_pack_is_written_again(photos, tmp_path):
    cache = tmp_path / "c"
    open_pack(str(photos), 16, cache=str(cache))
    (made,) = (cache / "packs").glob("photos-*")
    part = made.with_name(f".{made.name}.part")
    os.rename(made, part)
    (part / "manifest.json").unlink()
    assert len(open_pack(str(photos), 16, cache=str(cache))) == 12
    assert not part.exists()


def test_a_damaged_manifest_is_one_sentence(photos, tmp_path):
    open_pack(str(photos), 16, cache=str(tmp_path / "c"))
    (made,) = (tmp_path / "c" / "packs").glob("photos-*")
    (made / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="delete that folder"):
        open_pack(str(photos), 16, cache=str(tmp_path / "c"))


def _pack_in_process(arguments):
    source, cache = arguments
    pack = open_pack(source, 16, cache=cache)
    return json.dumps([pack.manifest["content"], len(pack)])


def test_two_processes_make_one_good_pack(photos, tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.map(_pack_in_process, [(str(photos), str(tmp_path / "c"))] * 4)
    assert len(set(results)) == 1
    names = sorted(p.name for p in (tmp_path / "c" / "packs").iterdir() if not p.name.endswith(".lock"))
    assert len(names) == 1


def test_large_pictures_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    """Their memory would otherwise be multiplied by the number of threads."""
    for i in range(8):
        save(tmp_path / "p", f"{i}.png", photo_array(i, 200 if i % 2 else 20, 100))
    save(tmp_path / "p", "draft.jpg", photo_array(9, 800, 800))  # of which 100x100 pixels are decoded
    progressive = tmp_path / "p" / "progressive.jpg"  # of which all pixels are decoded
    Image.fromarray(photo_array(10, 800, 800)).save(progressive, progressive=True)
    real, alone = packing.open_image, threading.Lock()

    def counted_open(data, name, draft, max_pixels=MAX_PIXELS):
        large = max_pixels == MAX_PIXELS
        if large:
            assert name in ("1.png", "3.png", "5.png", "7.png", "progressive.jpg")
            assert alone.acquire(blocking=False)
        try:
            return real(data, name, draft, max_pixels)
        finally:
            if large:
                alone.release()

    monkeypatch.setattr(packing, "open_image", counted_open)
    monkeypatch.setattr(packing, "_PARALLEL_PIXELS", 10_000)
    pack = open_pack(str(tmp_path / "p"), 16, cache=str(tmp_path / "c"), workers=4)
    assert len(pack) == 10


def test_large_files_are_left_out_unread(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("common.data.sources.MAX_BYTES", 5000)
    (photos / "large.png").write_bytes(bytes(6000))
    pack = open_pack(str(photos), 16, cache=str(tmp_path / "c"))
    assert "large.png" in [name for name, _ in pack.manifest["left_out"]]
