"""Actions that are traced: a goal is one span at each end, with what happens to it as events."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from opentelemetry.context import get_current
from opentelemetry.context.context import Context
from opentelemetry.trace import Span, get_current_span, set_span_in_context

from commlib._goal import GoalStatus
from commlib._packet import Fault
from commlib._replaced import in_context, replace
from commlib._spans import Spans, context_of, fail, fail_with, within
from commlib._traced import stamp_all
from commlib._traced_calls import carry
from commlib.aio._action_client import ActionListener
from commlib.aio._action_service import STOPPED

if TYPE_CHECKING:
    from commlib._packet import Envelope, Packet
    from commlib.aio._client_goal import ClientGoal, Outcome
    from commlib.aio.action import ActionClient, ActionService

GOAL_ID, STATUS = "commlib.goal.id", "commlib.goal.status"


def _note_end(span: Span, status: int) -> None:
    span.set_attribute(STATUS, GoalStatus(status).name if status else "REFUSED")


# ---- the end that asks ----


class _Pursuit:
    """A goal from when it is about to be sent to its end."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self.context = set_span_in_context(span)
        self.goal: ClientGoal[Any, Any] | None = None


_sent: ContextVar[_Pursuit | None] = ContextVar("commlib_pursuit", default=None)
"""The goal that is being sent."""


class _ClientTracer:
    """The goals of one client that have not ended."""

    def __init__(self, client: ActionClient[Any, Any, Any], spans: Spans) -> None:
        self._client = client
        self._spans = spans
        self._pursuits: WeakKeyDictionary[ClientGoal[Any, Any], _Pursuit] = WeakKeyDictionary()
        self._send_goal = client.send_goal
        self._expect = client._expect
        self._take_feedback = client._take_feedback
        self._settle = client._settle
        self._tell = client._tell
        self._cancel = client._cancel

    async def send_goal(
        self, goal: Any, timeout: float = 10, wait_for_result: bool = False
    ) -> ClientGoal[Any, Any]:
        pursuit = _Pursuit(self._spans.calling(self._client, self._client.action_uri))
        token = _sent.set(pursuit)
        try:
            with within(pursuit.context):
                sent = await self._send_goal(goal, timeout)
        except BaseException as exc:
            self._forget(pursuit, exc)
            raise
        finally:
            _sent.reset(token)
        if sent is not pursuit.goal:  # a released service works on another one
            self._forget(pursuit, None)
        if wait_for_result:
            await sent.wait()
        return sent

    def _forget(self, pursuit: _Pursuit, error: BaseException | None) -> None:
        if pursuit.goal is not None and self._pursuits.pop(pursuit.goal, None) is None:
            return  # it has ended meanwhile
        if error is not None:
            fail(pursuit.span, error)
        pursuit.span.end()

    def expect(self, goal_id: str) -> ClientGoal[Any, Any]:
        goal = self._expect(goal_id)
        pursuit = _sent.get()
        if pursuit is not None:
            pursuit.goal = goal
            pursuit.span.set_attribute(GOAL_ID, goal_id)
            self._pursuits[goal] = pursuit
        return goal

    def take_feedback(self, envelope: Envelope, packet: Packet) -> None:
        goal = self._client._goals.get(envelope.data.goal_id)
        pursuit = self._pursuits.get(goal) if goal is not None else None
        if pursuit is not None:
            pursuit.span.add_event("feedback")
        with within(pursuit.context if pursuit is not None else Context()):
            self._take_feedback(envelope, packet)

    def settle(self, goal: ClientGoal[Any, Any], outcome: Outcome) -> None:
        pursuit = self._pursuits.pop(goal, None)
        with within(pursuit.context if pursuit is not None else Context()):
            self._settle(goal, outcome)
        if pursuit is None:
            return
        pursuit.span.set_attribute(GOAL_ID, goal.goal_id)  # a released service chooses it
        _note_end(pursuit.span, goal.status)
        if outcome.error is not None:
            fail(pursuit.span, outcome.error)
        pursuit.span.end()

    def tell(self, callback: Callable[[Any], Any] | None, value: Any, payload: bytes = b"") -> None:
        self._tell(in_context(callback, get_current()), value, payload)

    async def cancel(self, goal: ClientGoal[Any, Any], timeout: float) -> bool:
        if (pursuit := self._pursuits.get(goal)) is not None:
            pursuit.span.add_event("cancel")
        return await self._cancel(goal, timeout)


def trace_action_client(client: ActionClient[Any, Any, Any], spans: Spans) -> None:
    """Trace the goals of a client."""
    tracer = _ClientTracer(client, spans)
    carry(client._goal_rpc)
    hears_feedback = client._take_feedback
    for name in ("send_goal", "cancel", "expect", "settle", "tell", "take_feedback"):
        replace(client, name if name == "send_goal" else f"_{name}", getattr(tracer, name))
    for part in client.parts:
        if isinstance(part, ActionListener) and part.on_message == hears_feedback:
            part.on_message = client._take_feedback


# ---- the end that serves ----


class _ServiceTracer:
    """The goals of one service that have not ended, each with the context that it is in."""

    def __init__(self, service: ActionService, spans: Spans) -> None:
        self._service = service
        self._spans = spans
        self._contexts: WeakKeyDictionary[Any, Context] = WeakKeyDictionary()
        self._running: WeakKeyDictionary[Any, Span] = WeakKeyDictionary()
        self._accept = service._accept
        self._pursue = service._pursue
        self._work_on = service._work_on
        self._call = service._call
        self._cancel = service._cancel
        self._finish = service._finish
        self._publish_status = service._publish_status
        self._pack_for = service._feedback.pack_for

    def accept(self, goal_id: str, request: Envelope) -> None:
        context = context_of(request.header)
        with within(context):
            self._accept(goal_id, request)
        goal = self._service._find(goal_id)
        if goal is not None:
            self._contexts[goal] = context

    def pursue(self, goal: Any, then: Callable[[Any, BaseException | None], object]) -> None:
        parent = self._contexts.get(goal, Context())
        span = self._spans.serving(self._service, self._service.action_uri, parent)
        span.set_attribute(GOAL_ID, goal.id)
        self._running[goal] = span
        self._contexts[goal] = set_span_in_context(span, parent)

        def note(result: Any, error: BaseException | None) -> None:
            if error is not None and error is not STOPPED and not goal.state.is_canceling:
                fail(span, error)
            then(result, error)

        with within(self._contexts[goal]):
            self._pursue(goal, note)

    def work_on(self, goal: Any) -> Any:
        with within(self._contexts.get(goal)):
            return self._work_on(goal)

    def call(self, callback: Callable[[Any], Any], goal: Any) -> None:
        told = in_context(callback, self._contexts.get(goal))
        assert told is not None, "there is a callback, or it would not be called"
        self._call(told, goal)

    def cancel(self, goal: Any) -> None:
        span = self._running.get(goal)
        if span is not None and not goal.state.is_canceling:
            span.add_event("cancel")
        self._cancel(goal)

    def finish(self, goal: Any, status: GoalStatus, fault: Fault | None = None) -> None:
        self._finish(goal, status, fault)
        self._contexts.pop(goal, None)
        span = self._running.pop(goal, None)
        if span is None:
            return
        _note_end(span, status)
        if fault is not None:
            fail_with(span, fault.type, fault.message)
        span.end()

    def publish_status(self, goal: Any) -> None:
        with within(self._contexts.get(goal)):
            self._publish_status(goal)

    def pack_for(self, goal_id: str, feedback: Any) -> Packet:
        goal = self._service._active.get(goal_id)
        context = self._contexts.get(goal) if goal is not None else None
        with within(context):
            packet = self._pack_for(goal_id, feedback)
            if context is not None:
                get_current_span().add_event("feedback")
            return packet


def trace_action_service(service: ActionService, spans: Spans) -> None:
    """Trace the goals of a service."""
    tracer = _ServiceTracer(service, spans)
    for name in ("accept", "pursue", "work_on", "call", "cancel", "finish", "publish_status"):
        replace(service, f"_{name}", getattr(tracer, name))
    replace(service._feedback, "pack_for", tracer.pack_for)
    stamp_all(service._status)
    stamp_all(service._feedback)
