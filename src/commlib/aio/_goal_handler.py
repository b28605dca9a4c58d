"""A goal in the hands of the callback that works on it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Generic

from commlib._goal import GoalState, GoalStatus
from commlib._packet import Fault, Packet
from commlib._typing import FeedbackT, GoalT, ResultT
from commlib.aio._action import FeedbackNews
from commlib.aio.pubsub import Publisher
from commlib.exceptions import BlockingCall


class Handler(Generic[GoalT, ResultT, FeedbackT]):
    """What ``on_goal`` has in hand, for both kinds of callbacks.

    The loop owns all of it. The lock makes one step of the look at the state and of what is
    published, so that no feedback of another thread comes after the end.
    """

    def __init__(self, goal_id: str, data: GoalT, feedback: FeedbackPublisher) -> None:
        self.id = goal_id
        self.data = data
        self.result: ResultT | None = None
        """What was set as the result so far."""
        self.state = GoalState()
        self.task: asyncio.Task[Any] | None = None
        self.thread: threading.Thread | None = None
        """Where the callback runs: in the one or the other."""
        self.fault: Fault | None = None
        self.kept: Any = {}
        """The result as plain data, for those who ask."""
        self.was_asked = False
        self.head_start = 0.0
        self._feedback = feedback
        self._lock = threading.Lock()

    @property
    def status(self) -> GoalStatus:
        return self.state.status

    def is_finished(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.state.is_finished

    def set_result(self, result: ResultT) -> None:
        """Set the result, unless the callback returns one."""
        self.result = result

    def set_status(self, status: int) -> None:
        """Say how the goal shall end when the callback returns: SUCCEEDED, ABORTED or CANCELED.

        One that was cancelled meanwhile does not succeed. Raises ValueError for other states.
        """
        self.state.wish(status)

    def end(self, status: GoalStatus) -> None:
        """Go to a terminal state; no feedback is published after that. On the loop."""
        with self._lock:
            self.state.move(status)

    def post(self, packet: Packet, topic: str) -> bool:
        """Publish feedback, if it is not too late; False: there is no room. From any thread."""
        with self._lock:
            if self.is_finished():
                self._feedback.own_stats.dropped += 1
                return True
            return self._feedback.post(packet, topic)


class GoalHandler(Handler[GoalT, ResultT, FeedbackT]):
    """A goal in the hands of a plain function, which works on it in a thread of its own.

    ``data`` is the goal; ``cancel_event`` is set as soon as somebody wants it to end.
    """

    def __init__(self, goal_id: str, data: GoalT, feedback: FeedbackPublisher) -> None:
        super().__init__(goal_id, data, feedback)
        self.cancel_event = threading.Event()

    def send_feedback(self, feedback: FeedbackT) -> None:
        """Tell how far it is; once the goal has ended that is dropped, and counted.

        Waits for room in the outgoing queue, at most 10 s. Raises SerializationError, OutboxFull,
        and ConnectionLost where the offline policy says so.
        """
        topic = self._feedback.topic
        packet = self._feedback.pack_for(self.id, feedback)
        if not self.post(packet, topic):
            self._feedback.wait_for_room(packet, self.post)


class AsyncGoalHandler(Handler[GoalT, ResultT, FeedbackT]):
    """A goal in the hands of a coroutine function, which works on it on the event loop.

    ``data`` is the goal. When somebody wants it to end, ``cancel_event`` is set and the task is
    cancelled.
    """

    def __init__(self, goal_id: str, data: GoalT, feedback: FeedbackPublisher) -> None:
        super().__init__(goal_id, data, feedback)
        self.cancel_event = asyncio.Event()

    async def send_feedback(self, feedback: FeedbackT) -> None:
        """Tell how far it is; as ``GoalHandler.send_feedback``."""
        topic = self._feedback.topic
        packet = self._feedback.pack_for(self.id, feedback)
        if not self.post(packet, topic):
            await self._feedback.post_when_room(packet, topic, self.post)


class FeedbackPublisher(Publisher[Any]):
    """Publishes the feedback for all goals of a service."""

    def __init__(self, topic: str, kind: Any, **options: Any) -> None:
        super().__init__(topic, FeedbackNews, **options)
        self._feedback_writer = self._make_writer(kind)
        self._waiting: set[Future[None]] = set()

    def pack_for(self, goal_id: str, feedback: Any) -> Packet:
        """The packet of a goal's feedback. Raises SerializationError. From any thread."""
        feedback = self._feedback_writer.check(feedback)
        return self.pack(FeedbackNews(feedback, goal_id), self.topic)

    def wait_for_room(self, packet: Packet, post: Callable[[Packet, str], bool]) -> None:
        """``post_when_room`` for another thread than the loop."""
        loop = self.hub.loop
        if loop is None:
            return  # stopped: the goal has ended, and this would come after it
        if asyncio._get_running_loop() is loop:
            raise BlockingCall(
                "there is no room for feedback, and waiting for it here would block the event loop "
                "that has to make it; make on_goal an 'async def' and await send_feedback()"
            )
        posting = asyncio.run_coroutine_threadsafe(
            self.post_when_room(packet, self.topic, post), loop
        )
        self._waiting.add(posting)
        try:
            posting.result()
        except CancelledError:
            self.own_stats.dropped += 1
        finally:
            self._waiting.discard(posting)

    async def _end(self) -> None:
        for posting in self._waiting.copy():  # for room; their goals have ended
            posting.cancel()


AnyHandler = GoalHandler[Any, Any, Any] | AsyncGoalHandler[Any, Any, Any]
