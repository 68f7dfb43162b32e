"""Forty people on the page at once over real HTTP, while twenty clients upload slowly: everybody else is served.

In the test suite, everybody colorizes one picture with a tiny model. The full check, which prints times and memory:
COLORIZATION_LOAD_SECONDS=60 python -m pytest -s tests/scripts/test_colorize_load.py
"""

import asyncio
import os
import statistics
import time
from collections import defaultdict
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("starlette", reason="the page needs the web extra")
pytest.importorskip("httpx2")
import httpx2

from tests.common.photo.web.visits import encoded, ended, started
from tests.conftest import photo_array, save_painter

PEOPLE, SLOW = 40, 20
SECONDS = float(os.environ.get("COLORIZATION_LOAD_SECONDS", 0))


class Person:
    """Uploads pictures and changes their colors, and records the time of every request."""

    def __init__(self, url, number, model, times):
        self.client = httpx2.AsyncClient(base_url=url, timeout=600)
        height, width = (480, 640) if SECONDS else (40, 48)
        self.model, self.times = model, times
        self.picture = encoded(photo_array(number, height, width), "JPEG")

    async def play(self, end):
        """One picture after another until the time `end`, at least one. Returns their number."""
        count = 0
        assert (await self.request("page", "GET", "/")).status_code == 200
        while not count or time.monotonic() < end:
            sent = await self.request("upload", "POST", "/pictures", content=self.picture)
            assert sent.status_code == 201, sent.text
            at = f"/pictures/{sent.json()['id']}"
            asked = {"model": self.model}
            for saturation in (1, 1.5):
                painted = await self.request("paint", "POST", f"{at}/paint", json=asked | {"saturation": saturation})
                assert painted.status_code == 200, painted.text
            result = await self.request("download", "POST", f"{at}/result", json=asked)
            assert result.status_code == 200, result.text
            assert (await self.request("remove", "DELETE", at)).status_code == 204
            count += 1
        return count

    async def request(self, kind, *args, **kwargs):
        begun = time.monotonic()
        answer = await self.client.request(*args, **kwargs)
        self.times[kind].append(time.monotonic() - begun)
        return answer


async def upload_slowly(url):
    """Announce a file of 50 MB and send one byte per second, again and again."""
    address = urlsplit(url)
    head = f"POST /pictures HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 50000000\r\n"
    while True:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(f"{head}Cookie: colorize={os.urandom(16).hex()}\r\n\r\n".encode())
        ended = asyncio.ensure_future(reader.read(1))
        while not ended.done():
            writer.write(b"x")
            await asyncio.wait([ended], timeout=1)
        writer.close()


def peak_memory(pid):
    """Largest resident set so far, in MB, of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = [line for p in (pid, *children) for line in Path(f"/proc/{p}/status").read_text().splitlines()]
    return [int(line.split()[1]) // 1000 for line in lines if line.startswith("VmHWM")]


@pytest.mark.slow
def test_forty_people_are_served_beside_slow_uploads(tmp_path):
    argv = [] if SECONDS else [f"--model={save_painter(tmp_path / 'tiny.safetensors', name='tiny')}"]
    process, url = started(argv)
    times, model = defaultdict(list), "photo" if SECONDS else "tiny"

    async def crowd():
        slow = [asyncio.ensure_future(upload_slowly(url)) for _ in range(SLOW)]
        people = [Person(url, number, model, times) for number in range(PEOPLE)]
        counts = await asyncio.gather(*(p.play(time.monotonic() + SECONDS) for p in people))
        assert not any(task.done() for task in slow)
        for task in slow:
            task.cancel()
        return counts

    try:
        begun = time.monotonic()
        counts = asyncio.run(crowd())
        print(
            f"\n{sum(counts)} pictures in {time.monotonic() - begun:.0f} s, {min(counts)} to {max(counts)} per person"
        )
        for kind, seconds in times.items():
            p50, p95 = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
            print(f"{kind}: {len(seconds)} requests, p50 {p50:.2f} s, p95 {p95:.2f} s")
        if Path("/proc/self").exists():
            print("peak memory of the server and its decoding process, MB:", peak_memory(process.pid))
    finally:
        messages = ended(process)
    assert "Traceback" not in messages
