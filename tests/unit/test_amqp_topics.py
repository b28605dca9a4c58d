"""Subscriptions on AMQP, against a broker that is played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from pika import BasicProperties, spec

from amqp_wire import Refusing, Wire, closing, delivered
from commlib._packet import Packet
from commlib.exceptions import AuthError, ConnectionLost
from commlib.transports import _amqp_topics as module
from commlib.transports._amqp_methods import SETUP, TOPICS
from commlib.transports._amqp_properties import PropertyReader
from commlib.transports._amqp_topics import Topic, Topics
from commlib.transports.base import LinkStats


class Network:
    """The subscriptions of one transport, on a broker that says yes unless told otherwise."""

    def __init__(
        self, exchange: str = "amq.topic", arguments: dict[str, Any] | None = None
    ) -> None:
        self.got: list[tuple[str, str]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.topics = Topics(exchange, arguments or {}, PropertyReader(LinkStats()), self._spawn)
        self.wire = Wire()

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @property
    def refuses(self) -> Refusing:
        return self.wire.broker.refuses

    @refuses.setter
    def refuses(self, refuses: Refusing) -> None:
        self.wire.broker.refuses = refuses

    def add(self, topic: str, who: str = "") -> tuple[Topic, Callable[[Packet], None]]:
        def take(packet: Packet) -> None:
            self.got.append((who or topic, packet.topic))

        return self.topics.add(topic, take), take

    async def link(self) -> list[str]:
        """Connect anew; what is asked for."""
        self.wire = Wire()
        restored = asyncio.ensure_future(self.topics.restore(self.wire.link, 5.0))
        asked = await self.wire.settle()
        await restored
        return asked

    async def lose(self) -> None:
        self.topics.detach()
        self.wire.link.abort(ConnectionLost("cut"))
        for _ in range(5):
            await asyncio.sleep(0)

    def asked(self, kind: type) -> list[Any]:
        return [method for _, method in self.wire.broker.asked if isinstance(method, kind)]

    def bindings(self) -> set[str]:
        """The keys that are bound to the queue that was consumed last."""
        queue = self.asked(spec.Basic.Consume)[-1].queue
        keys: set[str] = set()
        for _, method in self.wire.broker.asked:
            if isinstance(method, spec.Queue.Bind) and method.queue == queue:
                keys.add(method.routing_key)
            elif isinstance(method, spec.Queue.Unbind) and method.queue == queue:
                keys.discard(method.routing_key)
            elif isinstance(method, spec.Queue.Declare):
                keys.clear()  # all are given one name by the broker that is played
        return keys

    def says(self, topic: str, about: BasicProperties | None = None) -> None:
        """The broker hands a message over."""
        tag = self.asked(spec.Basic.Consume)[-1].consumer_tag
        self.wire.comes(delivered(TOPICS, b"x", consumer=tag, key=topic, about=about))

    def takers(self) -> list[str]:
        """Who got something since the last look."""
        found = sorted(who for who, _ in self.got)
        self.got.clear()
        return found


async def network(**options: Any) -> Network:
    new = Network(**options)
    await new.link()
    return new


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAUSE", "AUTH_PAUSE"):
        monkeypatch.setattr(module, name, 0.0)


# ---- what the broker is asked for ----


async def test_all_topics_share_a_queue_which_nobody_else_can_use() -> None:
    new = await network(arguments={"x-max-length": 5})
    assert new.wire.broker.asked == []
    for topic in ("a.b", "a.*", "c/d"):
        new.add(topic)
    asked = await new.wire.settle()
    assert asked.count("Queue.Declare") == asked.count("Basic.Consume") == 1
    (declare,) = new.asked(spec.Queue.Declare)
    assert (declare.queue, declare.exclusive, declare.auto_delete) == ("", True, True)
    assert declare.arguments == {"x-max-length": 5}
    (consume,) = new.asked(spec.Basic.Consume)
    assert (consume.queue, consume.no_ack) == ("amq.gen-1", True)
    assert {bind.exchange for bind in new.asked(spec.Queue.Bind)} == {"amq.topic"}
    assert new.bindings() == {"a.b", "a.#", "c/d"}
    await new.lose()


async def test_each_topic_is_confirmed_when_it_is_bound() -> None:
    new = await network()
    first, _ = new.add("a")
    assert not first.confirmed.done()
    await new.wire.settle()
    await first.confirmed
    second, _ = new.add("b")
    assert not second.confirmed.done()
    assert await new.wire.settle() == ["Queue.Bind"]
    await second.confirmed
    await new.lose()


async def test_what_is_asked_for_already_is_not_asked_for_again() -> None:
    new = await network()
    first, take = new.add("a/*", "one")
    second, _ = new.add("a/*", "two")
    assert first is second
    await new.wire.settle()
    new.topics.remove(first, take)
    new.topics.remove(first, take)  # once more: nothing happens
    assert await new.wire.settle() == []
    new.says("a/b")
    assert new.takers() == ["two"]
    await new.lose()


async def test_a_binding_stays_as_long_as_somebody_needs_it() -> None:
    new = await network()
    (one, take_one), (two, take_two) = new.add("a/*"), new.add("b/*")
    await new.wire.settle()
    assert new.bindings() == {"#"}
    new.topics.remove(one, take_one)
    assert await new.wire.settle() == []
    new.says("b/c")
    assert new.takers() == ["b/*"]
    new.topics.remove(two, take_two)
    assert await new.wire.settle() == ["Queue.Unbind"]
    assert new.bindings() == set()
    await new.lose()


async def test_one_that_is_added_again_is_bound_again() -> None:
    new = await network()
    found, take = new.add("a")
    await new.wire.settle()
    new.topics.remove(found, take)
    new.add("a")
    assert await new.wire.settle() == ["Queue.Unbind", "Queue.Bind"]
    assert new.bindings() == {"a"}
    await new.lose()


async def test_an_exchange_of_the_programs_own_is_made_if_it_is_not_there() -> None:
    new = await network(exchange="robots")
    new.refuses = lambda method: (
        (404, "NOT_FOUND - no exchange 'robots'")
        if isinstance(method, spec.Exchange.Declare) and method.passive
        else None
    )
    found, _ = new.add("a")
    await new.wire.settle()
    look, make = new.asked(spec.Exchange.Declare)
    assert (look.exchange, look.passive) == ("robots", True)
    assert (make.exchange, make.passive, make.type, make.durable) == (
        "robots",
        False,
        "topic",
        True,
    )
    await found.confirmed
    await new.lose()


async def test_one_that_is_there_is_taken_as_it_is() -> None:
    new = await network(exchange="robots")
    new.add("a")
    await new.wire.settle()
    assert [declare.passive for declare in new.asked(spec.Exchange.Declare)] == [True]
    await new.lose()


# ---- who gets what ----


async def test_a_message_goes_once_to_each_who_wants_it() -> None:
    new = await network()
    for topic in ("o.*", "o.a", "o.*.c", "*", "p/q", "p/*", "x.#.z"):
        new.add(topic)
    new.add("o.a", "twice")
    await new.wire.settle()
    wanted = {
        "o.a": ["*", "o.*", "o.a", "twice"],
        "o.b.c": ["*", "o.*", "o.*.c"],
        "p/q": ["*", "p/*", "p/q"],
        "p/q/r": ["*", "p/*"],
        "x.z": ["*", "x.#.z"],
        "x.y.y.z": ["*", "x.#.z"],
        "$SYS": [],
        "": ["*"],
    }
    for topic, takers in wanted.items():
        for _ in range(2):  # found, and remembered
            new.says(topic)
            assert new.got == [] or {name for _, name in new.got} == {topic}
            assert new.takers() == takers
    await new.lose()


async def test_who_wants_it_is_found_anew_when_that_changes() -> None:
    new = await network()
    found, take = new.add("a", "first")
    await new.wire.settle()
    new.says("a")
    new.add("a", "second")
    new.add("*", "third")
    new.says("a")
    new.topics.remove(found, take)
    new.says("a")
    assert [who for who, _ in new.got] == ["first", "third", "first", "second", "third", "second"]
    await new.lose()


async def test_each_gets_a_header_of_its_own_or_none_that_it_could_spoil() -> None:
    new = await network()
    got: list[Packet] = []
    for _ in range(2):
        new.topics.add("a", got.append)
    await new.wire.settle()
    new.says("a", BasicProperties(headers={"origin": "ab", "seq": 1}, expiration="500"))
    first, second = got
    assert first is not second
    assert (first.ttl, first.topic, first.payload) == (0.5, "a", b"x")
    assert first.header is not None
    assert (first.header.origin, first.header.seq) == ("ab", 1)
    await new.lose()


async def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROUTES", 10)
    new = await network()
    new.add("*")
    await new.wire.settle()
    for number in range(35):
        new.says(f"t{number}")
    assert len(new.got) == 35
    assert len(new.topics._routes) <= 10
    await new.lose()


# ---- another connection ----


async def test_a_new_connection_is_asked_for_everything() -> None:
    new = await network()
    kept = [new.add(topic)[0] for topic in ("a", "b.*")]
    gone, take = new.add("c")
    await new.wire.settle()
    await new.lose()
    new.topics.remove(gone, take)
    late, _ = new.add("d")
    assert not any(topic.confirmed.done() for topic in (*kept, late))
    await new.link()
    assert new.bindings() == {"a", "b.#", "d"}
    for topic in (*kept, late):
        await topic.confirmed
    await new.lose()


async def test_what_is_added_while_the_queue_is_being_made_has_the_same_queue() -> None:
    """Two consumers of one name on a channel end the connection."""
    new = Network()
    new.add("a")
    restored = asyncio.ensure_future(new.topics.restore(new.wire.link, 5.0))
    await asyncio.sleep(0)
    late = [new.add("b")[0]]
    for frame in new.wire.frames():
        new.wire.comes(new.wire.broker.takes(frame))
    await asyncio.sleep(0)
    late.append(new.add("c")[0])
    await new.wire.settle()
    await restored
    assert len(new.asked(spec.Queue.Declare)) == len(new.asked(spec.Basic.Consume)) == 1
    assert new.bindings() == {"a", "b", "c"}
    for topic in late:
        await topic.confirmed
    await new.lose()


async def test_a_connection_that_is_lost_while_the_queue_is_made_ends_the_waiting() -> None:
    new = Network()
    new.add("a")
    restored = asyncio.ensure_future(new.topics.restore(new.wire.link, 5.0))
    await asyncio.sleep(0)
    new.wire.link.abort(ConnectionLost("cut"))
    with suppress(ConnectionLost):
        await asyncio.wait_for(restored, 5)
    await new.lose()
    await new.link()
    assert new.bindings() == {"a"}
    await new.lose()


async def test_what_is_added_in_the_first_moment_of_the_next_one_is_asked_for() -> None:
    new = await network()
    new.refuses = lambda method: (
        (541, "INTERNAL_ERROR") if isinstance(method, spec.Queue.Declare) else None
    )
    found, take = new.add("a")
    for _ in range(20):
        await asyncio.sleep(0)
    await new.lose()
    new.topics.remove(found, take)
    await new.link()
    late, _ = new.add("b")
    await new.wire.settle()
    await asyncio.wait_for(asyncio.shield(late.confirmed), 5)
    await new.lose()


# ---- a queue that is no more ----


def deleted(new: Network) -> None:
    """Somebody deletes the queue."""
    tag = new.asked(spec.Basic.Consume)[-1].consumer_tag
    new.wire.says(TOPICS, spec.Basic.Cancel(tag, True))


async def test_a_queue_that_was_deleted_is_made_again() -> None:
    new = await network()
    found = [new.add(topic)[0] for topic in ("a", "b.*")]
    await new.wire.settle()
    assert [topic.working for topic in found] == [True, True]
    deleted(new)
    assert [topic.working for topic in found] == [False, False]
    late, _ = new.add("c")
    await new.wire.settle()
    assert [topic.working for topic in (*found, late)] == [True, True, True]
    assert len(new.asked(spec.Queue.Declare)) == 2
    assert new.bindings() == {"a", "b.#", "c"}
    await late.confirmed
    new.says("a")
    assert new.takers() == ["a"]
    await new.lose()


async def test_what_the_broker_says_of_a_queue_that_is_no_more_confirms_nothing() -> None:
    new = await network()
    new.add("b")
    await new.wire.settle()
    late, _ = new.add("a")
    await asyncio.sleep(0)
    frames = new.wire.frames()  # the bind is on its way
    deleted(new)
    for frame in frames:
        new.wire.comes(new.wire.broker.takes(frame))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not late.working
    await new.wire.settle()
    assert late.working
    await new.lose()


async def test_who_asks_again_and_again_makes_no_more_attempts_than_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AUTH_PAUSE", 1000)
    new = await network()
    first, _ = new.add("a")
    await new.wire.settle()
    new.refuses = lambda method: (
        (403, "ACCESS_REFUSED") if isinstance(method, spec.Queue.Bind) else None
    )
    deleted(new)
    await new.wire.settle()
    assert not first.working
    timers = []
    for number in range(5):
        timers.append(first._again)
        found, take = new.add("a", f"{number}")
        await new.wire.settle()
        new.topics.remove(found, take)
    assert [timer.cancelled() for timer in timers if timer is not None] == [True] * 5
    await new.lose()


async def test_after_the_end_of_its_channel_it_is_made_again() -> None:
    new = await network()
    new.add("a")
    await new.wire.settle()
    new.wire.comes(closing(TOPICS, 541, "INTERNAL_ERROR"))
    await new.wire.settle()
    assert len(new.asked(spec.Queue.Declare)) == 2
    assert new.bindings() == {"a"}
    await new.lose()


async def test_an_exchange_that_was_deleted_is_made_again() -> None:
    new = await network(exchange="robots")
    first, _ = new.add("a")
    await new.wire.settle()
    is_there = False

    def refuses(method: Any) -> tuple[int, str] | None:
        nonlocal is_there
        if isinstance(method, spec.Exchange.Declare) and not method.passive:
            is_there = True
        missing = isinstance(method, spec.Exchange.Declare | spec.Queue.Bind) and not is_there
        return (404, "NOT_FOUND - no exchange 'robots' in vhost '/'") if missing else None

    new.refuses = refuses
    second, _ = new.add("b")
    await new.wire.settle()
    await second.confirmed
    assert new.bindings() == {"a", "b"}
    assert first.confirmed.done()
    await new.lose()


async def test_what_is_bound_is_bound_again_now_and_then_some_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_AGAIN", 2)
    new = await network(exchange="robots")
    for name in "abc":
        new.add(name)
    await new.wire.settle()
    asked = len(new.asked(spec.Queue.Bind))
    # A right that was withdrawn meanwhile costs what is bound nothing.
    new.refuses = lambda method: (
        (403, "ACCESS_REFUSED") if isinstance(method, spec.Queue.Bind) else None
    )
    for begin, count in ((0, 2), (2, 1)):
        new.topics._bind_all_again(new.wire.link, begin)
        await new.wire.settle()
        asked += count
        assert len(new.asked(spec.Queue.Bind)) == asked
    new.refuses = lambda method: (
        (404, "NOT_FOUND - no exchange") if isinstance(method, spec.Queue.Bind) else None
    )
    new.topics._bind_all_again(new.wire.link, 0)
    await new.wire.settle()
    assert new.topics._queue == "", "it begins anew"
    await new.lose()


# ---- rights ----


async def test_a_topic_that_may_not_be_read_leaves_the_others_alone() -> None:
    new = await network()
    new.refuses = lambda method: (
        (403, "ACCESS_REFUSED - access to topic 'bad' in exchange 'amq.topic' refused")
        if isinstance(method, spec.Queue.Bind) and method.routing_key == "bad"
        else None
    )
    topics = {topic: new.add(topic) for topic in ("a", "bad", "b")}
    await new.wire.settle()
    bad, take = topics["bad"]
    with pytest.raises(AuthError, match="access to topic 'bad'"):
        await bad.confirmed
    for topic in ("a", "b"):
        await topics[topic][0].confirmed
    new.topics.remove(bad, take)
    await new.wire.settle()
    new.says("a")
    assert new.takers() == ["a"]
    await new.lose()


@pytest.mark.parametrize("kind", [spec.Queue.Declare, spec.Basic.Consume, spec.Exchange.Declare])
async def test_who_may_have_no_queue_is_told_so_and_does_not_ask_in_haste(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AUTH_PAUSE", 30.0)
    monkeypatch.setattr(module, "PAUSE", 1.0)
    new = await network(exchange="robots")
    new.refuses = lambda method: (
        (403, "ACCESS_REFUSED - access to queue refused") if isinstance(method, kind) else None
    )
    found, take = new.add("a")
    await new.wire.settle()
    with pytest.raises(AuthError, match="access to queue refused"):
        await found.confirmed
    assert len(new.asked(kind)) == 1
    new.topics.remove(found, take)
    await new.lose()


@pytest.mark.parametrize("is_given", [True, False])
async def test_who_comes_next_is_told_at_once_as_well(
    is_given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AUTH_PAUSE", 30.0)
    new = await network()
    new.refuses = lambda method: (
        (403, "ACCESS_REFUSED") if isinstance(method, spec.Queue.Declare) else None
    )
    found, take = new.add("a")
    await new.wire.settle()
    with pytest.raises(AuthError):
        await found.confirmed
    new.topics.remove(found, take)
    if is_given:
        new.refuses = lambda method: None
    other, _ = new.add("b")
    await new.wire.settle()
    assert other.confirmed.done()
    assert isinstance(other.confirmed.exception(), AuthError) is not is_given
    await new.lose()


async def test_a_broker_that_has_no_queue_to_give_is_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    new = await network()
    left = 3

    def refuses(method: Any) -> tuple[int, str] | None:
        nonlocal left
        if isinstance(method, spec.Queue.Declare) and left:
            left -= 1
            return 541, "INTERNAL_ERROR"
        return None

    new.refuses = refuses
    found, _ = new.add("a")
    await new.wire.settle()
    await asyncio.wait_for(asyncio.shield(found.confirmed), 5)
    assert "no queue for topics, trying again" in caplog.text
    assert new.bindings() == {"a"}
    await new.lose()


async def test_a_question_is_not_asked_on_the_channel_of_messages() -> None:
    new = await network()
    new.add("a")
    await new.wire.settle()
    on_topics = [m.NAME for number, m in new.wire.broker.asked if number == TOPICS]
    on_setup = [m.NAME for number, m in new.wire.broker.asked if number == SETUP]
    assert on_topics == ["Channel.Open", "Basic.Consume"]
    assert on_setup == ["Channel.Open", "Queue.Declare", "Queue.Bind"]
    await new.lose()


async def test_a_message_is_not_compared_with_each_of_many_patterns() -> None:
    new, compared = await network(), list[str]()

    def counting(topic: Topic) -> Callable[[str], bool]:
        matches = topic.matches

        def counted(name: str) -> bool:
            compared.append(topic.topic)
            return matches(name)

        return counted

    for topic in (*(f"*.b{number}" for number in range(100)), "*.b7.#"):
        found, _ = new.add(topic)
        found.matches = counting(found)
    await new.wire.settle()
    new.says("a.b7")
    assert sorted(who for who, _ in new.got) == ["*.b7", "*.b7.#"]
    assert sorted(compared) == ["*.b7", "*.b7.#"]
    await new.lose()
