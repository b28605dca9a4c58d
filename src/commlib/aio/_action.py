"""What the two ends of an action share: its names, its messages, and calls on other threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from msgspec import Struct, field

from commlib._lanes import refuse_coroutine
from commlib.aio._endpoint import check_callback

Goal_co = TypeVar("Goal_co", covariant=True)
Result_co = TypeVar("Result_co", covariant=True)
Feedback_co = TypeVar("Feedback_co", covariant=True)


class ActionTypes(Protocol[Goal_co, Result_co, Feedback_co]):
    """What has the nested message classes ``Goal``, ``Result`` and ``Feedback``."""

    # Classes are functions that make messages: in that form mypy finds them, as pyright does.

    def Goal(self, *args: Any, **kwargs: Any) -> Goal_co: ...

    def Result(self, *args: Any, **kwargs: Any) -> Result_co: ...

    def Feedback(self, *args: Any, **kwargs: Any) -> Feedback_co: ...


def types_of(msg_type: Any) -> tuple[Any, Any, Any]:
    """The classes of goal, result and feedback, None each for plain data."""
    if msg_type is None:
        return None, None, None
    try:
        return msg_type.Goal, msg_type.Result, msg_type.Feedback
    except AttributeError as exc:
        raise TypeError(
            f"{msg_type!r} is no action message: it needs the nested classes Goal, Result and "
            "Feedback"
        ) from exc


CALLS = ("send_goal", "cancel_goal", "get_result")
NEWS = ("status", "feedback")
"""What an action is made of: calls of its clients, and what its service publishes."""


def check_callbacks(action_uri: str, callbacks: Mapping[str, object]) -> None:
    """Raises TypeError for one that is neither None nor can be called with one argument."""
    for name, callback in callbacks.items():
        if callback is not None:
            check_callback(callback, f"{action_uri}: {name}", 1)


def part_name(action_uri: str, part: str) -> str:
    """The name of a part of an action, as released peers spell it for slashed names, too."""
    return f"{action_uri}.{part}"


def unix_seconds() -> int:
    """The time as the messages of actions have it."""
    return int(time.time())


# ---- what is on the wire; released typed clients refuse a key more than these ----


class SendGoal:
    """The call that sends a goal; ``status`` is 1, or 0 if it was refused."""

    class Request(Struct):
        description: str = ""
        goal_data: Any = field(default_factory=dict)

    class Response(Struct):
        status: int = 0
        timestamp: int = 0
        goal_id: str = ""


class CancelGoal:
    """The call that asks for the end of a goal; ``status`` is 1 if it will be cancelled."""

    class Request(Struct):
        goal_id: str = ""
        timestamp: int = 0

    class Response(Struct):
        status: int = 0
        timestamp: int = 0
        result: Any = field(default_factory=dict)


class GetResult:
    """The call that asks for state and result; ``status`` is 0 if the goal is not known."""

    class Request(Struct):
        goal_id: str = ""

    class Response(Struct):
        status: int = 0
        timestamp: int = 0
        result: Any = field(default_factory=dict)


class StatusNews(Struct):
    """What is published of each new state of a goal."""

    goal_id: str = ""
    status: int = 0


class FeedbackNews(Struct):
    """What is published of the feedback for a goal."""

    feedback_data: Any = field(default_factory=dict)
    goal_id: str = ""


# ---- plain functions, called on behalf of the loop ----


class Job:
    """One call of a plain function on another thread.

    ``then(result, error)`` is told on the loop.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Any],
        then: Callable[[Any, BaseException | None], object],
    ) -> None:
        self.name = name
        self._work = work
        self._then = then
        self._loop = asyncio.get_running_loop()

    def work(self) -> None:
        """Do it. On that thread."""
        result, error = None, None
        try:
            result = self._work()
            if result is not None:
                refuse_coroutine(result)
        except BaseException as exc:  # SystemExit too: it is told, and the thread goes on
            error = exc
        with suppress(RuntimeError):  # the loop is closed: nobody has waited so long
            self._loop.call_soon_threadsafe(self._then, result, error)
