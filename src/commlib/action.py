"""Actions, from plain Python; ``commlib.aio`` has the same for asyncio."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, Literal, Self, Unpack, overload

from commlib import aio
from commlib._face import Endpoint, params_anywhere
from commlib._goal import GoalStatus
from commlib._portal import Portal, home_of
from commlib._typing import FeedbackT, GoalT, ResultT, T
from commlib.aio import action
from commlib.aio._endpoint import Params
from commlib.aio._hub import Hub
from commlib.aio.action import (
    ActionServiceOptions,
    ActionTypes,
    AsyncGoalHandler,
    GoalHandler,
)
from commlib.aio.rpc import ClientOptions
from commlib.exceptions import EndpointClosed, GoalTimeout
from commlib.msg import ActionMessage

__all__ = [
    "ActionClient",
    "ActionService",
    "AsyncGoalHandler",
    "ClientGoal",
    "Feed",
    "GoalHandler",
    "GoalStatus",
]


class ActionService(Endpoint[aio.ActionService]):
    """Works on goals that clients send, from ``run()`` to ``stop()``.

    ``on_goal(goal_h)`` gets a handler of the goal and returns the result: a plain function gets a
    ``GoalHandler``, in a thread of its own; a coroutine function an ``AsyncGoalHandler``, on the
    event loop. What it raises aborts the goal, and the client is told. ``on_cancel(goal_h)`` is
    called when somebody wants a goal to end, ``on_getresult(goal_h)`` when somebody asks for its
    result. ``msg_type`` is a class with the nested classes ``Goal``, ``Result`` and ``Feedback``;
    None: plain data. ``action_name`` is another name of ``action_uri``. There has to be one service
    only of each name. Options: ``commlib.aio.action.ActionServiceOptions``.
    """

    @params_anywhere
    def __init__(
        self,
        action_uri: str = "",
        msg_type: Any = None,
        on_goal: Callable[[Any], Any] | None = None,
        on_cancel: Callable[[Any], Any] | None = None,
        on_getresult: Callable[[Any], Any] | None = None,
        conn_params: Params = None,
        *,
        action_name: str = "",
        **options: Unpack[ActionServiceOptions],
    ) -> None:
        params = self._params(conn_params, options)
        uri = action_uri or action_name
        super().__init__(
            aio.ActionService(uri, msg_type, on_goal, on_cancel, on_getresult, params, **options)
        )
        self.action_uri = uri


def _portal_of(hub: Hub) -> Portal:
    portal = home_of(hub)
    if portal is None:
        raise EndpointClosed("the client was stopped")
    return portal


class Feed(Generic[FeedbackT]):
    """The feedback of one goal, to be iterated over; it ends with the goal.

    The newest 10 000 are kept for that. Each goes to one of those who iterate. A client that is
    stopped ends it, too. To wait for the next one on the event loop raises BlockingCall.
    """

    def __init__(self, core: action.Feed[FeedbackT], hub: Hub) -> None:
        self._core = core
        self._hub = hub

    def __iter__(self) -> Self:
        self._core.wanted = True
        return self

    def __next__(self) -> FeedbackT:
        while True:
            ended = self._core.ended  # first: what comes before the end is here by then
            try:
                return self._core.pop()
            except IndexError:
                if ended:
                    raise StopIteration from None
            _portal_of(self._hub).run(self._core.wait)


class ClientGoal(Generic[ResultT, FeedbackT]):
    """A goal that was sent, or is watched.

    ``status`` is the newest that is known, a ``GoalStatus``, or 0 if it was refused (``reason``
    says why), or nothing is known yet. ``timestamp`` (s since 1970) is when the service took it.
    """

    def __init__(self, core: action.ClientGoal[ResultT, FeedbackT], hub: Hub) -> None:
        self._core = core
        self._hub = hub

    def __repr__(self) -> str:
        return repr(self._core)

    @property
    def goal_id(self) -> str:
        return self._core.goal_id

    @property
    def status(self) -> GoalStatus | Literal[0]:
        return self._core.status

    @property
    def timestamp(self) -> int:
        return self._core.timestamp

    @property
    def reason(self) -> str:
        return self._core.reason

    @property
    def done(self) -> bool:
        """Whether it has ended, so that ``result()`` returns or raises at once."""
        return self._core.done

    @property
    def feedback(self) -> Feed[FeedbackT]:
        """What the service tells of it, to be iterated over until it has ended."""
        return Feed(self._core.feedback, self._hub)

    def __iter__(self) -> Feed[FeedbackT]:
        return iter(self.feedback)

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it has ended, or does within ``timeout`` seconds; raises nothing of the goal.

        Raises BlockingCall on the event loop unless it has ended.
        """
        return self.done or _portal_of(self._hub).run(self._core.wait, timeout)

    def result(self, timeout: float | None = None) -> ResultT:
        """Wait until it has ended, at most ``timeout`` seconds; its result.

        That of a goal that was cancelled is what the service has of it. Raises GoalRefused,
        GoalAborted with what the service raised, GoalCanceled, GoalLost, GoalTimeout, BlockingCall
        on the event loop, and EndpointClosed if the client was stopped.
        """
        if not self.wait(timeout):
            raise GoalTimeout(f"goal {self.goal_id} has not ended within {timeout:g} s")
        return self._core.outcome()

    def cancel(self, timeout: float = 10) -> bool:
        """Want it to end; whether the service agrees, and it has not ended before.

        How it ends, ``result()`` tells. Raises RPCTimeout, and what else ``RPCClient.call`` raises,
        unless it has ended.
        """
        return not self.done and _portal_of(self._hub).run(self._core.cancel, timeout)


class ActionClient(
    Endpoint[aio.ActionClient[GoalT, ResultT, FeedbackT]], Generic[GoalT, ResultT, FeedbackT]
):
    """Sends goals to an action service and follows them to their end; usable as soon as it is made.

    ``on_feedback(feedback)`` is called for the goals of this client, ``on_result(result)`` when one
    of them has ended, with None if it has no result, and ``on_goal_reached(result)`` before that if
    it succeeded: in order, a plain function on a worker thread, a coroutine function on the loop.
    ``msg_type`` is a class with the nested classes ``Goal``, ``Result`` and ``Feedback``; None:
    plain data. ``action_name`` is another name of ``action_uri``.

    Every goal ends: one whose service is silent is asked for, and lost after 10 s without answer.
    """

    @overload
    def __init__(
        self,
        action_uri: str,
        msg_type: type[ActionTypes[GoalT, ResultT, FeedbackT]],
        on_feedback: Callable[[Any], Any] | None = None,
        on_result: Callable[[Any], Any] | None = None,
        on_goal_reached: Callable[[Any], Any] | None = None,
        conn_params: Params = None,
        **options: Unpack[ClientOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: ActionClient[Any, Any, Any],
        action_uri: str = "",
        msg_type: type[ActionMessage] | None = None,
        on_feedback: Callable[[Any], Any] | None = None,
        on_result: Callable[[Any], Any] | None = None,
        on_goal_reached: Callable[[Any], Any] | None = None,
        conn_params: Params = None,
        *,
        action_name: str = "",
        **options: Unpack[ClientOptions],
    ) -> None: ...

    @params_anywhere
    def __init__(
        self,
        action_uri: str = "",
        msg_type: Any = None,
        on_feedback: Callable[[Any], Any] | None = None,
        on_result: Callable[[Any], Any] | None = None,
        on_goal_reached: Callable[[Any], Any] | None = None,
        conn_params: Params = None,
        *,
        action_name: str = "",
        **options: Unpack[ClientOptions],
    ) -> None:
        params = self._params(conn_params, options)
        callbacks = on_feedback, on_result, on_goal_reached
        uri = action_uri or action_name
        super().__init__(aio.ActionClient(uri, msg_type, *callbacks, params, **options))
        self.action_uri = uri
        self._started()

    def send_goal(
        self, goal: GoalT, timeout: float = 10, wait_for_result: bool = False
    ) -> ClientGoal[ResultT, FeedbackT]:
        """Send a goal and wait for the service to take or refuse it, at most ``timeout`` seconds.

        Returns it, refused or not: then its ``status`` is 0, and ``reason`` says why. With
        ``wait_for_result`` it returns when the goal has ended. Raises RPCTimeout when nobody
        answered (whether it was taken is not known), SerializationError, ValueError for what is no
        time, BlockingCall on the event loop, and what else a call may raise.
        """
        return self._wrap(self._run(self._core.send_goal, goal, timeout, wait_for_result))

    def watch(self, goal_id: str) -> ClientGoal[ResultT, FeedbackT]:
        """A goal that somebody else has sent, by its id; its end, also if that is past.

        It is lost at once if the service does not know it. Raises EndpointClosed after ``stop()``,
        AuthError, ConnectError with ``reconnect=False``, RPCTimeout when the broker is away, and
        BlockingCall on the event loop.
        """
        return self._wrap(self._run(self._core.watch, goal_id))

    def cancel_goal(self, timeout: float = 10, wait_for_result: bool = False) -> ResultT | None:
        """Want the goal that was sent last to end; its result if that is there, else None.

        One that was refused does not count while one that was sent before goes on.
        With ``wait_for_result`` it waits up to 30 s for the end. Raises RPCTimeout when nobody
        answered, what else ``RPCClient.call`` raises, and what ``get_result`` raises.
        """
        return self._run(self._core.cancel_goal, timeout, wait_for_result)

    def get_result(
        self, timeout: float = 10, wait: bool = False, wait_max_sec: float = 30
    ) -> ResultT | None:
        """The result of the goal that was sent last, None if it has not ended.

        With ``wait`` it waits up to ``wait_max_sec`` seconds for that. ``timeout`` is accepted for
        the programs of commlib-py 0.6 and not needed: the result is here as soon as the goal has
        ended. Raises EndpointClosed after ``stop()``, BlockingCall on the event loop, and what
        ``result()`` of a goal raises, but not GoalTimeout.
        """
        return self._run(self._core.get_result, timeout, wait, wait_max_sec)

    def _run(self, work: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        return self._started().run(work, *args)

    def _wrap(self, goal: action.ClientGoal[ResultT, FeedbackT]) -> ClientGoal[ResultT, FeedbackT]:
        return ClientGoal(goal, self._core.hub)
