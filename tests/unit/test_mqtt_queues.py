"""Requests and replies on MQTT."""

from __future__ import annotations

from commlib._packet import Packet
from commlib.transports._mqtt_board import Board, Boards
from commlib.transports._mqtt_queues import MAX_PENDING, Consumer, Inbox
from commlib.transports.base import LinkStats


def boards() -> Boards:
    return Boards(Board, lambda board: None)


async def test_a_consumer_takes_no_more_than_it_can_work_off() -> None:
    got: list[bytes] = []
    consumer = Consumer(lambda packet: got.append(packet.payload), 2, LinkStats())
    packets = [Packet(b"%d" % n) for n in range(4)]
    for packet in packets:
        consumer.take(packet)
    assert got == [b"0", b"1"]
    consumer.done(packets[0])
    assert got == [b"0", b"1", b"2"]
    consumer.done(packets[1])
    consumer.done(packets[2])
    consumer.take(Packet(b"4"))
    assert got == [b"0", b"1", b"2", b"3", b"4"]


async def test_what_waited_for_too_long_is_dropped_and_counted() -> None:
    got: list[bytes] = []
    stats = LinkStats()
    consumer = Consumer(lambda packet: got.append(packet.payload), 1, stats)
    consumer.take(Packet(b"first"))
    consumer.take(Packet(b"late", ttl=0))
    consumer.take(Packet(b"last", ttl=60))
    consumer.done(Packet(b"first"))
    assert got == [b"first", b"last"]
    assert stats.expired == 1


async def test_what_waits_is_bounded_and_what_is_left_behind_counted() -> None:
    stats = LinkStats()
    consumer = Consumer(lambda packet: None, 0, stats)
    for _ in range(MAX_PENDING + 3):
        consumer.take(Packet(b""))
    assert stats.overflow == 3
    await consumer.close()
    assert stats.overflow == MAX_PENDING + 3


async def test_a_reply_is_told_by_its_topic_and_a_late_one_belongs_to_nobody() -> None:
    got: list[tuple[str | None, bytes]] = []
    inbox = Inbox(
        boards(), "rpc-1", lambda token, packet: got.append((token, packet.payload)) is None
    )
    assert inbox.channel.filter == "rpc-1/+"
    for token in ("a", "b", "c"):
        assert inbox.address(token).reply_to == f"rpc-1/{token}"
    inbox.release("c")
    for token in ("b", "a", "a", "c"):
        inbox.take(Packet(token.encode(), f"rpc-1/{token}"))
    assert got == [("b", b"b"), ("a", b"a"), (None, b"a"), (None, b"c")]


async def test_a_reply_to_something_else_leaves_the_address_open() -> None:
    got: list[str | None] = []

    def take(token: str | None, packet: Packet) -> bool:
        got.append(token)
        return packet.payload == b"mine"

    inbox = Inbox(boards(), "rpc-1", take)
    inbox.address("a")
    for payload in (b"other", b"mine", b"mine"):
        inbox.take(Packet(payload, "rpc-1/a"))
    assert got == ["a", "a", None]
