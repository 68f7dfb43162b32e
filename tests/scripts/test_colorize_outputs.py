"""The colorize command: where it writes, and what it never replaces."""

import os
import subprocess
import sys

import pytest

from common.imaging.read import open_image
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


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_a_folder_resumes(weights, tmp_path, suffix, capsys):
    """What an earlier run has written is skipped, which is no error; what somebody else has written is one."""
    folder, out = tmp_path / "in", tmp_path / "out"
    argv = [str(folder), f"--model={weights}", "--anyway", f"--out={out}"]
    for name in "ab":
        save_image(folder / f"{name}{suffix}", photo_array(0))
    assert colorize.main(argv) == 0
    first = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    save_image(folder / f"c{suffix}", photo_array(1))
    capsys.readouterr()
    assert colorize.main(argv) == 0
    told = capsys.readouterr()
    assert told.out.split() == [str(out / f"c{suffix}")]
    assert "1 colorized, 2 skipped, 0 refused" in told.err and "error" not in told.err
    assert (
        f"a{suffix} exists already, from an earlier run: use --overwrite" in told.err and "(2 such files)" in told.err
    )
    assert first.items() <= {path.name: path.stat().st_mtime_ns for path in out.iterdir()}.items()

    save_image(folder / f"d{suffix}", photo_array(1))
    save_image(out / f"d{suffix}", photo_array(2))  # without provenance: somebody else's
    theirs = (out / f"d{suffix}").read_bytes()
    assert colorize.main(argv) == 1
    told = capsys.readouterr().err
    assert "0 colorized, 4 skipped, 0 refused" in told
    assert f"error: {out / f'd{suffix}'} exists already: use --overwrite, or another --out" in told
    assert (out / f"d{suffix}").read_bytes() == theirs


def test_results_of_another_model_are_not_taken_for_finished(weights, photo, tmp_path, capsys):
    other = save_painter(tmp_path / "other.safetensors", name="other")
    assert colorize.main([str(photo), f"--model={weights}", "--anyway"]) == 0
    assert colorize.main([str(photo), f"--model={other}", "--anyway"]) == 1
    assert "error: " in capsys.readouterr().err


def test_a_missing_comparison_is_not_taken_for_finished(weights, photo, capsys):
    argv = [str(photo), f"--model={weights}", "--anyway"]
    assert colorize.main(argv) == 0
    assert colorize.main([*argv, "--compare"]) == 1
    assert colorize.main([*argv, "--compare", "--overwrite"]) == 0
    assert colorize.main([*argv, "--compare"]) == 0


def test_16_bit_results_are_recognized(weights, tmp_path):
    """Without decoding them."""
    values = photo_array(0).astype("uint16") * 257
    for suffix in (".png", ".tif"):
        save_image(tmp_path / f"a{suffix}", values)
        argv = [str(tmp_path / f"a{suffix}"), f"--model={weights}", "--anyway"]
        assert colorize.main(argv) == colorize.main(argv) == 0


def test_a_color_temperature_is_not_taken_for_a_softmax_temperature(weights, photo, capsys):
    assert colorize.main([str(photo), f"--model={weights}", "--anyway", "--temperature=5000"]) == 2
    says = "error: --temperature is 5000: expected a softmax temperature up to 100 (for the light of the scene, use"
    assert f"{says} --temperature-kelvin 5000)" in capsys.readouterr().err


def test_killed_in_a_folder(weights, tmp_path, capsys):
    """After SIGKILL, no half picture is there, and the same command colorizes the rest."""
    count, folder, out = 60, tmp_path / "in", tmp_path / "out"
    for i in range(count):
        save_image(folder / f"{i:03d}.png", photo_array(i)[:16, :16])
    argv = [str(folder), f"--model={weights}", "--anyway", f"--out={out}"]
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "scripts.colorize", *argv], stdout=subprocess.PIPE, cwd=ROOT
    ) as run:
        for _ in range(5):
            assert run.stdout.readline()
        run.kill()
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert len(before) >= 5
    assert colorize.main(argv) == 0
    told = capsys.readouterr().err
    assert f"{count - len(before)} colorized, {len(before)} skipped, 0 refused" in told
    assert [path.name for path in sorted(out.glob("*.png"))] == [f"{i:03d}.png" for i in range(count)]
    assert all(open_image(path).rgb.shape == (16, 16, 3) for path in out.glob("*.png"))
    assert before.items() <= {path: path.stat().st_mtime_ns for path in out.glob("*.png")}.items()
