"""Colorize many files: while the network runs, the next pictures are decoded and the previous ones encoded."""

from __future__ import annotations

import io
import itertools
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from common.colorizer import Colorizer
from common.imaging.read import SUFFIXES, Picture, eight_bits, open_image
from common.imaging.write import encode_pages, format_of, read_provenance, write_pages, write_picture
from common.photo.pages import BatchConfig, colorize_page, page_variants
from common.utils.errors import PictureError, UserError, one_sentence
from common.utils.files import walk

_PROVENANCE = "colorized by Colorization Lab"
_QUEUE_SIZE = 2  # pictures that are decoded ahead, and that wait to be encoded


@dataclass(frozen=True)
class Task:
    """A picture to colorize."""

    name: str  # path of the file, or its name in messages if `data` is given
    target: Path | None  # file to write; without one, `Outcome.data` has the encoded picture
    data: bytes | None = None  # content of the file, if it does not come from disk


@dataclass(frozen=True)
class Outcome:
    """Result of a task."""

    input: str  # name of the task
    status: Literal["done", "skipped", "refused"]  # skipped: an output exists already; refused: an error
    outputs: list[str] = field(default_factory=list)  # files that were written
    finished: bool = False  # skipped because an earlier run with the same model wrote the outputs: no error
    reason: str = ""  # one sentence, unless the status is "done"
    width: int = 0  # of the first page, in pixels
    height: int = 0
    pages: int = 0
    seconds: float = 0.0  # for decoding, colorizing and encoding
    data: bytes | None = field(default=None, repr=False)  # encoded picture of a task without target

    def to_dict(self) -> dict:
        """All fields except `data`, for JSON."""
        values = asdict(self)
        del values["data"]
        return values


def provenance_text(card: dict) -> str:
    """Text for the metadata of a picture that was colorized by the model of a card."""
    return f"{_PROVENANCE} {version('colorization-lab')} with {card.get('name', 'unnamed weights')}"


def _is_finished(task: Task, config: BatchConfig) -> bool:
    """Whether an earlier run, of any version, wrote all outputs of a task with the same model."""
    if config.write_extra or not all(map(os.path.lexists, _outputs(task, config))):
        return False
    found, wanted = read_provenance(task.target), config.provenance
    return found.startswith(_PROVENANCE) and found.partition(" with ")[2] == wanted.partition(" with ")[2]


def sibling(target: Path, kind: str, suffix: str) -> Path:
    """NAME.kind.suffix in the folder of NAME.color.EXT or NAME.EXT."""
    return target.with_name(f"{target.stem.removesuffix('.color')}.{kind}{suffix}")


def variant_path(target: Path, number: int) -> Path:
    """NAME.color.2.EXT in the folder of NAME.color.EXT."""
    return target.with_name(f"{target.stem}.{number}{target.suffix}")


def colorize_files(colorizer: Colorizer, tasks: Sequence[Task], config: BatchConfig) -> Iterator[Outcome]:
    """Colorize pictures, and yield one outcome per task in the order of the tasks.

    A file that cannot be read, colorized or written is reported in its outcome and does not stop the others. Only a few
    pages are in memory at once.
    """
    taken: set[Path] = set()
    with ThreadPoolExecutor(_QUEUE_SIZE) as readers, ThreadPoolExecutor(_QUEUE_SIZE) as writers:
        waiting = deque(tasks)
        reading: deque[tuple[Task, Future]] = deque()
        writing: deque[Future] = deque()
        while waiting or reading or writing:
            while waiting and len(reading) < _QUEUE_SIZE:
                task = waiting.popleft()
                outputs = _outputs(task, config)
                reading.append((task, readers.submit(_read, task, config, not taken.isdisjoint(outputs))))
                taken.update(outputs)
            while writing and (len(writing) > _QUEUE_SIZE or not reading or writing[0].done()):
                yield writing.popleft().result()
            if reading:
                task, read = reading.popleft()
                writing.append(_colorize(colorizer, task, read.result(), config, readers, writers))


def _outputs(task: Task, config: BatchConfig) -> list[Path]:
    """The files that a task writes, without those of `write_extra`."""
    if task.target is None:
        return []
    more = [variant_path(task.target, i) for i in range(2, config.variants + 1)]
    more += [sibling(task.target, "repair", ".png")] if config.repair else []
    return [task.target, *more, *([sibling(task.target, "compare", ".png")] if config.compare else [])]


def _read(task: Task, config: BatchConfig, duplicate: bool) -> Outcome | tuple[Picture, float]:
    """Decode the first page of a task: (page, seconds), or an outcome if the task ends here."""
    started = time.perf_counter()
    try:
        if task.target and not duplicate and not config.overwrite and _is_finished(task, config):
            reason = f"{task.target} exists already, from an earlier run: use --overwrite to colorize it again"
            return Outcome(task.name, "skipped", finished=True, reason=reason)
        for target in _outputs(task, config):
            if duplicate or (os.path.lexists(target) and not config.overwrite):  # a link counts, even to a missing file
                reason = f"{target} exists already: use --overwrite, or another --out"
                return Outcome(task.name, "skipped", reason=reason)
        if task.target is not None:
            format_of(task.target)
        picture = _open_page(task, 0)
        if picture.pages > 1 and config.variants > 1:
            raise PictureError(f"{task.name} has {picture.pages} pages, and variants are of one: save them as files")
        config.check(picture)
    except Exception as error:
        return _refused(task, error)
    return picture, time.perf_counter() - started


def _open_page(task: Task, page: int) -> Picture:
    return open_image(Path(task.name) if task.data is None else task.data, task.name, page=page, deep=True)


def _refused(task: Task, error: Exception, **known: int) -> Outcome:
    """The outcome of a task that raised an error, of which only UserErrors and OSErrors were foreseen."""
    reason = str(error)
    if isinstance(error, OSError):
        path = error.filename or task.name
        reason = f"{path} cannot be used ({one_sentence(error)}): check the path and its permissions"
    elif not isinstance(error, UserError):
        what = f"{type(error).__name__}: {one_sentence(error)}"
        reason = f"{task.name} could not be colorized ({what}): report this error together with the file"
    return Outcome(task.name, "refused", reason=reason, **known)


def _colorize(
    colorizer: Colorizer,
    task: Task,
    read: Outcome | tuple[Picture, float],
    config: BatchConfig,
    readers: Executor,
    writers: Executor,
) -> Future[Outcome]:
    """Colorize and write a task. A single page is encoded in another thread; of several pages, one is in memory while
    the next is decoded in another thread.
    """
    done: Future[Outcome] = Future()
    if isinstance(read, Outcome):
        done.set_result(read)
        return done
    first, seconds = read
    started = time.perf_counter()
    try:
        colored = colorize_page(colorizer, first, config)
        _write_variants(colorizer, task, first, config)
        if config.repair and task.target:
            _write_marks(task.target, first)
        extra: list[Path] = []
        if config.write_extra and task.target:
            extra = config.write_extra(first, eight_bits(colored), task.target)
    except Exception as error:
        done.set_result(_refused(task, error))
        return done
    if first.pages == 1:
        seconds += time.perf_counter() - started
        return writers.submit(_write, task, first, colored, iter(()), extra, config, seconds)
    rest = _later_pages(colorizer, task, first.pages, config, readers)
    done.set_result(_write(task, first, colored, rest, extra, config, seconds + time.perf_counter() - started))
    return done


def _later_pages(
    colorizer: Colorizer, task: Task, count: int, config: BatchConfig, readers: Executor
) -> Iterator[tuple[np.ndarray, Picture]]:
    """Colorize the pages after the first."""
    following = readers.submit(_open_page, task, 1)
    if config.restore == "auto":
        config = replace(config, restore="off")  # one sentence per file
    for page in range(1, count):
        picture = following.result()
        if page + 1 < count:
            following = readers.submit(_open_page, task, page + 1)
        yield colorize_page(colorizer, picture, config), picture
        del picture


def _write_variants(colorizer: Colorizer, task: Task, picture: Picture, config: BatchConfig) -> None:
    """Write the variants of a picture after the first, one at a time."""
    if config.variants < 2 or not task.target:
        return
    config = replace(config, restore="off" if config.restore == "auto" else config.restore)  # it was reported
    for number, colored in enumerate(page_variants(colorizer, picture, config), 2):
        path = variant_path(task.target, number)
        encoded = encode_pages([(colored, picture)], format_of(path), str(path), config.provenance)
        write_picture(path, lambda file, encoded=encoded: file.write(encoded))


def _write_marks(target: Path, picture: Picture) -> None:
    """Write NAME.repair.png, which shows what is filled in."""
    from common.photo.repair import find_marks, show_marks

    path = sibling(target, "repair", ".png")
    encoded = encode_pages([(show_marks(picture.finest, find_marks(picture.finest)), None)], "PNG", str(path))
    write_picture(path, lambda file: file.write(encoded))


def _write(
    task: Task,
    first: Picture,
    colored: np.ndarray,
    rest: Iterator[tuple[np.ndarray, Picture]],
    extra: list[Path],
    config: BatchConfig,
    seconds: float,
) -> Outcome:
    started = time.perf_counter()
    height, width = first.rgb.shape[:2]
    known = {"width": width, "height": height, "pages": first.pages}
    try:
        form = format_of(task.target) if task.target else first.format
        name = str(task.target or task.name)
        outputs, memory = _outputs(task, config), io.BytesIO()
        if config.compare and task.target:
            pair = np.concatenate([first.on_white(), eight_bits(colored)], axis=int(width <= 1.5 * height))
            compared = encode_pages([(pair, None)], "PNG", str(outputs[-1]))
        pages = itertools.chain([(colored, first)], rest)
        del colored

        def write(file: BinaryIO) -> None:
            write_pages(file, pages, first.pages, form, name, config.provenance)

        if task.target:
            write_picture(task.target, write)
            if config.compare:
                write_picture(outputs[-1], lambda file: file.write(compared))
        else:
            write(memory)
    except Exception as error:
        return _refused(task, error, **known)
    seconds += time.perf_counter() - started
    names = [str(path) for path in [*outputs, *extra]]
    data = None if task.target else memory.getvalue()
    return Outcome(task.name, "done", names, seconds=round(seconds, 3), data=data, **known)


def find_pictures(
    names: Sequence[str], recursive: bool, out: Path | None = None
) -> tuple[list[tuple[str, Path]], list[str]]:
    """Expand files, folders and glob patterns.

    Args:
        names: paths, patterns, or "-" for standard input. A folder stands for the pictures in it, except those that
            `colorize` wrote.
        recursive: also look into the sub-folders of folders.
        out: folder that results are written to. If it lies inside a named folder, it is left out.

    Returns:
        (name, path relative to the named folder) of each picture, and one error message for each name that matches no
        image file.
    """
    found: list[tuple[str, Path]] = []
    failures: list[str] = []

    def failed(path: Path, error: OSError) -> None:
        failures.append(f"{path} cannot be read ({error.strerror}): check the path and its permissions")

    for name in names:
        try:
            found += _pictures(name, recursive, out, failures, failed)
        except OSError as error:  # a name that is too long, or a folder above it that cannot be entered
            failed(Path(name), error)
    return found, failures


def _pictures(
    name: str, recursive: bool, out: Path | None, failures: list[str], failed: Callable[[Path, OSError], None]
) -> list[tuple[str, Path]]:
    """The pictures that one name stands for; see `find_pictures`."""
    path, known = Path(name), len(failures)
    if name == "-":
        return [("-", Path("-"))]
    if path.is_dir():
        inside = [Path(entry.path) for entry in walk(path, failed, recursive=recursive, hidden=True)]
        inside = [p for p in inside if p.suffix.lower() in SUFFIXES and not _is_output(p, path, out)]
        if not inside and len(failures) == known:
            deeper = "" if recursive else "; --recursive looks into its folders"
            failures.append(f"folder {path} holds no pictures: looked for {', '.join(SUFFIXES)}{deeper}")
        return [(str(p), p.relative_to(path)) for p in inside]
    if path.exists():
        return [(name, Path(path.name))]
    if any(character in name for character in "*?["):
        matches = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
        folder = Path(*itertools.takewhile(lambda part: not set(part) & set("*?["), path.parts))
        matches = [p for p in matches if p.is_file() and not _is_output(p, folder, out)]
        if not matches:
            failures.append(f"{name} matches no file: check the pattern")
        return [(str(p), Path(p.name)) for p in matches]
    failures.append(f"{path} does not exist: check the path")
    return []


def _is_output(path: Path, folder: Path, out: Path | None) -> bool:
    """Whether a file below a folder was written by `colorize`, by its name or since it is in `out` below the folder."""
    if re.search(r"\.(color(\.\d+)?|distribution|compare|repair)$", path.stem):
        return True
    return out is not None and folder.resolve() in out.resolve().parents and out.resolve() in path.resolve().parents
