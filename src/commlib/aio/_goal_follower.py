"""How a client follows a goal to its end, though what is said of it may get lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from commlib._goal import TERMINAL, GoalStatus
from commlib._packet import Envelope
from commlib.aio._caller import PASSING
from commlib.aio._client_goal import ClientGoal

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0  # s without news of a goal after which one asks for them
ANSWER_SECONDS = 2.0  # for the service to answer that; then it is asked again
SILENCE_SECONDS = 10.0  # without a word of the service, after which its goal is lost
MOST_RECONNECTS = 3  # after which silence counts anew: a link that breaks all the time ends it, too
MOST_IN_VAIN = 2  # questions for what is left of a failed goal, the first may have got lost
LAG_SECONDS = 0.25  # that what is published may be later than the answer to a question
DOUBT_SECONDS = 0.05  # that a released service may know a result later than it publishes the end
MAX_DOUBTS = 5
# What a bridge answers while the broker behind it is away; it says nothing of the goal.
PASSING_TYPES = frozenset(kind.__name__ for kind in PASSING)


class GoalFollower:
    """Asks for the result when the end is heard, and for the state when nothing is heard.

    ``ask(seconds)`` brings what the service answers in that time, None for nothing; ``conclude`` is
    told the last answer, and settles the goal; ``reconnects`` counts those of the link to the
    broker. A goal is ``is_new`` of which nothing is known yet, not even whether there is one.
    """

    def __init__(
        self,
        goal: ClientGoal[Any, Any],
        ask: Callable[[float], Awaitable[Envelope | None]],
        conclude: Callable[[Envelope | None], None],
        reconnects: Callable[[], int],
        *,
        is_new: bool,
    ) -> None:
        self._goal = goal
        self._ask = ask
        self._conclude = conclude
        self._count_reconnects = reconnects
        self._is_new = is_new
        self._pause = 0.0 if is_new else FIRST_PAUSE
        self._doubts = 0
        self._in_vain = 0
        """Questions without an answer since the end was heard."""
        self._silent_since: float | None = None
        self._reconnects = reconnects()
        self._most_reconnects = self._reconnects + MOST_RECONNECTS

    async def follow(self) -> None:
        """Return when the goal has ended."""
        goal, time = self._goal, asyncio.get_running_loop().time
        while not goal.done:
            await goal.until_end_is_heard(self._pause)
            if goal.end_was_heard and goal.knows_result_late:
                await asyncio.sleep(DOUBT_SECONDS)
            asked_at, knew_end = time(), goal.end_was_heard
            answer = await self._ask(ANSWER_SECONDS)
            if answer is not None and not _is_passing(answer):
                self._silent_since = None
                await self._take(answer)
                self._is_new = False
                continue
            self._in_vain += knew_end
            if self._is_lost(asked_at):
                self._conclude(None)
            else:
                await asyncio.sleep(max(0, asked_at + FIRST_PAUSE - time()))

    def _is_lost(self, asked_at: float) -> bool:
        """Whether the service was silent for too long, now that a question had no answer."""
        now, reconnects = asyncio.get_running_loop().time(), self._count_reconnects()
        if self._reconnects < reconnects <= self._most_reconnects:
            # Since then one may be answered; a bridge sends first what has waited for us.
            self._reconnects, self._silent_since = reconnects, now
        self._silent_since = self._silent_since or asked_at
        silence = now - max(self._silent_since, self._goal.heard_at)
        has_failed = self._goal.status in (GoalStatus.ABORTED, GoalStatus.CANCELED)
        is_enough = self._in_vain >= MOST_IN_VAIN and silence >= ANSWER_SECONDS
        return (has_failed and is_enough) or silence >= SILENCE_SECONDS

    async def _take(self, answer: Envelope) -> None:
        """The service has told the state of the goal, or that it knows nothing of it."""
        goal = self._goal
        status = answer.data.status if answer.data is not None else 0
        if status in TERMINAL:
            if not self._is_new and not goal.end_was_heard:
                # Its last feedback may be on the way.
                await goal.until_end_is_heard(LAG_SECONDS)
            self._conclude(answer)
        elif goal.end_was_heard and self._doubts < MAX_DOUBTS:
            self._doubts += 1
            goal.knows_result_late = True
        elif status == 0 or goal.end_was_heard:
            self._conclude(answer)
        else:
            goal.note(status)
            self._pause = min(2 * max(self._pause, FIRST_PAUSE / 2), LONGEST_PAUSE)


def _is_passing(answer: Envelope) -> bool:
    fault = answer.header.error
    if fault is None or fault.type not in PASSING_TYPES:
        return False
    # With a state it is the service's own answer, and the fault what on_goal has raised.
    return answer.data is None or not answer.data.status
