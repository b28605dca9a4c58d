"""Messages at QoS 1 and 2 until the broker has taken them over."""

from __future__ import annotations

from commlib.transports import _mqtt_bytes as wire
from commlib.transports import _mqtt_frames as frames
from commlib.transports._mqtt_control import V311, Granted
from commlib.transports._mqtt_deliveries import Deliveries, Delivery
from commlib.transports.base import LinkStats
from mqtt_wire import Wire


class Sender:
    """Deliveries on a link whose broker is played by the test."""

    def __init__(self, window: int = 3) -> None:
        self.stats = LinkStats()
        self.refused: list[tuple[str, str]] = []
        self.deliveries = Deliveries(
            self.stats, lambda topic, error: self.refused.append((topic, str(error)))
        )
        self._window = window
        self.connect()

    def connect(self) -> None:
        self.wire = Wire(V311)
        self.wire.link.granted = Granted(0, window=self._window)
        self.deliveries.attach(self.wire.link)

    def send(self, *topics: str, qos: int = 1, retain: bool = False) -> None:
        messages = [self._frame(topic, qos, retain) for topic in topics]
        self.deliveries.write([frame for frame, _ in messages], [note for _, note in messages])

    def _frame(self, topic: str, qos: int, retain: bool) -> tuple[bytes, Delivery]:
        before, behind = frames.publish_parts(wire.text(topic), b"", qos << 1 | retain, b"")
        return before + behind, Delivery(topic, qos, 0.0, split=len(before))

    def sent(self) -> list[tuple[str, int]]:
        """The topics of what was written since the last look, each with its number."""
        return [
            (packet[4:-2].decode(), int.from_bytes(packet[-2:]))
            for packet in self.wire.packets()
            if packet[0] & 0xF0 == frames.PUBLISH
        ]

    def answer(self, kind: int, *packet_ids: int) -> None:
        for packet_id in packet_ids:
            self.wire.comes(frames.acknowledge(kind, packet_id))


async def test_no_more_is_under_way_than_the_broker_allows() -> None:
    sender = Sender(window=3)
    sender.send("a", "b", "c", "d", "e")
    assert sender.sent() == [("a", 1), ("b", 2), ("c", 3)]
    sender.answer(frames.PUBACK, 2)
    assert sender.sent() == [("d", 4)]
    sender.answer(frames.PUBACK, 1, 3, 4)
    assert sender.sent() == [("e", 5)]


async def test_at_qos_2_the_window_is_open_again_at_the_very_end() -> None:
    sender = Sender(window=1)
    sender.send("a", "b", qos=2)
    assert sender.sent() == [("a", 1)]
    sender.answer(frames.PUBREC, 1)
    assert sender.wire.packets() == [frames.acknowledge(frames.PUBREL, 1)]
    sender.answer(frames.PUBCOMP, 1)
    assert sender.sent() == [("b", 2)]


async def test_a_no_is_told_and_the_next_one_goes() -> None:
    sender = Sender(window=1)
    sender.send("a", "b")
    sender.wire.comes(b"\x40\x03\x00\x01\x87")
    sender.wire.comes(b"\x40\x03\x00\x77\x87")  # of something that was never sent
    assert sender.refused == [("a", "a: the broker says: not authorized")]
    assert sender.sent() == [("a", 1), ("b", 2)]


async def test_what_was_not_answered_is_sent_again_at_qos_1_and_given_up_at_qos_2() -> None:
    sender = Sender(window=4)
    sender.send("one")
    sender.send("two", "taken", qos=2)
    sender.send("answered", "waiting", "too")
    sender.answer(frames.PUBREC, 3)
    sender.answer(frames.PUBACK, 4)
    again = sender.deliveries.detach()
    assert [delivery.topic for delivery in again] == ["one", "waiting", "too"]
    assert sender.stats.unconfirmed == 2, "those at QoS 2 that were not answered to the end"

    sender.connect()
    sender.deliveries.write([delivery.frame for delivery in again], list(again))
    assert sender.sent() == [("one", 1), ("waiting", 2), ("too", 3)]


async def test_what_would_end_the_connection_each_time_it_is_sent_is_refused() -> None:
    sender = Sender()
    granted = sender.wire.link.granted
    granted.max_qos, granted.max_packet, granted.retains = 1, 20, False
    sender.send("two", qos=2)
    sender.send("x" * 20, "good")
    sender.send("kept", retain=True)
    assert sender.sent() == [("good", 1)]
    assert [text.partition("says: ")[2] for _, text in sender.refused] == [
        "it does not deliver at this QoS",
        "the packet is too large",
        "it stores no messages (retain)",
    ]


async def test_that_the_broker_has_forgotten_an_exchange_is_its_end() -> None:
    sender = Sender(window=1)
    sender.send("a", "b", qos=2)
    sender.answer(frames.PUBREC, 1)
    sender.wire.comes(b"\x70\x03\x00\x01\x92")
    assert sender.refused == []
    assert sender.sent() == [("a", 1), ("b", 2)]
