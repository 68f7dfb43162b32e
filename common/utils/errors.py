"""Errors that are shown to the user as one sentence, without a traceback."""

from __future__ import annotations

import difflib
import errno
import functools
import os
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec

# Extra of setup.cfg -> the modules that only it installs; colorizing needs none of them.
EXTRAS = {
    "train": ("fastai", "huggingface_hub", "jsonargparse", "matplotlib", "rich", "skimage", "sklearn", "tensorboard",
              "timm", "torchvision", "yaml"),
    "video": ("av",),
    "web": ("jinja2", "starlette", "uvicorn"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "metrics": ("lpips",),
}  # fmt: skip


class UserError(ValueError):
    """An error that the user can correct. The message states the problem, the value or file, and what to do."""


class PictureError(UserError):
    """A picture file that cannot be read or written."""


class Stopped(Exception):
    """SIGINT or SIGTERM stopped the program after it saved its state. The message states how to resume."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def one_sentence(error: BaseException) -> str:
    """The first line of an error's message without its full stop, or the name of its type if it has no message."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


def near(name: str, known: Iterable[str]) -> str:
    """The text " (did you mean 'x'?)" with the most similar known name; empty if none is similar."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def missing_package(module: str) -> str:
    """The sentence that says which extra installs a module; empty for modules that no extra installs."""
    root = module.partition(".")[0]
    extra = next((extra for extra, modules in EXTRAS.items() if root in modules), None)
    return f"{root} is not installed: run pip install '.[{extra}]' in the folder of Colorization Lab" if extra else ""


def require(*modules: str) -> None:
    """Raise UserError if one of these modules of `EXTRAS` is not installed. None of them is imported."""
    for module in modules:
        if find_spec(module) is None:
            raise UserError(missing_package(module))


def report_failures(failures: list[str]) -> int:
    """Print each failure to stderr. Returns the exit code: 1 if there are any, else 0."""
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def entry_point(main: Callable[..., int | None]) -> Callable[..., int]:
    """Wrap the main function of a script, so that expected errors are printed as one line and become an exit code.

    The exit code is 2 for UserError, for packages of `EXTRAS` that are not installed and for paths that the system
    refuses, 1 for a full disk, 128 + signal for Stopped, 130 for Ctrl-C, and 141 for a closed pipe.
    """

    @functools.wraps(main)
    def wrapped(*args: object, **kwargs: object) -> int:
        for stream in (sys.stdout, sys.stderr):  # file names may contain bytes that are not UTF-8
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            code = main(*args, **kwargs) or 0
            sys.stdout.flush()
            return code
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except ModuleNotFoundError as error:
            if not (sentence := missing_package(error.name or "")):
                raise
            print(f"error: {sentence}", file=sys.stderr)
            return 2
        except Stopped as stop:
            print(stop, file=sys.stderr)
            return 128 + stop.signal
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:
            sys.stderr.close()  # the reading end of a pipe was closed, as with `| head`
            return 141
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                where = error.filename or "standard output"
                print(
                    f"error: {where} cannot be written ({error.strerror}): free space, then run again", file=sys.stderr
                )
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python writes what is left when it ends
                return 1
            if error.filename is None:
                raise
            print(f"error: {error.filename} cannot be used ({one_sentence(error)}): check the path and its permissions",
                  file=sys.stderr)  # fmt: skip
            return 2

    return wrapped
