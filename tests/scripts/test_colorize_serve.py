"""The command line of `colorize serve`."""

import socket

import pytest

pytest.importorskip("starlette", reason="the page needs the web extra")

from scripts import colorize
from tests.conftest import save_painter


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return [str(save_painter(tmp_path_factory.mktemp("weights") / "first.safetensors", name="first"))]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--model", "nowhere"], "weights nowhere do not exist"),
        (["--max-upload", "0"], "--max-upload: must be a number above 0, got 0"),
        (["--port", "x"], "--port"),
        (["--port", "70000"], "port is 70000: expected 0 to 65535"),
        (["--device", "tpu"], "device is tpu"),
        (["--host", "no.such.host.invalid"], "host no.such.host.invalid cannot be found"),
        (["picture.jpg"], "unrecognized arguments: picture.jpg"),
    ],
)
def test_a_bad_command_line_is_one_sentence(weights, capsys, argv, says):
    more = [] if "--model" in argv else ["--model", weights[0]]
    port = [] if "--port" in argv else ["--port", "0"]
    assert colorize.main(["serve", *argv, *more, *port]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert says in line


def test_a_port_in_use_is_reported(weights, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert colorize.main(["serve", "--model", weights[0], "--port", str(port)]) == 2
    assert f"port {port} of 127.0.0.1 is in use: choose another with --port" in capsys.readouterr().err


def test_without_models_it_asks_for_one(capsys, monkeypatch):
    monkeypatch.setattr("common.photo.web.session.installed_models", dict)
    assert colorize.main(["serve", "--port", "0"]) == 2
    assert "no model is installed: give --model" in capsys.readouterr().err


def test_without_the_web_extra_it_asks_for_it(capsys, monkeypatch):
    monkeypatch.setattr("common.utils.errors.find_spec", lambda name: None)
    assert colorize.main(["serve"]) == 2
    assert "starlette is not installed: run pip install '.[web]'" in capsys.readouterr().err
