"""Ctrl-C and SIGTERM as a request to stop after the current step."""

from __future__ import annotations

import signal
import threading


class StopRequest:
    """Context in which SIGINT and SIGTERM set `signal` to their number. A second signal has its usual effect."""

    def __init__(self) -> None:
        self.signal = 0
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: object) -> None:
        self.signal = number
        signal.signal(number, self._handlers[number])  # type: ignore[arg-type]

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
