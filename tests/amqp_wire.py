"""An AMQP link whose broker is played by the test, frame for frame; the frames are pika's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pika import BasicProperties, spec
from pika import frame as pika_frame

from commlib.transports._amqp_link import AmqpLink
from commlib.transports._amqp_methods import AROUND, PROTOCOL, Tuning
from played_socket import PlayedSocket

FRAME = 4096
"""The longest frame of the broker that is played."""
MECHANISMS = "AMQPLAIN PLAIN"

Refusing = Callable[[Any], tuple[int, str] | None]
"""Why a broker closes the channel on which it gets this method; None: it does not."""


def said(channel: int, method: Any) -> bytes:
    """A method of the broker's."""
    raw: bytes = pika_frame.Method(channel, method).marshal()
    return raw


def content_frames(
    channel: int, method: Any, payload: bytes, about: BasicProperties | None = None
) -> list[bytes]:
    """A method and the content that belongs to it, each frame by itself."""
    header = pika_frame.Header(channel, len(payload), about or BasicProperties())
    room = FRAME - AROUND
    parts = [payload[at : at + room] for at in range(0, len(payload), room)]
    bodies = [pika_frame.Body(channel, part).marshal() for part in parts]
    return [said(channel, method), header.marshal(), *bodies]


def delivery_frames(
    channel: int,
    payload: bytes,
    *,
    consumer: str = "t",
    tag: int = 1,
    redelivered: bool = False,
    exchange: str = "amq.topic",
    key: str = "a.b",
    about: BasicProperties | None = None,
) -> list[bytes]:
    """What a consumer is handed, each frame by itself."""
    method = spec.Basic.Deliver(consumer, tag, redelivered, exchange, key)
    return content_frames(channel, method, payload, about)


def delivered(channel: int, payload: bytes, **options: Any) -> bytes:
    """The same in one piece."""
    return b"".join(delivery_frames(channel, payload, **options))


def returned(channel: int, key: str, payload: bytes, about: BasicProperties) -> bytes:
    """What nobody has taken."""
    method = spec.Basic.Return(312, "NO_ROUTE", "", key)
    return b"".join(content_frames(channel, method, payload, about))


def closing(channel: int, code: int, text: str, klass: Any = None) -> bytes:
    """The end of a channel, for a method of ours (a class of pika's), or for none."""
    index = klass.INDEX if klass is not None else 0
    return said(channel, spec.Channel.Close(code, text, index >> 16, index & 0xFFFF))


def frames_in(raw: bytes) -> list[Any]:
    """The frames of pika's that these bytes are."""
    found = []
    while raw:
        if raw.startswith(PROTOCOL):
            raw = raw[len(PROTOCOL) :]
            continue
        used, frame = pika_frame.decode_frame(raw)
        assert used, "whole frames are written"
        found.append(frame)
        raw = raw[used:]
    return found


START = spec.Connection.Start(
    0, 9, {"product": "played", "capabilities": {"basic.nack": True}}, MECHANISMS, "en_US"
)


def answer_to(method: Any) -> Any:
    """What a broker says to a method that is in order; None where it says nothing."""
    match method:
        case spec.Connection.StartOk():
            return spec.Connection.Tune(2047, FRAME, 60)
        case spec.Connection.Open():
            return spec.Connection.OpenOk()
        case spec.Connection.Close():
            return spec.Connection.CloseOk()
        case spec.Channel.Open():
            return spec.Channel.OpenOk()
        case spec.Exchange.Declare():
            return spec.Exchange.DeclareOk()
        case spec.Queue.Declare():
            return spec.Queue.DeclareOk(method.queue or "amq.gen-1", 0, 0)
        case spec.Queue.Delete():
            return spec.Queue.DeleteOk(0)
        case spec.Queue.Bind():
            return spec.Queue.BindOk()
        case spec.Queue.Unbind():
            return spec.Queue.UnbindOk()
        case spec.Basic.Qos():
            return spec.Basic.QosOk()
        case spec.Basic.Consume():
            return spec.Basic.ConsumeOk(method.consumer_tag)
        case spec.Basic.Cancel():
            return spec.Basic.CancelOk(method.consumer_tag)
        case spec.Confirm.Select():
            return spec.Confirm.SelectOk()
    return None


class Broker:
    """Says yes to everything that is not in ``refuses``, as RabbitMQ does.

    ``asked`` are the methods that it got, each with its channel. What comes on a channel that it
    has closed it does not look at. ``consumers``: how many others each queue has.
    """

    def __init__(self) -> None:
        self.refuses: Refusing = lambda method: None
        self.asked: list[tuple[int, Any]] = []
        self.consumers = 0
        self._closed: set[int] = set()

    def takes(self, frame: Any) -> bytes:
        """What it answers to a frame."""
        method = getattr(frame, "method", None)
        if method is None:
            return b""  # of a message, or a heartbeat
        channel = frame.channel_number
        if isinstance(method, spec.Channel.CloseOk):
            self._closed.discard(channel)
        elif channel in self._closed:
            return b""
        self.asked.append((channel, method))
        why = self.refuses(method)
        if why is not None:
            self._closed.add(channel)
            return closing(channel, *why, type(method))
        answer = answer_to(method)
        if isinstance(answer, spec.Queue.DeclareOk):
            answer.consumer_count = self.consumers
        return b"" if answer is None else said(channel, answer)


class Wire(PlayedSocket[AmqpLink]):
    """The socket of a link: keeps what is written, and lets the test say what comes."""

    def __init__(self, limit: int = 1000) -> None:
        super().__init__(AmqpLink("robot", limit))
        self.link.tuning = Tuning(100, FRAME, 0)
        self.broker = Broker()

    def says(self, channel: int, *methods: Any) -> None:
        """The broker says this, in one piece."""
        self.comes(b"".join(said(channel, method) for method in methods))

    def frames(self) -> list[Any]:
        """What was written since the last look, as pika's frames."""
        raw = b"".join(self.written)
        self.written.clear()
        return frames_in(raw)

    def asked(self) -> list[tuple[int, Any]]:
        """The methods in that, each with its channel."""
        frames = self.frames()
        return [(frame.channel_number, frame.method) for frame in frames if _is_method(frame)]

    def names(self) -> list[str]:
        """The names of these, such as ``Basic.Consume``."""
        return [method.NAME for _, method in self.asked()]

    def open(self, *numbers: int) -> None:
        """Open these channels."""
        for number in numbers:
            self.link.channel(number)
            self.says(number, spec.Channel.OpenOk())
        self.written.clear()

    async def settle(self) -> list[str]:
        """Let the broker answer until nobody asks any more; the names of what was asked."""
        before = len(self.broker.asked)
        quiet = 0
        for _ in range(300):  # somebody may try for ever
            await asyncio.sleep(0)
            quiet += 1
            for frame in self.frames():
                quiet = 0
                self.comes(self.broker.takes(frame))
            if quiet == 10:
                break
        return [method.NAME for _, method in self.broker.asked[before:]]


def _is_method(frame: Any) -> bool:
    return getattr(frame, "method", None) is not None
