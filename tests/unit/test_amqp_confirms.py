"""Messages that the broker confirms, against a broker that is played by the test."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pika import spec

from amqp_wire import Wire, closing
from commlib.exceptions import ConnectionLost
from commlib.transports import _amqp_confirms as module
from commlib.transports._amqp_confirms import Confirms
from commlib.transports._amqp_frames import content, publish_method
from commlib.transports._amqp_methods import CONFIRMED
from commlib.transports._deliveries import MAX_LOSSES, MAX_WAITING, Delivery
from commlib.transports.base import LinkStats


class Sender:
    """Confirmed messages on a link whose broker is played by the test."""

    def __init__(self) -> None:
        self.stats = LinkStats()
        self.refused: list[tuple[str, str]] = []
        self.room: list[bool] = []
        self.confirms = Confirms(
            self.stats, lambda topic, error: self.refused.append((topic, str(error)))
        )
        self.confirms.on_room = self.room.append
        self.connect()

    def connect(self) -> None:
        self.wire = Wire()
        self.wire.link.on_room = lambda room: self.confirms.resume() if room else None
        self.confirms.attach(self.wire.link)

    def send(self, *topics: str, qos: int = 1) -> None:
        frames = [self._frame(topic) for topic in topics]
        self.confirms.write(frames, [Delivery(topic, qos, 0.0) for topic in topics])

    def _frame(self, topic: str) -> bytes:
        return publish_method(CONFIRMED, "x", topic) + content(CONFIRMED, b"\0\0", b"1", 4096)

    async def selected(self) -> None:
        """The broker opens the channel, and agrees to confirm."""
        self.wire.says(CONFIRMED, spec.Channel.OpenOk())
        self.wire.says(CONFIRMED, spec.Confirm.SelectOk())
        await asyncio.sleep(0)

    async def closes(self, code: int, klass: Any = spec.Basic.Publish) -> None:
        """The broker closes the channel, and opens it again."""
        self.wire.comes(closing(CONFIRMED, code, "NOT - so", klass))
        self.wire.says(CONFIRMED, spec.Channel.OpenOk())
        self.wire.says(CONFIRMED, spec.Confirm.SelectOk())
        await asyncio.sleep(0)

    def sent(self) -> list[str]:
        """The topics of what was written since the last look."""
        methods = [method for _, method in self.wire.asked()]
        return [method.routing_key for method in methods if method.NAME == "Basic.Publish"]

    def lose(self) -> list[str]:
        """The connection is lost, and there is another one; what goes there."""
        again = self.confirms.detach()
        self.connect()
        self.confirms.write([delivery.frame for delivery in again], list(again))
        return [delivery.topic for delivery in again]


async def selected() -> Sender:
    """One that has sent something already."""
    sender = Sender()
    sender.send("first")
    await sender.selected()
    sender.wire.says(CONFIRMED, spec.Basic.Ack(1))
    sender.wire.frames()
    return sender


# ---- when it may write ----


async def test_the_channel_is_opened_when_it_is_needed_and_nothing_is_written_before() -> None:
    sender = Sender()
    assert sender.wire.frames() == []
    sender.send("a")
    sender.send("b")
    assert sender.wire.names() == ["Channel.Open"]
    sender.wire.says(CONFIRMED, spec.Channel.OpenOk())
    assert sender.wire.names() == ["Confirm.Select"]
    sender.wire.says(CONFIRMED, spec.Confirm.SelectOk())
    await asyncio.sleep(0)
    assert sender.sent() == ["a", "b"]


async def test_no_more_is_under_way_than_the_window_has_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "WINDOW", 3)
    sender = await selected()
    sender.send("a", "b", "c", "d", "e", "f")
    assert sender.sent() == ["a", "b", "c"]
    sender.wire.says(CONFIRMED, spec.Basic.Ack(2))
    assert sender.sent() == ["d"]
    sender.wire.says(CONFIRMED, spec.Basic.Ack(4, True))
    assert sender.sent() == ["e", "f"]


async def test_while_we_are_held_nothing_is_written() -> None:
    sender = await selected()
    sender.wire.says(0, spec.Connection.Blocked("low on memory"))
    sender.send("a")
    assert sender.sent() == []
    sender.wire.says(0, spec.Connection.Unblocked())
    assert sender.sent() == ["a"]


async def test_what_is_too_old_when_we_are_held_no_more_is_given_up() -> None:
    sender = await selected()
    sender.send("under way")
    assert sender.sent() == ["under way"]
    sender.wire.says(0, spec.Connection.Blocked("low on memory"))
    sender.send("a")
    sender.confirms.expire(oldest=0.0)
    sender.send("b")
    sender.confirms._waiting[0].born = -1.0
    sender.confirms.expire(oldest=0.0)
    sender.wire.says(0, spec.Connection.Unblocked())
    assert sender.sent() == ["b"]
    assert (sender.stats, sender.confirms._waiting_bytes) == (LinkStats(expired=1), 0)
    sender.wire.says(CONFIRMED, spec.Basic.Ack(3, True))
    assert sender.confirms.is_idle


async def test_one_that_is_held_from_the_beginning_begins_later() -> None:
    sender = Sender()
    sender.wire.link.hold("it")
    sender.send("a")
    assert sender.wire.frames() == []
    sender.wire.link.release("it")
    assert sender.wire.names() == ["Channel.Open"]
    await sender.selected()
    assert sender.sent() == ["a"]


async def test_beyond_a_bound_there_is_no_room() -> None:
    sender = Sender()
    sender.send(*["a"] * MAX_WAITING)
    assert sender.room == [False]
    await sender.selected()
    assert sender.room == [False, True]


# ---- what the broker says ----


async def test_one_yes_is_for_one_and_one_for_many_is_for_all_up_to_it() -> None:
    sender = await selected()
    sender.send(*"abcdef")  # 2 to 7
    sender.wire.says(CONFIRMED, spec.Basic.Ack(4))
    drained = asyncio.ensure_future(sender.confirms.drained())
    sender.wire.says(CONFIRMED, spec.Basic.Ack(6, True))
    await asyncio.sleep(0)
    assert not drained.done()
    sender.wire.says(CONFIRMED, spec.Basic.Ack(7))
    await drained
    assert sender.refused == []


async def test_0_for_many_is_for_all_of_them() -> None:
    sender = await selected()
    sender.send(*"abc")
    sender.wire.says(CONFIRMED, spec.Basic.Ack(0, True))
    assert sender.confirms.is_idle


async def test_a_no_is_told_of_each_and_the_others_go_on() -> None:
    sender = await selected()
    sender.send(*"abcd")
    sender.wire.says(CONFIRMED, spec.Basic.Nack(3), spec.Basic.Ack(2), spec.Basic.Nack(5, True))
    assert [topic for topic, _ in sender.refused] == ["b", "c", "d"]
    assert sender.refused[0][1] == "b: the broker could not take it"
    assert sender.confirms.is_idle


async def test_a_word_about_what_was_never_sent_is_passed_over() -> None:
    sender = await selected()
    sender.send("a")
    sender.wire.says(CONFIRMED, spec.Basic.Ack(1), spec.Basic.Nack(77), spec.Basic.Ack(1, True))
    assert not sender.confirms.is_idle
    sender.wire.says(CONFIRMED, spec.Basic.Ack(2))
    assert sender.confirms.is_idle
    assert sender.refused == []


# ---- the channel is closed for one of them ----


async def test_with_one_alone_under_way_it_is_that_one() -> None:
    sender = await selected()
    sender.send("bad")
    sender.wire.frames()
    await sender.closes(403)
    assert sender.refused == [("bad", "robot: the broker says: NOT - so")]
    assert sender.confirms.is_idle
    sender.send("good")
    assert sender.sent() == ["good"]
    sender.wire.says(CONFIRMED, spec.Basic.Ack(1))
    assert sender.confirms.is_idle


async def test_with_several_under_way_they_go_one_by_one_until_it_is_found() -> None:
    sender = await selected()
    sender.send("a", "bad", "c")
    assert sender.sent() == ["a", "bad", "c"]
    await sender.closes(404)
    assert sender.refused == []
    assert sender.sent() == ["a"]
    sender.wire.says(CONFIRMED, spec.Basic.Ack(1))
    assert sender.sent() == ["bad"]
    sender.send("d")
    await sender.closes(404)
    assert [topic for topic, _ in sender.refused] == ["bad"]
    assert sender.sent() == ["c"]
    sender.wire.says(CONFIRMED, spec.Basic.Ack(1))
    assert sender.sent() == ["d"]
    sender.send("e", "f")
    assert sender.sent() == ["e", "f"], "none of these can have been the reason"


async def test_what_was_confirmed_before_does_not_go_again() -> None:
    sender = await selected()
    sender.send("a", "b", "bad")
    sender.wire.says(CONFIRMED, spec.Basic.Ack(3, True))
    sender.wire.frames()
    await sender.closes(403)
    assert [topic for topic, _ in sender.refused] == ["bad"]
    assert sender.sent() == []
    assert sender.confirms.is_idle


async def test_all_of_them_may_be_bad() -> None:
    sender = await selected()
    topics = [f"bad{n}" for n in range(5)]
    sender.send(*topics)
    for _ in range(6):
        await sender.closes(403)
    assert [topic for topic, _ in sender.refused] == topics
    assert sender.confirms.is_idle


async def test_nothing_is_written_between_its_end_and_the_yes_to_confirmations() -> None:
    sender = await selected()
    sender.send("a", "bad")
    sender.wire.frames()
    sender.wire.comes(closing(CONFIRMED, 404, "NOT_FOUND", spec.Basic.Publish))
    sender.send("c")
    assert sender.wire.names() == ["Channel.CloseOk", "Channel.Open"]
    sender.wire.says(CONFIRMED, spec.Channel.OpenOk())
    assert sender.wire.names() == ["Confirm.Select"]
    sender.wire.says(CONFIRMED, spec.Confirm.SelectOk())
    await asyncio.sleep(0)
    assert sender.sent() == ["a"]


async def test_a_channel_that_is_closed_before_it_confirms_begins_anew_once() -> None:
    """The broker numbers from the first message on, however often it was asked to."""
    sender = Sender()
    sender.send("a", "b")
    sender.wire.says(CONFIRMED, spec.Channel.OpenOk())
    sender.wire.comes(closing(CONFIRMED, 541, "INTERNAL_ERROR"))
    sender.wire.says(CONFIRMED, spec.Channel.OpenOk())
    for _ in range(sender.wire.names().count("Confirm.Select")):
        sender.wire.says(CONFIRMED, spec.Confirm.SelectOk())
        await asyncio.sleep(0)
    assert sender.sent() == ["a", "b"]
    sender.send("c")
    sender.wire.says(CONFIRMED, spec.Basic.Nack(1), spec.Basic.Ack(2), spec.Basic.Nack(3))
    assert [topic for topic, _ in sender.refused] == ["a", "c"]
    assert sender.confirms.is_idle


async def test_one_that_is_closed_with_nothing_under_way_is_no_news() -> None:
    sender = await selected()
    await sender.closes(406, None)
    assert sender.refused == []
    sender.send("a", "b")
    assert sender.sent() == ["a", "b"]


# ---- the connection is lost ----


async def test_on_the_next_connection_it_goes_again_until_it_is_confirmed() -> None:
    sender = await selected()
    sender.send("answered", "a", "b")
    sender.wire.says(CONFIRMED, spec.Basic.Ack(2))
    assert sender.lose() == ["a", "b"]
    assert sender.sent() == []
    await sender.selected()
    assert sender.sent() == ["a", "b"]
    sender.wire.says(CONFIRMED, spec.Basic.Ack(1))
    sender.wire.says(CONFIRMED, spec.Basic.Ack(2))
    assert sender.confirms.is_idle
    assert sender.stats.unconfirmed == 0


async def test_one_with_which_it_is_lost_each_time_is_given_up() -> None:
    sender = Sender()
    sender.send("poison", "good")
    await sender.selected()
    for _ in range(MAX_LOSSES - 1):
        assert sender.lose() == ["poison", "good"]
        await sender.selected()
    assert sender.lose() == ["good"]
    assert sender.stats.unconfirmed == 1


async def test_a_loss_before_the_broker_has_agreed_is_none_of_a_message() -> None:
    sender = Sender()
    sender.send("a")
    for _ in range(MAX_LOSSES + 1):
        assert sender.lose() == ["a"]
    await sender.selected()
    assert sender.sent() == ["a"]


async def test_the_end_of_the_old_connection_says_nothing_about_the_new_one() -> None:
    sender = Sender()
    sender.send("a")
    old = sender.wire
    sender.lose()
    old.link.abort(ConnectionLost("cut"))
    await asyncio.sleep(0)
    await sender.selected()
    assert sender.sent() == ["a"]
    old.comes(b"")
    sender.wire.says(CONFIRMED, spec.Basic.Ack(1))
    assert sender.confirms.is_idle
