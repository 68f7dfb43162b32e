"""Paths, flags and interrupts that a user can cause: one sentence and an exit code, never a traceback or silence."""

import os
import subprocess
import sys

import onnx
import pytest

from common.data.sources import list_photos
from common.photo.batch import find_pictures
from common.utils.errors import UserError
from scripts import colorize, compute_prior, evaluate, export, train
from tests.conftest import ROOT, save_painter

LONG = "n" * 250


def refuse(monkeypatch, function, refused):
    """Let a function of `os` raise an error for one path: the tests may run as root, who may read everything."""
    real = getattr(os, function)

    def refusing(path=".", *args, **options):
        if str(path) == str(refused):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setattr(os, function, refusing)


def test_a_subfolder_without_permission_is_an_error_of_colorize(photos, tmp_path, monkeypatch, capsys):
    model = save_painter(tmp_path / "w.safetensors")
    refuse(monkeypatch, "scandir", photos / "deep")
    argv = [
        str(photos),
        "--recursive",
        "--model",
        str(model),
        "--out",
        str(tmp_path / "out"),
        "--size",
        "32",
        "--anyway",
    ]
    assert colorize.main(argv) == 1
    told = capsys.readouterr().err
    assert f"error: {photos / 'deep'} cannot be read (Permission denied)" in told
    assert "4 colorized, 0 skipped, 1 refused" in told


def test_a_subfolder_without_permission_is_an_error_of_a_source(photos, monkeypatch):
    refuse(monkeypatch, "scandir", photos / "deep")
    with pytest.raises(UserError, match=r"deep cannot be read \(Permission denied\)"):
        list_photos(str(photos))


def test_a_folder_that_may_be_listed_but_not_entered_is_one_sentence(photos, monkeypatch):
    refuse(monkeypatch, "stat", photos / "deep")
    with pytest.raises(UserError, match=r"deep cannot be read \(Permission denied\)"):
        list_photos(str(photos))
    found, failures = find_pictures([str(photos)], recursive=True)
    assert len(found) == 4
    assert len(failures) == 1


def test_loops_of_links_are_entered_once(photos):
    os.symlink(".", photos / "self")
    os.symlink("..", photos / "deep" / "up")
    os.symlink("me", photos / "me.png")
    os.symlink("nowhere", photos / "gone.png")
    names = [photo.name for photo in list_photos(str(photos)).photos]
    assert len(names) == len(set(names)) == 12
    assert ("gone.png", "missing") in list_photos(str(photos)).skipped
    found, failures = find_pictures([str(photos)], recursive=True)
    assert failures == []
    assert [str(path) for _, path in found if "/" not in str(path)] == [
        "gone.png", "me.png", "photo0.png", "photo3.png", "photo6.png", "photo9.png"
    ]  # fmt: skip
    assert len(found) == 14


def test_linked_folders_belong_to_a_source(photos, tmp_path):
    (tmp_path / "both").mkdir()
    os.symlink(photos, tmp_path / "both" / "a")
    os.symlink(photos, tmp_path / "both" / "b")
    assert len(list_photos(str(tmp_path / "both")).photos) == 24


def test_files_that_vanish_while_they_are_listed_are_counted(photos, monkeypatch):
    real = os.scandir

    def vanishing(path):
        with real(path) as entries:
            found = list(entries)
        for name in ("photo0.png", "photo1.png"):
            if os.path.exists(os.path.join(path, name)):
                os.unlink(os.path.join(path, name))
        return Listed(found)

    monkeypatch.setattr(os, "scandir", vanishing)
    listing = list_photos(str(photos))
    assert len(listing.photos) == 10
    assert {(name, why) for name, why in listing.skipped if why == "missing"} == {
        ("photo0.png", "missing"), ("deep/er/photo1.png", "missing")
    }  # fmt: skip


class Listed(list):
    """What os.scandir returns, made from a list."""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass


def test_a_name_too_long_for_the_output_does_not_stop_the_others(photos, tmp_path, capsys):
    model = save_painter(tmp_path / "w.safetensors")
    os.rename(photos / "photo0.png", photos / f"{LONG}.png")
    assert colorize.main([str(photos), "--model", str(model), "--size", "32", "--anyway"]) == 1
    captured = capsys.readouterr()
    assert "File name too long" in captured.err
    assert captured.out.count(".color.png") == 3


@pytest.mark.parametrize(
    "command",
    [
        (colorize.main, ["LONG"]),
        (colorize.main, [str(ROOT / "experiments" / "turing_sheet.jpg"), "--anyway", "--out", "LONG"]),
        (evaluate.main, ["LONG", "--data", "demo"]),
        (evaluate.main, ["grey", "--data", "LONG"]),
        (train.main, ["--family=baselines", "--steps=1", "--data.train=LONG"]),
        (train.main, ["--family=baselines", "--steps=1", "--run=LONG"]),
        (train.main, ["--family=baselines", "--steps=1", "--data.cache=LONG"]),
        (compute_prior.main, ["--data=demo", "--out=LONG"]),
    ],
    ids=lambda command: " ".join(command[1][-2:]),
)
def test_names_that_are_too_long_are_one_sentence(command, capsys):
    main, argv = command
    assert main([word.replace("LONG", LONG * 2) for word in argv]) in (1, 2)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert "File name too long" in told[0]


def test_a_folder_named_like_a_tar_is_a_folder(photos, capsys):
    os.rename(photos, photos.parent / "x.tar")
    assert len(list_photos(str(photos.parent / "x.tar")).photos) == 12
    with pytest.raises(UserError, match=r"x.tar is not a readable tar"):
        list_photos(str(photos.parent / "*.tar"))


@pytest.mark.parametrize(
    ("main", "argv", "says"),
    [
        (evaluate.main, ["grey", "--data=demo", "--seed=99999999999999999999999"], "0 to 2^63 - 1"),
        (evaluate.main, ["grey", "--data=demo", "--seed=-1"], "0 to 2^63 - 1"),
        (train.main, ["--family=baselines", "--steps=1", "--seed=99999999999999999999999"], "0 to 2^63 - 1"),
        (evaluate.main, ["grey", "--data=demo", "--size=0"], "--size: must be a whole number above 0"),
        (compute_prior.main, ["--data=demo", "--out=b.png"], "--out is b.png, which is also the picture"),
        (export.main, ["calm64", "--onnx=x.onnx", "--opset=999"], "--opset is 999: onnx "),
    ],
)
def test_values_that_would_be_ignored_are_refused(tmp_path, monkeypatch, capsys, main, argv, says):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert "Traceback" not in captured.err
    assert "written" not in captured.out
    assert list(tmp_path.iterdir()) == []


def test_an_export_names_the_opset_that_the_file_has(tmp_path, monkeypatch, capsys):
    graph = onnx.helper.make_graph([], "empty", [], [])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    monkeypatch.setattr(export, "to_onnx", lambda colorizer, opset: model)
    assert export.main(["calm64", f"--onnx={tmp_path}/x.onnx", "--opset=17"]) == 2
    captured = capsys.readouterr()
    assert "cannot be exported at opset 17, only at 18" in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", ["colorize", "train", "evaluate", "compare", "compute_prior", "turing"])
def test_ctrl_c_during_imports_is_no_traceback(tmp_path, script):
    for name in ("torch", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise KeyboardInterrupt")
    arguments = {"colorize": ["a.png"], "turing": ["plan"], "train": [], "compute_prior": ["--data=demo", "--out=a"]}
    argv = arguments.get(script, ["grey", "--data=demo", "--out=a"][: 3 if script == "compare" else 2])
    done = subprocess.run(
        [sys.executable, "-m", f"scripts.{script}", *argv], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr, done.stdout) == (130, "interrupted\n", "")
