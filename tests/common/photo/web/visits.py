"""Helpers that act as a browser, and a server in its own process."""

from __future__ import annotations

import io
import re
import select
import signal
import struct
import subprocess
import sys
import time
import zlib

import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from common.photo.web import session
from common.photo.web.page import Limits
from common.predictor import PredictorConfig
from common.registry import build_colorizer
from tests.conftest import ROOT, photo_array

BASE = "http://127.0.0.1"
LIMITS = Limits(max_upload=200_000, max_pixels=1_000_000)


def tiny(seed, name):
    """An untrained classifier with distributions that are not uniform."""
    torch.manual_seed(seed)
    colorizer = build_colorizer("classification", network="small", width=0.25)
    with torch.no_grad():
        colorizer.network[-1].weight.mul_(300)
    colorizer.card = {"family": "classification", "model": {}, "size": 32, "name": name}
    return session.Model(name, colorizer.eval, PredictorConfig(32))


def person(app):
    """A browser that has loaded the page."""
    client = TestClient(app, base_url=BASE, raise_server_exceptions=False)
    assert client.get("/").status_code == 200
    return client


def encoded(array, form="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, form, **options)
    return file.getvalue()


def send(client, data=None, name="old.png"):
    data = encoded(photo_array(3)) if data is None else data
    return client.post("/pictures", content=data, headers={"x-name": name.encode()})


def png_bomb(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition was never met"
        time.sleep(0.005)


def started(argv):
    """A server in its own process, and its address. The caller ends it."""
    command = [sys.executable, "-m", "scripts.colorize", "serve", "--port=0", "--device=cpu", *argv]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not select.select([process.stdout], [], [], 1)[0] and time.monotonic() < end:
        pass
    line = process.stdout.readline()
    found = re.fullmatch(r"serving: (http://\S+/)\n", line)
    if not found:
        process.kill()
        pytest.fail(line + process.stderr.read())
    return process, found[1]


def ended(process):
    """The stderr of a server, after Ctrl-C."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=120)[1]
    finally:
        process.kill()
