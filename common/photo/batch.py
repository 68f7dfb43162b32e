"""Colorize many files: while the network runs, the next pictures are decoded and the previous ones encoded."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

from common.colorizer import Colorizer
from common.imaging.read import SUFFIXES, Picture, eight_bits, open_image
from common.imaging.write import encode_pages, format_of, write_picture
from common.photo.edit import Edit
from common.photo.hints import hints_of_dots, parse_hint
from common.photo.restore import restore
from common.predictor import PredictorConfig, colorize_photo
from common.utils.errors import PictureError, UserError
from common.utils.files import walk

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


@dataclass(frozen=True)
class BatchConfig:
    """How the pictures of a batch are colorized.

    check: raises PictureError for a picture that must not be colorized. write_extra: called with the first page, its
    colorization uint8 [H, W, 3] and the target; writes further files and returns their paths. report: called with one
    sentence if the network ran out of memory at its size.
    """

    predictor: PredictorConfig
    edit: Edit = field(default_factory=Edit)
    hints: Sequence[str] = ()  # "x,y,#rrggbb" in pixels of each picture
    hint_dots: np.ndarray | None = None  # uint8 [H, W, 4], see `hints_of_dots`
    restore: bool = False  # correct tint and fading first
    compare: bool = False  # also write NAME.compare.png, the picture before and after
    overwrite: bool = False
    provenance: str = ""  # text for the metadata of the written files
    check: Callable[[Picture], None] = lambda picture: None
    write_extra: Callable[[Picture, np.ndarray, Path], list[Path]] | None = None
    report: Callable[[str], None] = lambda message: None


def provenance_text(card: dict) -> str:
    """Text for the metadata of a picture that was colorized by the model of a card."""
    return f"colorized by Colorization Lab {version('colorization-lab')} with {card.get('name', 'unnamed weights')}"


def sibling(target: Path, kind: str, suffix: str) -> Path:
    """NAME.kind.suffix in the folder of NAME.color.EXT or NAME.EXT."""
    return target.with_name(f"{target.stem.removesuffix('.color')}.{kind}{suffix}")


def colorize_files(colorizer: Colorizer, tasks: Sequence[Task], config: BatchConfig) -> Iterator[Outcome]:
    """Colorize pictures, and yield one outcome per task in the order of the tasks.

    A file that cannot be read or written is reported in its outcome and does not stop the others. Only a few pictures
    are in memory at once.
    """
    targets: set[Path] = set()
    with ThreadPoolExecutor(_QUEUE_SIZE) as readers, ThreadPoolExecutor(_QUEUE_SIZE) as writers:
        waiting = deque(tasks)
        reading: deque[tuple[Task, Future]] = deque()
        writing: deque[Future] = deque()
        while waiting or reading or writing:
            while waiting and len(reading) < _QUEUE_SIZE:
                task = waiting.popleft()
                reading.append((task, readers.submit(_read, task, config, task.target in targets)))
                if task.target is not None:
                    targets.add(task.target)
            while writing and (len(writing) > _QUEUE_SIZE or not reading or writing[0].done()):
                yield writing.popleft().result()
            if reading:
                task, read = reading.popleft()
                writing.append(writers.submit(*_colorize(colorizer, task, read.result(), config)))


def _read(task: Task, config: BatchConfig, duplicate: bool) -> Outcome | tuple[list[Picture], float]:
    """Decode all pages of a task: (pages, seconds), or an outcome if the task ends here."""
    started = time.perf_counter()
    targets = [task.target] if task.target else []
    if task.target and config.compare:
        targets.append(sibling(task.target, "compare", ".png"))
    try:
        for target in targets:
            if duplicate or (target.exists() and not config.overwrite):
                reason = f"{target} exists already: use --overwrite, or another --out"
                return Outcome(task.name, "skipped", reason=reason)
        if task.target is not None:
            format_of(task.target)
        source = Path(task.name) if task.data is None else task.data
        first = open_image(source, task.name, deep=True)
        config.check(first)
        rest = [open_image(source, task.name, page=page, deep=True) for page in range(1, first.pages)]
    except UserError as error:
        return Outcome(task.name, "refused", reason=str(error))
    except OSError as error:  # of `exists`, where the name of the target is too long
        reason = f"{targets[-1]} cannot be written ({error.strerror}): choose another --out"
        return Outcome(task.name, "refused", reason=reason)
    return [first, *rest], time.perf_counter() - started


def _colorize(
    colorizer: Colorizer, task: Task, read: Outcome | tuple[list[Picture], float], config: BatchConfig
) -> tuple:
    """Run the network on a task. Returns the call, as a tuple, that finishes the task in another thread."""
    if isinstance(read, Outcome):
        return (lambda: read,)
    pages, seconds = read
    started = time.perf_counter()
    try:
        colored = [_colorize_page(colorizer, picture, config) for picture in pages]
        extra: list[Path] = []
        if config.write_extra and task.target:
            extra = config.write_extra(pages[0], eight_bits(colored[0]), task.target)
    except UserError as error:
        outcome = Outcome(task.name, "refused", reason=str(error))
        return (lambda: outcome,)
    return _write, task, pages, colored, extra, config, seconds + time.perf_counter() - started


def _colorize_page(colorizer: Colorizer, picture: Picture, config: BatchConfig) -> np.ndarray:
    size = picture.rgb.shape[:2]
    hints = [parse_hint(text, size) for text in config.hints]
    if config.hint_dots is not None:
        hints += hints_of_dots(config.hint_dots, size)
    edit = replace(config.edit, hints=hints) if hints else config.edit
    rgb = restore(picture.finest) if config.restore else picture.finest
    return colorize_photo(colorizer, rgb, config.predictor, edit, config.report)


def _write(
    task: Task, pages: list[Picture], colored: list[np.ndarray], extra: list[Path], config: BatchConfig, seconds: float
) -> Outcome:
    started = time.perf_counter()
    height, width = pages[0].rgb.shape[:2]
    known = {"width": width, "height": height, "pages": len(pages)}
    form = format_of(task.target) if task.target else pages[0].format
    try:
        name = str(task.target or task.name)
        data = encode_pages(list(zip(colored, pages, strict=True)), form, name, config.provenance)
        outputs = []
        if task.target:
            write_picture(task.target, data)
            outputs.append(task.target)
            if config.compare:
                outputs.append(sibling(task.target, "compare", ".png"))
                pair = np.concatenate([pages[0].on_white(), eight_bits(colored[0])], axis=int(width <= 1.5 * height))
                write_picture(outputs[-1], encode_pages([(pair, None)], "PNG", str(outputs[-1])))
    except PictureError as error:
        return Outcome(task.name, "refused", reason=str(error), **known)
    seconds += time.perf_counter() - started
    names = [str(path) for path in [*outputs, *extra]]
    return Outcome(task.name, "done", names, seconds=round(seconds, 3), data=None if task.target else data, **known)


def find_pictures(names: Sequence[str], recursive: bool) -> tuple[list[tuple[str, Path]], list[str]]:
    """Expand files, folders and glob patterns.

    Args:
        names: paths, patterns, or "-" for standard input. A folder stands for the pictures in it, except those that
            `colorize` wrote.
        recursive: also look into the sub-folders of folders.

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
            found += _pictures(name, recursive, failures, failed)
        except OSError as error:  # a name that is too long, or a folder above it that cannot be entered
            failed(Path(name), error)
    return found, failures


def _pictures(
    name: str, recursive: bool, failures: list[str], failed: Callable[[Path, OSError], None]
) -> list[tuple[str, Path]]:
    """The pictures that one name stands for; see `find_pictures`."""
    path, known = Path(name), len(failures)
    if name == "-":
        return [("-", Path("-"))]
    if path.is_dir():
        inside = [Path(entry.path) for entry in walk(path, failed, recursive=recursive, hidden=True)]
        inside = [p for p in inside if p.suffix.lower() in SUFFIXES and not _is_output(p)]
        if not inside and len(failures) == known:
            deeper = "" if recursive else "; --recursive looks into its folders"
            failures.append(f"folder {path} holds no pictures: looked for {', '.join(SUFFIXES)}{deeper}")
        return [(str(p), p.relative_to(path)) for p in inside]
    if path.exists():
        return [(name, Path(path.name))]
    if any(character in name for character in "*?["):
        matches = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
        matches = [p for p in matches if p.is_file() and not _is_output(p)]
        if not matches:
            failures.append(f"{name} matches no file: check the pattern")
        return [(str(p), Path(p.name)) for p in matches]
    failures.append(f"{path} does not exist: check the path")
    return []


def _is_output(path: Path) -> bool:
    return path.stem.endswith((".color", ".distribution", ".compare"))
