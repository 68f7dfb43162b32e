"""One heavy piece of work at a time, in the order in which it was asked for; who waits can ask for the place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from common.utils.errors import UserError

T = TypeVar("T")


class Busy(UserError):
    """The queue is full."""


class LeftQueue(Exception):
    """Who asked for a piece of work went away."""


@dataclass(eq=False)
class _Ticket:
    owner: str
    name: str
    turn: asyncio.Event = field(default_factory=asyncio.Event)


class Jobs:
    """A queue. All methods belong to one event loop.

    limit: pieces of work at most, the one being done included; one person has at most half of them.
    """

    def __init__(self, limit: int = 16) -> None:
        self.limit = limit
        self._line: list[_Ticket] = []

    def __len__(self) -> int:
        return len(self._line)

    async def run(self, request: Request, owner: str, name: str, work: Callable[[], T]) -> T:
        """Wait for the turn, then work in a thread. request: the one that asks, whose body has been read.

        name: how `place` calls it. Raises Busy where the queue is full, and LeftQueue where the browser of the request
        went away before the end; what had not begun is then not done.
        """
        if len(self._line) >= self.limit:
            raise Busy(f"{len(self._line)} pieces of work are waiting already: try again in a minute")
        if sum(ticket.owner == owner for ticket in self._line) >= max(1, self.limit // 2):
            raise Busy("too much of yours is waiting already: wait for it to be done")
        ticket = _Ticket(owner, name)
        self._line.append(ticket)
        try:
            if self._line[0] is not ticket:
                await _unless_gone(request, ticket.turn)
            # nobody can stop a thread: the next one waits for its end, also where who asked has left
            return await run_in_threadpool(work)
        finally:
            self._line.remove(ticket)
            if self._line:
                self._line[0].turn.set()

    def place(self, owner: str, name: str) -> tuple[int, int] | None:
        """How many are before somebody's piece of work (0: it is being done), and how many of these are others'.

        None where there is no such piece of work.
        """
        for place, ticket in enumerate(self._line):
            if ticket.owner == owner and ticket.name == name:
                return place, sum(before.owner != owner for before in self._line[:place])
        return None


async def _unless_gone(request: Request, turn: asyncio.Event) -> None:
    """Wait for an event. Raises LeftQueue where the request's browser goes away first."""
    waiting = [asyncio.ensure_future(_gone(request)), asyncio.ensure_future(turn.wait())]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not turn.is_set():
            raise LeftQueue
    finally:
        for task in waiting:
            task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
