"""The command lines."""

import sys
from pathlib import Path
from types import TracebackType

import common

_FOUND = getattr(common, "__file__", None) or next(iter(common.__path__))
if not Path(__file__).parents[1].samefile(Path(_FOUND).parents[1]):
    sys.exit(
        f"error: Python finds another package named common, {_FOUND}, before that of Colorization Lab: install"
        " Colorization Lab into an environment of its own, and leave the other package out of PYTHONPATH"
    )


def _exit_on_interrupt(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Exit without a traceback on Ctrl-C before `main` runs: importing torch takes seconds."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        raise SystemExit(130)
    sys.__excepthook__(kind, error, traceback)


sys.excepthook = _exit_on_interrupt
