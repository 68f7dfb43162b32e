"""The colorize command: where it writes, and what it never replaces."""

import os
import subprocess
import sys

import pytest

from common.imaging.write import save_image
from scripts import colorize
from tests.conftest import ROOT, photo_array, save_painter


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_painter(tmp_path_factory.mktemp("weights") / "w.safetensors", name="painter")


@pytest.fixture
def photo(tmp_path):
    save_image(tmp_path / "a.png", photo_array(0))
    return tmp_path / "a.png"


def test_a_second_run_does_not_colorize_the_results_of_the_first(weights, photo):
    argv = [str(photo.parent), f"--model={weights}", "--anyway", "--recursive", f"--out={photo.parent / 'out'}"]
    assert colorize.main(argv) == 0
    assert colorize.main([*argv, "--overwrite"]) == 0
    assert [str(path.relative_to(photo.parent)) for path in photo.parent.rglob("*.png")] == ["a.png", "out/a.png"]


def test_a_folder_may_have_a_dot_in_its_name(weights, photo, capsys):
    assert colorize.main([str(photo), f"--model={weights}", "--anyway", f"--out={photo.parent / 'scans.v2'}"]) == 0
    assert (photo.parent / "scans.v2" / "a.png").is_file()
    assert colorize.main([str(photo), f"--model={weights}", "--anyway", f"--out={photo.parent / 'a.gif'}"]) == 2
    assert "a.gif names no picture format" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["", "--compare"])
def test_links_are_not_replaced(weights, photo, capsys, option):
    """A link is an existing file, even if what it points to is missing: somebody placed it there."""
    link = photo.parent / ("a.compare.png" if option else "a.color.png")
    link.symlink_to(photo.parent / "nowhere.png")
    argv = [str(photo), f"--model={weights}", "--anyway", *filter(None, [option])]
    assert colorize.main(argv) == 1
    assert f"{link.name} exists already: use --overwrite" in capsys.readouterr().err
    assert link.is_symlink()
    link.unlink()
    save_image(photo.parent / "other.png", photo_array(1))
    link.symlink_to(photo.parent / "other.png")
    before = (photo.parent / "other.png").read_bytes()
    assert colorize.main(argv) == 1
    assert colorize.main([*argv, "--overwrite"]) == 0
    assert (photo.parent / "other.png").read_bytes() == before
    assert not link.is_symlink()


def test_names_that_the_system_does_not_allow(weights, capsys):
    assert colorize.main(["x" * 5000 + ".png", f"--model={weights}", "--anyway"]) == 1
    assert "cannot be read (File name too long)" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("more", [["--out=-"], [], ["--json"]], ids=["picture", "names", "json"])
def test_standard_output_on_a_full_disk_is_one_sentence(weights, photo, more):
    with open("/dev/full", "w") as full:
        argv = [sys.executable, "-m", "scripts.colorize", str(photo), "--model", str(weights), "--anyway", *more]
        run = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert run.returncode == 1
    says = "error: standard output cannot be written (No space left on device): free space, then run again"
    assert run.stderr.splitlines() == [says]
