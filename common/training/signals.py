"""Ctrl-C and SIGTERM as a polite request."""

from __future__ import annotations

import signal
import threading


class StopRequest:
    """Context in which SIGINT and SIGTERM set `asked` to the signal's number; a second one acts as usual."""

    def __init__(self) -> None:
        self.asked = 0
        self._usual: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._usual[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: object) -> None:
        self.asked = number
        signal.signal(number, self._usual[number])  # type: ignore[arg-type]

    def __exit__(self, *exc: object) -> None:
        for number, usual in self._usual.items():
            signal.signal(number, usual)  # type: ignore[arg-type]
