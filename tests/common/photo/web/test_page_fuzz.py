"""Requests of every kind to the page: none fails, none is answered with what belongs to another client.

The examples are the same in every run. COLORIZATION_FUZZ=2000 tries so many of each kind.
"""

import json
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="the page needs the web extra")
pytest.importorskip("httpx2", reason="Starlette's test client needs httpx2")
from starlette.testclient import TestClient

from common.utils.web import SECURITY_HEADERS
from tests.common.photo.web.visits import BASE, encoded, person, send
from tests.conftest import ROOT, fuzz_examples, photo_array

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
body = st.one_of(
    st.binary(max_size=60),
    anything.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {"model": st.just("one")},
        optional=dict.fromkeys(("saturation", "hue", "kelvin", "format"), anything)
        | {"hints": anything | st.lists(st.text("0123456789,#abcx-", max_size=14), max_size=3)},
    ).map(lambda value: json.dumps(value).encode()),
)
few = settings(max_examples=fuzz_examples(60), deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def secrets(app):
    """What no other client must ever be sent: another person's cookie and upload, and the place of the code."""
    other = person(app)
    return [other.cookies["colorize"], send(other).json()["id"], str(ROOT), "Traceback", ".py"]


def calm(answer, secrets):
    assert answer.status_code < 500, answer.text
    assert SECURITY_HEADERS.items() <= dict(answer.headers).items()
    if not answer.headers.get("content-type", "").startswith(("image", "text/javascript")):
        assert not [secret for secret in secrets if secret in answer.text + str(answer.headers)]


@few
@given(body, st.sampled_from(["paint", "result"]))
def test_any_settings(client, secrets, given_body, what):
    pytest.importorskip("common.photo.hints")
    if not hasattr(client, "picture_id") or client.get(f"/pictures/{client.picture_id}/before").status_code != 200:
        client.picture_id = send(client, encoded(photo_array(2, 12, 16))).json()["id"]
    calm(client.post(f"/pictures/{client.picture_id}/{what}", content=given_body), secrets)


@few
@given(st.integers(0, 6), st.data())
def test_any_file(client, secrets, form, data):
    forms = ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM", "AVIF"]
    whole = bytearray(encoded(photo_array(form, 12, 16), forms[form]))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    whole = whole[: data.draw(st.integers(1, len(whole)))]
    answer = send(client, bytes(whole), data.draw(st.text("ab/\\.%0A<é", max_size=10)))
    calm(answer, secrets)
    if answer.status_code == 201:
        calm(client.post(f"/pictures/{answer.json()['id']}/paint", json={"model": "one"}), secrets)
        client.delete(f"/pictures/{answer.json()['id']}")


@few
@given(
    st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH"]),
    st.lists(st.sampled_from(["pictures", "clips", "film", "queue", "static", "paint", "result", "before",
                              "..", "%2e%2e", "x", ""])
             | st.text("abc%/.\0é", max_size=4), max_size=4),
    st.dictionaries(st.sampled_from(["x-name", "x-ticket", "cookie", "content-length", "range", "accept"]),
                    st.text("ab=;%0123456789-", max_size=12), max_size=3),
)  # fmt: skip
def test_any_request(app, secrets, method, parts, headers):
    client = TestClient(app, base_url=BASE, raise_server_exceptions=False)
    calm(client.request(method, f"{BASE}/" + quote("/".join(parts), safe="/%."), headers=headers), secrets)
