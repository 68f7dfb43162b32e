"""Pictures that the page holds for people while they work on them: in memory only, bounded, and not for long."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from common.photo.web.session import Opened
from common.utils.errors import UserError

KEEP_SECONDS = 900.0  # after its last use
OWN_AT_MOST = 4  # pictures of one person; the oldest goes
_OVERHEAD, _OVERHEAD_OF_MODEL = 6_000_000, 5_000_000  # bytes: lightness, preview; prediction and its fit


def overhead_of(models: int) -> int:
    """Bytes that an upload takes besides its file, at most, where so many models color it."""
    return _OVERHEAD + models * _OVERHEAD_OF_MODEL


class Full(UserError):
    """There is no memory left for another picture."""


class Gone(UserError):
    """A picture that is not here, or not any more, or not this person's."""


@dataclass
class Upload:
    """A file that somebody sent, and what was made of it."""

    id: str
    owner: str
    data: bytes
    opened: Opened
    used: float


class Uploads:
    """The uploads in memory. All methods belong to one thread.

    max_bytes: of all together, those included that are still being received. overhead: bytes that one takes besides
    its file. keep_seconds: how long one stays after its last use. clock: seconds, for the tests.
    """

    def __init__(
        self,
        max_bytes: int,
        overhead: int,
        keep_seconds: float = KEEP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_bytes, self.overhead, self.keep_seconds, self.clock = max_bytes, overhead, keep_seconds, clock
        self.taken = 0
        self._found: dict[str, Upload] = {}

    def __len__(self) -> int:
        return len(self._found)

    def take(self, count: int) -> None:
        """Reserve so many bytes. Raises Full where there are not so many left."""
        if self.taken + count > self.max_bytes:
            self.sweep()
        if self.taken + count > self.max_bytes:
            raise Full("the memory for pictures is full: try again in a few minutes")
        self.taken += count

    def give(self, count: int) -> None:
        """Give reserved bytes back."""
        self.taken -= count

    def add(self, owner: str, data: bytes, opened: Opened) -> Upload:
        """Keep a picture, whose bytes and overhead have been taken, under a name that nobody can guess."""
        own = [upload for upload in self._found.values() if upload.owner == owner]
        for upload in sorted(own, key=lambda upload: upload.used)[: max(0, len(own) - OWN_AT_MOST + 1)]:
            self._drop(upload)
        upload = Upload(secrets.token_urlsafe(18), owner, data, opened, self.clock())
        self._found[upload.id] = upload
        return upload

    def get(self, owner: str, name: str) -> Upload:
        """Somebody's upload, which counts as used now. Raises Gone."""
        upload = self._found.get(name)
        if upload is None or upload.owner != owner or self._is_old(upload):
            raise Gone("this picture is not held here any more: choose it again")
        upload.used = self.clock()
        return upload

    def drop(self, owner: str, name: str) -> None:
        """Forget an upload, if it is there and this person's."""
        upload = self._found.get(name)
        if upload is not None and upload.owner == owner:
            self._drop(upload)

    def sweep(self) -> float | None:
        """Forget what was not used for long; returns the seconds until there may be more to forget, if ever."""
        for upload in [u for u in self._found.values() if self._is_old(u)]:
            self._drop(upload)
        if not self._found:
            return None
        return min(u.used for u in self._found.values()) + self.keep_seconds - self.clock()

    def _is_old(self, upload: Upload) -> bool:
        return self.clock() - upload.used >= self.keep_seconds

    def _drop(self, upload: Upload) -> None:
        del self._found[upload.id]
        self.give(len(upload.data) + self.overhead)
