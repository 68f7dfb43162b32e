"""The recognizer learns class folders, uses color, and is cached."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from common.evaluation.evaluate import trivial_predictor
from common.evaluation.learned import semantics
from common.evaluation.learned.semantics import class_of, semantics_values, timm_recognizer, trained_recognizer
from common.evaluation.learned.small_classifier import Recipe
from common.utils.errors import UserError
from tests.common.packs import flat, pack_of

TINY = Recipe(width=8, blocks=(1, 1, 1, 1), steps=30, batch_size=16)
RED, BLUE = (180, 60, 60), (60, 60, 180)


@pytest.fixture(scope="module")
def teaching():
    """Red and blue pictures, twelve each, in folders of these names, and a grey one among the red ones."""
    images = [flat(RED, i) for i in range(12)] + [flat(BLUE, i + 20) for i in range(12)] + [flat((99, 99, 99), 0)]
    names = [f"shards/red/{i}.jpg" for i in range(12)] + [f"blue/{i}.jpg" for i in range(12)] + ["red/grey.jpg"]
    return pack_of(images, names, "colors")


@pytest.fixture(scope="module")
def measured():
    """Blue and red pictures by turns, and one of an unknown class."""
    images = [flat((BLUE, RED)[i % 2], i + 50) for i in range(8)] + [flat((60, 180, 60), 70)]
    names = [f"{('blue', 'red')[i % 2]}/{i}.jpg" for i in range(8)] + ["green/8.jpg"]
    return pack_of(images, names, "measured")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("n03425413/n03425413_2671.jpg", "n03425413"),
        ("train/n01440764/a.JPEG", "n01440764"),
        ("a.jpg", None),
        ("a.b/c.jpg", "a.b"),
        ("red/5.png#3", "red"),
    ],
)
def test_the_class_is_the_innermost_folder(name, expected):
    assert class_of(name) == expected


def test_values_are_in_the_order_of_the_rows_and_nan_where_the_class_is_unknown(measured):
    def by_color(pictures):
        return np.where(pictures[..., 0].mean(axis=(1, 2)) > pictures[..., 2].mean(axis=(1, 2)), "red", "blue")

    rows = np.array([8, 1, 2, 3])
    for row, expected in (("original", [np.nan, 1, 1, 1]), ("grey", [np.nan, 0, 1, 0])):  # grey is called blue
        predict = trivial_predictor(row, measured)
        values = semantics_values(predict, measured, by_color, ["blue", "red"], indices=rows, batch_size=2)
        np.testing.assert_array_equal(values, expected)


@pytest.mark.slow
def test_it_learns_colors_and_is_trained_once(teaching, measured, tmp_path, monkeypatch):
    options = {"size": 28, "recipe": TINY, "cache": str(tmp_path)}
    recognize, classes = trained_recognizer(teaching, measured, **options)
    assert classes == ["blue", "red"]
    values = {
        row: semantics_values(trivial_predictor(row, measured), measured, recognize, classes)
        for row in ("original", "grey")
    }
    np.testing.assert_array_equal(values["original"], [1] * 8 + [np.nan])
    assert np.nanmean(values["grey"]) == 0.5  # without color they are one class
    (kept,) = (tmp_path / "classifiers").glob("*.safetensors")

    monkeypatch.setattr(semantics, "fit", lambda *_, **__: pytest.fail("it was trained before"))
    again, _ = trained_recognizer(teaching, measured, **options)
    np.testing.assert_array_equal(again(measured.images), recognize(measured.images))
    monkeypatch.undo()
    before = kept.read_bytes()
    kept.unlink()
    trained_recognizer(teaching, measured, **options)
    assert kept.read_bytes() == before  # the same to the bit
    for other in ({"seed": 1}, {"size": 24}, {"recipe": replace(TINY, steps=2)}):
        trained_recognizer(teaching, measured, **(options | other | {"recipe": other.get("recipe", TINY)}))
    trained_recognizer(teaching, teaching_without_one(teaching), **options)
    assert len(list((tmp_path / "classifiers").glob("*.safetensors"))) == 5
    kept.write_bytes(before[:100])
    with pytest.raises(UserError, match="is damaged: delete it"):
        trained_recognizer(teaching, measured, **options)


def teaching_without_one(teaching):
    """A measured pack that shares one photograph with the training source, which is then not used."""
    return pack_of([teaching.images[0]], ["red/0.jpg"])


def test_sources_without_class_folders(measured, tmp_path):
    images = [flat(RED, 0), flat(BLUE, 1)]
    for names, has in (
        (["a.jpg", "b.jpg"], "2 photographs outside of folders"),
        (["x/a.jpg", "x/b.jpg"], "only 'x'"),
        (["x/a.jpg", "b.jpg"], "only 'x'"),
    ):
        with pytest.raises(UserError, match=f"one has no class folders to learn from .{has}.: name a source") as error:
            trained_recognizer(pack_of(images, names, "one"), measured, size=28, cache=str(tmp_path))
        assert str(error.value).count("\n") == 0
    with pytest.raises(UserError, match="nothing new"):
        trained_recognizer(measured, measured, size=28, cache=str(tmp_path))
    with pytest.raises(UserError, match=r"knows \(cat, dog\), and those of measured are blue, green, red: measure"):
        semantics_values(None, measured, None, ["cat", "dog"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be cached in"):
        trained_recognizer(pack_of(images, ["x/a.jpg", "y/b.jpg"]), measured, size=28, cache=str(tmp_path / "file"))


def test_timm_networks_by_name_and_file(tmp_path):
    import timm

    torch.manual_seed(0)
    network = timm.create_model("test_resnet")
    assert network.num_classes == 1000
    state = network.state_dict()
    state["fc.bias"][217] += 1000  # ImageNet's class 217: n02102040
    file = tmp_path / "w.safetensors"
    save_file(state, file)
    recognize, classes = timm_recognizer(f"test_resnet={file}")
    names = ["n02102040/a.jpg", "n01440764/b.jpg", "else/c.jpg"]
    pack = pack_of([flat(RED, i) for i in range(3)], names)
    values = semantics_values(lambda batch, rows: batch.ab, pack, recognize, classes, side=None)
    np.testing.assert_array_equal(values, [1, 0, np.nan])
    for given, says in (
        ("test_resnett", "--semantics_network is test_resnett: .* .did you mean"),
        ("test_resnet=nowhere.pt", "the weights nowhere.pt do not exist"),
        ("resnet50", "the weights of timm's resnet50 are not on this machine"),
        (f"resnet18={file}", "cannot be read as timm's resnet18"),
    ):
        with pytest.raises(UserError, match=says) as error:
            timm_recognizer(given)
        assert "\n" not in str(error.value)


def test_networks_of_other_classes_are_refused(tmp_path):
    import timm

    network = timm.create_model("test_resnet", num_classes=7)
    file = tmp_path / "seven.safetensors"
    save_file(network.state_dict(), file)
    with pytest.raises(UserError, match="test_resnet"):
        timm_recognizer(f"test_resnet={file}")
