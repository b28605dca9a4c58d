"""The asking end of an action: sends goals, hears of them, and knows how each of them ends."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Unpack, overload

from commlib._goal import TERMINAL, GoalStatus
from commlib._lanes import Lane, LoopLane, ThreadLane, is_async
from commlib._packet import Envelope, Fault, Header, Packet
from commlib._records import about
from commlib._stats import Stats
from commlib._turns import end_tasks
from commlib._typing import FeedbackT, GoalT, ResultT
from commlib._wire import Reader, Refused, Writer
from commlib.aio._action import (
    ActionTypes,
    CancelGoal,
    FeedbackNews,
    GetResult,
    Job,
    SendGoal,
    StatusNews,
    check_callbacks,
    part_name,
    types_of,
    unix_seconds,
)
from commlib.aio._client_goal import ClientGoal, Outcome
from commlib.aio._endpoint import Options, Params
from commlib.aio._goal_follower import SILENCE_SECONDS, GoalFollower
from commlib.aio._group import Group
from commlib.aio._names import check_name
from commlib.aio.pubsub import Subscriber
from commlib.aio.rpc import ClientOptions, RPCClient, check_timeout
from commlib.exceptions import (
    CommlibError,
    ConnectionLost,
    EndpointClosed,
    GoalAborted,
    GoalCanceled,
    GoalLost,
    GoalRefused,
    GoalTimeout,
    RPCTimeout,
    SerializationError,
)
from commlib.msg import ActionMessage
from commlib.transports.base import CallOutcome, Handler, Subscription

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_STRAYS = 1000  # news of unknown goals, kept while a goal is being sent


class ActionListener(Subscriber[Any]):
    """A subscriber whose callback sees the header, too."""

    def _handler(self) -> Callable[[Packet], Any]:
        read, callback = self.read, self.on_message
        assert callback is not None, "it always has one"
        return lambda packet: callback(read(packet), packet)

    async def _subscribe(self, handler: Handler) -> Subscription:
        # Not a lasting one: a goal is followed by the life of the program that has sent it.
        return await self.hub.transport.subscribe(self.topic, handler)


class _News(Packet, gc=True):
    """A callback and what it shall be told, on their way through a lane."""

    callback: Callable[[Any], Any] | None = None
    value: Any = None


class ActionClient(Group, Generic[GoalT, ResultT, FeedbackT]):
    """Sends goals to an action service and follows them to their end.

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
        envelope: bool = False,
        **options: Unpack[Options],
    ) -> None:
        uri = action_uri or action_name
        self._callbacks = {
            "on_feedback": on_feedback,
            "on_result": on_result,
            "on_goal_reached": on_goal_reached,
        }
        check_callbacks(uri, self._callbacks)
        super().__init__(uri, conn_params, **options)
        self.action_uri = check_name(uri, self.hub, "action_uri")
        self.msg_type = msg_type
        self.on_feedback = on_feedback
        self.on_result = on_result
        self.on_goal_reached = on_goal_reached
        self._envelope = envelope
        goal, result, feedback = types_of(msg_type)
        self._goal_writer: Writer[Any] = self._make_writer(goal)
        self._result_reader: Reader[Any] = self._make_reader(result)
        self._feedback_reader: Reader[Any] = self._make_reader(feedback)
        self._goal_rpc = self._add_client("send_goal", SendGoal)
        self._cancel_rpc = self._add_client("cancel_goal", CancelGoal)
        self._result_rpc = self._add_client("get_result", GetResult)
        self._add_listener("status", self._take_status, StatusNews)
        self._add_listener("feedback", self._take_feedback, FeedbackNews)
        self._goals: dict[str, ClientGoal[ResultT, FeedbackT]] = {}
        """Those that have not ended, by their ids."""
        self._last: ClientGoal[ResultT, FeedbackT] | None = None
        self._last_taken: ClientGoal[ResultT, FeedbackT] | None = None
        self._sending = 0
        self._strays: deque[tuple[Callable[..., None], Envelope, Packet]] = deque(maxlen=MAX_STRAYS)
        self._following: set[asyncio.Task[None]] = set()
        self._lane: Lane | None = None
        self._called = Stats()

    def _add_client(self, part: str, types: Any) -> RPCClient[Any, Any]:
        name = part_name(self.action_uri, part)
        return self.add(RPCClient(name, types, envelope=self._envelope, **self.part_options))

    def _add_listener(self, part: str, take: Callable[..., None], kind: Any) -> None:
        name = part_name(self.action_uri, part)
        self.add(ActionListener(name, take, kind, inline=True, **self.part_options))

    @property
    def stats(self) -> Stats:
        """The counters of all parts together, as they are now."""
        total = super().stats
        return dataclasses.replace(total, dropped=total.dropped + self._called.dropped)

    async def _begin(self) -> None:
        if self._lane is not None:
            self._forget()  # of a life that was never ended: that of the process that was forked
        self._lane = self._make_lane()
        await super()._begin()

    def _forget(self) -> None:
        self._goals.clear()
        self._following.clear()
        self._strays.clear()
        self._last = self._last_taken = None
        self._sending = 0

    async def _end(self) -> None:
        closed = EndpointClosed(f"{self.name} was stopped before the goal had ended")
        for goal in list(self._goals.values()):
            self._settle(goal, Outcome(error=closed))
        await end_tasks(list(self._following), self._given.grace, self.name)
        await super()._end()
        if self._lane is not None:
            await self._lane.close(self._given.grace)
            self._lane = None

    # ---- what a program asks for ----

    async def send_goal(
        self, goal: GoalT, timeout: float = 10, wait_for_result: bool = False
    ) -> ClientGoal[ResultT, FeedbackT]:
        """Send a goal and wait for the service to take or refuse it, at most ``timeout`` seconds.

        Returns it, refused or not: then its ``status`` is 0, and ``reason`` says why. With
        ``wait_for_result`` it returns when the goal has ended. Raises RPCTimeout when nobody
        answered (whether it was taken is not known), SerializationError, ValueError for what is no
        time, and what else a call may raise.
        """
        check_timeout(timeout)
        now = asyncio.get_running_loop().time
        deadline = now() + timeout
        request = SendGoal.Request(goal_data=self._goal_writer.check(goal))
        await self._listen(timeout)
        with self._expecting() as sent:
            left = max(0.001, deadline - now())
            outcome = await self._goal_rpc.exchange(request, left, sent.note_id)
            self.check_open()
            if type(outcome) is RPCTimeout:  # whose text tells of what was left of the time
                outcome = self._goal_rpc.timeout_error(timeout)
            self._last = self._take_answer(sent.goal, outcome)
        if self._last.status:
            self._last_taken = self._last
        if wait_for_result:
            await self._last.wait()
        return self._last

    async def watch(self, goal_id: str) -> ClientGoal[ResultT, FeedbackT]:
        """A goal that somebody else has sent, by its id; its end, also if that is past.

        It is lost at once if the service does not know it. Raises EndpointClosed after ``stop()``,
        AuthError, ConnectError with ``reconnect=False``, and RPCTimeout when the broker is away.
        """
        await self._listen(SILENCE_SECONDS)
        if goal_id not in self._goals:
            self._goals[goal_id] = ClientGoal(self, goal_id)
            self._follow(self._goals[goal_id], is_new=True)
        return self._goals[goal_id]

    async def cancel_goal(
        self, timeout: float = 10, wait_for_result: bool = False
    ) -> ResultT | None:
        """Want the goal that was sent last to end; its result if that is there, else None.

        One that was refused does not count while one that was sent before goes on.
        With ``wait_for_result`` it waits up to 30 s for the end. Raises RPCTimeout when nobody
        answered, what else ``RPCClient.call`` raises, and what ``get_result`` raises.
        """
        goal, taken = self._last, self._last_taken
        if goal is not None and not goal.status and taken is not None and not taken.done:
            goal = taken
        if goal is None:
            return None
        await goal.cancel(timeout)
        return await self._result_of(goal, 30 if wait_for_result else 0)

    async def get_result(
        self, timeout: float = 10, wait: bool = False, wait_max_sec: float = 30
    ) -> ResultT | None:
        """The result of the goal that was sent last, None if it has not ended.

        With ``wait`` it waits up to ``wait_max_sec`` seconds for that. ``timeout`` is accepted for
        the programs of commlib-py 0.6 and not needed: the result is here as soon as the goal has
        ended. Raises what ``result()`` of a goal raises, but not GoalTimeout.
        """
        if self._last is None:
            return None
        return await self._result_of(self._last, wait_max_sec if wait else 0)

    async def _result_of(
        self, goal: ClientGoal[ResultT, FeedbackT], timeout: float
    ) -> ResultT | None:
        try:
            return await goal.result(timeout)
        except GoalTimeout:
            return None

    async def _cancel(self, goal: ClientGoal[ResultT, FeedbackT], timeout: float) -> bool:
        if goal.done:
            return False
        request = CancelGoal.Request(goal.goal_id, unix_seconds())
        response = await self._cancel_rpc.call(request, timeout)
        agrees: bool = response.status == 1
        return agrees

    # ---- sending; all of the rest is on the loop ----

    async def _listen(self, timeout: float) -> None:
        """Return when all that is published of goals is heard."""
        self.check_open()
        beginning = self.start()
        if not beginning.done():
            await asyncio.wait([beginning], timeout=timeout)
        if not beginning.done():
            raise self._goal_rpc.timeout_error(timeout)
        if beginning.cancelled():
            raise EndpointClosed(f"{self.name} was stopped meanwhile")
        beginning.result()

    @contextmanager
    def _expecting(self) -> Iterator[_Sent]:
        """While a goal is being sent, keep what is heard of goals that nobody knows."""
        sent = _Sent(self)
        self._sending += 1
        try:
            yield sent
        except BaseException:  # cancellation, too: nobody will ever ask for it
            if sent.found is not None:
                self._goals.pop(sent.found.goal_id, None)
            raise
        finally:
            self._sending -= 1
            if not self._sending:
                self._strays.clear()

    def _expect(self, goal_id: str) -> ClientGoal[ResultT, FeedbackT]:
        """A goal that is about to be sent."""
        goal = self._goals[goal_id] = ClientGoal(self, goal_id)
        return goal

    def _take_answer(
        self, goal: ClientGoal[ResultT, FeedbackT], outcome: CallOutcome
    ) -> ClientGoal[ResultT, FeedbackT]:
        """The service has taken the goal, or refused it, or not answered."""
        if isinstance(outcome, RPCTimeout | ConnectionLost) and goal.status:
            # It was heard of, so only the answer was lost.
            self._follow(goal)
            return goal
        envelope = self._goal_rpc.envelope(outcome)
        response, fault = envelope.data, envelope.header.error
        if response is None or response.status != 1:
            goal.reason = _reason(fault)
            self._settle(goal, Outcome(error=GoalRefused(goal.reason)))
            return goal
        if response.goal_id != goal.goal_id and response.goal_id in self._goals:
            # A released service that is busy may say that the goal which runs is the new one.
            self._goals.pop(goal.goal_id, None)
            return self._goals[response.goal_id]
        goal.timestamp = response.timestamp
        if response.goal_id != goal.goal_id:
            self._rename(goal, response.goal_id)
        goal.note(GoalStatus.ACCEPTED)
        self._follow(goal)
        return goal

    def _rename(self, goal: ClientGoal[ResultT, FeedbackT], goal_id: str) -> None:
        """A released service chooses the id itself; what it has said of it so far was kept."""
        self._goals.pop(goal.goal_id, None)
        goal.goal_id = goal_id
        self._goals[goal_id] = goal
        for take, envelope, packet in list(self._strays):
            if envelope.data.goal_id == goal_id:
                try:
                    take(envelope, packet)
                except Refused as exc:
                    self._report(packet, exc)

    # ---- hearing ----

    def _take_status(self, envelope: Envelope, packet: Packet) -> None:
        goal = self._goal_of(self._take_status, envelope, packet)
        if goal is not None:
            # Ours have an origin; a bare message has none, and may be anybody's.
            goal.knows_result_late = not envelope.header.origin
            goal.note(envelope.data.status, envelope.header.error)

    def _take_feedback(self, envelope: Envelope, packet: Packet) -> None:
        goal = self._goal_of(self._take_feedback, envelope, packet)
        if goal is None:
            return
        feedback = self._feedback_reader.convert(envelope.data.feedback_data, envelope.header)
        goal.note(GoalStatus.EXECUTING)  # released services do not publish that
        goal.feedback.put(feedback)
        self._tell(self.on_feedback, feedback, packet.payload)

    def _goal_of(
        self, take: Callable[..., None], envelope: Envelope, packet: Packet
    ) -> ClientGoal[ResultT, FeedbackT] | None:
        goal = self._goals.get(envelope.data.goal_id)
        if goal is None and self._sending:
            self._strays.append((take, envelope, packet))
        return goal

    # ---- following ----

    def _follow(self, goal: ClientGoal[ResultT, FeedbackT], *, is_new: bool = False) -> None:
        follower = GoalFollower(
            goal,
            partial(self._ask, goal),
            partial(self._conclude, goal),
            lambda: self.hub.link_stats.reconnects,
            is_new=is_new,
        )
        task = self.hub.spawn(self._follow_to_its_end(goal, follower))
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _follow_to_its_end(
        self, goal: ClientGoal[ResultT, FeedbackT], follower: GoalFollower
    ) -> None:
        try:
            await follower.follow()
        except asyncio.CancelledError:
            closed = EndpointClosed(f"{self.name} was stopped before the goal had ended")
            self._settle(goal, Outcome(error=closed))
            raise
        except CommlibError as exc:
            self._settle(goal, Outcome(error=exc))

    async def _ask(self, goal: ClientGoal[ResultT, FeedbackT], seconds: float) -> Envelope | None:
        """What the service says of a goal; None if it does not answer in time."""
        try:
            request = GetResult.Request(goal.goal_id)
            outcome = await self._result_rpc.exchange(request, seconds)
            return self._result_rpc.envelope(outcome)
        except EndpointClosed:
            raise
        except CommlibError as exc:
            self.log.debug("%s: goal %s: no answer: %s", self.name, goal.goal_id, exc)
            return None

    def _conclude(self, goal: ClientGoal[ResultT, FeedbackT], answer: Envelope | None) -> None:
        """Settle a goal by the last that is known of it."""
        fault = None if answer is None else answer.header.error
        data = None
        if answer is not None and answer.data is not None and answer.data.status in TERMINAL:
            goal.note(answer.data.status, fault)
            data = answer.data.result
        elif goal.status not in (GoalStatus.ABORTED, GoalStatus.CANCELED):
            self._settle(goal, Outcome(error=self._lost(goal, answer, fault)))
            return
        self._settle(goal, self._outcome(goal, data, goal.fault or fault))

    def _lost(
        self, goal: ClientGoal[ResultT, FeedbackT], answer: Envelope | None, fault: Fault | None
    ) -> GoalLost:
        if answer is None:
            why = f"{self.action_uri} does not answer"
        elif fault is not None:
            why = f"{self.action_uri} answers {fault.type}: {fault.message}"
        elif goal.status == GoalStatus.SUCCEEDED:
            why = f"{self.action_uri} says that it succeeded, but does not give its result"
        else:
            why = (
                f"{self.action_uri} does not know it: the service was started anew, or the goal "
                "ended longer ago than it keeps results"
            )
        error = GoalLost(f"goal {goal.goal_id} is lost: {why}")
        self.log.warning("%s", error, extra=about(self.name, node=self.hub.node_of(self)))
        return error

    def _outcome(
        self, goal: ClientGoal[ResultT, FeedbackT], data: Any, fault: Fault | None
    ) -> Outcome:
        """How a goal ended whose last state is known; ``data`` is None if there is no result."""
        is_aborted = goal.status == GoalStatus.ABORTED
        result, error = None, None
        if goal.status == GoalStatus.CANCELED and data == {}:
            data = None  # as services say that there is none
        if not (data is None or (is_aborted and not data)):
            try:
                result = self._result_reader.convert(data, Header())
            except Refused as exc:
                error = exc
        if is_aborted:
            return Outcome(result, _aborted(fault))
        if error is not None and goal.status == GoalStatus.SUCCEEDED:
            self._report(Packet(b"", self.name), error)
            return Outcome(None, error)
        if goal.status == GoalStatus.CANCELED and (data is None or error is not None):
            text = f"goal {goal.goal_id} was cancelled before there was a result"
            return Outcome(None, GoalCanceled(text))
        return Outcome(result)

    def _settle(self, goal: ClientGoal[ResultT, FeedbackT], outcome: Outcome) -> None:
        """Tell everybody how a goal ended, once."""
        self._goals.pop(goal.goal_id, None)
        if not goal.settle(outcome) or goal.status not in TERMINAL:
            return
        if isinstance(outcome.error, SerializationError | GoalLost | EndpointClosed):
            return
        if goal.status == GoalStatus.SUCCEEDED:
            self._tell(self.on_goal_reached, outcome.result)
        self._tell(self.on_result, outcome.result)

    # ---- callbacks ----

    def _tell(
        self, callback: Callable[[Any], Any] | None, value: Any, payload: bytes = b""
    ) -> None:
        if callback is not None and self._lane is not None:
            self._lane.put(_News(payload, self.name, callback=callback, value=value))

    def _make_lane(self) -> Lane:
        if any(map(is_async, self._callbacks.values())):
            return LoopLane(self.name, self._await, self._called, self._report)
        work = self.hub.workers
        return ThreadLane(work, self.name, _call, self._called, self._report)

    async def _await(self, news: _News) -> None:
        """Call back in order, though some of the callbacks are coroutine functions."""
        callback = news.callback
        assert callback is not None, "nothing else is put into the lane"
        if is_async(callback):
            await callback(news.value)
            return
        ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

        def note(result: object, error: BaseException | None) -> None:
            if not ended.done():  # else nobody waits any more
                ended.set_result(error)

        self.hub.workers.serve(Job(self.name, lambda: callback(news.value), note))
        error = await ended
        if error is not None:
            raise error


def _call(news: _News) -> Any:
    assert news.callback is not None, "nothing else is put into the lane"
    return news.callback(news.value)


def _reason(fault: Fault | None) -> str:
    """Why a goal was refused."""
    if fault is None:
        return "the service is busy"  # the only reason that released services have
    return fault.message if fault.type == "GoalRefused" else f"{fault.type}: {fault.message}"


def _aborted(fault: Fault | None) -> GoalAborted:
    if fault is None:
        return GoalAborted("", "the service aborted the goal without an error")
    return GoalAborted(fault.type, fault.message)


class _Sent:
    """The goal that is being sent: known as soon as its id is."""

    def __init__(self, client: ActionClient[Any, Any, Any]) -> None:
        self._client = client
        self.found: ClientGoal[Any, Any] | None = None

    def note_id(self, goal_id: str) -> None:
        """The goal will be sent with this id. Nothing was sent yet."""
        self.found = self._client._expect(goal_id)

    @property
    def goal(self) -> ClientGoal[Any, Any]:
        assert self.found is not None, "its id is told before it is sent"
        return self.found
