"""Publish and subscribe, from plain Python, on every broker."""

from __future__ import annotations

import asyncio
import functools
import math
import random
import sys
import threading
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from brokers import Broker
from collected import DEADLINE, Collected, eventually
from commlib._lanes import Bounds
from commlib._packet import PROPERTIES, Header
from commlib._portal import Portal
from commlib.aio.pubsub import SubscriberOptions
from commlib.exceptions import PayloadTooBig, SerializationError
from commlib.msg import PubSubMessage
from commlib.node import Node
from commlib.pubsub import MPublisher, PSubscriber, Publisher, Subscriber
from messages import (
    AttrsSonar,
    DataclassSonar,
    Empty,
    Pose,
    PydanticSonar,
    Sonar,
    SonarDict,
)
from raw_peer import RawPeer

MakeNode = Callable[..., Node]

# ---- what arrives ----


def test_a_typed_message_arrives_as_an_instance_with_all_its_parts(
    node: Node, make_node: MakeNode, topic: str
) -> None:
    got = Collected()
    node.create_subscriber(topic, got, Sonar)
    sent = Sonar(
        distance=-2.5,
        count=-(2**53),
        label="σόναρ 🤖\n\"'\\",
        ranges=[0.1, 1e-300, 1e300],
        pose=Pose(1.0, -1.0),
        path=[Pose(), Pose(2.0, 3.0)],
        tags={"front": 1, "": -2},
        raw=bytes(range(256)),
    )

    make_node().create_publisher(topic, Sonar).publish(sent)

    assert got.first == sent
    assert type(got.first) is Sonar
    assert type(got.first.path[1]) is Pose


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"distance": 2.0, "nested": {"list": [1, None, True, "ü"]}},
        [],
        [1, "two", None],
        "text",
        "",
        "x begins as zlib does",
        -3,
        2.5,
        2**63,
        True,
        None,
        {"header": {"seq": 1}, "data": {"header": {}}},
    ],
)
def test_an_untyped_subscriber_gets_the_data_as_it_was(node: Node, topic: str, data: Any) -> None:
    got = Collected()
    node.create_subscriber(topic, got)

    node.create_publisher(topic).publish(data)

    assert got.first == data
    assert type(got.first) is type(data)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (DataclassSonar, DataclassSonar(2.0, "front")),
        (AttrsSonar, AttrsSonar(2.0, "front")),
        (PydanticSonar, PydanticSonar(distance=2.0, label="front")),
        (SonarDict, SonarDict(distance=2.0, label="front")),
        (dict, {"distance": 2.0}),
        (list[float], [1.0, 2.5]),
        (bytes, b"\x00\xff\x78"),
        (str, "text"),
        (float, 2.5),
        (int, -3),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_any_kind_of_class_may_be_a_message(
    node: Node, topic: str, kind: Any, message: Any
) -> None:
    got = Collected()
    node.create_subscriber(topic, got, kind)

    node.create_publisher(topic, kind).publish(message)

    assert got.first == message
    assert type(got.first) is type(message)


def test_nan_and_infinities_arrive_as_what_they_are(node: Node, topic: str) -> None:
    got = Collected()
    node.create_subscriber(topic, got, Sonar)

    node.create_publisher(topic, Sonar).publish(
        Sonar(math.nan, ranges=[1.0, math.inf, -math.inf], limit=None)
    )

    assert math.isnan(got.first.distance)
    assert got.first.ranges == [1.0, math.inf, -math.inf]
    assert got.first.limit is None


def test_a_message_without_fields_arrives(node: Node, topic: str) -> None:
    got = Collected()
    node.create_subscriber(topic, got, Empty)

    node.create_publisher(topic, Empty).publish(Empty())

    assert got.first == Empty()


def test_a_dict_is_published_as_the_message_it_spells(node: Node, topic: str) -> None:
    got = Collected()
    node.create_subscriber(topic, got, Sonar)

    node.create_publisher(topic, Sonar).publish({"distance": "2.5", "pose": {"x": 1}})  # type: ignore[arg-type]

    assert got.first == Sonar(2.5, pose=Pose(1.0))


def test_a_bare_payload_reaches_typed_and_untyped_subscribers(node: Node, topic: str) -> None:
    typed, untyped = Collected(), Collected()
    node.create_subscriber(topic, typed, Sonar)
    node.create_subscriber(topic, untyped)

    node.create_publisher(topic, Sonar, envelope=False).publish(Sonar(2.0, label="bare"))

    assert typed.first == Sonar(2.0, label="bare")
    assert untyped.first["label"] == "bare"


def test_what_happens_to_a_message_after_publish_does_not_matter(node: Node, topic: str) -> None:
    got = Collected()
    node.create_subscriber(topic, got, Sonar)
    publisher = node.create_publisher(topic, Sonar)
    message = Sonar(0.0, ranges=[])

    for n in range(100):
        message.distance = n
        message.ranges.append(n)
        publisher.publish(message)

    assert [msg.distance for msg in got.wait(100)] == list(range(100))
    assert [len(msg.ranges) for msg in got.items] == list(range(1, 101))


def test_a_large_message_arrives_whole(node: Node, topic: str) -> None:
    got = Collected()
    node.create_subscriber(topic, got, bytes)
    large = random.Random(1).randbytes(5_000_000)

    node.create_publisher(topic, bytes).publish(large)

    assert got.first == large


# ---- order, and nothing lost ----


def test_a_burst_reaches_a_live_subscriber_in_order_and_nothing_is_lost(
    node: Node, make_node: MakeNode, topic: str
) -> None:
    got = Collected()
    subscriber = make_node().create_subscriber(topic, got, Sonar)
    publisher = node.create_publisher(topic, Sonar)

    for n in range(50_000):
        publisher.publish(Sonar(1.0, count=n))

    assert [msg.count for msg in got.wait(50_000)] == list(range(50_000))
    assert publisher.stats.sent == subscriber.stats.received == 50_000
    stats = subscriber.stats
    assert (stats.dropped, stats.gaps, stats.duplicates, stats.reordered) == (0, 0, 0, 0)
    assert publisher.stats.discarded == 0


def test_threads_that_share_a_publisher_lose_nothing_and_each_keeps_its_order(
    node: Node, topic: str
) -> None:
    threads, messages = 32, 200
    got = Collected()
    node.create_subscriber(topic, got)
    publisher = node.create_publisher(topic)

    def publish(thread: int) -> None:
        for n in range(messages):
            publisher.publish([thread, n])

    crew = [threading.Thread(target=publish, args=(i,)) for i in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()

    received = got.wait(threads * messages)
    for thread_number in range(threads):
        own = [n for thread, n in received if thread == thread_number]
        assert own == list(range(messages))
    assert publisher.stats.sent == threads * messages


def test_every_subscriber_gets_a_copy(node: Node, make_node: MakeNode, broker: Broker) -> None:
    topic = broker.unique()
    collected = [Collected() for _ in range(4)]
    other = make_node()
    node.create_subscriber(topic, collected[0], Sonar)
    node.create_subscriber(topic, collected[1], Sonar)
    other.create_subscriber(topic, collected[2], Sonar)
    with Subscriber(topic, collected[3], Sonar, conn_params=broker.url):
        publisher = node.create_publisher(topic, Sonar)
        for n in range(10):
            publisher.publish(Sonar(float(n), ranges=[1.0]))
        for got in collected:
            assert [msg.distance for msg in got.wait(10)] == list(range(10))

    # Copies: what one callback does to its message, the others do not see.
    collected[0].items[0].ranges.append(2.0)
    assert collected[1].items[0].ranges == [1.0]


def test_a_subscriber_that_is_stopped_gets_no_more_and_the_others_go_on(
    node: Node, topic: str
) -> None:
    stopped, other = Collected(), Collected()
    subscriber = node.create_subscriber(topic, stopped)
    node.create_subscriber(topic, other)
    publisher = node.create_publisher(topic)
    publisher.publish("before")
    stopped.until("before")

    subscriber.stop()
    publisher.publish("after")
    other.until("after")

    assert stopped.items in (["before"], [])


def test_a_subscriber_can_be_run_again_after_it_was_stopped(node: Node, topic: str) -> None:
    got = Collected()
    subscriber = node.create_subscriber(topic, got)
    publisher = node.create_publisher(topic)

    for word in ("first", "second", "third"):
        publisher.publish(word)
        got.until(word)
        subscriber.stop()
        subscriber.run()

    assert got.items == ["first", "second", "third"]


def test_a_publisher_of_many_topics_sends_each_message_to_its_own(
    node: Node, broker: Broker
) -> None:
    words = [broker.unique(word) for word in ("front", "back", "left")]
    collected = {word: Collected() for word in words}
    for word in words:
        node.create_subscriber(word, collected[word], Sonar)
    publisher = node.create_mpublisher(Sonar)

    for n in range(10):
        for word in words:
            publisher.publish(Sonar(float(n), label=word), word)

    for word in words:
        messages = collected[word].wait(10)
        assert [msg.distance for msg in messages] == list(range(10))
        assert {msg.label for msg in messages} == {word}
    assert publisher.stats.sent == 30


def test_endpoints_without_a_node_have_a_connection_of_their_own(broker: Broker) -> None:
    topic = broker.unique()
    got = Collected()
    with Subscriber(topic, got, Sonar, broker.url) as subscriber:
        publisher = Publisher(topic, Sonar, connection_params=broker.url)
        publisher.publish(Sonar(1.0))  # usable as soon as it is made
        many = MPublisher(Sonar, conn_params=broker.url)
        got.wait(1)
        many.publish(Sonar(2.0), topic)
        assert [msg.distance for msg in got.wait(2)] == [1.0, 2.0]
        assert subscriber.connected
        publisher.stop()
        many.stop()
    assert not subscriber.connected


# ---- callbacks: which are called, where, with what ----


class Callbacks:
    """Callbacks of all kinds, which note the message and the thread."""

    def __init__(self) -> None:
        self.got = Collected()

    def note(self, msg: Any) -> None:
        self.got((msg, threading.current_thread().name))

    async def note_later(self, msg: Any) -> None:
        await asyncio.sleep(0)
        self.note(msg)

    def __call__(self, msg: Any) -> None:
        self.note(msg)


class AsyncCallable:
    def __init__(self, callbacks: Callbacks) -> None:
        self.callbacks = callbacks

    async def __call__(self, msg: Any) -> None:
        await self.callbacks.note_later(msg)


def make_function(callbacks: Callbacks) -> Callable[[Any], None]:
    def on_message(msg: Any) -> None:
        callbacks.note(msg)

    return on_message


def make_async_function(callbacks: Callbacks) -> Callable[[Any], Any]:
    async def on_message(msg: Any) -> None:
        await callbacks.note_later(msg)

    return on_message


KINDS: dict[str, tuple[Callable[[Callbacks], Any], SubscriberOptions, bool]] = {
    "function": (make_function, {}, False),
    "lambda": (lambda callbacks: lambda msg: callbacks.note(msg), {}, False),
    "method": (lambda callbacks: callbacks.note, {}, False),
    "partial": (lambda callbacks: functools.partial(Callbacks.note, callbacks), {}, False),
    "callable object": (lambda callbacks: callbacks, {}, False),
    "four at once": (make_function, {"concurrency": 4}, False),
    "inline": (make_function, {"inline": True}, True),
    "async function": (make_async_function, {}, True),
    "async method": (lambda callbacks: callbacks.note_later, {}, True),
    "async partial": (
        lambda callbacks: functools.partial(Callbacks.note_later, callbacks),
        {},
        True,
    ),
    "async callable object": (AsyncCallable, {}, True),
    "async, four at once": (make_async_function, {"concurrency": 4}, True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_callback_is_called_where_it_belongs(
    node: Node, portal: Portal, topic: str, kind: str
) -> None:
    make, options, on_the_loop = KINDS[kind]
    callbacks = Callbacks()
    node.create_subscriber(topic, make(callbacks), **options)
    publisher = node.create_publisher(topic)

    for n in range(100):
        publisher.publish(n)

    received = callbacks.got.wait(100)
    assert sorted(msg for msg, _ in received) == list(range(100))
    if options.get("concurrency", 1) == 1:
        assert [msg for msg, _ in received] == list(range(100))
    assert {name == portal.thread.name for _, name in received} == {on_the_loop}


def test_as_many_callbacks_run_at_once_as_were_asked_for(
    node: Node, topic: str, gate: threading.Event
) -> None:
    entered, done = Collected(), Collected()

    def on_message(msg: int) -> None:
        entered(msg)
        gate.wait(DEADLINE)
        done(msg)

    subscriber = node.create_subscriber(topic, on_message, concurrency=4)
    publisher = node.create_publisher(topic)
    for n in range(10):
        publisher.publish(n)

    entered.wait(4)
    eventually(lambda: subscriber.stats.received == 10)
    assert sorted(entered.items) == [0, 1, 2, 3]
    gate.set()
    assert sorted(done.wait(10)) == list(range(10))


def test_as_many_coroutines_run_at_once_as_were_asked_for(
    node: Node, portal: Portal, topic: str
) -> None:
    entered, done = Collected(), Collected()
    gate = asyncio.Event()

    async def on_message(msg: int) -> None:
        entered(msg)
        await gate.wait()
        done(msg)

    subscriber = node.create_subscriber(topic, on_message, concurrency=4)
    publisher = node.create_publisher(topic)
    for n in range(10):
        publisher.publish(n)

    entered.wait(4)
    eventually(lambda: subscriber.stats.received == 10)
    assert sorted(entered.items) == [0, 1, 2, 3]
    portal.post(gate.set)
    assert sorted(done.wait(10)) == list(range(10))


def test_one_callback_at_a_time_unless_more_are_asked_for(node: Node, topic: str) -> None:
    got = Collected()
    busy = threading.Lock()

    def on_message(msg: int) -> None:
        assert busy.acquire(blocking=False), "two callbacks at once"
        threading.Event().wait(0.0005)  # give another one the chance
        busy.release()
        got(msg)

    subscriber = node.create_subscriber(topic, on_message)
    publisher = node.create_publisher(topic)
    for n in range(200):
        publisher.publish(n)

    assert got.wait(200) == list(range(200))
    assert subscriber.stats.errors == 0


class Arity:
    """Callbacks by the number of arguments that they require and take."""

    def __init__(self, got: Collected) -> None:
        self.got = got

    def one(self, msg: Any) -> None:
        self.got((msg,))

    def two(self, msg: Any, topic: str) -> None:
        self.got((msg, topic))

    def one_or_two(self, msg: Any, topic: str | None = None) -> None:
        self.got((msg, topic) if topic is not None else (msg,))

    def any_number(self, *args: Any) -> None:
        self.got(args)

    def one_and_keywords(self, msg: Any, **more: Any) -> None:
        assert not more
        self.got((msg,))

    def one_and_a_keyword(self, msg: Any, *, topic: str = "") -> None:
        assert not topic
        self.got((msg,))

    async def later_two(self, msg: Any, topic: str) -> None:
        self.got((msg, topic))


ARITIES = [
    # callback, arguments from a Subscriber, arguments from a PSubscriber
    ("one", 1, 1),
    ("two", 2, 2),
    ("one_or_two", 1, 2),
    ("any_number", 1, 2),
    ("one_and_keywords", 1, 1),
    ("one_and_a_keyword", 1, 1),
    ("later_two", 2, 2),
]


@pytest.mark.parametrize(("name", "from_subscriber", "from_psubscriber"), ARITIES)
def test_a_callback_gets_the_topic_if_it_wants_it(
    node: Node, topic: str, name: str, from_subscriber: int, from_psubscriber: int
) -> None:
    one, other = Collected(), Collected()
    node.create_subscriber(topic, getattr(Arity(one), name))
    node.create_psubscriber(topic, getattr(Arity(other), name))

    node.create_publisher(topic).publish("hello")

    assert one.first == ("hello", topic)[:from_subscriber]
    assert other.first == ("hello", topic)[:from_psubscriber]


def test_a_builtin_and_a_partial_are_callbacks_of_one_argument(node: Node, topic: str) -> None:
    got, items = Collected(), []  # type: ignore[var-annotated]
    node.create_subscriber(topic, items.append)
    node.create_subscriber(topic, functools.partial(lambda word, msg: got((word, msg)), "word"))
    node.create_publisher(topic).publish("hello")

    assert got.first == ("word", "hello")
    eventually(lambda: items == ["hello"])


# ---- callbacks that fail, block, or are too slow ----


@pytest.mark.parametrize("options", [{}, {"inline": True}, {"concurrency": 2}])
@pytest.mark.parametrize("error", [ValueError("no good"), SystemExit(3)], ids=["error", "exit"])
def test_a_callback_that_raises_is_counted_and_the_receiver_goes_on(
    node: Node,
    topic: str,
    error: BaseException,
    options: SubscriberOptions,
    caplog: pytest.LogCaptureFixture,
) -> None:
    got, errors = Collected(), Collected()

    def on_message(msg: str) -> None:
        if msg == "bad":
            raise error
        got(msg)

    subscriber = node.create_subscriber(topic, on_message, on_error=errors, **options)
    publisher = node.create_publisher(topic)
    for word in ("one", "bad", "two", "bad", "three"):
        publisher.publish(word)

    words = ["one", "two", "three"]
    is_ordered = "concurrency" not in options
    arrived = got.wait(3)
    assert arrived == words if is_ordered else sorted(arrived) == sorted(words)
    assert errors.wait(2) == [(error, topic)] * 2
    assert subscriber.stats.errors == 2
    assert subscriber.stats.received == 5
    # Logged once, with its traceback, the topic and the id of the message.
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert topic in record.getMessage()
    assert any(f"/{seq})" in record.getMessage() for seq in ((1,) if is_ordered else (1, 3)))


def test_an_async_callback_that_raises_is_counted_and_the_receiver_goes_on(
    node: Node, topic: str
) -> None:
    got, errors = Collected(), Collected()

    async def on_message(msg: str) -> None:
        if msg == "exit":
            sys.exit("at once")
        got(1 / len(msg))

    subscriber = node.create_subscriber(topic, on_message, on_error=errors)
    publisher = node.create_publisher(topic)
    for word in ("", "exit", "four"):
        publisher.publish(word)

    assert got.wait(1) == [0.25]
    assert [type(error) for error, _ in errors.wait(2)] == [ZeroDivisionError, SystemExit]
    assert subscriber.stats.errors == 2


@pytest.mark.parametrize("inline", [False, True], ids=["worker", "inline"])
def test_a_callback_that_only_wraps_a_coroutine_function_is_told_that_nobody_awaits_it(
    node: Node, topic: str, inline: bool
) -> None:
    errors = Collected()

    async def handle(msg: Any) -> None:
        raise AssertionError("nobody awaits it")

    @functools.wraps(handle)
    def decorated(msg: Any) -> Any:
        return handle(msg)

    for n, callback in enumerate([decorated, lambda msg: handle(msg)]):
        subscriber = node.create_subscriber(
            f"{topic}.{n}", callback, inline=inline, on_error=errors
        )
        node.create_publisher(f"{topic}.{n}").publish(n)
        errors.wait(n + 1)
        assert subscriber.stats.errors == 1

    assert [told for _, told in errors.items] == [f"{topic}.0", f"{topic}.1"]
    assert all("make it async def" in str(error) for error, _ in errors.items)


def test_an_on_error_that_fails_itself_does_no_harm(node: Node, topic: str) -> None:
    got = Collected()

    def on_error(error: BaseException, topic: str) -> None:
        raise RuntimeError("and once more")

    subscriber = node.create_subscriber(topic, lambda msg: got(1 / msg), on_error=on_error)
    publisher = node.create_publisher(topic)
    publisher.publish(0)
    publisher.publish(2)

    assert got.first == 0.5
    assert subscriber.stats.errors == 1


def test_blocked_callbacks_starve_nobody_else(
    node: Node, topic: str, broker: Broker, gate: threading.Event
) -> None:
    blocked, got = Collected(), Collected()

    def block(msg: Any) -> None:
        blocked(msg)
        gate.wait(DEADLINE)

    for _ in range(30):
        node.create_subscriber(topic, block)
    other = broker.unique("other")
    node.create_subscriber(other, got)
    node.create_publisher(topic).publish("block")
    blocked.wait(30)

    publisher = node.create_publisher(other)
    for n in range(1000):
        publisher.publish(n)

    assert got.wait(1000) == list(range(1000))


@pytest.mark.parametrize(
    ("overflow", "handled"),
    [
        ("drop_oldest", [0, *range(91, 101)]),
        ("drop_newest", [0, *range(1, 11)]),
        ("latest", [0, 100]),
    ],
    ids=["drop_oldest", "drop_newest", "latest"],
)
def test_what_waits_for_a_slow_callback_is_bounded_and_counted(
    node: Node, topic: str, gate: threading.Event, overflow: Any, handled: list[int]
) -> None:
    got, entered = Collected(), Collected()

    def on_message(msg: Any) -> None:
        entered(msg)
        gate.wait(DEADLINE)
        got(msg)

    bounds = Bounds(max_messages=10, overflow=overflow)
    subscriber = node.create_subscriber(topic, on_message, bounds=bounds)
    publisher = node.create_publisher(topic)
    publisher.publish(0)
    entered.wait(1)
    for n in range(1, 101):
        publisher.publish(n)
    eventually(lambda: subscriber.stats.received == 101)
    gate.set()
    got.wait(len(handled))
    publisher.publish("end")

    assert got.until("end") == handled
    stats = subscriber.stats
    assert stats.received == publisher.stats.sent == 102
    assert stats.received == len(got.items) + stats.dropped


def test_what_waits_for_a_slow_callback_is_bounded_in_bytes_too(
    node: Node, topic: str, gate: threading.Event
) -> None:
    got, entered = Collected(), Collected()

    def on_message(msg: str) -> None:
        entered(msg)
        gate.wait(DEADLINE)
        got(msg[:1])

    bounds = Bounds(max_bytes=5000)
    subscriber = node.create_subscriber(topic, on_message, bounds=bounds)
    publisher = node.create_publisher(topic)
    publisher.publish("0")
    entered.wait(1)
    for n in range(1, 10):
        publisher.publish(f"{n}" * 2000)
    publisher.publish("X" * 10_000)  # alone it is over the bound, and still the newest
    eventually(lambda: subscriber.stats.received == 11)
    gate.set()

    assert got.until("X") == ["0"]
    assert subscriber.stats.dropped == 9


def test_a_slow_coroutine_is_bounded_as_well(node: Node, portal: Portal, topic: str) -> None:
    got, entered = Collected(), Collected()
    gate = asyncio.Event()

    async def on_message(msg: int) -> None:
        entered(msg)
        await gate.wait()
        got(msg)

    subscriber = node.create_subscriber(topic, on_message, bounds=Bounds(max_messages=5))
    publisher = node.create_publisher(topic)
    publisher.publish(0)
    entered.wait(1)
    for n in range(1, 21):
        publisher.publish(n)
    eventually(lambda: subscriber.stats.received == 21)
    portal.post(gate.set)

    assert got.wait(6) == [0, 16, 17, 18, 19, 20]
    assert subscriber.stats.dropped == 15


def test_callbacks_of_other_topics_go_on_while_one_publishes_from_its_own(
    node: Node, broker: Broker
) -> None:
    """A chain: each callback publishes what the next one waits for."""
    words = [broker.unique(f"step{n}") for n in range(5)]
    got = Collected()
    publishers = [node.create_publisher(word) for word in words]
    for n in range(4):
        node.create_subscriber(words[n], publishers[n + 1].publish)
    node.create_subscriber(words[4], got)

    for n in range(100):
        publishers[0].publish(n)

    assert got.wait(100) == list(range(100))


# ---- what is no such message ----


def garbage() -> list[bytes]:
    """Payloads that are no Sonar, in all the ways there are."""
    chance = random.Random(20)
    whole = zlib.compress(b'{"distance": 1.0}')
    return [
        *(chance.randbytes(chance.randrange(1, 200)) for _ in range(50)),
        b"",
        b"\x00",
        b"x",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b'{"distance":',
        b'{"distance": "far"}',
        b'{"distance": {}}',
        b'{"distance": 1.0, "ranges": 5}',
        b'{"header": 5, "data": 1}',
        b'{"header": {}, "data": {}}',
        b'{"header": {"properties": {}}, "data": null}',
        b'{"header": {"properties": {}}, "data": {"distance": []}}',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"header": {"properties": {}}, "data": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b"\x81\xa1a" * 10_000 + b"\xc0",
        b"\x81\x80\x01",
        b"\x81\x81\x01\x01\x01",
        b"\xdf\xff\xff\xff\xff",
        whole[:-5],
        zlib.compress(b'{"distance": "' + b"x" * 1_000_000 + b'"}'),
        b"\x28\xb5\x2f\xfd" + chance.randbytes(50),
        b'{"distance": ' + b"9" * 5000 + b", NaN",
        b'{"distance": NaN, "ranges": [NaN',
        b" " * 200_000,
    ]


def test_garbage_is_refused_and_counted_and_the_subscriber_goes_on(
    make_node: MakeNode, broker: Broker, raw: RawPeer, caplog: pytest.LogCaptureFixture
) -> None:
    topic = broker.unique()
    got, errors = Collected(), Collected()
    node = make_node(broker.with_options(max_payload=100_000))
    subscriber = node.create_subscriber(topic, got, Sonar, on_error=errors)

    for payload in garbage():
        raw.publish(topic, payload)
    raw.publish(topic, b'{"distance": 2.0}')

    assert got.until(Sonar(2.0)) == []
    assert subscriber.stats.refused == len(errors.items) == len(garbage())
    assert subscriber.stats.errors == 0
    assert all(isinstance(error, SerializationError) for error, _ in errors.items)
    lines = [record for record in caplog.records if topic in record.getMessage()]
    assert 1 <= len(lines) <= 10, "one line for each kind, not for each message"


def test_garbage_is_text_or_bytes_for_an_untyped_subscriber_and_it_goes_on(
    make_node: MakeNode, broker: Broker, raw: RawPeer
) -> None:
    topic = broker.unique()
    got = Collected()
    node = make_node(broker.with_options(max_payload=100_000))
    subscriber = node.create_subscriber(topic, got)

    for payload in garbage():
        raw.publish(topic, payload)
    raw.publish(topic, b'"end"')

    received = got.until("end")
    assert len(received) + subscriber.stats.refused == len(garbage())
    assert subscriber.stats.refused < 10, "only what is too big, now or when decompressed"
    assert subscriber.stats.errors == 0
    assert got.items.index("x") >= 0


def test_a_message_of_the_wrong_types_is_refused_and_counted(node: Node, topic: str) -> None:
    got, errors = Collected(), Collected()
    subscriber = node.create_subscriber(topic, got, Sonar, on_error=errors)
    publisher = node.create_publisher(topic)

    publisher.publish({"distance": "far"})
    publisher.publish({"label": "no distance"})
    publisher.publish({"distance": "2.5", "count": "-3", "unknown": 1})

    assert got.first == Sonar(2.5, count=-3)
    assert subscriber.stats.refused == 2
    (first, where), (second, _) = errors.items
    assert isinstance(first, SerializationError)
    assert "distance" in str(first)
    assert "Sonar" in str(second)
    assert where == topic


def test_a_publisher_refuses_what_is_no_message_of_its_class(node: Node, topic: str) -> None:
    publisher = node.create_publisher(topic, Sonar)

    for wrong in (Pose(), {"distance": "far"}, {}, "text", None, 5):
        with pytest.raises(SerializationError):
            publisher.publish(wrong)  # type: ignore[arg-type]
    with pytest.raises(SerializationError):
        node.create_publisher(topic).publish(object())
    assert publisher.stats.sent == 0


def test_a_message_over_the_limit_is_refused_on_both_sides(
    node: Node, make_node: MakeNode, broker: Broker
) -> None:
    topic = broker.unique()
    got, errors = Collected(), Collected()
    narrow = make_node(broker.with_options(max_payload=1000))
    subscriber = narrow.create_subscriber(topic, got, on_error=errors)

    with pytest.raises(PayloadTooBig) as refused:
        narrow.create_publisher(topic).publish("x" * 2000)
    node.create_publisher(topic).publish("x" * 2000)
    node.create_publisher(topic).publish("short")

    assert got.until("short") == []
    assert refused.value.limit == 1000
    assert refused.value.size > 2000
    assert subscriber.stats.refused == 1
    assert "1000" in str(errors.first[0])


# ---- counting by sequence numbers ----


def test_a_message_that_was_never_sent_is_missed_by_nobody(node: Node, topic: str) -> None:
    got = Collected()
    subscriber = node.create_subscriber(topic, got, Sonar)
    publisher = node.create_publisher(topic, Sonar)
    node.run()
    for number in range(3):
        publisher.publish(Sonar(float(number)))
        with pytest.raises(SerializationError):
            publisher.publish("no sonar")  # type: ignore[arg-type]
    assert [msg.distance for msg in got.wait(3)] == [0.0, 1.0, 2.0]
    stats = subscriber.stats
    assert (stats.gaps, stats.duplicates, stats.reordered) == (0, 0, 0)


def test_gaps_duplicates_and_late_comers_are_counted(node: Node, topic: str, raw: RawPeer) -> None:
    got = Collected()
    subscriber = node.create_subscriber(topic, got)

    for origin, numbers in {"one": [0, 1, 4, 4, 2], "two": [7, 8]}.items():
        for seq in numbers:
            raw.publish_message(topic, [origin, seq], Header(0, PROPERTIES, origin, seq))

    got.wait(7)
    stats = subscriber.stats
    assert (stats.gaps, stats.duplicates, stats.reordered) == (1, 1, 1)


def test_without_sequence_numbers_nothing_is_counted(node: Node, topic: str) -> None:
    got = Collected()
    subscriber = node.create_subscriber(topic, got)

    for _ in range(3):
        node.create_publisher(topic, sequence=False).publish("hello")

    got.wait(3)
    assert (subscriber.stats.gaps, subscriber.stats.duplicates) == (0, 0)


def test_a_second_publisher_of_a_topic_is_no_gap(node: Node, topic: str) -> None:
    got = Collected()
    subscriber = node.create_subscriber(topic, got)
    first, second = node.create_publisher(topic), node.create_publisher(topic)

    for n in range(10):
        first.publish(n)
        second.publish(n)

    got.wait(20)
    assert (subscriber.stats.gaps, subscriber.stats.duplicates) == (0, 0)


class Level(PubSubMessage):
    litres: float = 0.0


def test_what_others_publish_under_a_pattern_is_no_message_of_nothing_but_defaults(
    node: Node, topic: str
) -> None:
    got = Collected()
    tanks = node.create_psubscriber(f"{topic}.*", got, Level)
    tanks.run()
    for data in ({"ts": 1}, {"litres": 1.5, "new": 1}, {"event": "death"}, {}):
        node.create_publisher(f"{topic}.tank").publish(data)
    assert got.wait(2) == [(Level(1.5), f"{topic}.tank"), (Level(), f"{topic}.tank")]
    assert tanks.stats.refused == 2


def test_a_psubscriber_gives_the_topic_also_where_it_is_no_pattern(
    broker: Broker, topic: str
) -> None:
    got = Collected()
    with PSubscriber(topic, got, Sonar, broker.url):
        publisher = Publisher(topic, Sonar, broker.url)
        publisher.publish(Sonar(1.0))
        assert got.first == (Sonar(1.0), topic)
        publisher.stop()
