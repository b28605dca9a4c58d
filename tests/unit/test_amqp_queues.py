"""Requests on AMQP, against a broker that is played by the test."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pika import BasicProperties, spec

from amqp_wire import Wire, closing, delivered
from commlib._packet import Packet
from commlib.exceptions import AuthError, ConnectionLost
from commlib.transports import _amqp_link as link_module
from commlib.transports import _amqp_queues as module
from commlib.transports._amqp_params import ConnectionParameters
from commlib.transports._amqp_properties import PropertyReader
from commlib.transports._amqp_queues import Consumer, Services
from commlib.transports.base import LinkStats


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(module, "AUTH_PAUSE", 0.0)


def ours(origin: str, seq: int, **more: Any) -> BasicProperties:
    """The properties of a request of our own."""
    return BasicProperties(headers={"origin": origin, "seq": seq}, **more)


class Serving:
    """The services of one transport, and what they are handed."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.packets: list[Packet] = []
        self.stale = 0
        self._tasks: set[asyncio.Task[None]] = set()
        reader, first = PropertyReader(LinkStats()), ConnectionParameters().first_service
        self.services = Services(self._spawn, reader, self._note_stale, first)
        self.connect()

    def connect(self) -> None:
        self.wire = Wire()
        self.broker = self.wire.broker

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _note_stale(self) -> None:
        self.stale += 1

    async def end(self) -> None:
        """Leave no task behind."""
        self.services.detach()
        self.wire.link.abort(ConnectionLost("the test is over"))
        for _ in range(10):
            await asyncio.sleep(0)

    async def restored(self) -> list[str]:
        """Connect; what is asked for."""
        restoring = asyncio.ensure_future(self.services.restore(self.wire.link, 5.0))
        asked = await self.wire.settle()
        await restoring
        self.services.announce()
        return asked

    async def join(self, queue: str, prefetch: int = 4) -> Consumer:
        def take(packet: Packet) -> None:
            self.got.append((queue, packet.payload))
            self.packets.append(packet)

        joining = asyncio.ensure_future(self.services.join(queue, take, prefetch))
        await self.wire.settle()
        return await joining

    def place(self, queue: str) -> tuple[int, str]:
        """The channel on which a queue was consumed last, and the name of that consumer."""
        return next(
            (number, method.consumer_tag)
            for number, method in reversed(self.broker.asked)
            if isinstance(method, spec.Basic.Consume) and method.queue == queue
        )

    def bounds(self) -> dict[str, int | None]:
        """How much each queue's last consumer may have in hand."""
        bounds: dict[str, int | None] = {}
        latest: dict[int, int] = {}
        for number, method in self.broker.asked:
            if isinstance(method, spec.Channel.Open):
                latest.pop(number, None)
            elif isinstance(method, spec.Basic.Qos):
                latest[number] = method.prefetch_count
            elif isinstance(method, spec.Basic.Consume):
                bounds[method.queue] = latest.get(number)
        return bounds

    def hands(self, queue: str, payload: bytes = b"x", **options: Any) -> None:
        """The broker hands a request over."""
        number, consumer = self.place(queue)
        self.wire.comes(delivered(number, payload, consumer=consumer, exchange="", **options))

    def cancels(self, queue: str) -> None:
        """The broker ends the consumer of a queue."""
        number, consumer = self.place(queue)
        self.wire.says(number, spec.Basic.Cancel(consumer, True))

    def closes(self, queue: str, code: int = 406, text: str = "PRECONDITION_FAILED") -> None:
        """The broker closes the channel of a queue."""
        self.wire.comes(closing(self.place(queue)[0], code, text))

    def asked(self, kind: type) -> list[Any]:
        """All methods of a kind that the broker got so far."""
        return [method for _, method in self.broker.asked if isinstance(method, kind)]

    async def answered_until(self, kind: type) -> int:
        """Let the broker answer until this is asked, which it does not; on which channel."""
        before = len(self.asked(kind))
        for _ in range(100):
            await asyncio.sleep(0)
            for frame in self.wire.frames():
                answer = self.broker.takes(frame)
                if len(self.asked(kind)) > before:
                    return int(frame.channel_number)
                self.wire.comes(answer)
        raise AssertionError(f"{kind} was never asked")

    def acked(self) -> list[int]:
        """What was acknowledged since the last look."""
        found = [frame.method for frame in self.wire.frames() if hasattr(frame, "method")]
        return [method.delivery_tag for method in found if isinstance(method, spec.Basic.Ack)]

    async def done(self, *packets: Packet) -> list[int]:
        """These were worked off; what is acknowledged then."""
        for packet in packets:
            self.services.done(packet)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self.acked()


async def serving() -> Serving:
    found = Serving()
    await found.restored()
    return found


# ---- how a service begins ----


async def test_a_queue_outlives_the_broker_but_not_its_last_service() -> None:
    found = await serving()
    consumer = await found.join("work", prefetch=3)
    (declare,) = found.asked(spec.Queue.Declare)
    assert (declare.queue, declare.durable, declare.auto_delete) == ("work", True, True)
    assert (declare.exclusive, declare.passive) == (False, False)
    assert declare.arguments == {"x-expires": 600_000}
    (qos,) = found.asked(spec.Basic.Qos)
    (consume,) = found.asked(spec.Basic.Consume)
    assert (qos.prefetch_count, consume.queue, consume.no_ack) == (3, "work", False)
    assert consumer.working
    await found.end()


async def test_each_service_has_a_bound_and_a_name_of_its_own() -> None:
    found = await serving()
    wanted = {"a": 1, "b": 64}
    await asyncio.gather(*(found.join(name, prefetch) for name, prefetch in wanted.items()))
    assert found.bounds() == wanted
    assert found.place("a") != found.place("b")
    await found.end()


async def test_without_a_connection_it_begins_with_the_next_one() -> None:
    found = Serving()
    consumer = await found.join("work")
    assert not consumer.working
    assert "Basic.Consume" in await found.restored()
    assert consumer.working
    await found.end()


async def test_a_queue_that_somebody_has_made_in_another_way_is_used_as_it_is() -> None:
    found = await serving()
    found.broker.refuses = lambda method: (
        (406, "PRECONDITION_FAILED - inequivalent arg 'durable'")
        if isinstance(method, spec.Queue.Declare) and not method.passive
        else None
    )
    consumer = await found.join("work")
    assert consumer.working
    _, passive = found.asked(spec.Queue.Declare)
    assert (passive.queue, passive.passive) == ("work", True)
    await found.end()


async def test_a_queue_that_ends_with_its_last_consumer_is_made_again_before_it_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = await serving()
    refusals = iter([(404, "NOT_FOUND - no queue 'work' in vhost '/'")])
    found.broker.refuses = lambda method: (
        next(refusals, None) if isinstance(method, spec.Basic.Consume) else None
    )
    consumer = await found.join("work")
    assert consumer.working
    assert len(found.asked(spec.Queue.Declare)) == len(found.asked(spec.Basic.Consume)) == 2
    assert "trying again" not in caplog.text
    await found.end()


async def test_it_is_served_though_its_channel_is_open_again_only_when_it_is_made() -> None:
    found = await serving()
    refusals = iter([(404, "NOT_FOUND - no queue 'work' in vhost '/'")])
    found.broker.refuses = lambda method: (
        next(refusals, None) if isinstance(method, spec.Basic.Consume) else None
    )
    joining = asyncio.ensure_future(found.services.join("work", lambda packet: None, 4))
    late: list[bytes] = []
    for _ in range(60):
        await asyncio.sleep(0)
        for frame in found.wire.frames():
            answer = found.broker.takes(frame)
            is_again = len(found.asked(spec.Basic.Consume)) == 1
            if is_again and isinstance(frame.method, spec.Channel.Open):
                late.append(answer)
                continue
            found.wire.comes(answer)
            if late and isinstance(frame.method, spec.Queue.Declare):
                for _ in range(3):
                    await asyncio.sleep(0)
                found.wire.comes(late.pop())
    assert (await joining).working
    assert found.asked(spec.Basic.Cancel) == []
    await found.end()


async def test_a_queue_that_another_program_holds_is_taken_over_when_it_goes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = await serving()
    found.broker.refuses = lambda method: (
        (405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue")
        if isinstance(method, spec.Queue.Declare) and method.queue == "work"
        else None
    )
    consumer = await found.join("work")
    assert not consumer.working
    assert "'work' is held by another program for itself" in caplog.text
    other = await found.join("other")
    assert other.working, "others have nothing to do with it"
    found.broker.refuses = lambda method: None
    await found.wire.settle()
    assert consumer.working
    assert "work is served now" in caplog.text
    assert caplog.text.count("trying again") == 1
    await found.end()


async def test_who_leaves_while_it_waits_for_the_queue_is_never_served() -> None:
    found = await serving()
    found.broker.refuses = lambda method: (
        (405, "LOCKED") if isinstance(method, spec.Queue.Declare) else None
    )
    consumer = await found.join("work")
    await consumer.close()
    found.broker.refuses = lambda method: None
    await found.wire.settle()
    assert found.asked(spec.Basic.Consume) == []
    await found.end()


@pytest.mark.parametrize("kind", [spec.Queue.Declare, spec.Basic.Consume])
async def test_for_want_of_a_right_it_is_refused_at_once(kind: type) -> None:
    found = await serving()
    good = await found.join("good")
    found.broker.refuses = lambda method: (
        (403, "ACCESS_REFUSED - access to queue 'bad' refused for user 'robot'")
        if isinstance(method, kind) and method.queue == "bad"
        else None
    )
    with pytest.raises(AuthError, match="access to queue 'bad' refused"):
        await found.join("bad")
    await found.wire.settle()
    assert good.working
    found.hands("good")
    assert found.got == [("good", b"x")]
    await found.end()


async def test_a_right_that_is_gone_after_a_reconnection_costs_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = await serving()
    good, bad = await found.join("good"), await found.join("bad")
    found.services.detach()
    found.wire.link.abort(ConnectionLost("cut"))
    found.connect()
    found.broker.refuses = lambda method: (
        (403, "ACCESS_REFUSED")
        if isinstance(method, spec.Queue.Declare) and method.queue == "bad"
        else None
    )
    await found.restored()
    assert (good.working, bad.working) == (True, False)
    assert "ACCESS_REFUSED" in caplog.text
    await found.end()


# ---- requests ----


async def test_a_request_comes_with_all_that_belongs_to_it() -> None:
    found = await serving()
    await found.join("work")
    about = ours("ab", 7, reply_to="there", correlation_id="c", expiration="1500", timestamp=9)
    found.hands("work", b'{"a":1}', about=about)
    (packet,) = found.packets
    assert (packet.payload, packet.topic, packet.ttl) == (b'{"a":1}', "work", 1.5)
    assert (packet.correlation_id, packet.redelivered, packet.waited) == ("c", False, False)
    header = packet.header
    assert header is not None
    assert (header.origin, header.seq, header.reply_to, header.id) == ("ab", 7, "there", "c")
    await found.end()


async def test_what_was_in_the_queue_before_has_waited() -> None:
    found = await serving()
    joining = asyncio.ensure_future(found.services.join("work", found.packets.append, 4))
    number = await found.answered_until(spec.Queue.Declare)
    found.wire.says(number, spec.Queue.DeclareOk("work", 2, 0))
    await found.wire.settle()
    await joining
    for tag in (1, 2, 3):
        found.hands("work", tag=tag)
    assert [packet.waited for packet in found.packets] == [True, True, False]
    await found.end()


async def test_a_request_is_acknowledged_when_it_was_worked_off() -> None:
    found = await serving()
    await found.join("work")
    for tag in (1, 2, 3):
        found.hands("work", tag=tag)
    assert found.acked() == []
    one, two, three = found.packets
    assert await found.done(two) == [2]
    assert await found.done(three, one) == [3, 1]
    await found.end()


async def test_from_a_thread_as_well() -> None:
    found = await serving()
    await found.join("work")
    for tag in range(1, 101):
        found.hands("work", tag=tag)
    await asyncio.gather(*(asyncio.to_thread(found.services.done, p) for p in found.packets))
    await asyncio.sleep(0)
    assert sorted(found.acked()) == list(range(1, 101))
    await found.end()


async def test_what_comes_for_a_consumer_that_there_is_not_is_nobodys() -> None:
    found = await serving()
    await found.join("work")
    found.wire.comes(delivered(found.place("work")[0], b"x", consumer="t9"))
    assert found.got == []
    assert not found.wire.is_cut
    await found.end()


# ---- requests that come again ----

PEERS = pytest.mark.parametrize(
    "about", [ours("ab", 7), BasicProperties(correlation_id="c7")], ids=["ours", "a stranger"]
)


@PEERS
async def test_one_that_is_being_worked_on_is_not_begun_again(about: BasicProperties) -> None:
    found = await serving()
    await found.join("work")
    found.hands("work", tag=1, about=about)
    found.services.detach()
    found.wire.link.abort(ConnectionLost("cut"))
    found.connect()
    await found.restored()
    found.hands("work", tag=1, redelivered=True, about=about)
    assert found.got == [("work", b"x")]
    assert found.acked() == [1]
    assert await found.done(*found.packets) == [], "its tag was one of the other connection"
    await found.end()


@PEERS
async def test_one_that_was_worked_off_meanwhile_is_not_begun_again(about: BasicProperties) -> None:
    found = await serving()
    await found.join("work")
    found.hands("work", tag=1, about=about)
    found.services.detach()
    found.wire.link.abort(ConnectionLost("cut"))
    assert await found.done(*found.packets) == []
    found.connect()
    await found.restored()
    found.hands("work", tag=5, redelivered=True, about=about)
    assert found.got == [("work", b"x")]
    assert found.acked() == [5]
    await found.end()


@PEERS
async def test_one_that_others_may_have_worked_on_is_handed_over_as_such(
    about: BasicProperties,
) -> None:
    found = await serving()
    await found.join("work")
    found.hands("work", redelivered=True, about=about)
    (packet,) = found.packets
    assert packet.redelivered
    await found.end()


async def test_those_that_nothing_tells_apart_are_handed_over_each() -> None:
    found = await serving()
    await found.join("work")
    for tag in (1, 2):
        found.hands("work", tag=tag, redelivered=tag == 2)
        await found.done(found.packets[-1])
    assert len(found.packets) == 2
    await found.end()


@pytest.mark.parametrize("is_done", [False, True])
async def test_requests_to_two_services_are_two_though_they_have_one_number(is_done: bool) -> None:
    """The numbers of a client count from 0 for each name that it calls (wire.md, section 3)."""
    found = await serving()
    await found.join("one")
    await found.join("two")
    about = ours("ab", 0)
    found.hands("one", b"1", tag=1, about=about)
    if is_done:
        await found.done(*found.packets)
    found.hands("two", b"2", tag=2, redelivered=True, about=about)
    assert found.got == [("one", b"1"), ("two", b"2")]
    await found.end()


async def test_one_id_of_two_strangers_is_two_requests() -> None:
    """Many number what they ask from 1."""
    found = await serving()
    await found.join("work")
    for number, reply_to in enumerate(("one", "two"), start=1):
        about = BasicProperties(correlation_id="1", reply_to=reply_to)
        found.hands("work", tag=number, redelivered=number == 2, about=about)
        await found.done(*found.packets[-1:])
    assert len(found.packets) == 2
    await found.end()


@pytest.mark.parametrize("is_ours", [True, False])
async def test_what_is_worked_on_for_long_is_acknowledged_meanwhile(is_ours: bool) -> None:
    """Or the broker would close the channel, and with it end the queue and what waits there."""
    found = await serving()
    await found.join("work")
    for tag in (1, 2):
        about = ours("ab", tag) if is_ours else BasicProperties()
        found.hands("work", tag=tag, about=about)
        found.services._look()
    assert found.acked() == [1]
    assert await found.done(*found.packets) == [2]
    assert found.services._in_hand == {}
    found.services._look()
    assert found.acked() == []
    await found.end()


async def test_what_is_remembered_has_a_bound() -> None:
    found = await serving()
    await found.join("work")
    for number in range(module.MAX_REMEMBERED + 10):
        about = ours("ab", number)
        found.hands("work", tag=number, about=about)
        found.services.done(found.packets.pop())
    await asyncio.sleep(0)
    assert len(found.services._worked_off) <= module.MAX_REMEMBERED
    assert found.services._in_hand == {}
    await found.end()


# ---- the end of a queue, a channel ----


async def test_a_service_whose_queue_was_deleted_makes_it_again() -> None:
    found = await serving()
    consumer, other = await found.join("work"), await found.join("other")
    found.cancels("work")
    assert not consumer.working
    assert other.working
    await found.wire.settle()
    assert consumer.working
    assert [declare.queue for declare in found.asked(spec.Queue.Declare)][-1] == "work"
    found.hands("work")
    assert found.got == [("work", b"x")]
    await found.end()


async def test_the_end_of_a_consumer_that_there_is_not_is_no_news() -> None:
    found = await serving()
    consumer = await found.join("work")
    found.wire.says(found.place("work")[0], spec.Basic.Cancel("other", True))
    await found.wire.settle()
    assert consumer.working
    assert len(found.asked(spec.Basic.Consume)) == 1
    await found.end()


async def test_after_the_end_of_its_channel_it_begins_anew_with_its_bound() -> None:
    found = await serving()
    consumers = [await found.join("a", 2), await found.join("b", 3)]
    found.closes("a")
    found.closes("b")
    await found.wire.settle()
    assert all(consumer.working for consumer in consumers)
    assert found.stale >= 1
    assert len(found.asked(spec.Basic.Consume)) == 4
    assert found.bounds() == {"a": 2, "b": 3}
    await found.end()


async def test_what_is_worked_off_then_is_not_acknowledged_on_the_new_one() -> None:
    found = await serving()
    await found.join("work")
    found.hands("work", tag=1)
    found.closes("work")
    await found.wire.settle()
    assert await found.done(*found.packets) == []
    await found.end()


@pytest.mark.parametrize("before", [True, False])
async def test_between_its_end_and_its_new_beginning_nothing_is_acknowledged_either(
    before: bool,
) -> None:
    """The broker would take it for one of the new channel, and close that as well."""
    found = await serving()
    await found.join("work")
    found.hands("work", tag=1)
    found.wire.frames()
    if before:  # not written yet
        found.services.done(*found.packets)
    found.closes("work")
    if not before:
        found.services.done(*found.packets)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert found.wire.names() == ["Channel.CloseOk", "Channel.Open"]
    found.wire.says(found.place("work")[0], spec.Channel.OpenOk())
    await asyncio.sleep(0)
    assert found.acked() == []
    await found.end()


async def test_a_consumer_that_is_asked_for_again_has_its_bound_again() -> None:
    """The bound was one of the channel that is no more."""
    found = await serving()
    joining = asyncio.ensure_future(found.services.join("work", found.packets.append, 2))
    await found.answered_until(spec.Basic.Consume)
    found.closes("work", 541, "INTERNAL_ERROR")
    await found.wire.settle()
    await joining
    assert found.bounds() == {"work": 2}
    await found.end()


# ---- leaving ----


async def test_who_leaves_returns_when_nothing_is_on_its_way() -> None:
    found = await serving()
    consumer = await found.join("work")
    leaving = asyncio.ensure_future(consumer.close())
    await asyncio.sleep(0)
    assert found.wire.names() == ["Basic.Cancel"]
    found.hands("work", tag=1)
    assert found.got == [("work", b"x")], "it was on its way"
    await asyncio.sleep(0)
    assert not leaving.done()
    found.wire.says(found.place("work")[0], spec.Basic.CancelOk(found.place("work")[1]))
    await leaving
    assert not consumer.working
    await consumer.close()
    assert found.wire.frames() == []
    assert await found.done(*found.packets) == [1]
    await found.end()


async def test_a_broker_that_does_not_answer_is_not_waited_for_by_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "ANSWER_SECONDS", 0.01)
    found = await serving()
    consumers = [await found.join(name) for name in "ab"]
    await asyncio.wait_for(consumers[0].close(), 5)
    assert not found.wire.link.is_heard
    await asyncio.wait_for(consumers[1].close(), 0.005)
    await found.end()


async def test_what_comes_too_late_is_for_others_as_if_it_were_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "ANSWER_SECONDS", 0.01)
    found = await serving()
    consumer = await found.join("work")
    await consumer.close()  # the broker has not answered yet
    found.wire.frames()
    about = ours("ab", 7, correlation_id="c", reply_to="there")
    payload = b"x" * 5000
    found.hands("work", payload, tag=3, about=about)
    assert found.got == []
    publish, header, *bodies, ack = found.wire.frames()
    assert (publish.method.exchange, publish.method.routing_key) == ("", "work")
    assert b"".join(body.fragment for body in bodies) == payload
    assert header.properties.headers == {"origin": "ab", "seq": 7}
    assert (header.properties.correlation_id, header.properties.reply_to) == ("c", "there")
    assert ack.method.delivery_tag == 3
    await found.end()


async def test_who_leaves_while_it_begins_anew_takes_nothing() -> None:
    found = await serving()
    consumer = await found.join("work")
    found.cancels("work")
    number = await found.answered_until(spec.Basic.Consume)
    await consumer.close()
    found.wire.says(number, spec.Basic.ConsumeOk(found.place("work")[1]))
    found.hands("work", tag=1)
    asked = await found.wire.settle()
    assert found.got == []
    assert "Basic.Cancel" in asked
    await found.end()


async def test_in_that_moment_a_connection_may_be_lost() -> None:
    found = await serving()
    consumer = await found.join("work")
    leaving = asyncio.ensure_future(consumer.close())
    await asyncio.sleep(0)
    found.services.detach()
    found.wire.link.abort(ConnectionLost("cut"))
    await asyncio.wait_for(leaving, 5)
    await found.end()


async def test_who_gives_up_while_its_queue_is_made_leaves_none() -> None:
    """A queue goes with its last consumer, so one that never had any stays for ten minutes."""
    found = await serving()
    joining = asyncio.ensure_future(found.services.join("work", found.packets.append, 4))
    number = await found.answered_until(spec.Queue.Declare)
    found.wire.says(number, spec.Queue.DeclareOk("work", 0, 0))
    joining.cancel()
    await found.wire.settle()
    assert joining.cancelled()
    kinds = (spec.Basic.Consume, spec.Basic.Cancel, spec.Queue.Delete)
    ends = [type(method) for _, method in found.broker.asked if isinstance(method, kinds)]
    assert ends in ([spec.Basic.Consume, spec.Basic.Cancel], [spec.Queue.Delete])
    await found.end()
