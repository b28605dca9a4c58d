"""The life of a goal, and how long its outcome is kept. Pure.

::

    ACCEPTED ────► EXECUTING ────► SUCCEEDED
        │           │     │ └────► ABORTED
        │           │     └──────► CANCELED ◄──┐
        └───────────┴──► CANCELING ────────────┤
                                   ABORTED ◄───┘

The service alone moves a goal, and every step leads to a greater number. So whoever hears of the
states late, twice or in a wrong order takes the greatest, and knows where the goal is.

1. ACCEPTED is the state before the callback begins, EXECUTING while it runs, CANCELING from the
   wish to end it until it does. A goal that is to end before its callback begins, ends without it.
2. The last state is decided when the callback has ended, never before: what it raises ABORTS the
   goal; one that was to be cancelled is CANCELED, for whoever asked for that must not read
   SUCCEEDED; else it is what the callback has wished by ``set_status``, or SUCCEEDED.
3. A terminal state is final: no state and no feedback follows it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Generic, TypeVar

G = TypeVar("G")


class GoalStatus(IntEnum):
    """Where a goal is in its life; the numbers and the first names are those on the wire."""

    ACCEPTED = 1
    EXECUTING = 2
    CANCELING = 3
    SUCCEDED = 4
    ABORTED = 5
    CANCELED = 6

    SUCCEEDED = 4
    RUNNING = 2
    """The name of 0.13 for EXECUTING."""


TERMINAL = frozenset({GoalStatus.SUCCEEDED, GoalStatus.ABORTED, GoalStatus.CANCELED})
"""The states in which a goal ends."""

NEXT: dict[GoalStatus, frozenset[GoalStatus]] = {
    GoalStatus.ACCEPTED: frozenset({GoalStatus.EXECUTING, GoalStatus.CANCELING}),
    GoalStatus.EXECUTING: TERMINAL | {GoalStatus.CANCELING},
    GoalStatus.CANCELING: frozenset({GoalStatus.ABORTED, GoalStatus.CANCELED}),
    **{status: frozenset() for status in TERMINAL},
}
"""The states that may follow each state."""


def later(known: int, heard: int) -> int:
    """Where a goal is, known to be in one state and heard, perhaps late, to be in another.

    0 is the state of a goal of which nothing was heard; other numbers that are none are ignored.
    """
    if known in TERMINAL or heard not in NEXT:
        return known
    return max(known, heard)


class GoalState:
    """The state of one goal, on the side of the service."""

    __slots__ = ("_wish", "status")

    def __init__(self) -> None:
        self.status = GoalStatus.ACCEPTED
        self._wish: GoalStatus | None = None

    @property
    def is_finished(self) -> bool:
        return self.status in TERMINAL

    @property
    def is_canceling(self) -> bool:
        return self.status is GoalStatus.CANCELING

    def move(self, status: GoalStatus) -> None:
        """Go to the next state. The service never asks for a step that is not in the table."""
        assert status in NEXT[self.status], f"{self.status.name} is not followed by {status.name}"
        self.status = status

    def wish(self, status: int) -> None:
        """Note how the callback wants the goal to end.

        EXECUTING changes nothing: programs of commlib-py 0.6 say so when they begin. Raises
        ValueError for what is no state, or not for the callback to decide.
        """
        if status not in TERMINAL and status != GoalStatus.EXECUTING:
            names = "SUCCEEDED, ABORTED or CANCELED"
            raise ValueError(f"a callback can wish for {names}, not for {status!r}")
        self._wish = GoalStatus(status) if status in TERMINAL else None

    def outcome(self, failed: bool) -> GoalStatus:
        """How the goal ends whose callback has ended, or ``failed``: it raised."""
        if failed or self._wish is GoalStatus.ABORTED:
            return GoalStatus.ABORTED
        if self.is_canceling:
            return GoalStatus.CANCELED
        return self._wish or GoalStatus.SUCCEEDED


class Finished(Generic[G]):
    """The goals that have ended, the newest ``capacity`` of them, each for ``ttl`` seconds.

    ``clock`` gives seconds that never go back.
    """

    def __init__(self, ttl: float, capacity: int, clock: Callable[[], float]) -> None:
        self._ttl = ttl
        self._capacity = capacity
        self._clock = clock
        self._goals: OrderedDict[str, tuple[float, G]] = OrderedDict()

    def __len__(self) -> int:
        self._forget()
        return len(self._goals)

    def add(self, goal_id: str, goal: G) -> None:
        """Keep a goal that has just ended."""
        self._goals[goal_id] = self._clock(), goal
        self._forget()

    def get(self, goal_id: str) -> G | None:
        """A goal that is still kept."""
        self._forget()
        _, goal = self._goals.get(goal_id, (0.0, None))
        return goal

    def newest(self, seconds: float) -> Iterator[G]:
        """The goals that have ended within the last ``seconds``."""
        since = self._clock() - seconds
        for ended, goal in reversed(list(self._goals.values())):
            if ended < since:
                return
            yield goal

    def _forget(self) -> None:
        """Drop the oldest until all that are left may stay."""
        expired = self._clock() - self._ttl
        while self._goals:
            oldest = next(iter(self._goals))
            if len(self._goals) <= self._capacity and self._goals[oldest][0] > expired:
                return
            del self._goals[oldest]
