"""Uploaded pictures: held in memory only, limited in size, and removed after a time without use."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.photo.web.session import CACHED_UPSAMPLINGS, Session
from common.utils.errors import UserError

EXPIRY_SECONDS = 900.0  # after the last use
MAX_PER_OWNER = 4  # the oldest is removed; as many may be received at once
_PATIENCE = 30.0  # seconds that an upload may be behind the lowest rate
_LOWEST_RATE = 20_000  # bytes per second
_SETTLED_SECONDS = 5.0  # before, the rate of an upload says nothing about the client


def overhead_bytes(preview_pixels: int, working_pixels: int, sizes: Sequence[int]) -> int:
    """Upper bound of the bytes that an upload takes besides its file, after models with these input sizes colorized it.

    They are lightness, alpha and JPEG of the preview, the working lightness, ab of every model and of its variants, and
    upsamplings.
    """
    upsamplings = min(len(sizes), CACHED_UPSAMPLINGS) * 16 * working_pixels
    return 8 * preview_pixels + 4 * working_pixels + sum(10 * size**2 for size in sizes) + upsamplings


class MemoryFull(UserError):
    """No memory is left for another upload."""


class UploadNotFound(UserError):
    """An upload does not exist, has expired, or belongs to another client."""


@dataclass
class Upload:
    """An uploaded file and its session."""

    id: str
    owner: str
    data: bytes
    session: Session
    size: int  # bytes that are reserved for it
    last_used: float


@dataclass(eq=False)
class Incoming:
    """A file that is being received or waits to be opened."""

    owner: str
    drop: Callable[[], object]  # called to stop receiving it
    started: float
    deadline: float  # time until which the next part must arrive
    size: int = 0  # bytes that are reserved for it
    dropped: bool = False
    complete: bool = False

    def rate(self, now: float) -> float:
        """Bytes per second so far; infinite at the beginning and after the end."""
        age = now - self.started
        return float("inf") if self.complete or age < _SETTLED_SECONDS else self.size / age


class Uploads:
    """The uploads in memory. All methods must be called from one thread.

    max_bytes: limit of all uploads together, including those that are being received. expiry_seconds: time after its
    last use at which an upload is removed.
    """

    def __init__(
        self,
        max_bytes: int,
        expiry_seconds: float = EXPIRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_bytes, self.expiry_seconds, self.clock = max_bytes, expiry_seconds, clock
        self.reserved = 0
        self._receiving: list[Incoming] = []
        self._uploads: dict[str, Upload] = {}

    def __len__(self) -> int:
        return len(self._uploads)

    def begin(self, owner: str, drop: Callable[[], object]) -> Incoming:
        """Register a file that is going to be received. Raises MemoryFull if the owner sends too many at once.

        drop: called if its memory is taken away before all of it has been received.
        """
        if sum(other.owner == owner for other in self._receiving) >= MAX_PER_OWNER:
            raise MemoryFull(f"{MAX_PER_OWNER} of your pictures are being uploaded already: wait until they are done")
        now = self.clock()
        incoming = Incoming(owner, drop, now, now + _PATIENCE)
        self._receiving.append(incoming)
        return incoming

    def receive(self, incoming: Incoming, count: int) -> None:
        """Reserve the bytes of the next part, and extend its deadline by the time that they take at the lowest rate.

        If memory is full, expired uploads are removed, then slower uploads in progress are dropped. Raises MemoryFull
        if there is still not enough space.
        """
        now = self.clock()
        incoming.deadline = min(now + _PATIENCE, incoming.deadline + count / _LOWEST_RATE)
        self.reserve(incoming, count)

    def received(self, incoming: Incoming) -> None:
        """All of a file has been received: it is no longer dropped."""
        self._receiving.remove(incoming)
        incoming.complete = True

    def reserve(self, incoming: Incoming, count: int) -> None:
        """Reserve `count` bytes. Makes room and raises MemoryFull as `receive`."""
        if self.reserved + count > self.max_bytes:
            self.remove_expired()
            now = self.clock()
            for slow in sorted(self._receiving, key=lambda other: other.rate(now)):
                if self.reserved + count > self.max_bytes and slow.rate(now) < incoming.rate(now):
                    self.end(slow)
                    slow.dropped = True
                    slow.drop()
        if self.reserved + count > self.max_bytes:
            raise MemoryFull("the memory for pictures is full: try again in a few minutes")
        incoming.size += count
        self.reserved += count

    def end(self, incoming: Incoming) -> None:
        """Forget a file that does not become an upload, and release its bytes."""
        if incoming in self._receiving:
            self._receiving.remove(incoming)
        self.reserved -= incoming.size
        incoming.size = 0

    def add(self, incoming: Incoming, data: bytes, session: Session) -> Upload:
        """Turn a received file into an upload under a random id."""
        owner = incoming.owner
        own = [upload for upload in self._uploads.values() if upload.owner == owner]
        for upload in sorted(own, key=lambda upload: upload.last_used)[: max(0, len(own) - MAX_PER_OWNER + 1)]:
            self._remove(upload)
        upload = Upload(secrets.token_urlsafe(18), owner, data, session, incoming.size, self.clock())
        self._uploads[upload.id] = upload
        return upload

    def get(self, owner: str, id: str) -> Upload:
        """Look up an upload and mark it as used. Raises UploadNotFound."""
        upload = self._uploads.get(id)
        if upload is None or upload.owner != owner or self._is_expired(upload):
            raise UploadNotFound("the server no longer has this picture: choose it again")
        upload.last_used = self.clock()
        return upload

    def remove(self, owner: str, id: str) -> None:
        """Remove an upload, if it exists and belongs to the owner."""
        upload = self._uploads.get(id)
        if upload is not None and upload.owner == owner:
            self._remove(upload)

    def remove_expired(self) -> float | None:
        """Remove expired uploads. Returns the seconds until the next one expires, or None if none is left."""
        for upload in [u for u in self._uploads.values() if self._is_expired(u)]:
            self._remove(upload)
        if not self._uploads:
            return None
        return min(u.last_used for u in self._uploads.values()) + self.expiry_seconds - self.clock()

    def _is_expired(self, upload: Upload) -> bool:
        return self.clock() - upload.last_used >= self.expiry_seconds

    def _remove(self, upload: Upload) -> None:
        del self._uploads[upload.id]
        self.reserved -= upload.size
