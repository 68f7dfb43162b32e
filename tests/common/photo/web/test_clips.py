"""Films on the page: coloring in a process of their own, limits, ownership, turns and removal."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the page needs the web extra")
pytest.importorskip("httpx2", reason="Starlette's test client needs httpx2")
pytest.importorskip("av", reason="films need the video extra")
from common.photo.web.clips import Coloring
from common.photo.web.page import Limits, create_app
from scripts.colorize_page import clip_coloring
from tests.common.film.films import frames_of, make_film, packets_of
from tests.common.photo.web.visits import LIMITS, person, send, until
from tests.conftest import save_painter

# A process that says who it is and where it works, and never ends by itself.
ENDLESS = "import json, os, time; print(json.dumps({'note': f'{os.getpid()}'}), flush=True); time.sleep(600)"


@pytest.fixture(scope="module")
def painted(models, tmp_path_factory):
    """Models of the page with the weights that the other process loads."""
    weights = save_painter(tmp_path_factory.mktemp("weights") / "w.safetensors", name="painter")
    return [replace(model, argument=str(weights)) for model in models]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The folder in which the server makes its temporary folders."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "server"))
    (tmp_path / "server").mkdir()
    return tmp_path / "server"


@pytest.fixture
def endless(painted, folders):
    """A page whose process never ends, and the arguments with which it was started."""
    started = []

    def command(model, clip, out):
        started.append((model, clip, out))
        return [sys.executable, "-c", ENDLESS]

    app = create_app(painted, LIMITS, coloring=Coloring(command, "", (".mp4",)))
    app.state.started = started
    return app


def give(client, data, name="old.mp4", model="one"):
    return client.post("/clips", content=data, headers={"x-name": name, "x-model": model})


def state(client, clip):
    return client.get(f"/clips/{clip['id']}").json()


def colored(client, data, name="old.mp4"):
    """The last state of a film, and its address."""
    answer = give(client, data, name)
    assert answer.status_code == 201, answer.text
    until(lambda: state(client, answer.json())["complete"] or state(client, answer.json())["error"])
    return state(client, answer.json()), f"/clips/{answer.json()['id']}"


def process_of(client, clip):
    until(lambda: state(client, clip)["notes"])
    return int(state(client, clip)["notes"][0])


def running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_film_is_colored_and_downloaded(painted, folders, tmp_path):
    source = make_film(tmp_path / "a.mp4", 7)
    with person(create_app(painted, LIMITS, coloring=clip_coloring(5))) as client:
        assert "5 seconds and 1920x1080 pixels" in client.get("/").text
        about, at = colored(client, source.read_bytes(), "gr%C3%BCn.MP4")
        assert about == {"name": "grün.MP4", "before": 0, "done": 7, "total": 7, "notes": [], "error": "",
                         "complete": True}  # fmt: skip
        film = client.get(f"{at}/film")
        assert film.headers["content-type"] == "video/mp4"
        assert film.headers["content-disposition"] == "attachment; filename*=UTF-8''gr%C3%BCn.color.mp4"
        (tmp_path / "out.mp4").write_bytes(film.content)
        assert frames_of(tmp_path / "out.mp4")[0] == frames_of(source)[0]
        assert all(frame.std(axis=2).mean() > 2 for frame in frames_of(tmp_path / "out.mp4")[1])  # in color
        assert packets_of(tmp_path / "out.mp4", "audio") == packets_of(source, "audio")
        (kept,) = folders.glob("*/*")
        assert kept.name == "film.mp4"  # the uploaded film is no longer needed
        assert client.delete(at).status_code == 204
        until(lambda: not list(folders.iterdir()))
        gone = client.get(f"{at}/film")
        assert (gone.status_code, gone.text) == (404, "the server no longer has this film: choose it again")


@pytest.mark.parametrize(
    ("film", "sentence"),
    [
        (b"no film at all\n" * 20, "old.mp4 is not a film in a supported format, or is damaged"),
        ({"count": 6, "rate": 4}, "old.mp4 is longer than 1 seconds: cut it first"),
        ({"count": 1, "size": (1090, 1090)}, "old.mp4 has frames of 1090x1090 pixels, above the limit of 1920x1080"),
    ],
    ids=["text", "long", "large"],
)
def test_refused_in_one_sentence(painted, folders, tmp_path, film, sentence):
    data = film if isinstance(film, bytes) else make_film(tmp_path / "a.mp4", **film).read_bytes()
    with person(create_app(painted, LIMITS, coloring=clip_coloring(1))) as client:
        about, at = colored(client, data)
        assert about["error"].startswith(sentence)
        assert "\n" not in about["error"] and str(folders) not in about["error"]
        assert client.get(f"{at}/film").status_code == 404


@pytest.mark.slow
def test_a_damaged_film_is_colored_as_far_as_it_goes(painted, tmp_path):
    data = make_film(tmp_path / "a.mkv", 30, audio=None).read_bytes()
    with person(create_app(painted, LIMITS, coloring=clip_coloring(5))) as client:
        about, _ = colored(client, data[: len(data) * 2 // 3], "a.mkv")
        assert about["complete"] and 0 < about["done"] < 30
        assert about["notes"][-1].startswith("a.mkv is damaged") and about["notes"][-1].endswith("were colorized")


def test_a_process_that_dies_is_one_sentence_and_the_next_film_is_colored(painted, folders):
    def dies(model, clip, out):
        return [sys.executable, "-c", "import os; os.abort()"]

    with person(create_app(painted, LIMITS, coloring=Coloring(dies, "", ()))) as client:
        for name in ("a.mp4", "b.mp4"):
            about, _ = colored(client, b"film", name)
            assert about["error"].startswith(f"{name} is damaged, or needs too much time or memory: ")


@pytest.mark.parametrize(
    ("limit", "value", "sentence"),
    [
        ("_CPU_SECONDS", 0.01, "old.mp4 is damaged, or needs too much time or memory: "),
        ("_MEMORY", 300_000_000, "old.mp4 is damaged, or needs too much time or memory: "),
        ("_FILE_BYTES", 500, "old.mp4 cannot be written as .mp4 (its sound does not fit, or the server has no space)"),
    ],
    ids=["time", "memory", "disk"],
)
def test_the_process_has_limits(painted, folders, tmp_path, limit, value, sentence):
    def command(model, clip, out):
        _, _, _, *rest = clip_coloring(5).command(model, clip, out)
        run = f"import sys, scripts.colorize_clip as c; c.{limit} = {value}; sys.exit(c.main(sys.argv[1:]))"
        return [sys.executable, "-c", run, *rest]

    with person(create_app(painted, LIMITS, coloring=Coloring(command, "", ()))) as client:
        about, _ = colored(client, make_film(tmp_path / "a.mp4", 3).read_bytes())
        assert about["error"].startswith(sentence), about
        assert not about["complete"]


def test_a_file_that_is_empty_or_too_large_is_refused(endless):
    with person(endless) as client:
        assert give(client, b"").text == "old.mp4 is empty (0 bytes): get a complete copy"
        answer = give(client, b"x" * (LIMITS.max_upload + 1))
        assert (answer.status_code, answer.text) == (413, "old.mp4 is larger than 0.2 megabytes: make it smaller first")
        assert len(endless.state.endpoints.clips) == endless.state.endpoints.uploads.reserved == 0


def test_only_the_browser_that_sent_a_film_can_access_it(endless):
    with person(endless) as client:
        clip = give(client, b"film").json()
        stranger = {"cookie": f"colorize={'s' * 32}"}
        own = {"cookie": f"colorize={client.cookies['colorize']}"}
        client.cookies.clear()
        for path in (f"/clips/{clip['id']}", f"/clips/{clip['id']}/film"):
            assert client.get(path, headers=stranger).status_code == 404
            assert client.get(path).status_code == 403
        client.delete(f"/clips/{clip['id']}", headers=stranger)
        assert client.get(f"/clips/{clip['id']}", headers=own).status_code == 200  # it is still there
        other_site = {"origin": "http://elsewhere.example", **own}
        assert client.delete(f"/clips/{clip['id']}", headers=other_site).status_code == 403
        assert client.post("/clips", content=b"film", headers=other_site).status_code == 403
        assert client.get(f"/clips/{clip['id']}", headers={"host": "elsewhere.example", **own}).status_code == 400


def test_deletion_kills_the_process_and_the_next_film_is_colored(endless, folders):
    with person(endless) as client:
        own = {"cookie": f"colorize={client.cookies['colorize']}"}
        first = give(client, b"film").json()
        process = process_of(client, first)
        client.cookies.clear()
        second = client.post("/clips", content=b"b", headers={"x-model": "two", "cookie": f"colorize={'s' * 32}"})
        where = f"/clips/{second.json()['id']}"
        waits = client.get(where, headers={"cookie": f"colorize={'s' * 32}"}).json()
        assert (waits["before"], waits["notes"], len(endless.state.started)) == (1, [], 1)  # one film at a time
        client.delete(f"/clips/{first['id']}", headers=own)
        until(lambda: not running(process))
        until(lambda: client.get(where, headers={"cookie": f"colorize={'s' * 32}"}).json()["notes"])
        assert client.get(where, headers={"cookie": f"colorize={'s' * 32}"}).json()["before"] == 0
        assert len(list(folders.iterdir())) == 1
    # the server has ended, and with it the process and the folder
    assert not list(folders.iterdir())


def test_a_new_film_replaces_the_owners_and_eight_are_held(endless):
    with person(endless) as client:
        first = give(client, b"film").json()
        process = process_of(client, first)
        assert give(client, b"other").status_code == 201
        until(lambda: not running(process))
        assert client.get(f"/clips/{first['id']}").status_code == 404
        client.cookies.clear()
        answers = [
            client.post("/clips", content=b"x", headers={"x-model": "one", "cookie": f"colorize={str(i) * 32}"})
            for i in range(8)
        ]
        assert [answer.status_code for answer in answers] == [201] * 7 + [503]
        assert answers[-1].text == "8 films of other users are on the server: try again in a few minutes"


def test_an_expired_film_is_deleted_without_any_request(painted, folders, endless):
    app = create_app(painted, Limits(expiry_seconds=0.2), coloring=endless.state.endpoints.clips.coloring)
    with person(app) as client:
        assert give(client, b"film").status_code == 201
        until(lambda: not len(app.state.endpoints.clips) and not list(folders.iterdir()))


def test_without_films_the_page_does_not_speak_of_them(painted):
    assert clip_coloring(0) is None
    app = create_app(painted, LIMITS)
    with person(app) as client:
        invitation = client.get("/").text.partition("<main>")[2].partition("<section")[0]
        assert "film" not in invitation and "video" not in invitation
        answer = give(client, b"film")
        assert answer.status_code == 422
        assert answer.text == "old.mp4 is a film, and this server takes no films: choose a picture"


def test_pictures_are_served_while_a_film_is_colored(endless):
    with person(endless) as client:
        process = process_of(client, give(client, b"film").json())
        about = send(client).json()
        assert client.post(f"/pictures/{about['id']}/paint", json={"model": "one"}).status_code == 200
        assert running(process)
        assert Path(endless.state.started[0][1]).exists()
