"""The command lines."""

import sys
from types import TracebackType


def _exit_on_interrupt(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Exit without a traceback on Ctrl-C before `main` runs: importing torch takes seconds."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        raise SystemExit(130)
    sys.__excepthook__(kind, error, traceback)


sys.excepthook = _exit_on_interrupt
