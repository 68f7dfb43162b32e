"""Calls in a process of their own: limits, crashes, and the end of the parent."""

import hashlib
import operator
import os
import subprocess
import sys
import time

import pytest

from common.utils.limited import LimitedProcess, ProcessEnded
from tests.conftest import ROOT

LIMITS = {"seconds": 0.3, "memory": 200_000_000}


@pytest.fixture(scope="module")
def process():
    process = LimitedProcess("hashlib")
    yield process
    process.close()


def test_results_and_errors_of_a_call(process):
    assert process.call(operator.add, b"a" * 10**6, b"b", **LIMITS) == b"a" * 10**6 + b"b"
    first = process.call(os.getpid, **LIMITS)
    with pytest.raises(ZeroDivisionError):
        process.call(operator.truediv, 1, 0, **LIMITS)
    process.call(print, "this is not an answer", **LIMITS)
    assert process.call(os.getpid, **LIMITS) == first != os.getpid()  # one process for all calls


def test_cpu_time_is_limited(process):
    with pytest.raises(ProcessEnded) as ended:
        process.call(hashlib.pbkdf2_hmac, "sha256", b"", b"", 10**8, **LIMITS)
    assert ended.value.out_of_time
    assert process.call(abs, -1, **LIMITS) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_memory_is_limited(process):
    first = process.call(os.getpid, **LIMITS)
    with pytest.raises(MemoryError):
        process.call(bytearray, 10**9, **LIMITS)
    assert process.call(os.getpid, **LIMITS) == first
    assert len(process.call(bytearray, 10**8, **LIMITS)) == 10**8


def test_a_crash_ends_one_call(process):
    with pytest.raises(ProcessEnded) as ended:
        process.call(os.abort, **LIMITS)
    assert not ended.value.out_of_time
    process.call(abs, -1, **LIMITS)
    process._process.kill()  # between two calls
    process._process.wait()
    assert process.call(abs, -1, **LIMITS) == 1


def test_a_call_that_hangs_is_ended(process, monkeypatch):
    monkeypatch.setattr("common.utils.limited._LONGEST_CALL", 0.1)
    with pytest.raises(ProcessEnded):
        process.call(time.sleep, 600, **LIMITS)


def test_it_ends_with_its_parent():
    """`run` returns when the last process that holds stderr has ended."""
    code = (
        "import os, signal; from common.utils.limited import LimitedProcess; p = LimitedProcess();"
        " p.call(abs, 1, seconds=1, memory=10**8); os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, timeout=120)
    assert run.stderr == b""
