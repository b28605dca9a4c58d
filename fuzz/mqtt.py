"""A hostile MQTT broker, on both versions of the protocol."""

from __future__ import annotations

from typing import Any

from commlib._packet import PROPERTIES, Header, Packet
from commlib.transports import _mqtt_bytes as wire
from commlib.transports import _mqtt_control as control
from commlib.transports import _mqtt_frames as frames
from commlib.transports._mqtt_control import V5
from commlib.transports._mqtt_headers import write_pairs
from commlib.transports.base import Address
from commlib.transports.mqtt import ConnectionParameters, MQTTProtocolType, MqttTransport
from fuzz.stage import Stage, perform
from played_socket import PlayedSocket

NAMES = ("a.b", "a.*", "a.+.c", "svc", "a.b.*", "#", "$SYS.x")
TOPICS = (b"a/b", b"a/b/c", b"svc", b"$SYS/x", b"a", b"rpc-" + bytes(16).hex().encode() + b"/1")
HEADER = Header(5, PROPERTIES, "ab", 7, hops=("x",))
PROPERTY_BLOCKS = (
    frames.NO_PROPERTIES,
    frames.publish_properties(3, []),
    frames.publish_properties(None, write_pairs(HEADER)),
    b"\x02\x0b\x01",  # the first subscription identifier
    b"\x04\x0b\x01\x0b\x02",
    b"\x03\x23\x00\x01",  # a topic alias
)
PUBLISHES = (0x30, 0x31, 0x32, 0x34, 0x35, 0x38, 0x3A, 0x3C, 0x3D, 0x36)
SHORT_KINDS = (0x40, 0x50, 0x62, 0x70, 0x90, 0xB0, 0xD0, 0xE0, 0x20, 0xF0, 0x60)


class MqttStage(Stage):
    transport: MqttTransport

    def begin(self) -> None:
        script = self.script
        version = MQTTProtocolType.MQTTv5 if script.flag() else MQTTProtocolType.MQTTv311
        params = ConnectionParameters("broker", protocol=version, max_payload=1000)
        self.transport = MqttTransport(params)
        self._calls = 1

    def act(self) -> None:
        script, transport = self.script, self.transport
        what, name = script.number() % 8, script.choice(NAMES)
        if what < 2:
            about = script.number()
            header = HEADER if about & 4 and self.transport.traits.header_beside_bare else None
            packet = Packet(b"{}", "", header, qos=about % 3, retain=bool(about & 8))
            self.attempt(lambda: transport.publish(name, packet))
        elif what == 2:
            self.attempt(lambda: transport.send(Address("rpc-other/7"), Packet(b"{}")))
        elif what == 3:
            self.start(transport.subscribe(name, self.take))
        elif what == 4:
            self.start(self.consume(name))
        elif what == 5 and self.endings:
            self.start(script.choice(self.endings).close())
        elif what == 6:
            self.start(transport.flush())
        elif self.inbox is not None:
            self._calls += 1
            self.inbox.address(str(self._calls))

    def answer(self, socket: PlayedSocket[Any]) -> bytes:
        raw, socket.written[:] = b"".join(socket.written), []
        answers = []
        while raw:
            size, start = wire.read_length(raw, 1)
            answers.append(_answer(socket.link.version, raw[0], raw[start : start + size]))
            raw = raw[start + size :]
        return b"".join(answers)

    def something(self) -> bytes:
        """A packet of any kind, its length as it should be, or nearly so."""
        script = self.script
        what = script.number()
        if what < 0x80:
            head = script.choice(PUBLISHES)
            topic = script.choice(TOPICS) if what & 1 else script.piece()
            body = wire.u16.pack(len(topic)) + topic
            if head & 0x06:
                body += bytes((0, script.number()))
            body += script.choice(PROPERTY_BLOCKS) if what & 2 else b""
        elif what < 0x90:
            head, body = control.CONNACK, bytes((0, script.number() & 0x8F))
        else:
            head, body = script.choice(SHORT_KINDS), bytes((0, script.number() & 0x1F))
        body += script.piece()
        return b"%c%b%b" % (head, wire.length(len(body)), body)


def _answer(version: int, head: int, body: bytes) -> bytes:
    """What a broker says that can all that there is."""
    none = b"\x00" if version == V5 else b""
    kind = head & 0xF0
    if kind == control.CONNECT:
        return b"\x20%c\x00\x00%b" % (2 + len(none), none)
    if head == control.SUBSCRIBE:
        return b"\x90%c%b%b\x00" % (3 + len(none), body[:2], none)
    if head == control.UNSUBSCRIBE:
        return b"\xb0%c%b%b" % (2 + len(none), body[:2], none)
    if kind == frames.PUBLISH and head & frames.QOS_MASK:
        at = 2 + int.from_bytes(body[:2])
        answer = frames.PUBREC if head & 4 else frames.PUBACK
        return frames.acknowledge(answer, int.from_bytes(body[at : at + 2]))
    if kind == frames.PUBREC:
        return frames.acknowledge(frames.PUBREL, int.from_bytes(body[:2]))
    if head == frames.PUBREL:
        return frames.acknowledge(frames.PUBCOMP, int.from_bytes(body[:2]))
    return b"\xd0\x00" if kind == 0xC0 else b""


def run(data: bytes) -> None:
    """Play one script."""
    perform(MqttStage, "commlib.transports._mqtt_link", data)
