"""One channel of an AMQP connection: questions and their answers, and what the broker hands over.

The broker closes a channel for any error on it, and takes nothing on it until that is confirmed.
So a channel that was closed is opened again at once, the question that was the error gets it as
its answer, and those behind it are asked again. What is not asked but published is lost then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from commlib.exceptions import AuthError, ConnectionLost
from commlib.transports import _amqp_methods as methods
from commlib.transports._amqp_bytes import Malformed, read_short, short, u64
from commlib.transports._amqp_codes import Refusal, refusal

if TYPE_CHECKING:
    from commlib.transports._amqp_link import AmqpLink


Arrival = tuple[bytes, int, bool, bytes, bytes, bytes]
"""The arguments of ``Arrivals``."""


class Arrivals(Protocol):
    """Takes a message that a consumer is handed; on the loop, never raises.

    ``consumer`` is the tag that it was given, ``tag`` what the broker calls the message; ``where``
    is where it was published to, exchange and routing key, as they came.
    """

    def __call__(
        self,
        consumer: bytes,
        tag: int,
        is_redelivered: bool,
        where: bytes,
        properties: bytes,
        payload: bytes,
        /,
    ) -> object: ...


def _drop(*arrival: object) -> None:
    """Nobody consumes on this channel."""


class Question:
    """A method that the broker answers; ``answer`` brings the arguments of that."""

    __slots__ = ("answer", "channel", "following", "frame")

    def __init__(
        self, channel: Channel, frame: bytes, answer: asyncio.Future[bytes] | None = None
    ) -> None:
        self.channel = channel
        self.frame = frame
        self.following: Question | None = None
        """What is asked when this was answered; it fails with this."""
        self.answer = answer or asyncio.get_running_loop().create_future()

    def fail(self, error: Exception) -> None:
        """There is no answer."""
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # marked as seen: perhaps nobody waits any more
        if self.following is not None:
            self.following.fail(error)


class Channel:
    """An open channel.

    ``on_arrival`` takes what consumers are handed, ``on_return`` what no queue took (its routing
    key and properties), ``on_ack`` the broker's confirmations (tag, whether of all up to it,
    whether it is a yes). ``on_cancelled`` is told of a consumer that the broker has ended,
    ``on_reset`` why the channel was closed, after it was opened again: its consumers are gone.
    """

    def __init__(self, link: AmqpLink, number: int) -> None:
        self.number = number
        self.is_open = False
        self.life = 0
        """How often it was opened: what the broker has numbered counts for one life."""
        self.on_arrival: Arrivals = _drop
        self.on_return: Callable[[str, bytes], None] = lambda key, properties: None
        self.on_ack: Callable[[int, bool, bool], None] = lambda tag, multiple, is_yes: None
        self.on_cancelled: Callable[[str], None] = lambda consumer: None
        self.on_reset: Callable[[Refusal | AuthError], None] = lambda error: None
        self._link = link
        self._asked: deque[Question] = deque()
        self._opening = Question(self, methods.open_channel(number))
        self._error: Refusal | AuthError | None = None

    @property
    def next_life(self) -> int:
        """The life in which that is written which is asked now."""
        return self.life if self.is_open else self.life + 1

    def open(self) -> None:
        """Open it for the first time."""
        self._link.write([self._opening.frame], [])

    async def opened(self) -> None:
        """Return when it was open once. Raises ConnectionLost."""
        await asyncio.shield(self._opening.answer)

    def ask(self, frame: bytes) -> asyncio.Future[bytes]:
        """Ask something; raises a Refusal or AuthError, ConnectionLost."""
        question = Question(self, frame)
        self._ask(question)
        return question.answer

    def _ask(self, question: Question) -> None:
        if self._link.closed.done():
            question.fail(ConnectionLost(f"{self._link.name} is away"))
        elif self.is_open:
            self._link.write([question.frame], [question])
        else:
            self._asked.append(question)

    def cancel(self, consumer: str) -> asyncio.Future[bytes]:
        """End a consumer, as soon as the broker has said yes to it; otherwise as ``ask``.

        In RabbitMQ that comes from the queue's own process. One that is ended before it is here
        is not known to the channel any more: that crashes, and takes the connection along (seen
        with 3.10, in ``rabbit_channel:consumer_monitor/2``).
        """
        question = Question(self, methods.cancel(self.number, consumer))
        tag = short(consumer)
        for asked in tuple(self._asked):
            if methods.is_consume(asked.frame) and methods.is_consumer_of(tag, asked.frame):
                asked.following = asked.following or question
                return asked.following.answer
        self._ask(question)
        return question.answer

    def note(self, question: Question) -> None:
        """A question is being written; answers come in this order."""
        self._asked.append(question)

    def take(self, kind: bytes, arguments: bytes) -> None:
        """A method of the broker's, other than one that content belongs to. Raises Malformed."""
        if kind == methods.ACK or kind == methods.NACK:
            (tag,) = u64.unpack_from(arguments)
            self.on_ack(tag, bool(arguments[8] & 1), kind == methods.ACK)
        elif kind == methods.CHANNEL_CLOSE:
            self._reopen(methods.read_close(arguments))
        elif kind == methods.CHANNEL_OPEN_OK:
            self._opened()
        elif kind == methods.CANCEL:
            self.on_cancelled(read_short(arguments, 0)[0])
        elif kind == methods.CHANNEL_FLOW:
            wish = bytes((arguments[0],))  # IndexError where there is none: that is no AMQP
            ok = methods.method(self.number, methods.CHANNEL_FLOW_OK, wish)
            self._link.write([ok], [])
        elif self._asked:
            self._take_answer(kind, arguments)

    def _take_answer(self, kind: bytes, arguments: bytes) -> None:
        index = self._find_answered(kind, arguments)
        if kind == methods.QUEUE_DECLARE_OK:
            methods.read_declared(arguments)  # here, where what makes no sense ends the connection
        question = self._asked[index]
        del self._asked[index]
        if not question.answer.done():
            question.answer.set_result(arguments)
        if question.following is not None:
            self._ask(question.following)

    def _find_answered(self, kind: bytes, arguments: bytes) -> int:
        """Which question this answers. Raises Malformed.

        It is the oldest one; but what RabbitMQ says to basic.consume comes from the queue's own
        process there, and may be overtaken by the answers of the channel, and of other queues.
        """
        # A copy: threads that write note what they bring.
        for index, question in enumerate(tuple(self._asked)):
            is_consume = methods.is_consume(question.frame)
            if methods.is_answer(kind, question.frame) and (
                not is_consume or methods.is_consumer_of(arguments, question.frame)
            ):
                return index
            if not is_consume:
                break
        asked = self._asked[0].frame[7:11]
        raise Malformed(f"the method {kind.hex()} as the answer to {asked.hex()}")

    def _reopen(self, closing: methods.Closing) -> None:
        """The broker has closed it: confirm that and open it anew."""
        self.is_open = False
        self._error = refusal(self._link.name, closing)
        refused = self._find_refused(closing)
        # Nor is it asked again for a consumer that is to be ended: it is.
        for question in tuple(self._asked):
            if question is refused or question.following is not None:
                self._asked.remove(question)
                question.fail(self._error)
        ok = methods.method(self.number, methods.CHANNEL_CLOSE_OK)
        self._link.hold(self)
        self._link.write([ok, self._opening.frame], [])

    def _find_refused(self, closing: methods.Closing) -> Question | None:
        """The question that the broker has closed the channel for; none if that was no question.

        Of several that wait to consume, the broker tells which by the name of the queue.
        """
        found = None
        for question in tuple(self._asked):
            is_consume = methods.is_consume(question.frame)
            if question.frame[7:11] == closing.method:
                if not is_consume or f"'{methods.consumed(question.frame)}'" in closing.text:
                    return question
                found = found or question
            elif not is_consume:
                break
        return found

    def _opened(self) -> None:
        self.is_open = True
        self.life += 1
        if not self._opening.answer.done():
            self._opening.answer.set_result(b"")
        asked, self._asked = self._asked, deque()
        if asked:
            self._link.write([question.frame for question in asked], asked)
        error, self._error = self._error, None
        if error is not None:
            self.on_reset(error)
            self._link.release(self)

    def fail(self, error: ConnectionLost) -> None:
        """The connection is away."""
        self.is_open = False
        for question in (self._opening, *self._asked):
            question.fail(error)
        self._asked.clear()
