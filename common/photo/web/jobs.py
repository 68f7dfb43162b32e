"""A queue that runs one job at a time, in the order of the requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from common.utils.errors import UserError

T = TypeVar("T")


class QueueFull(UserError):
    """The queue accepts no further job."""


class ClientLeft(Exception):
    """The client disconnected before its job began."""


@dataclass(eq=False)
class _Job:
    owner: str
    ticket: str
    turn: asyncio.Event = field(default_factory=asyncio.Event)


class JobQueue:
    """Runs jobs one at a time. All methods must be called from one event loop.

    limit: largest number of jobs, including the running one. One owner may have half of them.
    """

    def __init__(self, limit: int = 16) -> None:
        self.limit = limit
        self._jobs: list[_Job] = []

    def __len__(self) -> int:
        return len(self._jobs)

    async def run(self, request: Request, owner: str, ticket: str, work: Callable[[], T]) -> T:
        """Wait for the job's turn, and run it in a thread. The body of the request must have been read.

        Raises QueueFull if too many jobs are waiting, and ClientLeft if the client disconnects before the job begins.
        """
        if len(self._jobs) >= self.limit:
            raise QueueFull(f"{len(self._jobs)} requests are waiting already: try again in a minute")
        if sum(job.owner == owner for job in self._jobs) >= max(1, self.limit // 2):
            raise QueueFull("too many of your own requests are waiting already: wait until they are done")
        job = _Job(owner, ticket)
        self._jobs.append(job)
        try:
            if self._jobs[0] is not job:
                await _wait_while_connected(request, job.turn)
            # a thread cannot be stopped, so the next job waits for its end even if the client has left
            return await run_in_threadpool(work)
        finally:
            self._jobs.remove(job)
            if self._jobs:
                self._jobs[0].turn.set()

    def position(self, owner: str, ticket: str) -> tuple[int, int] | None:
        """Number of jobs before a job (0: it is running), and how many of them belong to others. None: no such job."""
        for position, job in enumerate(self._jobs):
            if job.owner == owner and job.ticket == ticket:
                return position, sum(before.owner != owner for before in self._jobs[:position])
        return None


async def _wait_while_connected(request: Request, turn: asyncio.Event) -> None:
    """Wait for an event. Raises ClientLeft if the request's client disconnects first."""
    waiting = [asyncio.ensure_future(_disconnected(request)), asyncio.ensure_future(turn.wait())]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not turn.is_set():
            raise ClientLeft
    finally:
        for task in waiting:
            task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
