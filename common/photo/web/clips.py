"""Short films that clients upload: each is colored in a process of its own, one at a time.

A clip and the colored film lie in a temporary folder, which is deleted with the clip: on request, or after a
time without use.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from common.photo.web.uploads import EXPIRY_SECONDS, UploadNotFound
from common.utils.errors import UserError

_MAX_CLIPS = 8  # of all clients, which bounds the disk space; every client has one
_LONGEST_SECONDS = 7200.0  # by the clock; only for a process that hangs without using CPU time
_LOG = logging.getLogger("uvicorn.error")  # the logger that writes to the server's terminal


class TooManyClips(UserError):
    """No further clip is accepted."""


@dataclass(frozen=True)
class Coloring:
    """How clips are colored.

    command: (what --model takes, clip, colored film) -> a command line. Its process limits itself, and prints lines of
    JSON: `{"done": frames, "total": frames}`, `{"note": sentence}` or `{"error": sentence}`; 0 is its exit code if the
    film is complete. terms: its limits, for the page. suffixes: of files that are films, in lower case.
    """

    command: Callable[[str, Path, Path], list[str]]
    terms: str
    suffixes: Sequence[str]


@dataclass(eq=False)
class Clip:
    """A clip and the state of its coloring."""

    owner: str
    name: str
    model: str
    folder: TemporaryDirectory
    last_used: float
    id: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    done: int = 0  # frames
    total: int = 0
    notes: list[str] = field(default_factory=list)
    error: str = ""
    complete: bool = False

    @property
    def source(self) -> Path:
        """The uploaded file. Its content says what it is, so it needs no suffix."""
        return Path(self.folder.name) / "clip"

    @property
    def film(self) -> Path:
        """The colored film."""
        return Path(self.folder.name) / "film.mp4"

    def said(self, sentence: str) -> str:
        """A sentence of the process with the client's names of the files."""
        said = sentence.replace(str(self.source), self.name)
        said = re.sub(rf"{re.escape(str(self.film))}(?=[ :])", "an .mp4 file", said)
        if self.folder.name not in said:
            return said
        reason = "its sound does not fit, or the server has no space"
        return f"{self.name} cannot be written as .mp4 ({reason}): convert it to .mp4 first, or try again later"


class Clips:
    """The clips of all clients. All methods must be called from one event loop."""

    def __init__(
        self, coloring: Coloring, expiry_seconds: float = EXPIRY_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.coloring, self.expiry_seconds, self.clock = coloring, expiry_seconds, clock
        self._clips: dict[str, Clip] = {}  # in the order in which they are colored
        self._tasks: dict[str, asyncio.Task] = {}
        self._turn = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._clips)

    def add(self, owner: str, name: str, model: str, data: bytes) -> Clip:
        """Store a clip, and color it when it is its turn. The owner's earlier clip is removed. Raises TooManyClips."""
        for clip in [clip for clip in self._clips.values() if clip.owner == owner]:
            self.remove(owner, clip.id)
        if len(self._clips) >= _MAX_CLIPS:
            raise TooManyClips(f"{_MAX_CLIPS} films of other users are on the server: try again in a few minutes")
        folder = TemporaryDirectory(prefix="colorize-", ignore_cleanup_errors=True)
        clip = Clip(owner, name, model, folder, self.clock())
        try:
            clip.source.write_bytes(data)
        except OSError:
            folder.cleanup()
            raise TooManyClips(f"the server has no space for {name}: try again later") from None
        self._clips[clip.id] = clip
        self._tasks[clip.id] = asyncio.create_task(self._keep(clip))
        self._remove_if_expired(clip)
        return clip

    def get(self, owner: str, id: str) -> Clip:
        """Look up a clip and mark it as used. Raises UploadNotFound."""
        clip = self._clips.get(id)
        if clip is None or clip.owner != owner:
            raise UploadNotFound("the server no longer has this film: choose it again")
        clip.last_used = self.clock()
        return clip

    def remove(self, owner: str, id: str) -> None:
        """Remove a clip, if it exists and belongs to the owner, and kill its process."""
        if id in self._clips and self._clips[id].owner == owner:
            del self._clips[id]
            self._tasks.pop(id).cancel()

    def describe(self, clip: Clip) -> dict:
        """What the page shows of a clip. before: number of clips that are colored first."""
        waiting = [other for other in self._clips.values() if not (other.complete or other.error)]
        before = waiting.index(clip) if clip in waiting else 0
        return {"name": clip.name, "before": before, "done": clip.done, "total": clip.total, "notes": clip.notes,
                "error": clip.error, "complete": clip.complete}  # fmt: skip

    async def _keep(self, clip: Clip) -> None:
        """Color a clip, and delete its files when this task is cancelled."""
        try:
            await self._color(clip)
            await asyncio.Event().wait()
        finally:
            clip.folder.cleanup()

    def _remove_if_expired(self, clip: Clip) -> None:
        """Remove a clip if it has expired, and look again when it can expire next."""
        left = clip.last_used + self.expiry_seconds - self.clock()
        if left <= 0:
            self.remove(clip.owner, clip.id)
        elif clip.id in self._clips:
            asyncio.get_running_loop().call_later(left + 0.01, self._remove_if_expired, clip)

    async def _color(self, clip: Clip) -> None:
        try:
            async with self._turn:
                clip.complete = await self._run(clip) == 0 and not clip.error
        except Exception:
            _LOG.exception("coloring a film failed")
        if not clip.complete:
            clip.error = clip.error or (
                f"{clip.name} is damaged, or needs too much time or memory: choose a shorter or smaller one"
            )
        clip.source.unlink(missing_ok=True)

    async def _run(self, clip: Clip) -> int:
        """Run the process and take what it reports. Returns its exit code, which is negative if it was killed."""
        command = self.coloring.command(clip.model, clip.source, clip.film)
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )

        def kill() -> None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

        hanging = asyncio.get_running_loop().call_later(_LONGEST_SECONDS, kill)
        try:
            async for line in process.stdout:
                report = json.loads(line)
                if "note" in report:
                    clip.notes.append(clip.said(report["note"]))
                elif "error" in report:
                    clip.error = clip.said(report["error"])
                else:
                    clip.done, clip.total = report["done"], report["total"]
            return await process.wait()
        finally:
            hanging.cancel()
            kill()
            await process.communicate()
