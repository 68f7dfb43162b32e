"""The folder of a film's finished segments, from which the same command resumes after any interruption."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from common.film.config import FilmError
from common.film.decode import Place
from common.film.encode import EncodedFrame
from common.utils.errors import UserError, one_sentence
from common.utils.files import locked, replace_file

_JOB, _STATE, _LOCK = "job.json", "state.pt", ".lock"
_OWN = re.compile(r"job\.json|state\.pt|\.lock|\d{6}\.segment|\.(job\.json|state\.pt|\d{6}\.segment)\.part")

_NUMPY = [np.ndarray, np.dtype, np._core.multiarray._reconstruct, *(type(np.dtype(c)) for c in "?bBhHiIlLqQefd")]


@dataclass(frozen=True)
class Progressed:
    """Where a job stands after a segment."""

    segments: int  # number of finished segments
    place: Place  # the last frame in them
    pushed: int  # frames that the `FrameColorizer` has seen
    colors: dict  # its state
    damage: str
    complete: bool  # whether this was the last segment


class Segment(NamedTuple):
    """Some successive frames."""

    packets: list[EncodedFrame]
    times: list[int]  # of each frame, in units of the stream's time base


class Parts:
    """The folder NAME.parts beside a film that is being written. See `open_parts`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.progressed = self._read_state()

    def add(self, segment: Segment, progressed: Progressed) -> None:
        """Write a segment, unless it is empty, then the state after it: after a kill in between, it is made again."""
        if segment.packets:
            arrays = _arrays(segment)
            self._write(self._path(progressed.segments - 1), lambda path: save_file(arrays, path))
        state = vars(progressed) | {"place": tuple(progressed.place)}
        self._write(self.folder / _STATE, lambda path: torch.save(state, path))
        self.progressed = progressed

    def segments(self) -> Iterator[Segment]:
        """Read the finished segments one after the other."""
        for number in range(self.progressed.segments if self.progressed else 0):
            path = self._path(number)
            try:
                arrays = load_file(path)
                ends = arrays["sizes"].cumsum()
                data = arrays["data"].tobytes()
            except (OSError, KeyError, SafetensorError) as error:
                raise _damaged(path, error) from None
            packets = [
                EncodedFrame(data[end - size : end], int(pts), int(dts), bool(is_key))
                for end, size, pts, dts, is_key in zip(
                    ends, arrays["sizes"], arrays["pts"], arrays["dts"], arrays["is_key"], strict=True
                )
            ]
            yield Segment(packets, arrays["times"].tolist())

    def remove(self) -> None:
        """Delete the files that a job wrote, and the folder if nothing else is in it."""
        _remove(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.segment"

    def _write(self, path: Path, write: Callable[[Path], object]) -> None:
        with disk_errors(path):
            replace_file(path, write)

    def _read_state(self) -> Progressed | None:
        path = self.folder / _STATE
        if not path.exists():
            return None
        try:
            with torch.serialization.safe_globals(_NUMPY):
                state = torch.load(path, map_location="cpu", weights_only=True)
            return Progressed(**state | {"place": Place(*state["place"])})
        except Exception as error:  # unpickling damaged files raises nearly every type
            raise _damaged(path, error) from None


def _arrays(segment: Segment) -> dict[str, np.ndarray]:
    packets = segment.packets
    return {
        "data": np.frombuffer(b"".join(p.data for p in packets), np.uint8),
        "sizes": np.array([len(p.data) for p in packets], np.int64),
        "pts": np.array([p.pts for p in packets], np.int64),
        "dts": np.array([p.dts for p in packets], np.int64),
        "is_key": np.array([p.is_key for p in packets], np.uint8),
        "times": np.array(segment.times, np.int64),
    }


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a failed write into one sentence."""
    try:
        yield
    except UserError:
        raise
    except (OSError, RuntimeError, SafetensorError, av.error.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or one_sentence(error)
        raise FilmError(f"{path} cannot be written ({reason}): free space or check the folder, then run the same"
                        " command again, which resumes") from None  # fmt: skip


@contextlib.contextmanager
def open_parts(target: Path, job: dict, overwrite: bool) -> Iterator[Parts]:
    """Open the folder of a job, or make it.

    Args:
        target: the film that is being written.
        job: everything that determines the result, as plain values. A folder of another job is not continued.
        overwrite: replace an existing target, and the folder of another job.

    Raises:
        FilmError: the target exists, or the folder belongs to another job or to something else.
    """
    folder = target.with_name(f"{target.name}.parts")
    job = json.loads(json.dumps(job))
    before = _read_job(folder)
    if before is not None and before != job and not overwrite:
        changed = next(key for key in {**before, **job} if before.get(key) != job.get(key))
        was, now = before.get(changed), job.get(changed)
        raise FilmError(f"{folder} holds segments of another job ({changed} was {was}, is {now}): run the same command"
                        " again, or start afresh with --overwrite")  # fmt: skip
    if before is None and target.exists() and not overwrite:
        raise FilmError(f"{target} exists already: use --overwrite, or another --out")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / _LOCK, f"{folder} is in use by another process: wait until it has ended"):
        if before != job:
            _remove(folder, keep_lock=True)
            with disk_errors(folder / _JOB):
                replace_file(folder / _JOB, lambda path: path.write_text(json.dumps(job, indent=1)))
        yield Parts(folder)


def _read_job(folder: Path) -> dict | None:
    """The job that a folder belongs to. None if there is no folder or nothing in it."""
    if not folder.exists():
        return None
    foreign = [p.name for p in folder.iterdir() if not _OWN.fullmatch(p.name)] if folder.is_dir() else [folder.name]
    if foreign:
        raise FilmError(f"{folder} holds {foreign[0]}, which no film wrote: use another --out")
    try:
        return json.loads((folder / _JOB).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(folder / _JOB, error) from None


def _damaged(path: Path, error: Exception) -> FilmError:
    return FilmError(f"{path} is damaged ({one_sentence(error).split('.')[0]}): delete {path.parent}, then run the same"
                     " command again")  # fmt: skip


def _remove(folder: Path, keep_lock: bool = False) -> None:
    for path in list(folder.iterdir()):
        if _OWN.fullmatch(path.name) and not (keep_lock and path.name == _LOCK):
            path.unlink(missing_ok=True)
    if not keep_lock:
        with contextlib.suppress(OSError):
            folder.rmdir()
