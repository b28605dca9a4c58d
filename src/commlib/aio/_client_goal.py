"""A goal in the hands of the one who sent it, or watches it."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Self

from commlib._goal import TERMINAL, GoalStatus, later
from commlib._packet import Fault
from commlib._stats import Stats
from commlib._typing import FeedbackT, ResultT
from commlib.exceptions import CommlibError, GoalTimeout

if TYPE_CHECKING:
    from commlib.aio._action_client import ActionClient
    from commlib.aio._hub import Hub

MAX_FEEDBACK = 10_000  # feedback of one goal that waits to be iterated over; the oldest is dropped


class Feed(Generic[FeedbackT]):
    """The feedback of one goal, to be iterated over; it ends with the goal.

    The newest 10 000 are kept for that. Each goes to one of those who iterate.
    """

    def __init__(self, stats: Stats, wanted: bool, hub: Hub) -> None:
        self.wanted = wanted
        """Whether it is kept: not if there is a callback for it, until somebody iterates."""
        self.ended = False
        self._stats = stats
        self._hub = hub
        self._items: deque[FeedbackT] = deque()
        self._news = asyncio.Event()

    def put(self, feedback: FeedbackT) -> None:
        """Keep one, if anybody may want it. On the loop."""
        if not self.wanted:
            return
        self._items.append(feedback)
        if len(self._items) > MAX_FEEDBACK:
            with suppress(IndexError):  # a thread was quicker
                self._items.popleft()
                self._stats.dropped += 1
        self._news.set()

    def end(self) -> None:
        """Nothing more will come. On the loop."""
        self.ended = True
        self._news.set()

    def pop(self) -> FeedbackT:
        """The next one. Raises IndexError if there is none now. From any thread."""
        return self._items.popleft()

    async def wait(self) -> None:
        """Return when there is something, or nothing more will come."""
        self.wanted = True
        while not self._items and not self.ended:
            self._hub.check_here()
            self._news.clear()
            await self._news.wait()

    def __aiter__(self) -> Self:
        self.wanted = True
        return self

    async def __anext__(self) -> FeedbackT:
        while True:
            ended = self.ended
            try:
                return self.pop()
            except IndexError:
                if ended:
                    raise StopAsyncIteration from None
            await self.wait()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a goal has ended: with a result, and perhaps an error."""

    result: Any = None
    error: CommlibError | None = None


class ClientGoal(Generic[ResultT, FeedbackT]):
    """A goal that was sent, or is watched.

    ``status`` is the newest that is known, a ``GoalStatus``, or 0 if it was refused (``reason``
    says why), or nothing is known yet. ``timestamp`` (s since 1970) is when the service took it.
    """

    def __init__(self, client: ActionClient[Any, ResultT, FeedbackT], goal_id: str) -> None:
        loop = asyncio.get_running_loop()
        self.goal_id = goal_id
        self.status: GoalStatus | Literal[0] = 0
        self.timestamp = 0
        self.reason = ""
        self.heard_at = loop.time()
        """When the service was last heard to speak of it."""
        self.fault: Fault | None = None
        self.knows_result_late = False
        """Whether its service may publish the end before it can tell the result."""
        self._client = client
        self._feed: Feed[FeedbackT] = Feed(client.own_stats, client.on_feedback is None, client.hub)
        self._outcome: asyncio.Future[Outcome] = loop.create_future()
        self._end_heard = asyncio.Event()

    def __repr__(self) -> str:
        status = GoalStatus(self.status).name if self.status else self.reason or "UNKNOWN"
        return f"{type(self).__name__}({self.goal_id!r}, {status})"

    @property
    def done(self) -> bool:
        """Whether it has ended, so that ``result()`` returns or raises at once."""
        return self._outcome.done()

    @property
    def feedback(self) -> Feed[FeedbackT]:
        """What the service tells of it, to be iterated over until it has ended."""
        return self._feed

    def __aiter__(self) -> Feed[FeedbackT]:
        return aiter(self._feed)

    async def result(self, timeout: float | None = None) -> ResultT:
        """Wait until it has ended, at most ``timeout`` seconds; its result.

        That of a goal that was cancelled is what the service has of it. Raises GoalRefused,
        GoalAborted with what the service raised, GoalCanceled, GoalLost, GoalTimeout, and
        EndpointClosed if the client was stopped.
        """
        if not await self.wait(timeout):
            raise GoalTimeout(f"goal {self.goal_id} has not ended within {timeout:g} s")
        return self.outcome()

    async def wait(self, timeout: float | None = None) -> bool:
        """Whether it has ended, or does within ``timeout`` seconds."""
        if not self.done:
            self._client.hub.check_here()
            await asyncio.wait([self._outcome], timeout=timeout)
        return self.done

    def outcome(self) -> ResultT:
        """What ``result()`` returns, or raises, of a goal that has ended. From any thread."""
        outcome = self._outcome.result()
        if outcome.error is not None:
            raise outcome.error
        result: ResultT = outcome.result
        return result

    async def cancel(self, timeout: float = 10) -> bool:
        """Want it to end; whether the service agrees, and it has not ended before.

        How it ends, ``result()`` tells. Raises RPCTimeout, and what else ``RPCClient.call`` raises,
        unless it has ended.
        """
        return await self._client._cancel(self, timeout)

    # For the client, on the loop.

    def note(self, status: int, fault: Fault | None = None) -> None:
        """The service has said this of it."""
        self.heard_at = asyncio.get_running_loop().time()
        known = later(self.status, status)
        self.status = GoalStatus(known) if known else 0
        if self.status in TERMINAL and not self._end_heard.is_set():
            self.fault = fault
            self._end_heard.set()

    @property
    def end_was_heard(self) -> bool:
        """Whether it is known how it ended, though perhaps not yet with which result."""
        return self._end_heard.is_set()

    async def until_end_is_heard(self, quiet: float) -> None:
        """Wait for that, or until nothing was heard of it for so many seconds."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while (left := max(begun, self.heard_at) + quiet - loop.time()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._end_heard.wait()
                return
            except TimeoutError:
                continue  # it may have been heard of meanwhile

    def settle(self, outcome: Outcome) -> bool:
        """Say how it ended, if nobody has done that before."""
        if self.done:
            return False
        self._outcome.set_result(outcome)
        self._feed.end()
        return True
