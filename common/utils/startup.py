"""What makes a short command short: importing torch takes most of its time."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import NoReturn


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Import torch without garbage collection, which would visit its million objects again and again.

    Does nothing if torch is imported already.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # what was imported stays, so it need not be visited later either
        gc.enable()


def leave_at_once(code: int) -> NoReturn:
    """Exit the program without the interpreter's own cleaning up. It must be the last call of a script, when all files
    are closed and all threads have ended.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a closed pipe, of which `entry_point` has taken note
            stream.flush()
    os._exit(code)
