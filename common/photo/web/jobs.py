"""A queue that runs one job at a time and takes turns between clients."""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from common.utils.errors import UserError

_MAX_PER_OWNER = 8
T = TypeVar("T")


class QueueFull(UserError):
    """The queue accepts no further job."""


class ClientLeft(Exception):
    """The client disconnected before its job began."""


@dataclass(eq=False)
class _Job:
    owner: str
    ticket: str
    round: int
    turn: asyncio.Event = field(default_factory=asyncio.Event)


class JobQueue:
    """Runs jobs one at a time. All methods must be called from one event loop.

    Every job has a round: one after that of its owner's last waiting job. Jobs run in the order of their rounds, and
    within a round in the order of the requests, so many jobs of one owner do not hold up another's.
    limit: largest number of jobs, including the running one. One owner may have half of them, at most eight.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.max_per_owner = max(1, min(_MAX_PER_OWNER, limit // 2))
        self._jobs: list[_Job] = []  # in the order in which they run; the first is running

    def __len__(self) -> int:
        return len(self._jobs)

    async def run(self, request: Request, owner: str, ticket: str, work: Callable[[], T]) -> T:
        """Wait for the job's turn, and run it in a thread. The body of the request must have been read.

        Raises QueueFull if too many jobs are waiting, and ClientLeft if the client disconnects before the job begins.
        """
        if len(self._jobs) >= self.limit:
            raise QueueFull(f"{len(self._jobs)} requests are waiting already: try again in a minute")
        own = [job.round for job in self._jobs if job.owner == owner]
        if len(own) >= self.max_per_owner:
            raise QueueFull("too many of your own requests are waiting already: wait until they are done")
        # without the running job's round as the lower bound, a new owner's jobs would all run before those that wait
        current = self._jobs[0].round if self._jobs else 0
        job = _Job(owner, ticket, own[-1] + 1 if own else current)
        bisect.insort(self._jobs, job, key=lambda other: other.round)
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
