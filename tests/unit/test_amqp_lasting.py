"""Subscriptions that outlive the connection, against a broker that is played by the test."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pika import spec

from amqp_wire import Wire, closing, delivered
from collected import met
from commlib._packet import Packet
from commlib.exceptions import AuthError, ConnectionLost
from commlib.transports import _amqp_lasting as module
from commlib.transports._amqp_codes import Refusal
from commlib.transports._amqp_lasting import LastingTopic, LastingTopics
from commlib.transports._amqp_methods import LASTING, SETUP
from commlib.transports._amqp_params import ConnectionParameters
from commlib.transports._amqp_properties import PropertyReader
from commlib.transports._amqp_topics import Topics
from commlib.transports.base import LinkStats

LOCKED = "ACCESS_REFUSED - queue 'robot:a.b:1' in vhost '/' in exclusive use"
FIRST = "robot:a.b:1"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_PAUSE", "LONGEST_PAUSE", "AUTH_PAUSE", "CALM_PAUSE"):
        monkeypatch.setattr(module, name, 0.0)


class Session:
    """The lasting subscriptions of one transport, and what they are handed."""

    def __init__(self, **options: Any) -> None:
        params = ConnectionParameters(client_id="robot", session_expiry=60, **options)
        self.got: list[tuple[str, bytes]] = []
        self.packets: list[Packet] = []
        self.failed: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        reader = PropertyReader(LinkStats())
        self.topics = Topics(params.exchange, {}, reader, self._spawn)
        self.lasting = LastingTopics(params, self.topics, reader, self._spawn)
        self.wire = Wire()

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note_end)
        return task

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.failed.append(task)

    def add(self, topic: str, who: str = "") -> LastingTopic:
        def take(packet: Packet) -> None:
            self.got.append((who or topic, packet.payload))
            self.packets.append(packet)

        return self.lasting.add(topic, take)

    async def added(self, topic: str, who: str = "") -> LastingTopic:
        """One that the broker has said yes to."""
        found = self.add(topic, who)
        await self.wire.settle()
        await found.confirmed
        return found

    async def link(self, *, announced: bool = True) -> None:
        self.wire = Wire()
        restored = asyncio.ensure_future(self.lasting.restore(self.wire.link, 5.0))
        await self.wire.settle()
        await restored
        if announced:
            self.lasting.announce()

    async def lose(self) -> None:
        self.lasting.detach()
        self.wire.link.abort(ConnectionLost("cut"))
        for _ in range(10):
            await asyncio.sleep(0)

    async def close(self, found: LastingTopic) -> list[str]:
        """Close one; what the broker was told."""
        closing = asyncio.ensure_future(found.close())
        asked = await self.wire.settle()
        await closing
        return asked

    def asked(self, kind: type) -> list[Any]:
        return [method for _, method in self.wire.broker.asked if isinstance(method, kind)]

    def comes(self, found: LastingTopic, *tags: int, key: str = "a.b", tag: str = "") -> None:
        """Messages for one of them, in one piece."""
        raw = b""
        for number in tags:
            body, consumer = b"%d" % number, tag or found.tag
            raw += delivered(LASTING, body, consumer=consumer, tag=number, key=key)
        self.wire.comes(raw)

    async def until_asked(self, kind: type) -> Any:
        """Let the broker answer all that comes before such a method, which it has yet to see."""
        while True:
            await asyncio.sleep(0)
            for frame in self.wire.frames():
                if isinstance(getattr(frame, "method", None), kind):
                    return frame
                self.sees(frame)

    def sees(self, frame: Any) -> None:
        """The broker sees this, and answers."""
        self.wire.comes(self.wire.broker.takes(frame))

    async def answers(self) -> list[tuple[str, int]]:
        """How the messages were answered since the last look."""
        before = len(self.wire.broker.asked)
        await self.wire.settle()
        found = []
        for _, method in self.wire.broker.asked[before:]:
            if isinstance(method, spec.Basic.Ack):
                found.append(("all up to" if method.multiple else "only", method.delivery_tag))
            elif isinstance(method, spec.Basic.Nack):
                assert method.requeue
                assert not method.multiple
                found.append(("back", method.delivery_tag))
        return found

    async def end(self) -> None:
        """Leave no task behind."""
        await self.lose()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def session(**options: Any) -> Session:
    new = Session(**options)
    await new.link()
    return new


# ---- what the broker is asked for ----


async def test_each_has_a_queue_of_its_own_that_stays() -> None:
    new = await session(queue_size=7)
    found = await new.added("a.*")
    (declare,) = new.asked(spec.Queue.Declare)
    assert declare.queue == found.queue == "robot:a.*:1"
    assert (declare.durable, declare.exclusive, declare.auto_delete) == (True, False, False)
    assert declare.arguments == {
        **{"x-queue-type": "classic", "x-expires": 60_000},
        **{"x-max-length": 7, "x-overflow": "drop-head"},
    }
    (bind,) = new.asked(spec.Queue.Bind)
    assert (bind.queue, bind.exchange, bind.routing_key) == (found.queue, "amq.topic", "a.#")
    (consume,) = new.asked(spec.Basic.Consume)
    assert (consume.exclusive, consume.no_ack) == (True, False)
    (qos,) = new.asked(spec.Basic.Qos)
    assert (qos.prefetch_count, qos.global_qos) == (module.PREFETCH, False)
    await new.end()


async def test_a_quorum_queue_takes_no_exclusive_consumer_and_has_one_all_the_same() -> None:
    new = await session(queue_type="quorum")
    await new.added("a.b")
    (declare,) = new.asked(spec.Queue.Declare)
    assert declare.arguments["x-queue-type"] == "quorum"
    assert declare.arguments["x-single-active-consumer"] is True
    (consume,) = new.asked(spec.Basic.Consume)
    assert not consume.exclusive
    await new.end()


async def test_two_of_one_topic_are_handed_each_message() -> None:
    new = await session()
    first, second = await new.added("a.b", "first"), await new.added("a.b", "second")
    assert (first.queue, second.queue) == (FIRST, "robot:a.b:2")
    new.comes(first, 1)
    new.comes(second, 2)
    assert new.got == [("first", b"1"), ("second", b"2")]
    await new.close(first)
    third = await new.added("a.b", "third")
    assert third.queue == FIRST, "the next program has the same ones in the same order"
    await new.end()


async def test_all_of_it_is_asked_for_again_on_the_next_connection() -> None:
    new = Session()
    found = new.add("a.b")
    for _ in range(2):
        await new.link()
        await asyncio.wait_for(found.confirmed, 5)
        assert [method.queue for method in new.asked(spec.Queue.Declare)] == [FIRST]
        assert len(new.asked(spec.Queue.Bind)) == len(new.asked(spec.Basic.Consume)) == 1
        await new.lose()
        assert not found.confirmed.done()
    await new.end()


# ---- messages ----


async def test_a_burst_is_acknowledged_in_one_go_when_it_was_handed_over() -> None:
    new = await session()
    first, second = await new.added("a.b"), await new.added("a.*")
    new.comes(first, 1, 2)
    new.comes(second, 3)
    assert [payload for _, payload in new.got] == [b"1", b"2", b"3"]
    assert await new.answers() == [("all up to", 3)]
    new.comes(first, 4)
    assert await new.answers() == [("all up to", 4)]
    assert await new.answers() == []
    await new.end()


async def test_a_name_that_only_the_broker_takes_for_the_same_is_not_handed_over() -> None:
    new = await session()
    found = await new.added("house/*")
    assert [method.routing_key for method in new.asked(spec.Queue.Bind)] == ["#"]
    new.comes(found, 1, key="other.topic")
    new.comes(found, 2, key="house/door")
    assert [(packet.topic, packet.payload) for packet in new.packets] == [("house/door", b"2")]
    assert await new.answers() == [("all up to", 2)]
    await new.end()


async def test_what_comes_again_says_so() -> None:
    new = await session()
    found = await new.added("a.b")
    raw = delivered(LASTING, b"x", consumer=found.tag, redelivered=True)
    new.wire.comes(raw)
    assert [packet.redelivered for packet in new.packets] == [True]
    await new.end()


async def test_what_comes_for_one_that_is_kept_stays_with_the_broker() -> None:
    new = await session()
    kept, other = await new.added("a.b"), await new.added("c.d")
    new.comes(other, 1, key="c.d")
    kept.keep()
    new.comes(kept, 2)
    new.comes(other, 3, key="c.d")
    assert await new.answers() == [("only", 1), ("only", 3)], "not all up to 3"
    assert new.got == [("c.d", b"1"), ("c.d", b"3")]
    await new.end()


async def test_it_goes_back_if_the_connection_goes_on_after_all() -> None:
    new = await session()
    kept = await new.added("a.b")
    kept.keep()
    await kept.close()
    new.comes(kept, 1, 2)
    tag = kept.tag
    again = new.add("a.b")
    assert again.queue == kept.queue
    assert await new.answers() == [("back", 1), ("back", 2)]
    assert [method.consumer_tag for method in new.asked(spec.Basic.Cancel)] == [tag]
    assert again.is_consumed
    new.comes(again, 3)
    assert await new.answers() == [("all up to", 3)]
    await new.end()


async def test_it_goes_back_if_the_connection_goes_on_and_nobody_comes_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "KEPT_SECONDS", 0.01)
    new = await session()
    kept, other = await new.added("a.b"), await new.added("c.d")
    tag = kept.tag
    kept.keep()
    new.comes(kept, 1, 2)
    await met(lambda: not kept.is_consumed)
    assert await new.answers() == [("back", 1), ("back", 2)]
    assert [method.consumer_tag for method in new.asked(spec.Basic.Cancel)] == [tag]
    assert new.asked(spec.Queue.Delete) == []
    new.comes(kept, 3, tag=tag)  # it was on its way
    new.comes(other, 4, key="c.d")
    assert await new.answers() == [("back", 3), ("all up to", 4)]
    await new.end()


async def test_what_comes_for_one_that_has_left_goes_back() -> None:
    new = await session()
    left, other = await new.added("a.b"), await new.added("c.d")
    tag = left.tag
    await new.close(left)
    new.comes(other, 1, key="c.d")
    new.comes(left, 2, tag=tag)
    assert await new.answers() == [("back", 2), ("all up to", 1)]
    assert new.got == [("c.d", b"1")]
    await new.end()


async def test_after_the_channel_was_closed_old_numbers_are_not_acknowledged() -> None:
    new = await session()
    found = await new.added("a.b")
    new.comes(found, 7)
    new.wire.comes(closing(LASTING, 541, "INTERNAL_ERROR"))
    assert await new.answers() == []
    assert found.is_consumed
    assert len(new.asked(spec.Basic.Consume)) == 2
    new.comes(found, 1)
    assert await new.answers() == [("all up to", 1)]
    await new.end()


async def test_after_the_connection_was_lost_old_numbers_are_not_acknowledged() -> None:
    new = await session()
    found = await new.added("a.b")
    new.comes(found, 7)
    await new.lose()
    await new.link()
    assert new.asked(spec.Basic.Ack) == []
    new.comes(found, 1)
    assert await new.answers() == [("all up to", 1)]
    await new.end()


async def test_what_comes_before_callbacks_can_publish_waits_for_that() -> None:
    new = Session()
    found = new.add("a.b")
    await new.link(announced=False)
    new.comes(found, 1, 2)
    assert await new.answers() == []
    assert new.got == []
    new.lasting.announce()
    assert [payload for _, payload in new.got] == [b"1", b"2"]
    assert await new.answers() == [("all up to", 2)]
    await new.end()


async def test_what_has_waited_longer_than_its_channel_comes_again() -> None:
    new = Session()
    found = new.add("a.b")
    await new.link(announced=False)
    new.comes(found, 1)
    new.wire.comes(closing(LASTING, 541, "INTERNAL_ERROR"))
    await new.wire.settle()
    new.comes(found, 1)
    new.lasting.announce()
    assert [payload for _, payload in new.got] == [b"1"]
    assert await new.answers() == [("all up to", 1)]
    await new.end()


# ---- the end ----


async def test_one_that_is_closed_takes_its_queue_along() -> None:
    new = await session()
    found = await new.added("a.b")
    assert set(await new.close(found)) == {"Basic.Cancel", "Queue.Unbind", "Queue.Delete"}
    (delete,) = new.asked(spec.Queue.Delete)
    assert (delete.queue, delete.if_empty, delete.if_unused) == (FIRST, False, False)
    await new.added("a.b")
    assert await new.close(found) == [], "that is another one's by now"
    await new.end()


async def test_one_that_is_kept_leaves_its_queue() -> None:
    new = await session()
    found = await new.added("a.b")
    found.keep()
    found.keep()
    assert await new.close(found) == []
    await new.lose()
    await new.link()
    assert new.asked(spec.Queue.Declare) == []
    again = await new.added("a.b")
    assert again.queue == found.queue
    await new.end()


async def test_a_quorum_queue_is_deleted_when_nothing_comes_to_it_any_more() -> None:
    new = await session(queue_type="quorum")
    found = await new.added("a.b")
    asked = await new.close(found)
    assert asked[:2] == ["Basic.Cancel", "Queue.Unbind"]
    looks = [method for method in new.asked(spec.Queue.Declare) if method.passive]
    assert len(looks) == 2, "as many messages as before"
    assert asked[-1] == "Queue.Delete"
    await new.end()


async def test_the_next_one_of_the_same_topic_waits_until_the_queue_is_gone() -> None:
    new = await session()
    found = await new.added("a.b")
    closing = asyncio.ensure_future(found.close())
    delete = await new.until_asked(spec.Queue.Delete)
    again = new.add("a.b")
    assert await new.wire.settle() == []
    new.sees(delete)
    await new.wire.settle()
    await closing
    assert again.is_consumed
    assert again.queue == found.queue
    await new.end()


async def test_one_that_ends_while_the_queue_of_the_last_one_is_still_being_deleted() -> None:
    new = await session()
    first = await new.added("a.b")
    ending = [asyncio.ensure_future(first.close())]
    delete = await new.until_asked(spec.Queue.Delete)
    second = new.add("a.b")
    ending.append(asyncio.ensure_future(second.close()))
    await asyncio.sleep(0)
    third = new.add("a.b")
    new.sees(delete)
    await new.wire.settle()
    await asyncio.gather(*ending)
    assert new.failed == []
    assert len(new.asked(spec.Queue.Delete)) == 2
    assert third.is_consumed
    last = new.wire.broker.asked[-1][1]
    assert isinstance(last, spec.Basic.Consume), "behind the second deletion"
    await new.end()


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_a_deletion_that_takes_long_is_not_waited_for_and_tells_nothing_of_the_broker(
    monkeypatch: pytest.MonkeyPatch, queue_type: str
) -> None:
    monkeypatch.setattr(module, "DELETE_SECONDS", 0.01)
    new = await session(queue_type=queue_type)
    found = await new.added("a.b")
    closing = asyncio.ensure_future(found.close())
    await new.until_asked(spec.Queue.Delete)
    await asyncio.wait_for(closing, 5)
    assert new.wire.link.is_heard
    await new.end()


async def test_a_queue_that_could_not_be_deleted_any_more_is_deleted_on_the_next_link() -> None:
    new = await session()
    found = await new.added("a.b")
    closing = asyncio.ensure_future(found.close())
    await new.until_asked(spec.Queue.Delete)
    await new.lose()
    await closing
    await new.link()
    assert [method.queue for method in new.asked(spec.Queue.Delete)] == [FIRST]
    await new.end()


async def test_what_was_closed_while_the_broker_was_away_is_deleted_when_it_is_back() -> None:
    new = await session()
    found, kept = await new.added("a.b"), await new.added("c.d")
    await new.lose()
    await found.close()
    kept.keep()
    await kept.close()
    new.add("a.b")
    await new.link()
    names = [method.NAME for _, method in new.wire.broker.asked]
    assert names.index("Queue.Delete") < names.index("Queue.Declare")
    assert [method.queue for method in new.asked(spec.Queue.Delete)] == [FIRST]
    await new.lose()
    await new.link()
    assert new.asked(spec.Queue.Delete) == []
    await new.end()


async def test_one_that_leaves_before_the_broker_has_said_yes_is_not_consumed() -> None:
    new = await session()
    found = new.add("a.b")
    consume = await new.until_asked(spec.Basic.Consume)
    tag = found.tag
    found.keep()
    new.sees(consume)
    await new.wire.settle()
    assert [method.consumer_tag for method in new.asked(spec.Basic.Cancel)] == [tag]
    assert not found.is_consumed
    assert not found.confirmed.done()
    await new.end()


async def test_one_that_leaves_before_it_has_a_queue_asks_for_nothing_more() -> None:
    new = await session()
    found = new.add("a.b")
    found.keep()
    assert await new.wire.settle() == []
    await found.close()
    await new.end()


# ---- a queue that others hold ----


async def test_a_queue_that_another_connection_consumes_is_taken_over_when_it_goes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    new = await session()
    new.wire.broker.consumers = 1
    found = new.add("a.b")
    await new.wire.settle()
    assert new.asked(spec.Basic.Consume) == []
    assert not found.confirmed.done()
    assert "'robot:a.b:1' is consumed by another connection: end the other program" in caplog.text
    new.wire.broker.consumers = 0
    await new.wire.settle()
    assert found.is_consumed
    assert found.confirmed.done()
    await new.end()


async def test_so_is_one_that_another_was_a_moment_quicker_to_consume(
    caplog: pytest.LogCaptureFixture,
) -> None:
    new = await session()
    other = await new.added("c.d")
    refused = [2]

    def refuses(method: Any) -> tuple[int, str] | None:
        if isinstance(method, spec.Basic.Consume) and method.queue == FIRST and refused[0]:
            refused[0] -= 1
            return 403, LOCKED
        return None

    new.wire.broker.refuses = refuses
    found = await new.added("a.b")
    assert "is consumed by another connection" in caplog.text
    assert refused == [0]
    new.comes(found, 1)
    new.comes(other, 2, key="c.d")
    assert len(new.got) == 2, "the other one was consumed anew as well"
    qos = [index for index, (_, m) in enumerate(new.wire.broker.asked) if "Qos" in m.NAME]
    consumed = [index for index, (_, m) in enumerate(new.wire.broker.asked) if "Consume" in m.NAME]
    assert min(qos) < min(consumed)
    await new.end()


async def test_a_queue_that_was_made_in_another_way_is_told_by_name_and_parameter() -> None:
    new = await session()
    text = f"PRECONDITION_FAILED - inequivalent arg 'x-expires' for queue '{FIRST}' in vhost '/'"
    new.wire.broker.refuses = lambda method: (
        (406, text) if isinstance(method, spec.Queue.Declare) else None
    )
    found = new.add("a.b")
    await new.wire.settle()
    with pytest.raises(Refusal, match=f"{FIRST}' was made with another session_expiry: keep to"):
        await found.confirmed
    await new.end()


async def test_what_else_is_wrong_with_a_queue_is_told_as_the_broker_says_it() -> None:
    new = await session()
    text = "PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue"
    new.wire.broker.refuses = lambda method: (
        (406, text) if isinstance(method, spec.Queue.Declare) else None
    )
    found = new.add("a.b")
    await new.wire.settle()
    with pytest.raises(Refusal, match="says: PRECONDITION_FAILED - invalid arg"):
        await found.confirmed
    await new.end()


async def test_without_the_right_it_is_tried_again_for_others_may_give_it() -> None:
    new = await session()
    refused = [1]

    def refuses(method: Any) -> tuple[int, str] | None:
        if isinstance(method, spec.Queue.Bind) and refused[0]:
            refused[0] -= 1
            return 403, "ACCESS_REFUSED - read access to exchange 'amq.topic' refused"
        return None

    new.wire.broker.refuses = refuses
    found = new.add("a.b")
    asked = found.confirmed
    await new.wire.settle()
    with pytest.raises(AuthError, match="ACCESS_REFUSED"):
        await asked
    assert found.is_consumed
    assert found.working
    await new.end()


# ---- what others do to queues and exchanges ----


async def test_a_queue_that_was_deleted_is_made_anew() -> None:
    new = await session()
    found, other = await new.added("a.b"), await new.added("c.d")
    new.wire.says(LASTING, spec.Basic.Cancel(found.tag))
    assert (found.working, other.working) == (False, True)
    asked = await new.wire.settle()
    assert asked == ["Queue.Declare", "Queue.Bind", "Basic.Qos", "Basic.Consume"]
    assert found.is_consumed
    assert other.is_consumed
    assert found.working
    await new.end()


async def test_a_queue_that_is_deleted_while_it_is_taken_is_made_anew() -> None:
    new = await session()
    found = new.add("a.b")
    consume = await new.until_asked(spec.Basic.Consume)
    new.wire.says(LASTING, spec.Basic.Cancel(found.tag))
    new.sees(consume)
    await new.wire.settle()
    assert len(new.asked(spec.Queue.Declare)) == 2
    assert found.is_consumed
    await new.end()


async def test_when_the_exchange_is_gone_each_is_bound_again_and_goes_on() -> None:
    new = await session()
    found = await new.added("a.b")
    new.lasting.exchange_is_gone(new.wire.link)
    assert await new.wire.settle() == ["Queue.Declare", "Queue.Bind"]
    new.comes(found, 1)
    assert new.got == [("a.b", b"1")]
    await new.end()


async def test_when_another_has_the_channel_closed_meanwhile_the_prefetch_is_not_lost() -> None:
    new = await session()
    found = new.add("a.b")
    await new.until_asked(spec.Basic.Consume)
    new.wire.comes(closing(LASTING, 541, "INTERNAL_ERROR"))
    await new.wire.settle()
    await found.confirmed
    places = [m.NAME for channel, m in new.wire.broker.asked if channel == LASTING]
    assert places[-2:] == ["Basic.Qos", "Basic.Consume"]
    assert found.is_consumed
    assert SETUP in new.wire.link.channels
    await new.end()
