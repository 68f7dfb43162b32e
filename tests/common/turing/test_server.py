"""A server in its own process over real HTTP: thirty people at once, `kill -9` in the middle, a port that is taken."""

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from common.turing.store import open_store
from tests.common.turing.conftest import serving
from tests.conftest import ROOT

PEOPLE = 30
COUNTS = {"practice": 2, "test": 10, "vigilance": 0.1}


class Person:
    """Plays through HTTP, and records which pairs were served and which answers were acknowledged."""

    def __init__(self, url, cookies=None):
        self.client = httpx2.AsyncClient(base_url=url, cookies=cookies, timeout=60)
        self.acknowledged, self.served = {}, []
        self.on_answer = lambda: None  # called after each acknowledged answer

    async def play(self):
        """Begin or resume a session, and play it to the end."""
        if "session" not in self.client.cookies:
            begun = await self.client.post("/begin", data={"consent": "yes"})
            assert begun.status_code == 303
        state = await self.post("/resume", {})
        while state["stage"] != "end":
            pair = state["current"]
            await self.picture(pair)
            await self.post("/shown", {"pair": pair})
            choice = "left" if sum(map(ord, pair)) % 2 else "right"
            given = {"pair": pair, "choice": choice, "exposure_ms": 1000, "response_ms": 300, "layout": "row"}
            state = (await self.post("/answer", given))["state"]
            self.acknowledged[pair] = choice
            self.on_answer()
        return state["stage"]

    async def picture(self, pair):
        answer = await self.client.get(f"/pair/{pair}")
        assert answer.status_code == 200
        assert answer.content[:2] == b"\xff\xd8"
        self.served.append(pair)

    async def post(self, path, body):
        answer = await self.client.post(path, json=body)
        assert answer.status_code in (200, 204), (path, answer.status_code, answer.text)
        return answer.json() if answer.content else {}


def in_a_loop(work):
    """Run a coroutine in a thread of its own: in this one, a test in a browser may have left its event loop running."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


@pytest.mark.slow
def test_thirty_people_at_once(weights, color_folder, tmp_path):
    """No request fails, no answer is lost or doubled, and the sessions are evenly divided over the models."""
    counts = {"practice": 10, "test": 40, "vigilance": 0.1} if os.environ.get("TURING_FULL") else COUNTS
    data = os.environ.get("TURING_DATA", str(color_folder))
    with serving(os.environ.get("TURING_MODEL", weights), data, tmp_path / "s.db", **counts) as served:

        async def all_of_them():
            people = [Person(served.url) for _ in range(PEOPLE)]
            assert set(await asyncio.gather(*(p.play() for p in people))) == {"end"}
            return people

        people = in_a_loop(all_of_them())
    pairs = counts["practice"] + counts["test"]
    check_database(tmp_path / "s.db", people, pairs * PEOPLE)
    store = open_store(tmp_path / "s.db")
    models = [r.model for r in store.records() if r.position == 0]
    store.close()
    assert sorted(models.count(m) for m in set(models)) == [15, 15]
    assert all(len(p.served) == len(set(p.served)) == pairs for p in people)


def check_database(path, people, rows):
    """Every acknowledged answer is there, as it was given, and each pair once."""
    with sqlite3.connect(path) as db:
        stored = dict(db.execute("SELECT pair, choice FROM trial"))
    assert len(stored) == rows
    acknowledged = {pair: choice for p in people for pair, choice in p.acknowledged.items()}
    assert sum(len(p.acknowledged) for p in people) == len(acknowledged)  # nobody shares a pair
    assert {pair: stored[pair] for pair in acknowledged} == acknowledged
    return stored


@pytest.mark.slow
def test_killed_in_the_middle(weights, color_folder, tmp_path):
    """SIGKILL while thirty people answer: all acknowledged answers are stored, and everybody can resume."""
    db = tmp_path / "s.db"
    people = []
    with serving(weights, color_folder, db, **COUNTS) as served:

        async def interrupted():
            people.extend(Person(served.url) for _ in range(PEOPLE))
            enough = asyncio.Event()
            for p in people:
                p.on_answer = lambda: sum(len(p.acknowledged) for p in people) >= 100 and enough.set()
            playing = [asyncio.ensure_future(p.play()) for p in people]
            await enough.wait()
            served.process.send_signal(signal.SIGKILL)
            return await asyncio.gather(*playing, return_exceptions=True)

        ends = in_a_loop(interrupted())
        assert served.process.wait() == -signal.SIGKILL
    assert any(isinstance(end, httpx2.TransportError) for end in ends)
    assert not any(isinstance(end, AssertionError) for end in ends)
    before = {pair for p in people for pair in p.acknowledged}
    assert 100 <= len(before) < 12 * PEOPLE
    check_database(db, people, 12 * sum("session" in p.client.cookies for p in people))
    with serving(weights, color_folder, db, **COUNTS) as served:

        async def resumed():
            again = [Person(served.url, p.client.cookies) for p in people]
            assert set(await asyncio.gather(*(p.play() for p in again))) == {"end"}
            return again

        again = in_a_loop(resumed())
    assert not before & {pair for p in again for pair in p.served}  # an answered pair is not served again
    for was, is_now in zip(people, again, strict=True):
        is_now.acknowledged |= was.acknowledged
    stored = check_database(db, again, 12 * PEOPLE)
    assert sum(choice is None for choice in stored.values()) <= PEOPLE  # those that were displayed at the kill


def test_a_port_that_is_taken(weights, color_folder, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        argv = [sys.executable, "-m", "scripts.turing", "serve", "--models", str(weights), "grey", f"--port={port}"]
        argv += [f"--data={color_folder}", f"--db={tmp_path}/s.db"]
        run = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr == f"error: port {port} of 127.0.0.1 is in use: choose another with --port\n"


def test_it_stops_when_asked(weights, color_folder, tmp_path):
    with serving(weights, color_folder, tmp_path / "s.db") as served:
        assert httpx2.get(served.url).status_code == 200
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(timeout=120) in (0, -signal.SIGTERM)
        assert "Traceback" not in served.process.stderr.read()
