"""Values of photographs, column by column, in memory and on disk, so that a cut-off evaluation goes on where it was.

A row's file is a list of records that are appended whole, one a batch. A record that a killed process left torn is
passed over; several processes may append to one file.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from common.utils.errors import UserError, one_sentence

_MARK = b"\n\x00values\x00"
_COMMON = Path(__file__).resolve().parent.parent


class Columns:
    """Named columns over photographs, each known for some of them. Rows of the pack say which photographs."""

    def __init__(self, rows: np.ndarray, path: Path | None = None) -> None:
        """rows: of the pack, int [n]. path: where what is added is kept, and what was kept is read from."""
        self.rows, self.path = rows, path
        self._values: dict[str, np.ndarray] = {}
        self._known: dict[str, np.ndarray] = {}
        places = {int(row): i for i, row in enumerate(rows)}
        for kept_rows, names, array in _records(path) if path else ():
            found = [(i, places[row]) for i, row in enumerate(kept_rows) if row in places]
            if found:
                at, to = np.array(found).T
                self._put(to, names, array[at])

    def lacking(self, names: list[str], positions: np.ndarray) -> list[str]:
        """Which columns are not known for all of these positions among the rows."""
        return [n for n in names if n not in self._known or not self._known[n][positions].all()]

    def add(self, positions: np.ndarray, found: list[tuple[list[str], np.ndarray]]) -> None:
        """Take in values of these positions, each array for the columns that it belongs to, and keep them."""
        for names, array in found:
            self._put(positions, names, array)
        if self.path and found:
            _append(self.path, self.rows[positions], found)

    def _put(self, positions: np.ndarray, names: list[str], array: np.ndarray) -> None:
        for name in names:
            if name not in self._known:
                self._known[name] = np.zeros(len(self.rows), bool)
                self._values[name] = np.full((len(self.rows), *array.shape[1:]), np.nan)
            self._values[name][positions] = array
            self._known[name][positions] = True

    def part(self, names: list[str], positions: np.ndarray) -> dict[str, np.ndarray]:
        """Values of these columns at these positions."""
        return {name: self._values[name][positions] for name in names} if len(positions) else {}

    def merge(self, positions: np.ndarray, part: dict[str, np.ndarray]) -> None:
        """Take in what another process has found, which has kept it, too."""
        for name, array in part.items():
            self._put(positions, [name], array)

    def __getitem__(self, name: str) -> np.ndarray:
        """float64 [n] or [n, D]: NaN where a value is not known."""
        return self._values[name]


def _append(path: Path, rows: np.ndarray, found: list[tuple[list[str], np.ndarray]]) -> None:
    arrays = [np.ascontiguousarray(array) for _, array in found]
    payload = b"".join(array.tobytes() for array in arrays)
    header = {
        "rows": [int(row) for row in rows],
        "arrays": [[names, str(a.dtype), a.shape] for (names, _), a in zip(found, arrays, strict=True)],
    }
    said = json.dumps(header).encode()
    body = len(said).to_bytes(8, "little") + len(payload).to_bytes(8, "little") + said + payload
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, _MARK + hashlib.sha256(body).digest() + body)  # one write: others append whole, too
        finally:
            os.close(file)
    except OSError as error:
        raise UserError(
            f"measured values cannot be kept in {path.parent} ({one_sentence(error)}): free space, or choose another"
            " folder with --keep, or --no_keep"
        ) from None


def _records(path: Path) -> Iterator[tuple[list[int], list[str], np.ndarray]]:
    """(rows of the pack, names, values) of every whole record."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(
            f"kept values {path} cannot be read ({one_sentence(error)}): choose another --keep, or --no_keep"
        ) from None
    at = data.find(_MARK)
    while at >= 0:
        start = at + len(_MARK)
        begin = start + 32 + 16
        sizes = [int.from_bytes(data[start + k : start + k + 8], "little") for k in (32, 40)]
        end = begin + sum(sizes)
        if end <= len(data) and hashlib.sha256(data[start + 32 : end]).digest() == data[start : start + 32]:
            header, offset = json.loads(data[begin : begin + sizes[0]]), begin + sizes[0]
            for names, dtype, shape in header["arrays"]:
                count = int(np.prod(shape))
                array = np.frombuffer(data, dtype, count, offset).reshape(shape)
                offset += array.nbytes
                yield header["rows"], names, array
            at = data.find(_MARK, end)
        else:
            at = data.find(_MARK, start)


def digest(*parts: object) -> str:
    """A name for whatever these JSON-able parts say."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


@lru_cache(maxsize=64)
def code_digest(*files: Path) -> str:
    """A name for the content of source files."""
    content = hashlib.sha256()
    for file in files:
        content.update(file.read_bytes())
    return content.hexdigest()[:16]


def code_of(*things: Callable | type) -> str:
    """A digest of all source files of `common`, and of the packages in which these functions or classes are defined."""
    files = set(_COMMON.rglob("*.py"))
    for thing in things:
        module = inspect.getmodule(thing) or inspect.getmodule(type(thing))
        if module and getattr(module, "__file__", None):
            files.update(Path(module.__file__).parent.rglob("*.py"))
    return code_digest(*sorted(files))
