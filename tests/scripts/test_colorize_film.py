"""The colorize command given films."""

import os
import re
import signal

import pytest

pytest.importorskip("av")

from common.imaging.read import open_image
from common.imaging.write import save_image
from scripts import colorize, colorize_film
from tests.common.film.films import frames_of, make_film, packets_of
from tests.conftest import photo_array, save_painter


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_painter(tmp_path_factory.mktemp("weights") / "w.safetensors", name="painter")


def test_a_film_in_one_command(weights, tmp_path, capsys):
    source = make_film(tmp_path / "a.mp4", 10)
    assert colorize.main([str(source), f"--model={weights}"]) == 0
    target = tmp_path / "a.color.mp4"
    assert capsys.readouterr().out == f"{target}\n"
    assert frames_of(target)[0] == frames_of(source)[0]
    assert packets_of(target, "audio") == packets_of(source, "audio")
    assert sorted(os.listdir(tmp_path)) == ["a.color.mp4", "a.mp4"]
    assert colorize.main([str(source), f"--model={weights}"]) == 1
    assert capsys.readouterr().err == f"error: {target} exists already: use --overwrite, or another --out\n"
    assert colorize.main([str(source), f"--model={weights}", "--overwrite", "--saturation=0"]) == 0
    assert max(frame.std(axis=2).max() for frame in frames_of(target)[1]) < 4


def test_several_films_and_a_bad_one(weights, tmp_path, capsys):
    first, last = make_film(tmp_path / "a.avi", 3, codec="mpeg4", audio="mp2"), make_film(tmp_path / "c.webm", 3,
                  codec="libvpx-vp9", audio="libopus")  # fmt: skip
    (tmp_path / "b.mp4").write_text("no film")
    argv = [str(first), str(tmp_path / "b.mp4"), str(last), f"--out={tmp_path / 'out'}", f"--model={weights}"]
    assert colorize.main(argv) == 1
    output = capsys.readouterr()
    assert output.out.split() == [str(tmp_path / "out" / "a.mkv"), str(tmp_path / "out" / "c.webm")]
    assert re.fullmatch(r"error: .*b\.mp4 is not a film in a supported format.*\n", output.err)


def test_a_damaged_film_is_written_and_the_exit_code_is_1(weights, tmp_path, capsys):
    source = make_film(tmp_path / "a.mkv", 96)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert colorize.main([str(source), f"--model={weights}"]) == 1
    output = capsys.readouterr()
    assert output.out == f"{tmp_path / 'a.color.mkv'}\n"
    assert re.fullmatch(
        rf"error: {source} is damaged at 0:0\d \(.*\): \d+ frames were colorized and written\n", output.err
    )


@pytest.mark.parametrize(("options", "message"), [
    (["--hint=1,2,#ff0000"], "--hint is for pictures, and {film} is one of the films: leave it out"),
    (["--palette=x.jpg"], "--palette is for pictures"),
    (["--json"], "--json is for pictures"),
    (["--recursive"], "--recursive is for pictures"),
    (["--from=1:2:3:4"], "--from: must be seconds, mm:ss or hh:mm:ss, got 1:2:3:4"),
    (["--from=5", "--to=4"], "the part of the film from 5 s to 4 s is empty"),
    (["--crf=70"], "--crf is 70: expected a number from 0 to 51 for h264"),
    (["--codec=divx"], "--codec is divx: expected h264, h265, vp9, av1"),
    (["--out=-"], "--out - is for pictures"),
    (["--preview=3", "--out=x.jpg"], "--out x.jpg is no name for a sheet of stills"),
    (["--size=5"], "--size is 5: expected 16 to 2048 pixels"),
])  # fmt: skip
def test_options_are_refused_by_name(weights, tmp_path, capsys, options, message):
    film = make_film(tmp_path / "a.mp4", 1)
    assert colorize.main([str(film), f"--model={weights}", *options]) == 2
    error = capsys.readouterr().err
    assert message.format(film=film) in error and error.count("\n") == 1


def test_film_options_are_refused_for_pictures(weights, tmp_path, capsys):
    save_image(tmp_path / "a.png", photo_array(0))
    for option in ("--crf=3", "--from=3", "--every=2", "--frame-by-frame", "--preview=3", "--codec=vp9"):
        assert colorize.main([str(tmp_path / "a.png"), f"--model={weights}", option]) == 2
        assert f"{option.split('=')[0]} is for films, and" in capsys.readouterr().err
    film = make_film(tmp_path / "a.mp4", 1)
    assert colorize.main([str(film), str(tmp_path / "a.png"), f"--model={weights}"]) == 2
    assert "a.mp4 is a film and" in capsys.readouterr().err


def test_films_in_folders_are_named_and_left_out(weights, tmp_path, capsys):
    save_image(tmp_path / "a.png", photo_array(0))
    make_film(tmp_path / "b.mp4", 1)
    assert colorize.main([str(tmp_path), f"--model={weights}", "--anyway"]) == 0
    output = capsys.readouterr()
    assert output.err == f"note: films in folders are left out: name them to colorize them ({tmp_path / 'b.mp4'})\n"
    assert sorted(os.listdir(tmp_path)) == ["a.color.png", "a.png", "b.mp4"]


def test_without_the_extra_one_sentence_says_how_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("common.utils.errors.find_spec", lambda name: None)
    assert colorize.main([str(tmp_path / "a.mp4")]) == 2
    sentence = "av is not installed: run pip install '.[video]' in the folder of Colorization Lab"
    assert capsys.readouterr().err == f"error: {sentence}\n"


def test_a_preview(weights, tmp_path, capsys):
    film = make_film(tmp_path / "a.mp4", 24)
    assert colorize.main([str(film), f"--model={weights}", "--preview=3"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a.preview.png'}\n"
    assert open_image(tmp_path / "a.preview.png").rgb.shape == (24 + 2 * 246, 3 * 326 + 6, 3)
    assert colorize.main([str(film), f"--model={weights}", "--preview=3"]) == 1
    assert "a.preview.png exists already" in capsys.readouterr().err


def test_times():
    assert [colorize_film.seconds(text) for text in ("90", "1:30", "0:01:30.5", "2.25")] == [90, 90, 90.5, 2.25]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_and_the_same_command_resumes(weights, tmp_path, capsys, monkeypatch, number):
    from common.film import colorize as pipeline

    monkeypatch.setattr(pipeline, "SEGMENT_FRAMES", 4)
    source = make_film(tmp_path / "a.mp4", 12)
    argv = [str(source), f"--model={weights}", f"--out={tmp_path / 'b.mp4'}"]
    assert colorize.main([*argv[:2], f"--out={tmp_path / 'whole.mp4'}"]) == 0
    push = pipeline.FrameColorizer.push
    seen = []

    def pushed(self, rgb):
        seen.append(1)
        if len(seen) == 7:
            signal.raise_signal(number)
        return push(self, rgb)

    monkeypatch.setattr(pipeline.FrameColorizer, "push", pushed)
    capsys.readouterr()
    assert colorize.main(argv) == 128 + number
    assert re.fullmatch(r"stopped at frame \d+: the same command resumes\n", capsys.readouterr().err)
    assert colorize.main(argv) == 0
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_progress_when_piped(weights, tmp_path, capsys, monkeypatch):
    from common.utils.progress import Progress

    monkeypatch.setattr(Progress.__init__, "__defaults__", (False, 0.0))
    film = make_film(tmp_path / "a.mp4", 4)
    assert colorize.main([str(film), f"--model={weights}"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"\d+:\d\d left", "T left", line) for line in lines] == [
        f"a.mp4: {25 * n:3d}%  T left  frame {n} of 4, shot 1" for n in range(2, 5)
    ]
