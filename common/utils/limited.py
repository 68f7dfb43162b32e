"""Function calls in a process of their own, with limits of CPU time and memory."""

from __future__ import annotations

import importlib
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

try:
    import resource
except ImportError:  # Windows: calls run in a process of their own, without limits
    resource = None

T = TypeVar("T")
_CHILD = "import sys; sys.path[:] = sys.argv[2:]; from common.utils.limited import work; work(sys.argv[1])"
_LONGEST_CALL = 600.0  # seconds by the clock; only for a call that hangs without using CPU time
_STATM = Path("/proc/self/statm")  # only on Linux; elsewhere the memory is not limited


class ProcessEnded(Exception):
    """The process ended during a call. out_of_time: because the call exceeded its CPU time."""

    def __init__(self, out_of_time: bool) -> None:
        super().__init__("out of CPU time" if out_of_time else "the process ended")
        self.out_of_time = out_of_time


class LimitedProcess:
    """Runs calls, one at a time, in a process that is started for the first call and again after it has ended.

    Threads may share it. modules: imported when the process starts, so that its first call is as fast as the others.
    """

    def __init__(self, *modules: str) -> None:
        self._modules = ",".join(modules)
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the process now, if it is not running. Does not wait for it."""
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-c", _CHILD, self._modules, *sys.path]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def call(self, function: Callable[..., T], *args: object, seconds: float, memory: int) -> T:
        """The result of a function, which must be importable and whose arguments and result must be picklable.

        seconds: CPU time of the call. memory: bytes of address space beyond those of the idle process. The function
        can change both with `limit`. Raises what the function raises, MemoryError included, and ProcessEnded.
        """
        with self._lock:
            self.start()
            hanging = threading.Timer(_LONGEST_CALL, self._process.kill)
            hanging.start()
            try:
                pickle.dump((function, args, seconds, memory), self._process.stdin, protocol=5)
                self._process.stdin.flush()
                done, result = pickle.load(self._process.stdout)
            except (OSError, EOFError, pickle.UnpicklingError):
                code = self._end()
                raise ProcessEnded(resource is not None and code == -signal.SIGXCPU) from None
            except BaseException:  # the rest of an answer would be taken for the next one
                self._end()
                raise
            finally:
                hanging.cancel()
        if done:
            return result
        raise result

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _end(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()  # changes nothing if it has ended
        process.communicate()
        return process.returncode


def limit(seconds: float, memory: int) -> None:
    """Limit the rest of the current call: CPU seconds, and bytes of address space beyond those in use."""
    if resource is None:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    _set_limit(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + seconds))
    if _STATM.exists():
        _set_limit(resource.RLIMIT_AS, int(_STATM.read_text().split()[0]) * resource.getpagesize() + memory)


def limit_files(size: int) -> None:
    """Limit the rest of the process: bytes of a file that it writes."""
    if resource is not None:
        _set_limit(resource.RLIMIT_FSIZE, size)


def _set_limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def work(modules: str) -> None:
    """Loop of the process: read calls from stdin, and write (whether the call returned, result or error) to stdout."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process too, which ends with its parent
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for module in filter(None, modules.split(",")):
        importlib.import_module(module)
    while True:
        try:
            function, args, seconds, memory = pickle.load(sys.stdin.buffer)
            limit(seconds, memory)
            try:
                answer = True, function(*args)
            except Exception as error:
                answer = False, error
            pickle.dump(answer, answers, protocol=5)
            answers.flush()
        except (EOFError, BrokenPipeError):
            return  # the parent has ended
