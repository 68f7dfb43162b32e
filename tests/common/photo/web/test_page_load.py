"""The page under load: slow uploads, many people at once, turns in the queue."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("starlette", reason="the page needs the web extra")
pytest.importorskip("httpx2", reason="Starlette's test client needs httpx2")
from starlette.requests import Request

from common.imaging.limited import DecodeLimits, Decoder
from common.photo.web import session
from common.photo.web.jobs import JobQueue
from common.photo.web.page import Limits, create_app
from common.photo.web.uploads import Uploads, overhead_bytes
from tests.common.imaging.hostile import slow_jpeg
from tests.common.photo.web.visits import LIMITS, encoded, person, send, until
from tests.common.utils.asgi import asgi, exchange, sending
from tests.conftest import photo_array

LIMITS_10_MP = Limits(max_upload=200_000, max_pixels=10_000_000)


def cookie(number):
    return (b"cookie", f"colorize={number:032}".encode())


async def stall():
    await asyncio.Event().wait()


def test_slow_uploads_do_not_keep_others_out(models):
    app = create_app(models, LIMITS)

    async def story():
        slow = [asyncio.ensure_future(exchange(app, [cookie(i)], sending(b"x", then=stall))) for i in range(20)]
        await asyncio.sleep(0)
        data = encoded(photo_array(3))
        honest = [await exchange(app, [cookie(100 + i)], sending(data)) for i in range(10)]
        for task in slow:
            task.cancel()
        return honest

    assert [status for status, _ in asyncio.run(story())] == [201] * 10


def test_an_upload_below_the_lowest_rate_times_out(models):
    app = create_app(models, LIMITS)
    uploads, now = app.state.endpoints.uploads, 0.0
    uploads.clock = lambda: now

    async def dripping():
        nonlocal now
        now += 1  # one byte per second
        return {"type": "http.request", "body": b"x", "more_body": now < 300}

    assert asgi(app, [cookie(1)], dripping) == (408, "the upload of picture stopped: send it again")
    assert 30 <= now <= 31
    assert uploads.reserved == 0


def test_if_memory_is_full_the_slowest_upload_gives_way(models):
    """To a faster one only, and never to one that is slower."""
    app = create_app(models, Limits(max_upload=200_000, memory=250_000))
    uploads, now = app.state.endpoints.uploads, 0.0
    uploads.clock = lambda: now

    async def story():
        nonlocal now
        tasks = []
        for number, size in enumerate((60_000, 120_000)):
            receive = sending(b"x" * size, then=stall)
            tasks.append(asyncio.ensure_future(exchange(app, [cookie(number)], receive)))
            await asyncio.sleep(0)
        now = 10.0
        other = await exchange(app, [cookie(8)], sending(b"x" * 100_000))  # 280,000 do not fit
        assert other[0] == 422  # it was received: it is not a picture
        assert await tasks[0] == (
            503,
            "the memory for pictures is full, and the upload of picture was slow: try again in a few minutes",
        )
        assert not tasks[1].done()
        tasks[1].cancel()
        await asyncio.wait(tasks)

    asyncio.run(story())
    assert uploads.reserved == 0


def test_one_client_cannot_receive_everything():
    uploads = Uploads(10**6)
    mine = [uploads.begin("me", lambda: None) for _ in range(4)]
    with pytest.raises(ValueError, match="4 of your pictures are being uploaded already"):
        uploads.begin("me", lambda: None)
    uploads.begin("another", lambda: None)
    uploads.end(mine[0])
    uploads.begin("me", lambda: None)


def test_tiny_pictures_of_forty_people_fit(models):
    app = create_app(models)
    assert [send(person(app)).status_code for _ in range(40)] == [201] * 40
    assert app.state.endpoints.uploads.reserved < 40 * 200_000


def test_the_reserved_memory_is_enough(models):
    """Noise, the JPEG of which is as large as it gets, with alpha, colorized by three models."""
    noise = np.random.default_rng(0).integers(0, 256, (600, 500, 4), np.uint8)
    opened = session.open_session(encoded(noise), "x", 10**6, torch.device("cpu"))
    three = [*models, replace(models[0], name="three")]
    for model in three * 2:
        session.render_preview(opened, model, session.Look())
    found = list(opened.predictions.values())
    assert [p.upsampling is not None for p in found] == [False, True, True]
    tensors = [opened.L, opened.working, *(p.ab for p in found), *(p.upsampling.coefficients for p in found[1:])]
    used = sum(tensor.nbytes for tensor in tensors) + opened.alpha.nbytes + len(opened.before)
    reserved = overhead_bytes(opened.L.numel(), opened.working.numel(), [32, 32, 32])
    assert 0.75 * reserved < used <= reserved


def queue_story(owners):
    """The order in which jobs of these owners run that all wait for the same first job."""
    order, go = [], threading.Event()

    async def story():
        jobs = JobQueue(Limits().max_jobs)
        request = Request({"type": "http", "headers": []}, stall)
        first = asyncio.ensure_future(jobs.run(request, "first", "", lambda: go.wait(20)))
        await asyncio.sleep(0)
        waiting = [jobs.run(request, owner, "", lambda owner=owner: order.append(owner)) for owner in owners]
        tasks = [asyncio.ensure_future(job) for job in waiting]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, *tasks)
        assert len(jobs) == 0

    asyncio.run(story())
    return order


def test_clients_take_turns():
    assert queue_story("aaabbc") == list("abcaba")


def test_forty_people_may_wait():
    people = [str(i) for i in range(40)]
    assert queue_story(people) == people


def test_a_file_that_takes_too_long_to_decode_fails_alone(models):
    limits = DecodeLimits(quick_seconds=0.3, seconds=0.3, seconds_per_megapixel=0)
    app = create_app(models, LIMITS_10_MP, decoder=Decoder(limits))
    refused = send(person(app), slow_jpeg(), "bomb.jpg")
    assert (refused.status_code, refused.text) == (
        422,
        "bomb.jpg takes too long to decode: save it again as JPEG or PNG",
    )
    assert app.state.endpoints.uploads.reserved == 0
    assert send(person(app)).status_code == 201


def test_a_large_picture_does_not_hold_up_small_ones(models, monkeypatch):
    app, painted = create_app(models, LIMITS_10_MP), threading.Event()

    def slow(data, opened, model, edit, form, decode):
        decode(data, "large", 10**7)
        assert painted.wait(10), "the small picture was not painted in the meantime"
        return b"", "name"

    monkeypatch.setattr(session, "render_file", slow)
    with person(app) as client, ThreadPoolExecutor(1) as pool:
        large = send(client, encoded(np.zeros((1001, 5000), np.uint8))).json()["id"]
        result = pool.submit(client.post, f"/pictures/{large}/result", json={"model": "one"}, headers={"x-ticket": "1"})
        until(lambda: len(app.state.endpoints.large_jobs) == 1)
        assert client.get("/queue/1").json() == {"position": 0, "others": 0}
        small = send(client).json()["id"]
        assert client.post(f"/pictures/{small}/paint", json={"model": "one"}).status_code == 200
        painted.set()
        assert result.result().status_code == 200
