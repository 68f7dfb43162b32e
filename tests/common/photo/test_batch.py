"""Colorizing many files: what one of them does must not reach the others, and pages do not pile up in memory."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from common.imaging.write import encode_pages, save_image
from common.photo import batch, pages
from common.photo.batch import Task, colorize_files, find_pictures
from common.photo.edit import Edit
from common.photo.pages import BatchConfig
from common.predictor import PredictorConfig
from tests.common.photo.test_api import Orange
from tests.conftest import photo_array

CONFIG = BatchConfig(PredictorConfig(16))


@pytest.fixture
def tasks(tmp_path):
    for i in range(4):
        save_image(tmp_path / f"{i}.png", photo_array(i))
    return [Task(str(tmp_path / f"{i}.png"), tmp_path / "out" / f"{i}.png") for i in range(4)]


@pytest.mark.parametrize("place", ["open_image", "colorize_photo", "write_pages"])
@pytest.mark.parametrize("error", [RuntimeError("unforeseen"), MemoryError(), KeyError("x\ny")], ids=repr)
def test_no_error_of_one_file_stops_the_others(tasks, monkeypatch, place, error):
    module = pages if place == "colorize_photo" else batch
    real, calls = getattr(module, place), []

    def sometimes(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(module, place, sometimes)
    outcomes = list(colorize_files(Orange(), tasks, CONFIG))
    assert [outcome.input for outcome in outcomes] == [task.name for task in tasks]
    assert sorted(outcome.status for outcome in outcomes) == ["done", "done", "done", "refused"]
    (refused,) = (outcome for outcome in outcomes if outcome.status == "refused")
    assert refused.reason.startswith(f"{refused.input} could not be colorized ({type(error).__name__}")
    assert "\n" not in refused.reason
    assert len(list((tasks[0].target.parent).iterdir())) == 3  # and no temporary file


def test_a_photograph_of_a_camera_becomes_a_tiff(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    Image.fromarray(photo_array(0)).save(tmp_path / "a.jpg", exif=exif.tobytes())
    (outcome,) = colorize_files(Orange(), [Task(str(tmp_path / "a.jpg"), tmp_path / "a.tif")], CONFIG)
    assert (outcome.status, outcome.reason) == ("done", "")
    with Image.open(tmp_path / "a.tif") as image:
        assert image.getexif().get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"


def test_pages_are_colorized_one_at_a_time(tmp_path, monkeypatch):
    """While a page is colorized, the next one may be decoded, and all before it are written."""
    expected = [photo_array(i, 30, 40) for i in range(6)]
    (tmp_path / "a.tif").write_bytes(encode_pages([(page, None) for page in expected], "TIFF"))
    real_open, real_colorize, opened, colored = batch.open_image, pages.colorize_photo, [], []

    def open_page(*args, page, **kwargs):
        opened.append(page)
        return real_open(*args, page=page, **kwargs)

    def colorize(colorizer, rgb, *args):
        colored.append(rgb)
        assert np.array_equal(rgb, expected[len(colored) - 1])
        assert max(opened) <= len(colored)
        return real_colorize(colorizer, rgb, *args)

    monkeypatch.setattr(batch, "open_image", open_page)
    monkeypatch.setattr(pages, "colorize_photo", colorize)
    (outcome,) = colorize_files(Orange(), [Task(str(tmp_path / "a.tif"), tmp_path / "b.tif")], CONFIG)
    assert (outcome.status, outcome.pages) == ("done", 6)
    assert opened == list(range(6))
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert len(file.pages) == 6


def test_a_damaged_page_leaves_no_file(tmp_path):
    data = bytearray(encode_pages([(photo_array(i), None) for i in range(3)], "TIFF"))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place = file.pages[2].dataoffsets[0]
    data[place : place + 20] = bytes(20)
    (tmp_path / "a.tif").write_bytes(data)
    (outcome,) = colorize_files(Orange(), [Task(str(tmp_path / "a.tif"), tmp_path / "b.tif")], CONFIG)
    assert outcome.status == "refused"
    assert "damaged" in outcome.reason
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]


def test_two_tasks_do_not_write_one_comparison(tmp_path):
    for suffix in (".png", ".jpg"):
        save_image(tmp_path / f"a{suffix}", photo_array(0))
    tasks = [Task(str(tmp_path / f"a{s}"), tmp_path / "out" / f"a{s}") for s in (".png", ".jpg")]
    config = BatchConfig(PredictorConfig(16), compare=True, overwrite=True)
    outcomes = list(colorize_files(Orange(), tasks, config))
    assert [outcome.status for outcome in outcomes] == ["done", "skipped"]


def test_results_inside_a_folder_are_no_inputs(tmp_path):
    for name in ("a.png", "deep/b.png", "deep/out/a.png", "deep/out/deep/b.png"):
        save_image(tmp_path / name, photo_array(0))
    out = tmp_path / "deep" / "out"

    def found(name, recursive=True, out=out):
        return [str(path) for _, path in find_pictures([str(name)], recursive, out)[0]]

    assert found(tmp_path) == ["a.png", "deep/b.png"]
    assert found(tmp_path / "**/*.png") == ["a.png", "b.png"]
    assert found(out) == ["a.png", "deep/b.png"]  # it is the named folder itself
    assert found(f"{out}/*.png") == ["a.png"]
    assert len(found(tmp_path, out=None)) == 4


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_grey_result_is_reported(tmp_path, dtype):
    """Also that of a later page, but not if it was asked for."""
    values = [photo_array(i).astype(dtype) * (257 if dtype == "uint16" else 1) for i in range(2)]
    (tmp_path / "a.tif").write_bytes(encode_pages([(page, None) for page in values], "TIFF"))
    grey, told = Orange(), []
    grey.ab.data.fill_(2.0)
    for i, (colorizer, edit) in enumerate([(grey, Edit()), (Orange(), Edit()), (Orange(), Edit(saturation=0))]):
        config = BatchConfig(PredictorConfig(16), edit, report=told.append)
        (outcome,) = colorize_files(colorizer, [Task(str(tmp_path / "a.tif"), tmp_path / f"{i}.tif")], config)
        assert outcome.status == "done"
    says = "got almost no color from this model: try --model vivid, a higher --saturation, or --hint"
    assert told == [f"{tmp_path / 'a.tif'}, page {page}, {says}" for page in (1, 2)]
