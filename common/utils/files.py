"""Atomic writes and locks between processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from common.utils.errors import UserError, one_sentence


def replace_file(path: Path, write: Callable[[Path], object], tag: str = "") -> None:
    """`write_atomically`, but errors are raised unchanged.

    tag: part of the temporary name. It must be unique if several processes may write the same path at the same time.
    """
    temporary = path.with_name(f".{path.name}{tag}.part")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file such that `path` has either its old content or the complete new content at any time.

    write: called with a temporary path, which is then flushed to disk and renamed. Raises UserError if that fails.
    """
    try:
        replace_file(path, write)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{path} cannot be written ({one_sentence(error)}): free space, then run again") from None


@contextlib.contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold a lock file.

    If another process holds it, wait, or raise UserError with the message `busy` if that is given. The lock of a killed
    process is released.
    """
    lock = FileLock(path, timeout=0 if busy else -1)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(busy) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def user_path(path: Path | str, instead: str, verb: str = "written") -> Iterator[None]:
    """Turn an OSError of the block into a UserError: the path cannot be written (or read), and what to do instead."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be {verb} ({one_sentence(error)}): {instead}") from None


def walk(
    root: Path,
    failed: Callable[[Path, OSError], None],
    *,
    recursive: bool = True,
    links: bool = False,
    hidden: bool = False,
    _above: frozenset[tuple[int, int]] = frozenset(),
) -> Iterator[os.DirEntry[str]]:
    """Yield the files in a folder, in the order of their names, with links to files, also broken ones.

    Args:
        failed: called with each folder or link that cannot be read.
        recursive: whether files in sub-folders are yielded, too.
        links: whether links to folders are followed. A link to a folder that it is in is not followed.
        hidden: whether files and folders whose names begin with a dot are included.
    """
    try:
        with os.scandir(root) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        own = os.stat(root)
    except OSError as error:
        failed(root, error)
        return
    if (own.st_dev, own.st_ino) in _above:
        return
    for entry in entries:
        if entry.name.startswith(".") and not hidden:
            continue
        try:
            folder = entry.is_dir(follow_symlinks=links)
            file = entry.is_file() or (entry.is_symlink() and not entry.is_dir())
        except OSError as error:
            failed(Path(entry.path), error)
            continue
        if folder and recursive:
            above = _above | {(own.st_dev, own.st_ino)}
            options = {"recursive": recursive, "links": links, "hidden": hidden}
            yield from walk(Path(entry.path), failed, **options, _above=above)
        elif file:
            yield entry


def check_writable(path: Path) -> None:
    """Raise UserError if `path` cannot be opened for writing. The check creates a missing file and deletes it again; an
    existing file is not changed.
    """
    if not path.absolute().parent.is_dir():
        raise UserError(f"{path} cannot be written (no folder {path.parent}): make it, or choose another file")
    existed = path.exists()
    with user_path(path, "choose another file"):
        with open(path, "ab"):
            pass
        if not existed:
            path.unlink(missing_ok=True)  # another process may have removed it


def write_text(path: Path, text: str) -> None:
    """Write text to a file whose path the user chose. Raises UserError if that fails."""
    with user_path(path, "choose another file"):
        path.write_text(text)
