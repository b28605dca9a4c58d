"""A hostile AMQP broker, before the door is open and behind it."""

from __future__ import annotations

from typing import Any

from amqp_wire import START, Broker, frames_in, said
from commlib._packet import PROPERTIES, Header, Packet
from commlib.transports import _amqp_methods as methods
from commlib.transports._amqp_bytes import short, u32, u64
from commlib.transports._amqp_inbox import DIRECT
from commlib.transports._amqp_properties import PropertyWriter
from commlib.transports.amqp import AmqpTransport, ConnectionParameters
from commlib.transports.base import Address
from fuzz.script import Script
from fuzz.stage import Stage, perform
from played_socket import PlayedSocket

NAMES = ("a.b", "a.*", "svc", "a.#.b", "x/y", "x/*")
EXCHANGES = ("amq.topic", "robots")
HEADER = Header(5, PROPERTIES, "ab", 7)
CHANNELS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xFFFF)
CONSUMERS = (b"t0", b"t1", b"r", b"s0", b"s1", b"s2", b"?")
KEYS = (b"a.b", b"svc", b"a.x.b", b"x/y", b"")
_writer = PropertyWriter()
PROPERTY_BLOCKS = (
    b"\0\0",
    _writer.write(HEADER, "", None, False),
    _writer.write(Header(5, PROPERTIES, "ab", 7, DIRECT, "c"), "1", 3, True),
    _writer.write(None, "1", None, False),
)
ENVELOPE = b'{"header":{"reply_to":"amq.rabbitmq.reply-to","properties":{}},"data":{}}'
METHODS = (
    *(methods.START, methods.TUNE, methods.OPEN_OK, methods.CLOSE, methods.CLOSE_OK),
    *(methods.BLOCKED, methods.UNBLOCKED, methods.CHANNEL_OPEN_OK, methods.CHANNEL_FLOW),
    *(methods.CHANNEL_CLOSE, methods.CHANNEL_CLOSE_OK, methods.CANCEL, methods.ACK, methods.NACK),
    *(methods.DELIVER, methods.RETURN, b"\0\x28\0\x0b", b"\0\x32\0\x0b", b"\0\x32\0\x15"),
    *(b"\0\x3c\0\x15", b"\0\x3c\0\x1f", b"\0\x55\0\x0b"),
)
"""With those that answer: exchange.declare-ok, queue.declare-ok and bind-ok, basic.consume-ok and
cancel-ok, confirm.select-ok."""
CODES = (200, 311, 320, 403, 404, 405, 406, 501, 530, 541)


class AmqpStage(Stage):
    transport: AmqpTransport

    def begin(self) -> None:
        script = self.script
        params = ConnectionParameters("broker", exchange=script.choice(EXCHANGES), max_payload=1000)
        self.transport = AmqpTransport(params)
        self._brokers: dict[int, Broker] = {}
        self._calls = 1

    def take_request(self, packet: Packet) -> None:
        self.take(packet)
        if len(packet.payload) % 2:  # some are answered
            reply = Address(packet.reply_to or "other", packet.correlation_id, packet)
            self.attempt(lambda: self.transport.send(reply, Packet(b"{}", "", HEADER)))

    def act(self) -> None:
        script, transport = self.script, self.transport
        what, name = script.number() % 8, script.choice(NAMES)
        if what < 2:
            packet = Packet(b"{}", "", HEADER, qos=what)
            self.attempt(lambda: transport.publish(name, packet))
        elif what == 2 and self.inbox is not None:
            self._calls += 1
            address = self.inbox.address(str(self._calls))
            header = Header(5, PROPERTIES, "ab", 7, address.reply_to, str(self._calls))
            call = Packet(b"{}", "", header, correlation_id=address.correlation_id)
            if script.flag():
                call = Packet(ENVELOPE, "", None, correlation_id=address.correlation_id)
                call.reply_to = address.reply_to
            self.attempt(lambda: transport.send(name, call))
        elif what == 3:
            self.start(transport.subscribe(name, self.take))
        elif what == 4:
            self.start(self.consume(name))
        elif what == 5 and self.endings:
            self.start(script.choice(self.endings).close())
        elif what == 6:
            self.start(transport.flush())
        elif self.inbox is not None and self._calls:
            self.inbox.release(str(self._calls))

    def answer(self, socket: PlayedSocket[Any]) -> bytes:
        raw, socket.written[:] = b"".join(socket.written), []
        if not raw:
            return b""
        broker = self._brokers.setdefault(id(socket), Broker())
        greeting = said(0, START) if raw.startswith(methods.PROTOCOL) else b""
        return greeting + b"".join(map(broker.takes, frames_in(raw)))

    def something(self) -> bytes:
        """A frame of any kind, its length and end as they should be, or a whole message."""
        script = self.script
        what, channel = script.number(), script.choice(CHANNELS)
        if what < 0x60:
            return self._message(channel, what)
        if what < 0xA0:
            kind = script.choice(METHODS)
            return methods.method(channel, kind, script.piece())
        if what < 0xC0:
            return _closing(script, channel)
        kind = script.choice((methods.METHOD, methods.HEADER, methods.BODY, methods.HEARTBEAT, 9))
        return _frame(kind, channel, script.piece())

    def _message(self, channel: int, what: int) -> bytes:
        script = self.script
        where = short(script.choice(EXCHANGES)) + _short(script.choice(KEYS))
        if what & 1:
            arguments = b"\x01\x38" + _short(b"NO_ROUTE") + where
            head = methods.method(channel, methods.RETURN, arguments)
        else:
            number = script.number()
            about = u64.pack(number >> 1) + bytes((number & 1,))
            arguments = _short(script.choice(CONSUMERS)) + about + where
            head = methods.method(channel, methods.DELIVER, arguments)
        properties = script.piece() if what & 2 else script.choice(PROPERTY_BLOCKS)
        payload = ENVELOPE if what & 4 else script.piece()
        size = len(payload) + (script.number() if what & 8 else 0)
        header = _frame(methods.HEADER, channel, b"\0\x3c\0\0" + u64.pack(size) + properties)
        cut = len(payload) // 2 if what & 16 else len(payload)
        bodies = [_frame(methods.BODY, channel, part) for part in (payload[:cut], payload[cut:])]
        return head + header + b"".join(bodies if payload[cut:] else bodies[:1])


def _short(raw: bytes) -> bytes:
    return bytes((len(raw),)) + raw


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return b"%c%b%b%b\xce" % (kind, channel.to_bytes(2), u32.pack(len(payload)), payload)


def _closing(script: Script, channel: int) -> bytes:
    kind = methods.CHANNEL_CLOSE if channel else methods.CLOSE
    told = script.choice(CODES).to_bytes(2) + _short(script.piece()[:255])
    return methods.method(channel, kind, told + script.choice(METHODS))


def run(data: bytes) -> None:
    """Play one script."""
    perform(AmqpStage, "commlib.transports._amqp_link", data)
