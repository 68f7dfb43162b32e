"""What a run may delete and overwrite, and which photographs belong to it."""

import shutil

import pytest
from PIL import Image

from common.data.batches import training_packs
from common.training.loop import train
from common.training.parser import config_from_dict
from common.training.run_dir import check_run_dir, is_finished
from common.training.state import STATE
from common.utils.errors import UserError
from common.utils.progress import Progress
from tests.conftest import photo_array

QUIET = Progress(quiet=True)


def config(run, steps=1, **more):
    values = {"family": "baselines", "batch_size": 4, "sample_every": 1, "device": "cpu", "compile": False}
    return config_from_dict(values | {"data": {"size": 32}, "steps": steps, "run": str(run)} | more)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def sources(tmp_path):
    """Folders of photographs for training and for validation."""
    for name, first in (("train", 0), ("val", 100)):
        (tmp_path / name).mkdir()
        for i in range(first, first + 6):
            Image.fromarray(photo_array(i)).save(tmp_path / name / f"{i}.png")
    return {"train": str(tmp_path / "train"), "val": str(tmp_path / "val"), "size": 32}


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("name", ["config.yaml", "weights.safetensors", "metrics.jsonl", "samples/00000001.png"])
def test_files_that_no_run_wrote_are_neither_deleted_nor_overwritten(tmp_path, fresh, name):
    for path in (tmp_path / name, tmp_path / "thesis.tex"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("title: the work of years\n")
    before = contents(tmp_path)
    with pytest.raises(UserError, match="not the folder of a run" if fresh else "not written by a run"):
        train(config(tmp_path, fresh=fresh), QUIET)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("marker", [True, False], ids=["marked", "of an older version"])
def test_fresh_deletes_the_files_of_the_run_and_no_others(tmp_path, sources, marker):
    run = tmp_path / "a"
    train(config(run, steps=2, data=sources), QUIET)
    if not marker:
        (run / ".run").unlink()
    (run / "thesis.tex").write_text("mine")
    (run / "samples" / "favorite.png").write_text("mine")
    (run / "figures").mkdir()
    (run / "figures" / "00000001.png").write_text("mine")
    mine = {name: data for name, data in contents(run).items() if data == b"mine"}
    train(config(run, data=sources, fresh=True), QUIET)
    after = contents(run)
    assert {name: after[name] for name in mine} == mine
    assert "samples/00000002.png" not in after  # of the run that was deleted
    assert not list(run.glob("*.part"))


def test_the_folder_of_another_program_with_a_log_is_no_run(tmp_path):
    (tmp_path / "config.yaml").write_text("learning_rate: 1\n")
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="not the folder of a run"):
        train(config(tmp_path, fresh=True), QUIET)


@pytest.mark.parametrize("change", ["replaced", "training photograph added", "made equal"])
def test_other_validation_photographs_are_another_run(tmp_path, sources, change):
    run = tmp_path / "a"
    Image.fromarray(photo_array(100)).save(tmp_path / "train" / "5.png", compress_level=1)
    train(config(run, data=sources), QUIET)
    state = (run / STATE).read_bytes()
    if change == "replaced":
        Image.fromarray(photo_array(7)).save(tmp_path / "val" / "100.png")
    elif change == "training photograph added":
        shutil.copy(tmp_path / "train" / "0.png", tmp_path / "val" / "0.png")
    else:  # all pixels stay the same, but a training photograph is now held out as a copy
        shutil.copy(tmp_path / "train" / "5.png", tmp_path / "val" / "100.png")
    again = config(run, steps=2, data=sources)
    with pytest.raises(UserError, match="are not those that"):
        train(again, QUIET)
    assert (run / STATE).read_bytes() == state
    with pytest.raises(UserError, match="are not those that"):
        is_finished(again, *training_packs(again.data, QUIET))


@pytest.mark.parametrize("edited", ["family: baselines\nmodel: -3\n", "family: [1]\n", "steps: 3\n", "- a list\n"])
def test_an_edited_config_of_a_run_is_one_sentence(tmp_path, edited):
    (tmp_path / ".run").touch()
    (tmp_path / STATE).touch()
    (tmp_path / "config.yaml").write_text(edited)
    with pytest.raises(UserError):
        check_run_dir(config(tmp_path), tmp_path)
    assert (tmp_path / "config.yaml").read_text() == edited
