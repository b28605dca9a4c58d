"""The serving end of an action: takes goals, has them worked on, tells how they are and end."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from os import urandom
from typing import Any, Unpack

import msgspec

from commlib._goal import Finished, GoalStatus
from commlib._json import NOT_ENCODABLE, cannot_write
from commlib._lanes import is_async
from commlib._packet import Envelope, Fault, Packet
from commlib._turns import callback_task, end_tasks, is_cancelled_alone, is_end_of_task
from commlib._types import enc_hook
from commlib._wire import Reader, Refused, Writer
from commlib.aio._action import (
    NEWS,
    CancelGoal,
    GetResult,
    Job,
    SendGoal,
    StatusNews,
    check_callbacks,
    part_name,
    types_of,
    unix_seconds,
)
from commlib.aio._endpoint import MAX_TEXT, Options, Params, text_of
from commlib.aio._goal_handler import (
    AnyHandler,
    AsyncGoalHandler,
    FeedbackPublisher,
    GoalHandler,
)
from commlib.aio._group import Group
from commlib.aio._names import check_name
from commlib.aio._rpc_service import Reply, RPCService
from commlib.aio.pubsub import Publisher
from commlib.exceptions import (
    CommlibError,
    EndpointClosed,
    GoalRefused,
    PayloadTooBig,
    SerializationError,
)

MAX_KEPT = 1000  # outcomes for late askers
MAX_ID = 128  # characters of a goal's id that a client has chosen; ours choose some 16
# s between the answer to a released client and the beginning of its goal: what is published before
# the client has read its goal's id from the answer, it drops, the end of the goal as well.
HEAD_START = 0.1  # through Mosquitto, as it comes, the answer takes 40 ms to a client of 0.13
LINGER = 0.25  # s that stop() leaves to clients to fetch an outcome; they need a round trip

STOPPED = EndpointClosed("the service was stopped while it worked on the goal")
"""What stands for the error of a callback that was cancelled, or did not end in time."""

Ended = Callable[[Any, "BaseException | None"], object]


class ActionServiceOptions(Options, total=False):
    """The options of action services.

    * ``concurrency``: how many goals may be worked on at once, by a plain function in as many
      threads; further ones are refused.
    * ``preempt``: a further goal is not refused but cancels those that are worked on, and begins
      when there is room; if yet another one comes before that, it is cancelled itself.
    * ``result_ttl`` (s): how long an outcome is kept for those who ask late; of the newest 1000.
    * ``envelope=False`` publishes states and feedback as bare data, as commlib-py 0.13 reads them.
    """

    concurrency: int
    preempt: bool
    result_ttl: float
    envelope: bool


class ActionPart(RPCService):
    """One of the services that an action is made of; its handler sees the header, too."""

    def _call(self, request: Envelope) -> Any:
        return self.on_request(request)


class ActionService(Group):
    """Works on goals that clients send, tells how far it is, and how they end.

    ``on_goal(goal_h)`` gets a handler of the goal and returns the result: a plain function gets a
    ``GoalHandler``, in a thread of its own; a coroutine function an ``AsyncGoalHandler``, on the
    loop. What it raises aborts the goal, and the client is told. ``on_cancel(goal_h)`` is called
    when somebody wants a goal to end, ``on_getresult(goal_h)`` when somebody asks for its result.
    ``msg_type`` is a class with the nested classes ``Goal``, ``Result`` and ``Feedback``; None:
    plain data. ``action_name`` is another name of ``action_uri``. There has to be one service only
    of each name. Options: ``ActionServiceOptions``.
    """

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
        concurrency: int = 1,
        preempt: bool = False,
        result_ttl: float = 300.0,
        envelope: bool = True,
        **options: Unpack[Options],
    ) -> None:
        uri = action_uri or action_name
        if on_goal is None:
            raise TypeError(f"{uri}: on_goal={on_goal!r} cannot be called")
        callbacks = {"on_goal": on_goal, "on_cancel": on_cancel, "on_getresult": on_getresult}
        check_callbacks(uri, callbacks)
        if concurrency < 1:
            raise ValueError(f"concurrency={concurrency}: at least one goal must be able to run")
        super().__init__(uri, conn_params, **options)
        self.action_uri = check_name(uri, self.hub, "action_uri")
        self.msg_type = msg_type
        self.on_goal = on_goal
        self.on_cancel = on_cancel
        self.on_getresult = on_getresult
        goal, result, feedback = types_of(msg_type)
        self._goal_reader: Reader[Any] = self._make_reader(goal)
        self._result_writer: Writer[Any] = self._make_writer(result)
        self._response_writer: Writer[Any] = self._make_writer(GetResult.Response)
        self._goal_rpc = self._add_part("send_goal", self._send_goal, SendGoal)
        self._add_part("cancel_goal", self._cancel_goal, CancelGoal)
        self._add_part("get_result", self._get_result, GetResult)
        how: Any = {"envelope": envelope, **self.part_options}
        status_topic, feedback_topic = map(self._part_name, NEWS)
        self._status = self.add(Publisher(status_topic, StatusNews, **how))
        self._feedback = self.add(FeedbackPublisher(feedback_topic, feedback, **how))
        self._concurrency = concurrency
        self._preempt = preempt
        self._newest: AnyHandler | None = None
        self._finished: Finished[AnyHandler] = Finished(result_ttl, MAX_KEPT, time.monotonic)
        self._news = asyncio.Event()
        """Set whenever a goal ends or somebody asks for a result."""
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forget_goals()

    def _forget_goals(self) -> None:
        self._active: dict[str, AnyHandler] = {}
        self._waiting: AnyHandler | None = None
        self._unsent: deque[Packet] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def _part_name(self, part: str) -> str:
        return part_name(self.action_uri, part)

    def _add_part(self, part: str, handle: Callable[[Any], Any], types: Any) -> ActionPart:
        return self.add(ActionPart(self._part_name(part), handle, types, **self.part_options))

    async def _begin(self) -> None:
        self._closing = False
        self._unsent.clear()
        if self._loop is not (loop := asyncio.get_running_loop()):
            self._forget_goals()  # in a forked child: the parent works on them
            self._loop = loop
        self._news = asyncio.Event()
        await super()._begin()

    async def stop(self) -> None:
        if self._is_ending and asyncio.current_task() in self._tasks:
            self._stops += 1
            self.stopped = True
            self._give_up_beginning()  # that of a next life, which waits behind this end
            return  # who ends it waits for this goal
        await super().stop()

    async def _end(self) -> None:
        """Cancel what runs, tell how it ended, let those who wait for that fetch it, and leave."""
        self._closing = True
        for goal in self._goals():
            self._cancel(goal)
        own = callback_task.get()
        if own is not None:
            self.hub.let_go(own)
        await self._until(
            self._given.grace, lambda: all(goal.task is own is not None for goal in self._goals())
        )
        for goal in self._goals():
            self.log.warning("%s: stopped while on_goal was running", self.name)
            if goal.thread is not None:
                self.hub.workers.give_up(goal.thread)
            self._finish(goal, GoalStatus.ABORTED, _fault_of(STOPPED))
        await self._until(LINGER, lambda: all(g.was_asked for g in self._finished.newest(LINGER)))
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=self._given.grace)
        await end_tasks(
            [task for task in self._tasks if task is not own], self._given.grace, self.name
        )
        await super()._end()

    def _goals(self) -> list[AnyHandler]:
        """All that have not ended."""
        waiting = [self._waiting] if self._waiting is not None else []
        return [*self._active.values(), *waiting]

    async def _until(self, seconds: float, holds: Callable[[], bool]) -> None:
        """Wait for something that ``_news`` tells of, but not for long."""
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return

    # ---- what clients ask; all on the loop ----

    async def _send_goal(self, request: Envelope) -> Any:
        chosen = request.header.id
        goal_id = chosen if 0 < len(chosen) <= MAX_ID else urandom(16).hex()
        try:
            # A client that asks again for a goal that it sent before gets the same answer.
            if self._find(goal_id) is None:
                self._accept(goal_id, request)
        except GoalRefused as exc:
            return Reply(SendGoal.Response(0, unix_seconds(), ""), _fault_of(exc))
        return SendGoal.Response(1, unix_seconds(), goal_id)

    async def _cancel_goal(self, request: Envelope) -> Any:
        goal = self._find(request.data.goal_id)
        can_be = goal is not None and not goal.is_finished()
        if goal is not None and can_be:
            self._cancel(goal)
        return CancelGoal.Response(int(can_be), unix_seconds())

    async def _get_result(self, request: Envelope) -> Any:
        goal_id = request.data.goal_id
        goal = self._find(goal_id) if goal_id else self._newest
        if goal is None:
            return GetResult.Response(0, unix_seconds())
        goal.was_asked = goal.is_finished()
        self._news.set()
        if self.on_getresult is not None:
            self._call(self.on_getresult, goal)
        return Reply(GetResult.Response(goal.status, unix_seconds(), goal.kept), goal.fault)

    def _find(self, goal_id: str) -> AnyHandler | None:
        if self._waiting is not None and self._waiting.id == goal_id:
            return self._waiting
        return self._active.get(goal_id) or self._finished.get(goal_id)

    def _accept(self, goal_id: str, request: Envelope) -> None:
        """Take a goal. Raises GoalRefused."""
        if self._closing:
            raise GoalRefused("the service is being stopped")
        try:
            data = self._goal_reader.convert(request.data.goal_data, request.header)
        except Refused as exc:
            self._report(Packet(b"", self._goal_rpc.name, request.header), exc)
            raise GoalRefused(str(exc)) from exc
        is_full = len(self._active) >= self._concurrency
        if is_full and not self._preempt:
            raise GoalRefused(
                f"{self.action_uri} is busy with {len(self._active)} of at most "
                f"{self._concurrency} goals"
            )
        kind = AsyncGoalHandler if is_async(self.on_goal) else GoalHandler
        goal = self._newest = kind(goal_id, data, self._feedback)
        goal.head_start = 0 if request.header.id else HEAD_START
        self._publish_status(goal)
        if is_full:
            for other in self._goals():
                self._cancel(other)
            self._waiting = goal
        else:
            self._take_up(goal)

    # ---- the life of a goal; all on the loop ----

    def _take_up(self, goal: AnyHandler) -> None:
        self._active[goal.id] = goal
        # Not at once: the response to the client goes first.
        asyncio.get_running_loop().call_later(goal.head_start, self._start, goal)

    def _start(self, goal: AnyHandler) -> None:
        if goal.is_finished():
            return  # the service was stopped meanwhile
        if goal.state.is_canceling:
            self._finish(goal, GoalStatus.CANCELED)
            return
        goal.state.move(GoalStatus.EXECUTING)
        self._publish_status(goal)
        self._pursue(goal, partial(self._conclude, goal))

    def _pursue(self, goal: AnyHandler, then: Ended) -> None:
        """Call ``on_goal``, in a task or a thread of its own."""
        if is_async(self.on_goal):
            goal.task = self._await(self.on_goal, goal, then)
            return
        # Not on the workers: goals that last would hold up the other callbacks, and one another.
        job = Job(self.name, partial(self._work_on, goal), then)
        try:
            goal.thread = self.hub.workers.serve_alone(job)
        except RuntimeError as exc:  # the system has no more threads, or the program is ending
            then(None, exc)

    def _work_on(self, goal: AnyHandler) -> Any:
        """Call ``on_goal``, unless the goal was to end before this thread ran. On that thread."""
        return self.on_goal(goal) if goal.status is GoalStatus.EXECUTING else None

    def _call(self, callback: Callable[[Any], Any], goal: AnyHandler) -> None:
        """Tell ``on_cancel`` or ``on_getresult``, where this callback belongs."""
        if is_async(callback):
            self._await(callback, goal, self._note_error)
        else:
            self.hub.workers.serve(Job(self.name, lambda: callback(goal), self._note_error))

    def _await(
        self, callback: Callable[[Any], Any], goal: AnyHandler, then: Ended
    ) -> asyncio.Task[Any]:
        """Call a coroutine function; the task in which that is done."""
        task = self.hub.spawn(_outcome_of(callback, goal))
        self._tasks.add(task)

        def note(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            if not task.cancelled():
                then(*task.result())
                return
            # Perhaps before its first step, so that it has not even begun, or in its last one.
            error = asyncio.CancelledError()
            then(None, error if is_cancelled_alone(error, task) else STOPPED)

        task.add_done_callback(note)
        return task

    def _note_error(self, result: object, error: BaseException | None) -> None:
        if error is not None and error is not STOPPED:
            self._report(Packet(b"", self.name), error)

    def _cancel(self, goal: AnyHandler) -> None:
        """Want a goal to end."""
        if goal.state.is_canceling or goal.is_finished():
            return
        goal.state.move(GoalStatus.CANCELING)
        self._publish_status(goal)
        goal.cancel_event.set()
        # A goal that stops its own service goes on after that.
        if goal.task is not None and goal.task is not callback_task.get():
            goal.task.cancel()
        if self.on_cancel is not None:
            self._call(self.on_cancel, goal)
        if goal is self._waiting:
            self._waiting = None
            self._finish(goal, GoalStatus.CANCELED)

    def _conclude(self, goal: AnyHandler, result: Any, error: BaseException | None) -> None:
        """The callback has ended."""
        goal.thread = None
        if goal.is_finished():
            return  # too late: the service was stopped meanwhile
        if result is not None:
            goal.result = result
        if goal.state.is_canceling and (error is STOPPED or _is_cancellation(error)):
            error = None
        try:
            goal.kept = self._kept(goal.result)
        except SerializationError as exc:
            error = error or exc
        self._note_error(result, error)
        fault = None if error is None else _fault_of(error)
        self._finish(goal, goal.state.outcome(failed=error is not None), fault)

    def _kept(self, result: Any) -> Any:
        """The result as plain data that can be sent. Raises SerializationError."""
        if result is None:
            return {}
        result = self._result_writer.check(result)
        try:
            plain = msgspec.to_builtins(
                result,
                builtin_types=(bytes, bytearray, memoryview),
                str_keys=True,
                enc_hook=enc_hook,
            )
        except NOT_ENCODABLE as exc:
            raise cannot_write(result, "a result", exc) from exc
        # So that what cannot be sent is found now, and not when somebody asks.
        self._response_writer.pack(GetResult.Response(result=plain), None, native=False)
        return plain

    def _finish(self, goal: AnyHandler, status: GoalStatus, fault: Fault | None = None) -> None:
        goal.fault = fault
        goal.end(status)
        self._active.pop(goal.id, None)
        self._finished.add(goal.id, goal)
        self._publish_status(goal)
        self._news.set()
        waiting = self._waiting
        if waiting is not None and len(self._active) < self._concurrency:
            self._waiting = None
            self._take_up(waiting)

    # ---- states on their way out, in order ----

    def _publish_status(self, goal: AnyHandler) -> None:
        news, topic = StatusNews(goal.id, goal.status), self._status.topic
        try:
            try:
                packet = self._status.pack(news, topic, goal.fault)
            except PayloadTooBig:
                fault = Fault(goal.fault.type) if goal.fault is not None else None
                goal.fault = fault
                packet = self._status.pack(news, topic, fault)
            if self._unsent or not self._status.post(packet, topic):
                self._unsent.append(packet)
        except CommlibError as exc:
            self._report(Packet(b"", topic), exc)
        if self._unsent and (self._sending is None or self._sending.done()):
            self._sending = self.hub.spawn(self._send_unsent())

    async def _send_unsent(self) -> None:
        while self._unsent:
            try:
                await self._status.post_when_room(self._unsent[0], self._status.topic)
            except CommlibError as exc:
                self._report(self._unsent[0], exc)
            self._unsent.popleft()


async def _outcome_of(
    callback: Callable[[Any], Any], goal: AnyHandler
) -> tuple[Any, BaseException | None]:
    """What a coroutine function returns, or raises: a task must not end by SystemExit."""
    task = asyncio.current_task()
    callback_task.set(task)
    try:
        return await callback(goal), None
    except BaseException as exc:
        if is_end_of_task(exc, task) and not is_cancelled_alone(exc, task):
            raise
        return None, exc


def _is_cancellation(error: BaseException | None) -> bool:
    return isinstance(error, asyncio.CancelledError)


def _fault_of(error: BaseException) -> Fault:
    text = text_of(error) or ("what it waited for was cancelled" if _is_cancellation(error) else "")
    return Fault(type(error).__name__[:MAX_TEXT], text)
