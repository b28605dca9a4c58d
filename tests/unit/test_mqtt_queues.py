"""Requests and replies on MQTT."""

from __future__ import annotations

import asyncio

from commlib._packet import Packet
from commlib.exceptions import AuthError
from commlib.transports._mqtt_board import Board, Boards
from commlib.transports._mqtt_control import V5
from commlib.transports._mqtt_queues import MAX_PENDING, Consumer, Inbox, Queue
from commlib.transports.base import LinkStats
from mqtt_wire import Wire


class Fixture:
    """A queue, and what becomes of what is in it."""

    def __init__(self) -> None:
        self.stats = LinkStats()
        self.boards = Boards(self.stats, lambda: Board(self.stats), lambda board: None)
        self.queues: dict[str, Queue] = {}
        self.returned: list[bytes] = []
        self.got: list[bytes] = []
        self.queue = Queue(
            *("work", self.queues, self.boards, self.stats),
            lambda name, packet: self.returned.append(packet.payload),
        )

    def join(self, credit: int) -> Consumer:
        return self.queue.join(lambda packet: self.got.append(packet.payload), credit)


async def test_a_consumer_takes_no_more_than_it_can_work_off() -> None:
    work = Fixture()
    consumer = work.join(2)
    packets = [Packet(b"%d" % n) for n in range(4)]
    for packet in packets:
        work.queue.take(packet)
    assert work.got == [b"0", b"1"]
    await asyncio.to_thread(consumer.done, packets[0])
    assert work.got == [b"0", b"1", b"2"]
    consumer.done(packets[1])
    consumer.done(packets[2])
    work.queue.take(Packet(b"4"))
    assert work.got == [b"0", b"1", b"2", b"3", b"4"]


async def test_consumers_of_one_connection_share_the_packets() -> None:
    work = Fixture()
    for _ in range(2):
        work.join(2)
    for n in range(5):
        work.queue.take(Packet(b"%d" % n))
    assert work.got == [b"0", b"1", b"2", b"3"], "the fifth waits for one of the two"


async def test_what_waits_already_goes_before_what_comes() -> None:
    work = Fixture()
    consumer = work.join(1)
    packets = [Packet(b"%d" % n) for n in range(3)]
    work.queue.take(packets[0])
    work.queue.take(packets[1])
    consumer.credit += 1
    work.queue.take(packets[2])
    assert work.got == [b"0", b"1"]


async def test_what_nobody_wants_any_more_is_not_handed_over() -> None:
    work = Fixture()
    work.join(2)
    work.queue.take(Packet(b"", ttl=0))
    assert work.got == []
    assert work.stats.expired == 1


async def test_what_waited_for_too_long_is_dropped_and_counted() -> None:
    work = Fixture()
    consumer = work.join(1)
    work.queue.take(Packet(b"first"))
    work.queue.take(Packet(b"late", ttl=0))
    work.queue.take(Packet(b"last", ttl=60))
    await asyncio.to_thread(consumer.done, Packet(b"first"))
    assert work.got == [b"first", b"last"]
    assert work.stats.expired == 1


async def test_what_waits_is_bounded_and_what_is_left_is_given_back() -> None:
    work = Fixture()
    consumer = work.join(0)
    for n in range(MAX_PENDING + 3):
        work.queue.take(Packet(b"%d" % n))
    assert work.stats.overflow == 3
    await consumer.close()
    await consumer.close()
    assert work.returned == [b"%d" % n for n in range(3, MAX_PENDING + 3)]
    assert work.queues == {}


async def test_what_still_comes_when_the_last_one_leaves_is_given_back() -> None:
    work = Fixture()
    consumer = work.join(5)
    wire = Wire(V5)
    work.boards.settle(numbered=True)
    work.boards.main.attach(wire.link)
    leaving = asyncio.ensure_future(consumer.close())
    await asyncio.sleep(0)
    wire.comes(wire.publish("work", b"late", properties=b"\x02\x0b\x01"))
    assert not leaving.done()
    wire.comes(b"\xb0\x04\x00\x01\x00\x00")
    await leaving
    assert (work.got, work.returned) == ([], [b"late"])
    wire.comes(wire.publish("work", b"later", properties=b"\x02\x0b\x01"))
    assert work.returned == [b"late"]


async def test_a_reply_is_told_by_its_topic_and_a_late_one_belongs_to_nobody() -> None:
    got: list[tuple[str | None, bytes]] = []
    inbox = Inbox(
        Fixture().boards, "rpc-1", lambda token, packet: got.append((token, packet.payload)) is None
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

    inbox = Inbox(Fixture().boards, "rpc-1", take)
    inbox.address("a")
    for payload in (b"other", b"mine", b"mine"):
        inbox.take(Packet(payload, "rpc-1/a"))
    assert got == ["a", "a", None]


async def test_a_consumer_does_not_work_while_the_broker_refuses_its_queue() -> None:
    work = Fixture()
    consumer = work.join(1)
    assert not consumer.working
    for refusal in (None, AuthError("no right"), None):
        work.queue.channel.confirm(refusal)
        assert consumer.working == (refusal is None)
