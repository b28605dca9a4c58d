"""A goal that the command sends and follows to its end, and what Ctrl-C does to it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from commlib._goal import NEXT, TERMINAL, GoalStatus
from commlib.aio import Node
from commlib.aio._action import StatusNews, part_name
from commlib.aio.action import ClientGoal
from commlib.cli._common import until_set
from commlib.cli._goal_views import View
from commlib.exceptions import CommlibError

ACCEPT_SECONDS = 10.0  # for the service to take the goal, or refuse it
ANSWER_SECONDS = 1.0  # for the same after Ctrl-C, since one that it has taken is to be cancelled
CANCEL_SECONDS = 10.0  # for the service to say whether it will end it
SUCCEEDED, CANCELING, CANCELED = "SUCCEEDED", "CANCELING", "CANCELED"
EARLY = 1000  # states of goals, ours perhaps, that are heard before it is known which is ours


class Stops:
    """Ctrl-C, SIGTERM and SIGHUP call ``hear``: the first is a wish, the second an order.

    ``tell`` is called with the first, which becomes an order if ``is_taken`` is not True soon:
    nobody has the goal that it is to cancel.
    """

    def __init__(self, tell: Callable[[], None], is_taken: Callable[[], bool]) -> None:
        self.wished = asyncio.Event()
        self.ordered = asyncio.Event()
        self._tell = tell
        self._is_taken = is_taken

    def hear(self) -> None:
        """It was pressed."""
        if self.wished.is_set():
            self.ordered.set()
        else:
            self.wished.set()
            self._tell()
            asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._order_unless_taken)

    def _order_unless_taken(self) -> None:
        if not self._is_taken():
            self.ordered.set()


class Pursuit:
    """Sends a goal to the action ``name`` and tells a view what becomes of it."""

    def __init__(self, node: Node, name: str, view: View) -> None:
        self.goal: ClientGoal[Any, Any] | None = None
        """None until the service has answered."""
        self._node = node
        self._name = name
        self.view = view
        """Who is told."""
        self._client = node.create_action_client(name)
        self._followed: ClientGoal[Any, Any] | None = None
        self._state = int(GoalStatus.ACCEPTED)
        self._early: deque[StatusNews] = deque(maxlen=EARLY)
        self._unread = asyncio.Event()
        self._failure = BrokenPipeError()

    async def send(self, data: Any, timeout: float | None) -> ClientGoal[Any, Any]:
        """Have the service take the goal. Raises GoalRefused, and what a call may raise."""
        states = self._node.create_subscriber(
            part_name(self._name, "status"), self._hear, StatusNews, inline=True
        )
        await states.run()
        patience = min(ACCEPT_SECONDS, timeout or ACCEPT_SECONDS)
        goal = await self._client.send_goal(data, patience)
        if not goal.status and goal.done:
            goal.outcome()  # raises why it was refused
        self.goal = goal
        self.view.accepted(goal.goal_id)
        return goal

    async def follow(self, goal: ClientGoal[Any, Any], stops: Stops) -> None:
        """Tell of its feedback and states until it has ended; with the wish to stop cancel it.

        Raises BrokenPipeError where nobody reads that, OutputLost where it cannot be written.
        """
        canceling = asyncio.ensure_future(self._cancel_when_wished(goal, stops))
        self._followed = goal
        for news in self._early:
            self._hear(news)
        try:
            if await until_set(self._unread, self._tell_all_feedback(goal)):
                raise self._failure
        finally:
            canceling.cancel()
            await asyncio.gather(canceling, return_exceptions=True)

    async def _tell_all_feedback(self, goal: ClientGoal[Any, Any]) -> None:
        async for feedback in goal.feedback:
            self._tell_feedback(feedback)

    async def _cancel_when_wished(self, goal: ClientGoal[Any, Any], stops: Stops) -> None:
        await stops.wished.wait()
        try:
            if not await goal.cancel(CANCEL_SECONDS) and not goal.done:
                self.view.note("the service does not cancel it")
        except CommlibError as exc:
            self.view.note(f"it cannot be cancelled: {exc}")

    def _hear(self, news: StatusNews) -> None:
        goal = self._followed
        if goal is None:
            self._early.append(news)
        elif news.goal_id == goal.goal_id and news.status in NEXT:
            try:
                self._tell_news(goal, news.status)
            except BrokenPipeError as exc:
                self._failure = exc
                self._unread.set()

    def _tell_news(self, goal: ClientGoal[Any, Any], status: int) -> None:
        if status > GoalStatus.EXECUTING:
            with suppress(IndexError):
                while True:  # what was said before comes first
                    self._tell_feedback(goal.feedback.pop())
        self._tell_state(status)

    def _tell_feedback(self, feedback: Any) -> None:
        self._tell_state(GoalStatus.EXECUTING)  # of which the news may come later, or never
        self.view.feedback(feedback)

    def _tell_state(self, status: int) -> None:
        if status > self._state:
            self._state = status
            if status not in TERMINAL:  # the end is told with its result
                self.view.status(name_of(status))


def name_of(status: int) -> str:
    """The name of a state; empty for a number that is none."""
    # Its first name is misspelt, as it is on the wire.
    return {4: SUCCEEDED}.get(status, GoalStatus(status).name) if status in NEXT else ""


def end_of(goal: ClientGoal[Any, Any]) -> tuple[str, Any, CommlibError | None]:
    """How a goal has ended: the name of its last state, its result, or why there is none."""
    status = name_of(goal.status)
    try:
        return status, goal.outcome(), None
    except CommlibError as exc:
        return status, None, exc
