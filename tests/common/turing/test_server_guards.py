"""The Turing server against other sites, oversized bodies and clients that leave."""

import logging

import pytest
from starlette.testclient import TestClient

from common.turing.server import create_app
from common.turing.store import open_store
from common.utils.web import SECURITY_HEADERS
from tests.common.turing.conftest import TOKEN
from tests.common.utils.asgi import asgi


@pytest.fixture(scope="module")
def app(made, tmp_path_factory):
    store = open_store(tmp_path_factory.mktemp("guards") / "study.db", made.inputs.study)
    yield create_app(store, made.gallery, TOKEN)
    store.close()


def test_other_host_names_are_refused(app):
    """A name of another site that resolves to this machine (DNS rebinding) does not reach the study."""
    assert TestClient(app, base_url="http://rebound.example").get("/").status_code == 400
    for host in ("127.0.0.1:8000", "localhost", "[::1]:99"):
        assert TestClient(app, base_url="http://127.0.0.1").get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_with_all_headers(app, chunked):
    body = (b"x" * 1000 for _ in range(40)) if chunked else b"x" * 17_000
    refused = TestClient(app, base_url="http://127.0.0.1").post("/answer", content=body)
    assert refused.status_code == 413
    assert SECURITY_HEADERS.items() <= dict(refused.headers).items()


def test_a_client_that_leaves_in_its_body_is_one_line_in_the_log(app, caplog):
    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def leaving():
        return next(messages)

    with caplog.at_level(logging.WARNING):
        assert asgi(app, [], leaving, "/answer")[0] == 499
    (record,) = caplog.records
    assert record.getMessage() == "a client left before its request was complete"
    assert record.exc_info is None


def test_an_unexpected_error_has_the_headers_and_no_details(app, monkeypatch, caplog):
    monkeypatch.setattr("common.turing.server.Endpoints._html", lambda *a, **k: 1 / 0)
    failed = TestClient(app, base_url="http://127.0.0.1").get("/")
    assert (failed.status_code, failed.text) == (500, "the server failed: see the log on its terminal")
    assert SECURITY_HEADERS.items() <= dict(failed.headers).items()
    assert "ZeroDivisionError" in caplog.text
