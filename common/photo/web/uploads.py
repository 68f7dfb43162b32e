"""Uploaded pictures: held in memory only, limited in size, and removed after a time without use."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from common.photo.web.session import Session
from common.utils.errors import UserError

EXPIRY_SECONDS = 900.0  # after the last use
MAX_PER_OWNER = 4  # the oldest is removed
_OVERHEAD = 6_000_000  # bytes: lightness and preview
_OVERHEAD_PER_MODEL = 5_000_000  # bytes: prediction and its upsampling


def overhead_bytes(models: int) -> int:
    """Upper bound of the bytes that an upload takes besides its file, if so many models colorize it."""
    return _OVERHEAD + models * _OVERHEAD_PER_MODEL


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
    last_used: float


class Uploads:
    """The uploads in memory. All methods must be called from one thread.

    max_bytes: limit of all uploads together, including those that are being received. overhead: bytes that an upload
    takes besides its file. expiry_seconds: time after its last use at which an upload is removed.
    """

    def __init__(
        self,
        max_bytes: int,
        overhead: int,
        expiry_seconds: float = EXPIRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_bytes, self.overhead, self.expiry_seconds, self.clock = max_bytes, overhead, expiry_seconds, clock
        self.reserved = 0
        self._uploads: dict[str, Upload] = {}

    def __len__(self) -> int:
        return len(self._uploads)

    def reserve(self, count: int) -> None:
        """Reserve `count` bytes. Removes expired uploads if necessary. Raises MemoryFull if there is still not enough
        space.
        """
        if self.reserved + count > self.max_bytes:
            self.remove_expired()
        if self.reserved + count > self.max_bytes:
            raise MemoryFull("the memory for pictures is full: try again in a few minutes")
        self.reserved += count

    def release(self, count: int) -> None:
        """Release reserved bytes."""
        self.reserved -= count

    def add(self, owner: str, data: bytes, session: Session) -> Upload:
        """Add an upload, whose bytes and overhead are reserved, under a random id."""
        own = [upload for upload in self._uploads.values() if upload.owner == owner]
        for upload in sorted(own, key=lambda upload: upload.last_used)[: max(0, len(own) - MAX_PER_OWNER + 1)]:
            self._remove(upload)
        upload = Upload(secrets.token_urlsafe(18), owner, data, session, self.clock())
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
        self.release(len(upload.data) + self.overhead)
