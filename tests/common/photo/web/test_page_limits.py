"""The limits of the page: memory, time and the queue."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("starlette", reason="the page needs the web extra")
pytest.importorskip("httpx2", reason="Starlette's test client needs httpx2")
from common.photo.web import session
from common.photo.web.page import Limits, create_app
from common.photo.web.uploads import overhead_bytes
from tests.common.photo.web.visits import LIMITS, encoded, person, send, until
from tests.common.utils.asgi import asgi
from tests.conftest import photo_array


def test_an_upload_that_is_too_large_is_not_read_to_its_end(models):
    app = create_app(models, LIMITS)
    cookie = (b"cookie", b"colorize=" + b"a" * 32)
    count = 0

    async def endless():
        nonlocal count
        count += 1
        return {"type": "http.request", "body": b"x" * 10_000, "more_body": True}

    assert asgi(app, [cookie], endless) == (413, "picture is larger than 0.2 megabytes: make it smaller first")
    assert count == 21
    count = 0
    assert asgi(app, [cookie, (b"content-length", b"200001")], endless)[0] == 413
    assert count == 0
    assert asgi(app, [], endless)[0] == 403  # without the cookie nothing is read at all
    assert count == 0

    async def leaving():
        nonlocal count
        count += 1
        more = {"type": "http.request", "body": b"x" * 10_000, "more_body": True}
        return more if count < 3 else {"type": "http.disconnect"}

    assert asgi(app, [cookie], leaving)[0] == 499
    assert app.state.endpoints.uploads.reserved == 0


def test_an_upload_that_stops_times_out(models, monkeypatch):
    monkeypatch.setattr("common.photo.web.uploads._PATIENCE", 0.05)
    app = create_app(models, LIMITS)

    async def silent():
        await asyncio.Event().wait()

    status, text = asgi(app, [(b"cookie", b"colorize=" + b"a" * 32)], silent)
    assert (status, text) == (408, "the upload of picture stopped: send it again")
    assert app.state.endpoints.uploads.reserved == 0


def test_memory_is_bounded(models):
    limits = Limits(max_upload=200_000, memory=5 * (overhead_bytes(1920, 1920, (32, 32)) + 20_000))
    app = create_app(models, limits)
    uploads = app.state.endpoints.uploads
    first, second = person(app), person(app)
    ids = [send(first).json()["id"] for _ in range(5)]  # of one person's the oldest goes
    assert len(uploads) == 4
    assert first.get(f"/pictures/{ids[0]}/before").status_code == 404
    assert first.get(f"/pictures/{ids[4]}/before").status_code == 200
    assert send(second).status_code == 201
    refused = send(second)
    assert (refused.status_code, refused.text) == (503, "the memory for pictures is full: try again in a few minutes")
    first.delete(f"/pictures/{ids[4]}")
    assert send(second).status_code == 201
    for upload in list(uploads._uploads.values()):
        uploads.remove(upload.owner, upload.id)
    assert (len(uploads), uploads.reserved) == (0, 0)


def test_uploads_expire(models):
    app = create_app(models, LIMITS)
    uploads = app.state.endpoints.uploads
    now = 0.0
    uploads.clock = lambda: now
    client = person(app)
    about = send(client).json()
    now = 899.0
    assert client.get(f"/pictures/{about['id']}/before").status_code == 200  # which is a use
    now = 899.0 + 899
    assert uploads.remove_expired() == pytest.approx(1)
    now += 1
    assert client.get(f"/pictures/{about['id']}/before").status_code == 404
    assert uploads.remove_expired() is None
    assert uploads.reserved == 0


def test_uploads_expire_without_any_request(models):
    app = create_app(models, Limits(expiry_seconds=0.2))
    with person(app) as client:
        assert send(client).status_code == 201
        until(lambda: len(app.state.endpoints.uploads) == 0)
        assert app.state.endpoints.uploads.reserved == 0


def test_jobs_run_one_at_a_time_in_order(models, monkeypatch):
    app = create_app(models, Limits(max_jobs=4))
    jobs, order, go, most = app.state.endpoints.jobs, [], threading.Event(), []

    def slow(opened, model, look):
        order.append(look.edit.hue)
        most.append(len(order))
        go.wait(20)
        most.append(len(order))
        return b"", ""

    monkeypatch.setattr(session, "render_preview", slow)
    with person(app) as client, ThreadPoolExecutor(8) as pool:
        one, two = ({"cookie": f"colorize={letter * 32}"} for letter in "ab")
        client.cookies.clear()
        ids = [
            client.post("/pictures", content=encoded(photo_array(1)), headers=who).json()["id"] for who in (one, two)
        ]

        def paint(who, hue):
            headers = {**(one, two)[who], "x-ticket": f"ticket{hue}"}
            return client.post(f"/pictures/{ids[who]}/paint", json={"model": "one", "hue": hue}, headers=headers)

        answers = []
        for count, (who, hue) in enumerate([(0, 1), (1, 2), (0, 3), (1, 4)], 1):
            answers.append(pool.submit(paint, who, hue))
            until(lambda count=count: len(jobs) == count)
        assert client.get("/queue/ticket3", headers=one).json() == {"position": 2, "others": 1}
        assert client.get("/queue/ticket1", headers=one).json() == {"position": 0, "others": 0}
        assert client.get("/queue/ticket3", headers=two).json() == {"position": None, "others": None}  # it is another's
        refused = paint(0, 5)
        assert refused.status_code == 503
        assert refused.text == "4 requests are waiting already: try again in a minute"
        go.set()
        assert [a.result().status_code for a in answers] == [200] * 4
    assert order == [1, 2, 3, 4]
    assert most[0] == most[1] == 1  # nobody began while the first was at it
    assert len(jobs) == 0


def test_one_owner_cannot_fill_the_queue(models, monkeypatch):
    app = create_app(models, Limits(max_jobs=4))
    go = threading.Event()
    monkeypatch.setattr(session, "render_preview", lambda *a: (b"", str(go.wait(20))))
    with person(app) as client, ThreadPoolExecutor(4) as pool:
        at = f"/pictures/{send(client).json()['id']}/paint"
        answers = [pool.submit(client.post, at, json={"model": "one"}) for _ in range(2)]
        until(lambda: len(app.state.endpoints.jobs) == 2)
        refused = client.post(at, json={"model": "one"})
        assert (refused.status_code, refused.text) == (
            503,
            "too many of your own requests are waiting already: wait until they are done",
        )
        go.set()
        assert [a.result().status_code for a in answers] == [200] * 2


def test_a_job_whose_client_left_is_not_run():
    from starlette.requests import Request

    from common.photo.web.jobs import ClientLeft, JobQueue

    done = []

    async def story():
        jobs, leave, go = JobQueue(4), asyncio.Event(), threading.Event()

        async def receive():
            await leave.wait()
            return {"type": "http.disconnect"}

        request = Request({"type": "http", "headers": []}, receive)
        first = asyncio.ensure_future(jobs.run(request, "a", "1", lambda: go.wait(20)))
        second = asyncio.ensure_future(jobs.run(request, "b", "2", lambda: done.append(2)))
        third = asyncio.ensure_future(jobs.run(Request({"type": "http"}, stay), "c", "3", lambda: done.append(3)))
        await asyncio.sleep(0)
        assert jobs.position("b", "2") == (1, 1)
        leave.set()
        with pytest.raises(ClientLeft):
            await second
        assert jobs.position("c", "3") == (1, 1)
        go.set()
        await first
        await third
        assert len(jobs) == 0

    async def stay():
        await asyncio.Event().wait()

    asyncio.run(story())
    assert done == [3]
