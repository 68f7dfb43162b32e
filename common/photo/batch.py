"""Colorize many files: the next is decoded and the last encoded while the network is busy."""

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
from common.predictor import colorize_photo
from common.utils.errors import PictureError, UserError

_AHEAD = 2  # pictures decoded before, and encoded behind, the one in hand


@dataclass(frozen=True)
class Task:
    """A picture to read and where its colorization goes; `data` stands for the file where it came through a pipe."""

    name: str
    target: Path | None
    data: bytes | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    input: str
    status: Literal["done", "skipped", "refused"]
    outputs: list[str] = field(default_factory=list)
    reason: str = ""
    width: int = 0
    height: int = 0
    pages: int = 0
    seconds: float = 0.0
    data: bytes | None = field(default=None, repr=False)  # the file itself, where it has no target

    def to_dict(self) -> dict:
        """For JSON."""
        values = asdict(self)
        del values["data"]
        return values


@dataclass(frozen=True)
class Settings:
    """How pictures are colorized.

    size: side that the network sees. edit: of every picture; hints: "x,y,#rrggbb" in each picture's own pixels.
    restore: scans are freed of tint and fading first. compare: a picture of before and after is written, too. check:
    raises PictureError for a picture that is not to be colorized. extra: called with (picture, colored first page,
    target), writes more files and names them.
    """

    size: int
    edit: Edit = field(default_factory=Edit)
    hints: Sequence[str] = ()
    hint_dots: np.ndarray | None = None
    restore: bool = False
    compare: bool = False
    overwrite: bool = False
    provenance: str = ""
    check: Callable[[Picture], None] = lambda picture: None
    extra: Callable[[Picture, np.ndarray, Path], list[Path]] | None = None
    say: Callable[[str], None] = lambda line: None


def provenance_of(card: dict) -> str:
    """What the metadata of a colorized picture says of how it came to be."""
    return f"colorized by Colorization Lab {version('colorization-lab')} with {card.get('name', 'unnamed weights')}"


def beside(target: Path, what: str, suffix: str) -> Path:
    """NAME.color.EXT or NAME.EXT -> NAME.what.suffix in the same folder."""
    return target.with_name(f"{target.stem.removesuffix('.color')}.{what}{suffix}")


def colorize_files(colorizer: Colorizer, tasks: Sequence[Task], settings: Settings) -> Iterator[Outcome]:
    """Colorize pictures in order; yields what became of each, one bad file never stopping the others.

    Decoding and encoding run beside the network; at most a few pictures are in memory at once.
    """
    taken: set[Path] = set()
    with ThreadPoolExecutor(_AHEAD) as readers, ThreadPoolExecutor(_AHEAD) as writers:
        waiting = deque(tasks)
        read: deque[tuple[Task, Future]] = deque()
        writing: deque[Future] = deque()
        while waiting or read or writing:
            while waiting and len(read) < _AHEAD:
                task = waiting.popleft()
                read.append((task, readers.submit(_read, task, settings, task.target in taken)))
                if task.target is not None:
                    taken.add(task.target)
            while writing and (len(writing) > _AHEAD or not read or writing[0].done()):
                yield writing.popleft().result()
            if read:
                task, found = read.popleft()
                writing.append(writers.submit(*_paint(colorizer, task, found.result(), settings)))


def _read(task: Task, settings: Settings, twice: bool) -> Outcome | tuple[list[Picture], float]:
    started = time.perf_counter()
    targets = [task.target] if task.target else []
    if task.target and settings.compare:
        targets.append(beside(task.target, "compare", ".png"))
    for target in targets:
        if twice or (target.exists() and not settings.overwrite):
            reason = f"{target} exists already: use --overwrite, or another --out"
            return Outcome(task.name, "skipped", reason=reason)
    try:
        if task.target is not None:
            format_of(task.target)
        source = Path(task.name) if task.data is None else task.data
        first = open_image(source, task.name, deep=True)
        settings.check(first)
        rest = [open_image(source, task.name, page=page, deep=True) for page in range(1, first.pages)]
    except UserError as error:
        return Outcome(task.name, "refused", reason=str(error))
    return [first, *rest], time.perf_counter() - started


def _paint(colorizer: Colorizer, task: Task, found: Outcome | tuple[list[Picture], float], settings: Settings) -> tuple:
    """The network's part of a task; returns what is left to do, for another thread."""
    if isinstance(found, Outcome):
        return (lambda: found,)
    pages, seconds = found
    started = time.perf_counter()
    try:
        colored = [_colored(colorizer, picture, settings) for picture in pages]
        more = settings.extra(pages[0], eight_bits(colored[0]), task.target) if settings.extra and task.target else []
    except UserError as error:
        outcome = Outcome(task.name, "refused", reason=str(error))
        return (lambda: outcome,)
    return _write, task, pages, colored, more, settings, seconds + time.perf_counter() - started


def _colored(colorizer: Colorizer, picture: Picture, settings: Settings) -> np.ndarray:
    height, width = picture.rgb.shape[:2]
    edit = settings.edit
    if settings.hints or settings.hint_dots is not None:
        from common.photo.hints import hints_of_dots, parse_hint

        hints = [parse_hint(text, (height, width)) for text in settings.hints]
        if settings.hint_dots is not None:
            hints += hints_of_dots(settings.hint_dots, (height, width))
        edit = replace(edit, hints=hints)
    values = picture.finest
    if settings.restore:
        from common.photo.restore import restore

        values = restore(values)
    return colorize_photo(colorizer, values, settings.size, edit, settings.say)


def _write(
    task: Task, pages: list[Picture], colored: list[np.ndarray], more: list[Path], settings: Settings, seconds: float
) -> Outcome:
    started = time.perf_counter()
    height, width = pages[0].rgb.shape[:2]
    known = {"width": width, "height": height, "pages": len(pages)}
    form = format_of(task.target) if task.target else pages[0].format
    try:
        named = str(task.target or task.name)
        data = encode_pages(list(zip(colored, pages, strict=True)), form, named, settings.provenance)
        outputs = []
        if task.target:
            write_picture(task.target, data)
            outputs.append(task.target)
            if settings.compare:
                outputs.append(beside(task.target, "compare", ".png"))
                pair = np.concatenate([pages[0].on_white(), eight_bits(colored[0])], axis=int(width <= 1.5 * height))
                write_picture(outputs[-1], encode_pages([(pair, None)], "PNG", str(outputs[-1])))
    except PictureError as error:
        return Outcome(task.name, "refused", reason=str(error), **known)
    seconds += time.perf_counter() - started
    names = [str(path) for path in [*outputs, *more]]
    return Outcome(task.name, "done", names, seconds=round(seconds, 3), data=None if task.target else data, **known)


def find_pictures(names: Sequence[str], recursive: bool) -> tuple[list[tuple[str, Path]], list[str]]:
    """Files, folders, globs -> ([(path, path below the folder that was named)], sentences of what was not found).

    A folder stands for the pictures in it (in its sub-folders too with `recursive`) that this command did not write.
    """
    found: list[tuple[str, Path]] = []
    failures: list[str] = []
    for name in names:
        path = Path(name)
        if name == "-":
            found.append(("-", Path("-")))
        elif path.is_dir():
            try:
                inside = sorted(path.rglob("*") if recursive else path.iterdir())
            except OSError as error:
                failures.append(f"folder {path} cannot be read ({error.strerror}): check its permissions")
                continue
            inside = [p for p in inside if p.suffix.lower() in SUFFIXES and p.is_file() and not _our_own(p)]
            if not inside:
                deeper = "" if recursive else "; --recursive looks into its folders"
                failures.append(f"folder {path} holds no pictures: looked for {', '.join(SUFFIXES)}{deeper}")
            found += [(str(p), p.relative_to(path)) for p in inside]
        elif path.exists():
            found.append((name, Path(path.name)))
        elif any(sign in name for sign in "*?["):
            matches = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
            matches = [p for p in matches if p.is_file() and not _our_own(p)]
            if not matches:
                failures.append(f"{name} matches no file: check the pattern")
            found += [(str(p), Path(p.name)) for p in matches]
        else:
            failures.append(f"{path} does not exist: check the path")
    return found, failures


def _our_own(path: Path) -> bool:
    return path.stem.endswith((".color", ".distribution", ".compare"))
