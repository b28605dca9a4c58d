"""Whatever is sent to a node, and however its program ends, it goes on or leaves as it should."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, pairwise
from typing import Any

import pytest

import strictly
from brokers import Broker
from collected import BUSY_SECONDS, DEADLINE, Collected, eventually, interruptible
from commlib._packet import MAX_PAYLOAD, PROPERTIES, Header
from commlib.action import GoalHandler
from commlib.exceptions import (
    CommlibError,
    ConnectionLost,
    EndpointClosed,
    RPCTimeout,
    SerializationError,
)
from commlib.msg import HeartbeatMessage
from commlib.node import Node, NodeState
from commlib.pubsub import Publisher
from commlib.rpc import RPCClient
from messages import AddTwoInts, Move, Sonar
from raw_peer import RawPeer

MakeNode = Callable[..., Node]
Request, Response = AddTwoInts.Request, AddTwoInts.Response

STOP_SECONDS = 1.0 + BUSY_SECONDS
LEAVE_SECONDS = 2.0 + BUSY_SECONDS
LIMIT = 100_000
"""Bytes of a payload that the nodes here let in."""
LINES = 10
"""Of a log, for garbage of any kind: one for each error, not for each message."""
SERVERS = ["redis", "valkey", "mqtt", "mqtt311", "nats", "amqp"]
"""The brokers that other processes can be on."""
on_servers = pytest.mark.parametrize("broker", SERVERS, indirect=True)


def add(request: AddTwoInts.Request) -> AddTwoInts.Response:
    return Response(c=request.a + request.b)


def garbage() -> list[bytes]:
    """Payloads that are nothing to any endpoint, not even a request without arguments."""
    chance = random.Random(22)
    deep = b"[" * 10_000 + b"]" * 10_000
    return [
        *(b"\xc1" + chance.randbytes(chance.randrange(200)) for _ in range(30)),
        b"",
        b"\xff\xfe",
        b"[]",
        b"5",
        b"null",
        b'"text"',
        b'{"header": {}, "data": []}',
        b'{"header": {}, "data": 5}',
        b'{"header": {}, "data": "text"}',
        b'{"header": {"properties": {}}, "data": ' + deep + b"}",
        deep,
        b"\x91" * 10_000 + b"\xc0",
        b"\xdf\xff\xff\xff\xff",
        zlib.compress(b"[" + b" " * 10_000_000 + b"]"),
        zlib.compress(b'{"a": 1}')[:-5],
        b'{"a": ',
        b" " * (2 * LIMIT),
    ]


# ---- garbage into every endpoint ----


def test_garbage_into_every_endpoint_of_a_node_leaves_it_as_it_was(
    make_node: MakeNode, broker: Broker, raw: RawPeer, caplog: pytest.LogCaptureFixture
) -> None:
    name, states = broker.unique("robot"), Collected()
    got, goals = Collected(), Collected()
    small = broker.with_options(max_payload=LIMIT)
    node = make_node(small, ctrl_services=True, remote_logger=True, on_state=states)
    subscriber = node.create_subscriber(f"{name}.one", got, Sonar)
    matching = node.create_psubscriber(f"{name}.many.*", lambda msg, topic: got(msg), Sonar)
    group = node.create_wsubscriber()
    group.subscribe(f"{name}.group", got, Sonar)
    beats = node.create_subscriber(f"{name}.heartbeat", got, HeartbeatMessage)
    service = node.create_rpc(f"{name}.add", add, AddTwoInts)
    server = node.create_rpc_server(name, {"part": (add, AddTwoInts)})
    action = node.create_action(f"{name}.move", Move, lambda goal: goals(goal) or Move.Result(cm=1))
    follower = node.create_action_client(f"{name}.move", Move)
    follower.run()
    own = node.namespace

    for payload in garbage():
        for topic in ("one", "many.a", "group", "heartbeat", "move.status", "move.feedback"):
            raw.publish(f"{name}.{topic}", payload)
        for part in ("add", "part", "move.send_goal", "move.cancel_goal", "move.get_result"):
            raw.send(f"{name}.{part}", payload)
        for control in ("start", "stop"):
            raw.send(f"{own}.{control}", payload)

    count = len(garbage())
    for endpoint in (subscriber, matching, group, beats, service, server):
        eventually(lambda: endpoint.stats.refused == count, lambda: (endpoint, endpoint.stats))  # noqa: B023 - it is waited for here
    eventually(lambda: action.stats.refused == 3 * count, lambda: action.stats)
    eventually(lambda: follower.stats.refused == 2 * count, lambda: follower.stats)
    eventually(lambda: node.stats.refused == 2 * count, lambda: node.stats)
    assert (got.items, goals.items, node.state) == ([], [], NodeState.RUNNING)
    lines = [r.getMessage() for r in caplog.records if name in r.getMessage()]
    assert 1 <= len(lines) <= 11 * LINES
    assert max(map(len, lines)) < 2000

    far = make_node()
    far.create_mpublisher(Sonar).publish(Sonar(1.0), f"{name}.many.a")
    assert got.wait(1) == [Sonar(1.0)]
    for part in ("add", "part"):
        assert far.create_rpc_client(f"{name}.{part}", AddTwoInts).call(Request(a=1, b=2)).c == 3
    assert follower.send_goal(Move.Goal(cm=1)).result(DEADLINE).cm == 1
    assert far.create_rpc_client(f"{own}.stop").call({}) == {"status": 0, "error": ""}
    assert far.create_rpc_client(f"{own}.start").call({}) == {"status": 0, "error": ""}
    assert states.items == [(True, None)]


def test_garbage_instead_of_replies_ends_their_calls_and_no_others(
    make_node: MakeNode, broker: Broker, raw: RawPeer
) -> None:
    name = broker.unique()
    requests = raw.consume(name)
    client = make_node(broker.with_options(max_payload=LIMIT)).create_rpc_client(name, AddTwoInts)
    calls = [client.call_async(Request(a=n, b=0), timeout=DEADLINE) for n in range(len(garbage()))]
    last = client.call_async(Request(a=len(calls), b=0), timeout=DEADLINE)

    arrived = sorted(requests.wait(len(calls) + 1), key=lambda request: request.data["a"])
    for request, payload in zip(arrived, garbage(), strict=False):
        raw.answer(request, payload)
    raw.answer_message(arrived[-1], {"c": 7}, Header(0, PROPERTIES))

    for call in calls:
        assert isinstance(call.exception(DEADLINE), SerializationError)
    assert last.result(DEADLINE) == Response(c=7)
    assert client.stats.refused == len(calls)


def test_answers_to_goals_that_are_garbage_end_in_an_error(
    node: Node, broker: Broker, raw: RawPeer
) -> None:
    name = broker.unique("action")
    requests = raw.consume(f"{name}.send_goal")
    client = node.create_action_client(name, Move)
    outcomes = Collected()

    def send() -> None:
        try:
            outcomes(client.send_goal(Move.Goal(cm=1), timeout=DEADLINE).status)
        except CommlibError as exc:
            outcomes(exc)

    # The last ones are messages, but none that could answer.
    garbage: list[Any] = [b"\xff", b"[]", b"null", 5, "text", {"status": "x"}, {"status": []}]
    for number, answer in enumerate(garbage, 1):
        thread = threading.Thread(target=send)
        thread.start()
        request = requests.wait(number)[-1]
        if isinstance(answer, bytes):
            raw.answer(request, answer)
        else:
            raw.answer_message(request, answer, Header(0, PROPERTIES))
        thread.join(DEADLINE)
        assert isinstance(outcomes.wait(number)[-1], SerializationError)


def test_a_payload_over_the_limit_costs_nothing_but_itself(
    make_node: MakeNode, raw: RawPeer, topic: str
) -> None:
    got, states = Collected(), Collected()
    node = make_node(on_state=states)
    subscriber = node.create_subscriber(topic, got)
    service = node.create_rpc(f"{topic}.echo", lambda request: request)
    big = b" " * (MAX_PAYLOAD + 1)

    raw.publish(topic, big)
    raw.send(f"{topic}.echo", big)
    raw.publish(topic, b'"small"')

    assert got.wait(1) == ["small"]
    eventually(lambda: (subscriber.stats.refused, service.stats.refused) == (1, 1))
    assert make_node().create_rpc_client(f"{topic}.echo").call(5, timeout=DEADLINE) == 5
    assert states.items == [(True, None)]


@pytest.mark.slow
def test_a_payload_of_64_mb_ends_nothing_for_good(
    make_node: MakeNode, raw: RawPeer, topic: str
) -> None:
    got = Collected()
    node = make_node()
    node.create_subscriber(topic, got)
    node.create_rpc(f"{topic}.echo", lambda request: request)
    far = make_node()
    publisher, client = far.create_publisher(topic), far.create_rpc_client(f"{topic}.echo")
    big = b" " * (64 << 20)

    # Some brokers refuse it, and some hang up on who sends it, or on who cannot take it so fast.
    raw.publish(topic, big)
    raw.send(f"{topic}.echo", big)

    def is_answered() -> bool:
        try:
            return client.call(5, timeout=1) == 5
        except (RPCTimeout, ConnectionLost):
            return False

    def arrives() -> bool:
        publisher.publish("small")
        return "small" in got.items

    eventually(is_answered)
    eventually(arrives)
    assert set(got.items) == {"small"}


def test_a_topic_as_long_as_any_is_heard_by_a_pattern(
    node: Node, broker: Broker, raw: RawPeer, topic: str
) -> None:
    got = Collected()
    node.create_psubscriber(f"{topic}.*", got)
    names = [topic + "." + "x" * n for n in (1, broker.traits.longest_name - len(topic) - 1)]
    for name in names:
        raw.publish(name, b"[]")
    assert [name for _, name in got.wait(2)] == names


# ---- many at once ----


def test_sixty_four_threads_that_share_a_publisher_lose_nothing_and_keep_their_order(
    make_node: MakeNode, topic: str
) -> None:
    threads, messages = 64, 100
    got = Collected()
    subscriber = make_node().create_subscriber(topic, got)
    publisher = make_node().create_publisher(topic)
    start = threading.Barrier(threads)

    def publish(thread: int) -> None:
        start.wait(DEADLINE)
        for n in range(messages):
            publisher.publish([thread, n])

    crew = [threading.Thread(target=publish, args=(i,)) for i in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()

    received = got.wait(threads * messages)
    for number in range(threads):
        assert [n for thread, n in received if thread == number] == list(range(messages))
    stats = subscriber.stats
    assert (stats.received, stats.gaps, stats.duplicates) == (threads * messages, 0, 0)


# ---- what comes in between ----


@contextmanager
def on_signal(handler: Callable[[], object]) -> Iterator[None]:
    """Have the main thread do this at each SIGUSR1."""
    former = signal.signal(signal.SIGUSR1, lambda number, frame: handler())
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_a_signal_handler_may_call_while_its_thread_waits_for_a_reply(
    make_node: MakeNode, topic: str
) -> None:
    def answer(request: AddTwoInts.Request) -> AddTwoInts.Response:
        nonlocal is_due
        if request.b == 1:  # it waits for what the handler of a signal calls in its turn
            eventually(lambda: where(main) in ("_read", "wait"))
            is_due = True
            # Again: one that comes on the way into a wait is not looked at before that is over.
            for _ in range(int(DEADLINE / 0.05)):
                signal.pthread_kill(main, signal.SIGUSR1)
                if has_called.wait(0.05):
                    break
        else:
            has_called.set()
        return add(request)

    main = threading.main_thread().ident or 0
    has_called = threading.Event()
    is_due = False
    inner: list[int] = []
    make_node().create_rpc(topic, answer, AddTwoInts)
    client = make_node().create_rpc_client(topic, AddTwoInts)

    def call() -> None:
        nonlocal is_due
        if is_due:
            is_due = False
            inner.append(client.call(Request(a=len(inner), b=2), timeout=DEADLINE).c)

    outer = []
    with on_signal(call):
        for number in range(20):
            has_called.clear()
            outer.append(client.call(Request(a=number, b=1), timeout=DEADLINE).c)
    assert outer == [n + 1 for n in range(20)]
    assert inner == [n + 2 for n in range(20)]


@on_servers
def test_a_signal_handler_may_wait_for_the_loop_while_its_thread_publishes(
    make_node: MakeNode, topic: str
) -> None:
    """The loop must not wait for the one whom the signal has interrupted in turn."""
    make_node().create_rpc(topic, add, AddTwoInts)
    node, got = make_node(), Collected()
    make_node().create_subscriber(f"{topic}.said", lambda msg: got(msg["number"]))
    client = node.create_rpc_client(topic, AddTwoInts)
    publisher = node.create_publisher(f"{topic}.said")
    main = threading.main_thread().ident or 0
    sums: list[int] = []
    numbers = count()
    has_called, is_over = threading.Event(), threading.Event()

    def call() -> None:
        sums.append(client.call(Request(a=len(sums), b=1), timeout=DEADLINE).c)
        has_called.set()

    def interrupt() -> None:
        for _ in range(200):
            has_called.clear()
            signal.pthread_kill(main, signal.SIGUSR1)
            if not has_called.wait(DEADLINE):
                break
        is_over.set()

    def publish() -> None:
        while not is_over.is_set():
            publisher.publish({"number": next(numbers)})

    with on_signal(call):
        thread = threading.Thread(target=interrupt)
        thread.start()
        publish()
        thread.join()
    assert sums == [n + 1 for n in range(200)]
    is_over.clear()
    so_far = next(numbers)
    with on_signal(node.stop):
        timer = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGUSR1))
        timer.start()
        with pytest.raises(EndpointClosed):
            publish()
        timer.join()
    eventually(lambda: got.items and got.items[-1] > so_far)
    assert all(before < after for before, after in pairwise(got.items))


def where(thread: int) -> str:
    """The name of the function that a thread is in."""
    return sys._current_frames()[thread].f_code.co_name


def calling_and_hearing(
    make_node: MakeNode, topic: str
) -> tuple[RPCClient[AddTwoInts.Request, AddTwoInts.Response], Collected, Publisher[Any]]:
    """A client whose node also hears what a publisher says."""
    make_node().create_rpc(topic, add, AddTwoInts)
    node, got = make_node(), Collected()
    node.create_subscriber(f"{topic}.said", got)
    client = node.create_rpc_client(topic, AddTwoInts)
    return client, got, make_node().create_publisher(f"{topic}.said")


def test_ctrl_c_at_any_moment_of_a_call_ends_that_and_nothing_else(
    make_node: MakeNode, topic: str
) -> None:
    client, got, publisher = calling_and_hearing(make_node, topic)
    is_ready, has_ended, is_silent = (threading.Event() for _ in range(3))
    said = done = interrupted = 0

    def interrupt() -> None:
        nonlocal said
        before, longest = -1, 0.005  # s
        while not has_ended.is_set():
            if not is_ready.wait(0.1):
                continue
            is_ready.clear()  # one at a time: the next may not come before this is dealt with
            # Where no call has ended before the last one, they take longer here than that.
            before, longest = done, 2 * longest if done == before else 0.005
            has_ended.wait(longest * (0.2 + 0.8 * random.random()))
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            if said < done // 10:  # else there would be no call with nothing in between
                publisher.publish({"n": said})
                said += 1
        is_silent.set()

    sender = threading.Thread(target=interrupt)
    former = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        with interruptible():
            sender.start()
            while not is_silent.is_set():  # `join` must not be interrupted, before Python 3.13
                try:
                    is_ready.set()
                    while done < 500:
                        assert client.call(Request(a=done, b=1), timeout=DEADLINE).c == done + 1
                        done += 1
                    has_ended.set()
                    is_silent.wait(DEADLINE)
                except KeyboardInterrupt:
                    interrupted += 1
    finally:
        has_ended.set()
        sender.join()
        signal.signal(signal.SIGUSR1, former)
    assert interrupted
    assert [data["n"] for data in got.wait(said)] == list(range(said))
    assert client.call(Request(a=1, b=1), timeout=DEADLINE).c == 2
    assert client.stats.reconnects == 0


def test_what_comes_while_threads_call_goes_where_it_belongs(
    make_node: MakeNode, topic: str
) -> None:
    client, got, publisher = calling_and_hearing(make_node, topic)
    has_called = threading.Event()
    said = 0

    def say() -> None:
        nonlocal said
        while not has_called.wait(0.001 * random.random()):
            publisher.publish({"n": said, "text": "x" * random.choice([0, 10, 10_000])})
            said += 1

    talker = threading.Thread(target=say)
    talker.start()
    try:
        sums = [client.call(Request(a=n, b=1), timeout=DEADLINE).c for n in range(500)]
    finally:
        has_called.set()
        talker.join()
    assert sums == [n + 1 for n in range(500)]
    assert [data["n"] for data in got.wait(said)] == list(range(said))


def test_a_connection_on_which_replies_alone_come_is_not_taken_for_dead(
    make_node: MakeNode, broker: Broker, topic: str
) -> None:
    make_node().create_rpc(topic, add, AddTwoInts)
    node = make_node(broker.with_options(keepalive=1))
    client = node.create_rpc_client(topic, AddTwoInts)
    end = time.monotonic() + 3 * 1  # it would be probed after one, and be given up one later
    while time.monotonic() < end:
        assert client.call(Request(a=1, b=1), timeout=DEADLINE).c == 2
    assert node.stats.reconnects == 0


# ---- the end of a node ----


def test_a_node_stops_in_time_whatever_its_callbacks_do(
    make_node: MakeNode, broker: Broker, topic: str, gate: threading.Event
) -> None:
    entered = Collected()

    def block(*args: Any) -> None:
        entered(args)
        gate.wait()

    node, far = make_node(), make_node()
    for number in range(30):
        node.create_subscriber(f"{topic}.{number}", block)
    node.create_rpc(f"{topic}.block", block)
    node.create_action(f"{topic}.act", on_goal=block)
    publisher = far.create_mpublisher()
    for number in range(30):
        publisher.publish(number, f"{topic}.{number}")
    call = far.create_rpc_client(f"{topic}.block").call_async({}, timeout=DEADLINE)
    far.create_action_client(f"{topic}.act").send_goal({})
    entered.wait(32)

    begun = time.monotonic()
    node.stop()

    assert time.monotonic() - begun < STOP_SECONDS
    assert not call.done() or call.exception() is not None
    gate.set()


# ---- programs of their own ----

HEAD = (
    strictly.HEAD
    + """
import sys, time
from commlib import aio
from commlib.msg import PubSubMessage, RPCMessage
from commlib.node import Node
url, name = sys.argv[1:]
def end():
    print(f"{time.monotonic()} end", flush=True)
"""
)


def run(program: str, broker: Broker, name: str, *before: str) -> float:
    """Run a program that says nothing to stderr; how long it took from ``end()`` to its end."""
    done = subprocess.run(
        [*before, sys.executable, *strictly.STRICT, "-c", HEAD + program, broker.url, name],
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
    )
    now = time.monotonic()
    assert (done.stderr, done.returncode) == ("", 0)
    return now - float(done.stdout.split()[-2])


EVERYTHING = """
import asyncio, queue
from commlib.bridges import TopicBridge
from commlib.events import Event
from commlib.pubsub import Publisher
class Sonar(PubSubMessage):
    distance: float = 0.0
class Add(RPCMessage):
    class Request(RPCMessage.Request):
        a: int = 0
    class Response(RPCMessage.Response):
        c: int = 0
got = queue.Queue()
def take():
    return got.get(timeout=10)
def work(goal):
    goal.send_feedback({"half": 1})
    return {"whole": 2}
def sync():
    with Node(name, None, url, ctrl_services=True, remote_logger=True) as node:
        node.create_subscriber(f"{name}.sonar", got.put, Sonar)
        node.create_psubscriber(f"{name}.many.*", lambda msg, topic: got.put(topic))
        node.create_subscriber(f"{name}.there", got.put)
        node.create_rpc(f"{name}.add", lambda request: Add.Response(c=request.a + 1), Add)
        node.create_action(f"{name}.act", on_goal=work)
        node.create_publisher(f"{name}.sonar", Sonar).publish(Sonar(1.0))
        assert take() == Sonar(1.0)
        node.create_mpublisher().publish(1, f"{name}.many.a")
        assert take() == f"{name}.many.a"
        node.create_event_emitter().send_event(Event("Ring", f"{name}.there", payload={}))
        assert take()["name"] == "Ring"
        assert node.create_rpc_client(f"{name}.add", Add).call(Add.Request(a=1)).c == 2
        goal = node.create_action_client(f"{name}.act").send_goal({})
        assert [feedback for feedback in goal.feedback] == [{"half": 1}]
        assert goal.result(10) == {"whole": 2}
        with TopicBridge(None, f"{name}.here", f"{name}.there", url, url):
            with Publisher(f"{name}.here", None, url) as publisher:
                publisher.publish("over")
                assert take() == "over"
async def asynchronous():
    async with aio.Node(f"{name}_aio", url, ctrl_services=True) as node:
        subscriber = node.create_subscriber(f"{name}.b")
        await subscriber.run()
        await node.create_rpc(f"{name}.echo", lambda request: request).run()
        await node.create_publisher(f"{name}.b").publish(1)
        async for message in subscriber:
            assert message == 1
            break
        client = node.create_rpc_client(f"{name}.echo")
        assert await asyncio.gather(*(client.call(n) for n in range(50))) == list(range(50))
        await node.create_action(f"{name}.act", on_goal=work).run()
        goal = await node.create_action_client(f"{name}.act").send_goal({})
        assert await goal.result() == {"whole": 2}
sync()
asyncio.run(asynchronous())
end()
"""


def test_every_pattern_is_used_without_a_warning(broker: Broker, topic: str) -> None:
    run(EVERYTHING, broker, topic)


FORGETS = """
node = Node(name, None, url)
node.create_subscriber(f"{name}.in", print)
node.create_rpc(f"{name}.echo", lambda request: request)
publisher = node.create_publisher(name)
node.run()
assert node.create_rpc_client(f"{name}.echo").call(1) == 1
for number in range(1000):
    publisher.publish(number)
publisher.publish("last")
end()
"""


@on_servers
def test_a_program_that_forgets_to_stop_ends_and_what_it_said_last_arrives(
    node: Node, broker: Broker, topic: str
) -> None:
    got = Collected()
    node.create_subscriber(topic, got)
    seconds = run(FORGETS, broker, topic)
    assert got.until("last") == list(range(1000))
    assert seconds < LEAVE_SECONDS


FORKS = """
import os, warnings
warnings.filterwarnings("ignore", "This process", DeprecationWarning)
node = Node(name, None, url)
publisher, client = node.create_publisher(name), node.create_rpc_client(f"{name}.echo")
node.run()
publisher.publish("parent")
assert client.call("parent") == "parent"
child = os.fork()
who = "parent" if child else "child"
assert [client.call(f"{who} {n}") for n in range(50)] == [f"{who} {n}" for n in range(50)]
publisher.publish(f"{who}, too")
if child:
    assert os.waitpid(child, 0)[1] == 0
    node.stop()
    end()
"""


@on_servers
def test_a_forked_child_has_a_connection_of_its_own_and_both_go_on(
    node: Node, broker: Broker, topic: str
) -> None:
    got = Collected()
    subscriber = node.create_subscriber(topic, got)
    node.create_rpc(f"{topic}.echo", lambda request: request)
    run(FORKS, broker, topic)
    assert sorted(got.wait(3)) == ["child, too", "parent", "parent, too"]
    assert subscriber.stats.gaps == subscriber.stats.duplicates == 0


FORKED_ACTIONS = """
import os, queue, warnings
warnings.filterwarnings("ignore", "This process", DeprecationWarning)
got = queue.Queue()
node = Node(name, None, url)
client = node.create_action_client(f"{name}.act", on_feedback=got.put, on_result=got.put)
node.run()
def goes(goal):
    client.send_goal(goal, wait_for_result=True)
    assert [got.get(timeout=10) for _ in range(2)] == [f"at {goal}", goal], goal
goes("parent")
child = os.fork()
goes("parent, too" if child else "child")
if child:
    assert os.waitpid(child, 0)[1] == 0
    node.stop()
    end()
"""


@on_servers
def test_a_forked_child_is_told_of_its_goals(node: Node, broker: Broker, topic: str) -> None:
    def act(goal: GoalHandler) -> Any:
        goal.send_feedback(f"at {goal.data}")
        return goal.data

    node.create_action(f"{topic}.act", on_goal=act)
    run(FORKED_ACTIONS, broker, topic)


FIRST = """
import os
assert os.getpid() == 1
node = Node(name, None, url)
node.create_rpc(f"{name}.echo", lambda request: request)
publisher = node.create_publisher(name)
node.run()
assert node.create_rpc_client(f"{name}.echo").call(1) == 1
# To the first process a signal that it does not handle is none; but Linux ends it for one that
# comes while its main thread blocks signals and another does not, as in the middle of posix_spawn.
again = "read go; while kill -TERM 1; do sleep 0.05; done"
hears, says = os.pipe()
os.posix_spawn(
    "/bin/sh", ["sh", "-c", again], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, hears, 0)]
)
os.write(says, b"go\\n")
publisher.publish("first")
node.run_forever()
end()
"""


@pytest.fixture(scope="module")
def unshare() -> list[str]:
    """The command that runs another one as the first process of a namespace."""
    program = shutil.which("unshare") or pytest.skip("unshare is missing")
    for rights in ([], ["--map-root-user"]):
        command = [program, *rights, "--pid", "--fork", "--kill-child"]
        if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    pytest.skip("only root may make a namespace of processes here")


@on_servers
def test_it_works_as_the_first_process_of_a_container_and_ends_by_a_signal(
    node: Node, broker: Broker, topic: str, unshare: list[str]
) -> None:
    got = Collected()
    node.create_subscriber(topic, got)
    seconds = run(FIRST, broker, topic, *unshare)
    assert got.wait(1) == ["first"]
    assert seconds < LEAVE_SECONDS
