"""Measured values of photographs, in memory and in a database on disk, so that no value is measured twice.

The database is one SQLite file in the cache folder. Several processes may use it at the same time. Each batch is
one transaction, so a process that is killed loses the batch that it was measuring, and no other.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import sqlite3
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import numpy as np

from common.utils.errors import UserError, one_sentence
from common.utils.files import locked
from common.utils.progress import Progress

_COMMON = Path(__file__).resolve().parent.parent
_SCHEMA = "CREATE TABLE IF NOT EXISTS batches (key TEXT, indices BLOB, array BLOB, checksum INTEGER)"
_INDEX = "CREATE INDEX IF NOT EXISTS by_key ON batches (key)"
_LIBRARIES = ("torch", "torchvision", "timm", "lpips", "numpy", "scipy")  # whose versions can change a value
_WAIT = 60.0  # seconds to wait for another process that writes

T = TypeVar("T")


class ValueCache:
    """A database of arrays by key and photograph. A damaged database is replaced by an empty one, and this is logged.

    Every method raises UserError if the folder cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        """folder: it is created if it does not exist."""
        self.path = folder / "values.sqlite"
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> ValueCache:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection:
            self._connection.close()

    def read(self, key: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """All batches of a key: (index of each photograph, int64 [n]; its values, [n, ...]), oldest first."""
        query = "SELECT indices, array, checksum FROM batches WHERE key = ? ORDER BY rowid"
        found = self._attempt(lambda database: database.execute(query, (key,)).fetchall())
        return [
            (np.frombuffer(indices, np.int64), np.load(io.BytesIO(array), allow_pickle=False))
            for indices, array, checksum in found
            if zlib.crc32(indices + array) == checksum  # SQLite does not detect a changed byte within a value
        ]

    def write(self, indices: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
        """Add a batch. indices: int [n], of photographs. arrays: by key, [n, ...] each."""
        records, which = [], indices.astype(np.int64).tobytes()
        for key, array in arrays.items():
            file = io.BytesIO()
            np.save(file, array, allow_pickle=False)
            records.append((key, which, file.getvalue(), zlib.crc32(which + file.getvalue())))

        def insert(database: sqlite3.Connection) -> None:
            with database:  # one transaction
                database.executemany("INSERT INTO batches VALUES (?, ?, ?, ?)", records)

        self._attempt(insert)

    def _attempt(self, action: Callable[[sqlite3.Connection], T]) -> T:
        try:
            try:
                return action(self._open())
            except sqlite3.OperationalError:  # a full disk, a folder without permission
                raise
            except sqlite3.DatabaseError as error:
                self._replace(one_sentence(error))
                return action(self._open())
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"measured values cannot be cached in {self.path.parent} ({one_sentence(error)}): free space, or choose"
                " another folder with --keep, or --no_keep"
            ) from None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path.with_suffix(".lock")):
                connection = sqlite3.connect(self.path, timeout=_WAIT)
                try:
                    for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", _SCHEMA, _INDEX):
                        connection.execute(statement)
                except BaseException:
                    connection.close()
                    raise
                self._connection = connection
        return self._connection

    def _replace(self, reason: str) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None
        with locked(self.path.with_suffix(".lock")):
            if self._damaged():  # else another process has replaced it
                for suffix in ("", "-wal", "-shm"):
                    self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
                Progress().say(f"{self.path} is damaged ({reason}) and is replaced: its values are measured again")

    def _damaged(self) -> bool:
        try:
            with closing(sqlite3.connect(self.path, timeout=_WAIT)) as database:
                return database.execute("PRAGMA quick_check").fetchone() != ("ok",)
        except sqlite3.DatabaseError:
            return True


class ImageValues:
    """Values of photographs by column, in memory; read from a cache, and added to it, if there is one."""

    def __init__(
        self, indices: np.ndarray, columns: Iterable[str], cache: ValueCache | None = None, key: str = ""
    ) -> None:
        """indices: of the photographs in the pack, int [n]. key: of the predictor, for the cache."""
        self.indices, self.columns, self._cache = indices, list(columns), cache
        self._keys = {column: digest(key, column) for column in self.columns}
        self._values: dict[str, np.ndarray] = {}
        self._known: dict[str, np.ndarray] = {column: np.zeros(len(indices), bool) for column in self.columns}
        position_of = {int(index): position for position, index in enumerate(indices)}
        for column in self.columns if cache else ():
            for cached, array in cache.read(self._keys[column]):
                found = [(i, position_of[index]) for i, index in enumerate(cached.tolist()) if index in position_of]
                if found:
                    source, positions = np.array(found).T
                    self._put(positions, column, array[source])

    def missing(self, positions: np.ndarray) -> list[str]:
        """Columns that lack a value at any of these positions."""
        return [column for column in self.columns if not self._known[column][positions].all()]

    def add(self, positions: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
        """Add values at these positions, also to the cache. arrays: by column, [n] or [n, D]."""
        self.merge(positions, arrays)
        if self._cache and arrays:
            self._cache.write(self.indices[positions], {self._keys[c]: array for c, array in arrays.items()})

    def part(self, positions: np.ndarray) -> dict[str, np.ndarray]:
        """The values of all columns at these positions."""
        return {column: self._values[column][positions] for column in self.columns} if len(positions) else {}

    def merge(self, positions: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
        """Add values at these positions in memory only: another process has added them to the cache."""
        for column, array in arrays.items():
            self._put(positions, column, array)

    def _put(self, positions: np.ndarray, column: str, array: np.ndarray) -> None:
        if column not in self._values:
            self._values[column] = np.full((len(self.indices), *array.shape[1:]), np.nan)
        self._values[column][positions] = array
        self._known[column][positions] = True

    def __getitem__(self, column: str) -> np.ndarray:
        """float64 [n] or [n, D]; NaN for missing values."""
        return self._values[column]


def digest(*parts: object) -> str:
    """A digest of values that JSON can represent: 24 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


@lru_cache(maxsize=64)
def file_digest(*files: Path) -> str:
    """A digest of the contents of files: 16 hexadecimal digits. Each file is read once per process."""
    content = hashlib.sha256()
    for file in files:
        content.update(file.read_bytes())
    return content.hexdigest()[:16]


def code_digest(*objects: object) -> str:
    """Hash of all source files that may affect what these objects compute.

    objects: functions, classes, or their instances. The source files are all of `common`, and the whole top-level
    package in which each function or class is defined.
    """
    files = set(_COMMON.rglob("*.py"))
    for name in {_top_level(each) for each in objects} - {"common", "builtins", ""}:
        files.update(_sources(name))
    return file_digest(*sorted(files))


def library_versions() -> dict[str, str]:
    """Versions of the libraries that can change a value; "" for one that is not installed."""
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = ""
    return found


def _top_level(thing: object) -> str:
    module = inspect.getmodule(thing) or inspect.getmodule(type(thing))
    return module.__name__.partition(".")[0] if module else ""


def _sources(package: str) -> Iterator[Path]:
    module = sys.modules[package]
    for folder in getattr(module, "__path__", ()):
        yield from Path(folder).rglob("*.py")
    if not hasattr(module, "__path__") and getattr(module, "__file__", None):
        yield Path(module.__file__)
