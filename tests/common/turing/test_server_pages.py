"""The page over ASGI: what it tells and never tells, who may do what, and requests of every kind."""

import io
import json
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from common.turing.pictures import DISPLAY_SIZE
from common.turing.server import STATIC, create_app
from common.turing.store import open_store
from common.turing.trials import plan_session
from common.utils.web import SECURITY_HEADERS
from tests.common.turing.conftest import TOKEN
from tests.conftest import ROOT, fuzz_examples

LEFT = {"choice": "left", "exposure_ms": 1000.0, "response_ms": 400.0, "layout": "row"}


@pytest.fixture
def store(made, tmp_path):
    store = open_store(tmp_path / "study.db", made.inputs.study)
    yield store
    store.close()


@pytest.fixture
def app(made, store):
    return create_app(store, made.gallery, TOKEN, "0.0.0.0")


def person(app, begin=True):
    client = TestClient(app)
    if begin:
        assert client.post("/begin", data={"consent": "yes"}).url.path == "/test"
    return client


def play(client, choose=lambda pair: "left"):
    state = client.post("/resume", json={}).json()
    while state["stage"] != "end":
        assert client.get(f"/pair/{state['current']}").status_code == 200
        assert client.post("/shown", json={"pair": state["current"]}).status_code == 204
        given = LEFT | {"pair": state["current"], "choice": choose(state["current"])}
        state = client.post("/answer", json=given).json()["state"]


def test_a_whole_session(app, store):
    me = person(app)
    assert me.get("/result").url.path == "/test"
    play(me)
    assert me.get("/test").status_code == 200
    result = me.get("/result")
    fooled, answered = store.outcome(me.cookies["session"])
    assert f"You were fooled in {fooled} of {answered} pairs" in result.text
    assert me.post("/begin", data={"consent": "yes"}).url.path == "/test"  # one session a person
    assert len({r.session for r in store.records()}) == 1


def test_consent_comes_first(app, store):
    client = person(app, begin=False)
    assert client.get("/test").url.path == "/"
    assert client.get("/result").url.path == "/"
    refused = client.post("/begin", data={})
    assert (refused.status_code, "Please agree first" in refused.text) == (400, True)
    assert not store.records()
    for path, body in (("/resume", {}), ("/shown", {"pair": "x"}), ("/answer", LEFT | {"pair": "x"})):
        assert client.post(path, json=body).status_code == 403
    assert client.get("/pair/x").status_code == 403


def test_the_cookie(app):
    client = TestClient(app, base_url="https://study.example")
    told = client.post("/begin", data={"consent": "yes"}, follow_redirects=False).headers["set-cookie"].lower()
    assert all(word in told for word in ("httponly", "samesite=lax", "secure", "path=/"))


def test_nobody_answers_for_another(app, store):
    me, other = person(app), person(app)
    pair = me.post("/resume", json={}).json()["current"]
    assert other.get(f"/pair/{pair}").status_code == 404
    assert other.post("/answer", json=LEFT | {"pair": pair}).status_code == 404
    assert other.post("/shown", json={"pair": pair}).status_code == 404
    assert not any(r.choice or r.shown for r in store.records())


def test_twice_is_once(app, store):
    me = person(app)
    pair = me.post("/resume", json={}).json()["current"]
    first = me.post("/answer", json=LEFT | {"pair": pair})
    assert me.post("/answer", json=LEFT | {"pair": pair, "choice": "right"}).json() == first.json()
    assert Counter(r.choice for r in store.records())["left"] == 1
    assert me.get(f"/pair/{pair}").status_code == 410


def test_before_the_answer_nothing_tells_the_side(app, made, store):
    """Everything that the server says of a pair is the same for both sides, but the pixels themselves."""
    gallery, study = made.gallery, made.inputs.study
    for photo in range(len(study.photos)):
        for model in study.models:
            for kind in ("test", "vigilance"):
                trial = plan_session(study, 0)[0]._replace(kind=kind, photo=photo)
                left, right = (gallery.pair(model, trial._replace(fake=s)) for s in ("left", "right"))
                assert len(left) == len(right)
                assert left[:623] == right[:623]  # all that stands before the pixels
                assert sorted(halves(left)) == sorted(halves(right)) or nearly_swapped(left, right)
    seen = []
    for _ in range(12):
        me = person(app)
        state = me.post("/resume", json={}).json()
        assert set(state) == {"stage", "done", "total", "current", "next"}
        page = me.get("/test").text
        while state["stage"] != "end":
            answer = me.get(f"/pair/{state['current']}")
            assert "etag" not in answer.headers
            assert "last-modified" not in answer.headers
            assert answer.headers["cache-control"] == "no-store"
            kept = {k: v for k, v in answer.headers.items() if k != "content-length"}
            seen.append((state["stage"], len(answer.content), str(kept), state["current"]))
            given = me.post("/answer", json=LEFT | {"pair": state["current"]}).json()
            assert (given["fake"] is None) == (state["stage"] == "test")
            state = given["state"]
        for word in (*study.models, *study.photos, "vigilance", "fake"):
            assert word not in page
    assert len({headers for _, _, headers, _ in seen}) == 1
    names = [name for *_, name in seen]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[\w-]{16}", name) for name in names)
    sides = [r.fake == "left" for r in store.records()]
    lengths = np.array([length for _, length, _, _ in seen], dtype=float)
    letters = np.array([sum(map(ord, name)) for name in names], dtype=float)
    for feature in (lengths, letters):
        assert abs(np.corrcoef(feature, sides)[0, 1]) < 4 / len(sides) ** 0.5


def halves(data):
    rgb = np.asarray(Image.open(io.BytesIO(data)))
    return [rgb[:, :DISPLAY_SIZE].tobytes(), rgb[:, DISPLAY_SIZE:].tobytes()]


def nearly_swapped(left, right):
    a, b = (np.asarray(Image.open(io.BytesIO(x))).astype(int) for x in (left, right))
    return np.abs(a - np.hstack([b[:, DISPLAY_SIZE:], b[:, :DISPLAY_SIZE]])).max() <= 2


def test_the_pictures(made):
    """One picture of two halves without metadata; the original is the photograph, the fake has its lightness."""
    study, pack = made.inputs.study, made.inputs.pack
    trial = plan_session(study, 0)[0]._replace(kind="test", photo=4)
    image = Image.open(io.BytesIO(made.gallery.pair(study.models[0], trial._replace(fake="left"))))
    assert image.size == (2 * DISPLAY_SIZE, DISPLAY_SIZE)
    assert not image.getexif()
    assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    rgb = np.asarray(image).astype(int)
    photograph = Image.fromarray(pack.images[made.inputs.indices[4]]).resize(
        (DISPLAY_SIZE, DISPLAY_SIZE), Image.Resampling.BICUBIC
    )
    fake, original = rgb[:, :DISPLAY_SIZE], rgb[:, DISPLAY_SIZE:]
    assert np.abs(original - np.asarray(photograph)).mean() < 1
    assert np.abs(original - fake).mean() > 3
    green = [x @ [0.2126, 0.7152, 0.0722] for x in (original, fake)]
    assert np.abs(green[0] - green[1]).mean() < np.abs(original - fake).mean() / 2


def test_the_report_is_behind_a_token(app, store):
    play(person(app))
    nobody = person(app, begin=False)
    for path in ("/report", "/report/answers.csv"):
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "Basic x"},
            {"cookie": b"report=\xe9"},
        ):
            refused = nobody.get(path, headers=headers)
            assert refused.status_code == 403
            assert not any(word in refused.text for word in ("shuffled", "photo0", "vigilance"))
        shown = nobody.get(path, headers={"authorization": f"Bearer {TOKEN}"})
        assert shown.status_code == 200
        assert "shuffled" in shown.text
    assert nobody.post("/report", data={"token": "wrong"}).status_code == 403
    assert "<table>" in nobody.post("/report", data={"token": TOKEN}).text
    assert nobody.get("/report/answers.csv").text.count("\n") == 1 + 7


def test_headers_of_every_answer(app):
    me = person(app)
    for path in ("/", "/test", "/static/test.js", "/nowhere", "/report", "/pair/x", "/static/../page.py"):
        headers = me.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    for path in ("/", "/test", "/result"):
        page = me.get(path).text
        assert not re.search(r"<script(?![^>]*src=)|<style| style=| on\w+=|https?://", page)


def luminance(color):
    """Relative luminance of WCAG 2, of #rgb or #rrggbb."""
    digits = color[1:] if len(color) == 7 else "".join(c * 2 for c in color[1:])
    srgb = np.frombuffer(bytes.fromhex(digits), np.uint8) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("scheme", [0, 1])
def test_contrast(scheme):
    """Of WCAG 2 AA, light and dark: 4.5 for text, 3 for what shows where to click."""
    block = re.findall(r":root \{(.*?)\}", (STATIC / "style.css").read_text(), re.S)[scheme]
    tone = {name: luminance(value) for name, value in re.findall(r"--([\w-]+): (#\w+)", block)}

    def ratio(a, b):
        low, high = sorted([tone[a], tone[b]])
        return (high + 0.05) / (low + 0.05)

    for text in ("ink", "quiet", "wrong", "right"):
        assert ratio(text, "paper") >= 4.5, text
    assert ratio("ink", "frame") >= 4.5
    assert ratio("key-ink", "key") >= 4.5
    assert ratio("key", "paper") >= 3
    assert ratio("edge", "frame") >= 3
    greys = [value for name, value in re.findall(r"--(paper|frame|ink|quiet|edge): #(\w+)", block)]
    assert len(greys) == 5
    assert all(len({g[i : i + len(g) // 3] for i in range(0, len(g), len(g) // 3)}) == 1 for g in greys)  # neutral


@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "https://elsewhere.example"},
     {"origin": "null"}, {"origin": "http://[broken"}],
)  # fmt: skip
def test_no_writing_from_another_site(app, store, headers):
    me = person(app)
    pair = me.post("/resume", json={}).json()["current"]
    assert me.post("/answer", json=LEFT | {"pair": pair}, headers=headers).status_code == 403
    assert me.post("/answer", json=LEFT | {"pair": pair}, headers={"origin": "http://testserver"}).status_code == 200


def test_large_requests_are_refused(app, store):
    me = person(app)
    assert me.post("/answer", content=b"x" * 17_000).status_code == 413
    assert me.post("/answer", content=(b"x" * 1000 for _ in range(40))).status_code == 413
    assert not any(r.choice for r in store.records())


@pytest.mark.parametrize(
    "path", ["/static/../page.py", "/static/%2e%2e/page.py", "/static/..%2fpage.py", "/static//etc/passwd", "/static/"]
)
def test_no_way_out_of_the_static_folder(app, path):
    answer = person(app, begin=False).get(path)
    assert answer.status_code in (404, 405)
    assert "import" not in answer.text


@pytest.mark.parametrize(
    "spoilt",
    [
        {"choice": "up"}, {"choice": ["left"]}, {"choice": None}, {"layout": "heap"}, {"layout": 3},
        {"exposure_ms": -1}, {"exposure_ms": "1000"}, {"exposure_ms": True}, {"exposure_ms": None},
        {"response_ms": 1e9}, {"response_ms": 10**400}, {"pair": 3}, {"pair": "x" * 99}, {"pair": "é"},
    ],
)  # fmt: skip
def test_answers_that_are_none(app, store, spoilt):
    me = person(app)
    pair = me.post("/resume", json={}).json()["current"]
    assert me.post("/answer", json=LEFT | {"pair": pair} | spoilt).status_code == 400
    assert not any(r.choice for r in store.records())


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 10_000, b'{"exposure_ms": NaN}', b"1e999"])
def test_bodies_that_are_none(app, body):
    assert person(app).post("/answer", content=body).status_code == 400


paths = st.one_of(
    st.sampled_from(
        ["/", "/begin", "/test", "/resume", "/shown", "/answer", "/result", "/report", "/report/answers.csv", "/pair/",
         "/pair/PAIR", "/pair/NEXT", "/pair/OTHER", "/static/test.js", "/static/../store.py", "/pair/' OR 1=1 --"]
    ),
    st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="?#\\"), max_size=20).map("/{}".format),
)  # fmt: skip
values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from(["left", "right", "row", "column", "PAIR", "NEXT", "OTHER", 1000.0, "' OR '1'='1", "\ud800"]),
)  # fmt: skip
keys = st.sampled_from(["pair", "choice", "exposure_ms", "response_ms", "layout", "consent", "token", "x"])
bodies = st.one_of(st.binary(max_size=60), st.dictionaries(keys, values | st.lists(values, max_size=2), max_size=6))
header_text = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)
headers = st.dictionaries(
    st.sampled_from(["authorization", "origin", "content-type", "range", "if-none-match", "sec-fetch-site", "host"]),
    header_text | st.sampled_from(["bytes=0-5", "Bearer x", "http://testserver", "same-origin"]),
    max_size=3,
)
cookies = st.one_of(st.none(), st.just("mine"), header_text)


@pytest.fixture(scope="module")
def fuzzed(made, tmp_path_factory):
    """One server for all examples: (app, store, a person's client, another's)."""
    store = open_store(tmp_path_factory.mktemp("fuzzed") / "study.db", made.inputs.study)
    app = create_app(store, made.gallery, TOKEN, "0.0.0.0")
    yield app, store, person(app), person(app)
    store.close()


@settings(max_examples=fuzz_examples(200), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]),
    path=paths, body=bodies, extra=headers, cookie=cookies,
)  # fmt: skip
def test_requests_of_every_kind(fuzzed, method, path, body, extra, cookie):
    """No failure of the server (which this client would raise), and no word of what a person must not know."""
    app, store, me, other = fuzzed
    state = me.post("/resume", json={}).json()
    theirs = other.post("/resume", json={}).json()
    names = {"PAIR": state["current"] or "x", "NEXT": state["next"] or "x", "OTHER": theirs["current"] or "x"}
    path = re.sub("PAIR|NEXT|OTHER", lambda m: names[m[0]], path)
    before = [r for r in store.records() if r.session == 2]
    client = TestClient(app, follow_redirects=False)
    sent = {k: v.encode("latin-1") for k, v in extra.items()}
    if cookie is not None:
        sent["cookie"] = f"session={me.cookies['session'] if cookie == 'mine' else cookie}".encode("latin-1")
    if isinstance(body, dict):
        body = {k: names.get(v, v) if isinstance(v, str) else v for k, v in body.items()}
        body = json.dumps(body).encode()
    # with the host in front: "//x" is then a path for the server, and no host for the client to look up
    answer = client.request(method, f"http://testserver{path}", content=body, headers=sent)
    assert answer.status_code < 500
    told = (
        answer.content if not answer.headers.get("content-type", "").startswith(("image", "text/javascript")) else b""
    )
    secrets = ("shuffled", "photo0", "Traceback", "sqlite", TOKEN, other.cookies["session"], str(ROOT))
    for secret in secrets:
        assert secret.encode() not in told
        assert secret not in str(answer.headers)
    assert SECURITY_HEADERS.items() <= dict(answer.headers).items()
    if state["stage"] == "test":
        assert not re.search(rb'"fake": ?"(left|right)"', told) or state["current"].encode() not in told
    assert [r for r in store.records() if r.session == 2] == before  # nobody else's session was touched
