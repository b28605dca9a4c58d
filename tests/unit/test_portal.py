"""The loop thread behind the synchronous face: how it begins, ends, and what a fork makes of it."""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
import contextlib
import gc
import linecache
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import pytest

import strictly
from brokers import RedisServer, RespConnection, free_port
from collected import BUSY_SECONDS, DEADLINE, Collected, eventually
from commlib import _face, _portal
from commlib import node as face_of_node
from commlib._portal import Portal, get_heeding_signals
from commlib.aio._hub import Hub
from commlib.bridges import TopicBridge
from commlib.exceptions import BlockingCall, CommlibError, EndpointClosed
from commlib.node import Node, NodeState
from commlib.pubsub import Subscriber
from commlib.transports import resolve

LEAVE_SECONDS = 2.0 + BUSY_SECONDS
"""The promise: a program that forgets to stop ends within two seconds."""


# ---- programs of their own ----


@dataclass
class Ended:
    """How a program ended, and how long that took from the moment it said it was about to."""

    status: int
    stderr: str
    seconds: float


class Program:
    """A Python program with ``url`` and ``topic`` set and ``end()`` to be called before its end."""

    HEAD = (
        strictly.HEAD
        + """
import os, sys, time
from commlib.transports.redis import Publisher
url, topic = sys.argv[1:]
def end():
    print(f"{time.monotonic()} end", flush=True)
"""
    )

    def __init__(self, text: str, url: str, topic: str, before: str) -> None:
        self._read: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, *strictly.FORKING, "-c", before + self.HEAD + text, url, topic],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._end_time = 0.0
        self._waiter = threading.Thread(target=self._wait, daemon=True)
        self._waiter.start()

    def _wait(self) -> None:
        """Note when it ends, whatever the test does meanwhile."""
        self._process.wait()
        self._end_time = time.monotonic()

    def line(self) -> str:
        """The next line that it writes."""
        assert self._process.stdout is not None, "it was opened with a pipe"
        self._read.append(self._process.stdout.readline().strip())
        return self._read[-1]

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ended(self) -> Ended:
        """Wait for its end."""
        try:
            out, err = self._process.communicate(timeout=3 * DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            out, err = self._process.communicate()
            pytest.fail(f"the program did not end; it wrote\n{out}\n{err}")
        self._waiter.join()
        begin = next(line for line in (*self._read, *out.splitlines()) if line.endswith(" end"))
        seconds = self._end_time - float(begin.split()[0])
        return Ended(self._process.returncode, err, seconds)


Run = Callable[..., Program]


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    return f"portal.{request.node.name}"


@pytest.fixture
def program(redis_server: RedisServer, topic: str) -> Iterator[Run]:
    """Starts a program."""
    programs: list[Program] = []

    def start(text: str, url: str = redis_server.url, before: str = "") -> Program:
        programs.append(Program(text, url, topic, before))
        return programs[-1]

    yield start
    for started in programs:
        started._process.kill()
        started._process.communicate()


@pytest.fixture
def listener(redis_server: RedisServer, topic: str) -> Iterator[RespConnection]:
    """A live subscriber, without the code under test."""
    with redis_server.connection() as connection:
        connection.ask("SUBSCRIBE", topic)
        yield connection


def payload(listener: RespConnection) -> bytes:
    """What was published next."""
    kind, _, found = listener.read()
    assert kind == b"message"
    data: bytes = found
    return data.partition(b'"data":')[2].removesuffix(b"}")


def assert_clean(ended: Ended, status: int = 0) -> None:
    assert ended.stderr == ""
    assert ended.status == status
    assert ended.seconds < LEAVE_SECONDS


# ---- exit ----


def test_what_a_program_publishes_as_its_last_statement_arrives(
    program: Run, listener: RespConnection
) -> None:
    for number in range(10):
        running = program(f"end()\nPublisher(topic, conn_params=url).publish({number})")
        assert payload(listener) == b"%d" % number
        assert_clean(running.ended())


WITHOUT_UVLOOP = "import sys\nsys.modules['uvloop'] = None\n"


def test_the_last_statement_arrives_whatever_the_loop_and_the_name_of_the_host(
    program: Run, listener: RespConnection, redis_server: RedisServer
) -> None:
    """Threads that asyncio would resolve the name with are not to be had any more at exit."""
    by_name = redis_server.url.replace("127.0.0.1", "localhost")
    for before in (WITHOUT_UVLOOP, ""):
        text = "end()\nPublisher(topic, conn_params=url).publish(1)"
        running = program(text, by_name, before=before)
        assert payload(listener) == b"1"
        assert_clean(running.ended())


@pytest.mark.parametrize("before", [WITHOUT_UVLOOP, ""], ids=["asyncio", "uvloop"])
def test_a_program_ends_though_the_name_of_its_broker_is_never_resolved(
    program: Run, before: str
) -> None:
    text = """
import socket, threading
socket.getaddrinfo = lambda *args, **options: threading.Event().wait()
publisher = Publisher(topic, conn_params=url)
publisher.publish(1)
end()
"""
    ended = program(text, "redis://broker.invalid:6379", before=before).ended()
    assert "Traceback" not in ended.stderr
    assert ended.status == 0
    assert ended.seconds < LEAVE_SECONDS


def test_a_burst_before_the_end_arrives_to_the_last_message(
    program: Run, listener: RespConnection
) -> None:
    text = """
publisher = Publisher(topic, conn_params=url)
publisher.run()
for number in range(20_000):
    publisher.publish(number)
end()
"""
    running = program(text)
    for number in range(20_000):
        assert payload(listener) == b"%d" % number
    assert_clean(running.ended())


def test_the_last_message_arrives_when_the_program_ends_by_sys_exit(
    program: Run, listener: RespConnection
) -> None:
    for number in range(3):
        text = f"end()\nPublisher(topic, conn_params=url).publish({number})\nsys.exit(7)"
        running = program(text)
        assert payload(listener) == b"%d" % number
        assert_clean(running.ended(), 7)


def test_the_last_message_arrives_when_the_program_ends_by_an_exception(
    program: Run, listener: RespConnection
) -> None:
    for number in range(3):
        text = f"end()\nPublisher(topic, conn_params=url).publish({number})\nraise KeyError('mine')"
        ended = program(text).ended()
        assert payload(listener) == b"%d" % number
        assert ended.stderr.startswith("Traceback")
        assert ended.stderr.endswith("KeyError: 'mine'\n")
        assert ended.status == 1
        assert ended.seconds < LEAVE_SECONDS


def test_the_last_message_arrives_when_the_program_ends_by_ctrl_c(
    program: Run, listener: RespConnection
) -> None:
    text = """
import threading
publisher = Publisher(topic, conn_params=url)
try:
    print("up", flush=True)
    for _ in range(600):
        threading.Event().wait(0.1)  # a signal that comes just before one is looked at behind it
except KeyboardInterrupt:
    end()
    publisher.publish("bye")
    raise
"""
    for _ in range(3):
        running = program(text)
        assert running.line() == "up"
        running.signal(signal.SIGINT)
        assert payload(listener) == b'"bye"'
        ended = running.ended()
        assert ended.stderr.endswith("KeyboardInterrupt\n")
        assert ended.status == -signal.SIGINT
        assert ended.seconds < LEAVE_SECONDS


def test_a_program_ends_though_its_broker_is_away(program: Run) -> None:
    text = "end()\nPublisher(topic, conn_params=url).publish(1)"
    ended = program(text, f"redis://127.0.0.1:{free_port()}").ended()
    assert "cannot be reached" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.status == 0
    assert ended.seconds < LEAVE_SECONDS


BUSY = """
import asyncio, threading
from commlib.node import Node
called = threading.Event()
{callback}
node = Node("busy", connection_params=url)
node.create_subscriber(topic, callback)
node.run()
node.create_publisher(topic).publish(1)
called.wait()
end()
"""


def test_a_program_ends_though_a_callback_blocks_for_ever(program: Run) -> None:
    callback = "def callback(msg):\n    called.set()\n    threading.Event().wait()"
    assert_clean(program(BUSY.format(callback=callback)).ended())


def test_a_program_ends_without_a_word_though_a_coroutine_waits_for_ever(program: Run) -> None:
    callback = "async def callback(msg):\n    called.set()\n    await asyncio.Event().wait()"
    assert_clean(program(BUSY.format(callback=callback)).ended())


def test_a_program_ends_though_a_coroutine_ignores_that_it_is_cancelled(program: Run) -> None:
    callback = """
async def callback(msg):
    called.set()
    while True:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            pass
"""
    ended = program(BUSY.format(callback=callback)).ended()
    assert "Traceback" not in ended.stderr
    assert ended.status == 0
    assert ended.seconds < LEAVE_SECONDS


def test_a_program_ends_though_a_coroutine_blocks_the_loop(program: Run) -> None:
    callback = "async def callback(msg):\n    called.set()\n    threading.Event().wait()"
    ended = program(BUSY.format(callback=callback)).ended()
    assert ended.status == 0
    assert ended.seconds < LEAVE_SECONDS


@pytest.mark.parametrize("place", ["before", "after"])
def test_what_the_program_has_registered_to_be_done_at_exit_can_stop_and_publish(
    program: Run, listener: RespConnection, place: str
) -> None:
    text = f"""
import atexit
from commlib.node import Node
node = Node("tidy", connection_params=url)
def tidy():
    node.create_publisher(topic).publish("tidied")
    node.stop()
if "{place}" == "before": atexit.register(tidy)
node.run()
if "{place}" == "after": atexit.register(tidy)
end()
"""
    running = program(text)
    assert payload(listener) == b'"tidied"'
    assert_clean(running.ended())


def test_what_comes_after_the_end_is_refused_with_the_reason(program: Run) -> None:
    text = """
def late():
    try:
        publisher.publish(2)
    except Exception as exc:
        os.write(1, f"{type(exc).__name__}: {exc}\\n".encode())
    publisher.stop()
publisher = Publisher(topic, conn_params=url)
publisher.publish(1)
end()
"""
    # What was registered before commlib was imported is done after its end.
    running = program(text, before="import atexit\natexit.register(lambda: late())\n")
    running.line()
    assert running.line().startswith("EndpointClosed: ")
    assert_clean(running.ended())


def test_ctrl_c_while_the_loop_is_started_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[threading.Thread] = []

    class Interrupted(threading.Thread):
        def start(self) -> None:
            made.append(self)
            super().start()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(threading, "Thread", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            Portal()
    assert [thread.is_alive() for thread in made] == [False]


RUN_FOREVER = """
import asyncio, signal, threading
from commlib.transports import memory
memory.Publisher(topic).stop()  # a module is better not interrupted while it is being imported
def tell():
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        time.sleep(0.001)
    print("up", flush=True)  # from here on signals are heard
threading.Thread(target=tell, daemon=True).start()
{run}
end()
"""
RUN_SYNC = "from commlib.node import Node\nNode('patient', connection_params=url).run_forever()"
RUN_ASYNC = "from commlib.aio import Node\nasyncio.run(Node('patient', url).run_forever())"


@pytest.mark.parametrize("run", [RUN_SYNC, RUN_ASYNC], ids=["sync", "asyncio"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("broker", ["there", "away"])
def test_a_signal_ends_run_forever_whether_the_broker_is_there_or_not(
    program: Run, redis_server: RedisServer, run: str, number: signal.Signals, broker: str
) -> None:
    url = redis_server.url if broker == "there" else f"redis://127.0.0.1:{free_port()}"
    running = program(RUN_FOREVER.format(run=run), url)
    assert running.line() == "up"
    sent = time.monotonic()
    running.signal(number)
    ended = running.ended()
    assert ended.status == 0
    assert "Traceback" not in ended.stderr
    assert time.monotonic() - sent < LEAVE_SECONDS


def test_a_signal_that_has_not_interrupted_a_wait_is_heard_nevertheless() -> None:
    # What this does to the main thread a signal does that comes while it is about to wait.
    signaller = threading.Timer(0.05, _thread.interrupt_main)
    queue: SimpleQueue[None] = SimpleQueue()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it may come as soon as that is started
        signaller.start()
        get_heeding_signals(queue, DEADLINE)
    signaller.join()


def test_a_wait_that_heeds_signals_ends_in_time_or_with_what_has_come() -> None:
    queue: SimpleQueue[int] = SimpleQueue()
    with pytest.raises(Empty):
        get_heeding_signals(queue, 0.01)
    queue.put(1)
    assert get_heeding_signals(queue, 0) == 1


def test_a_hail_of_signals_does_not_keep_run_forever_from_its_end(program: Run) -> None:
    """A handler may be interrupted by the next one, wherever it is: a lock in it would be taken."""
    for _ in range(10):
        running = program(RUN_FOREVER.format(run=RUN_SYNC), "memory://hail")
        assert running.line() == "up"
        deadline = time.monotonic() + DEADLINE
        while running._process.poll() is None:
            assert time.monotonic() < deadline, "it hangs"
            for number in (signal.SIGINT, signal.SIGTERM) * 20:
                running.signal(number)


# ---- fork ----


FORK = """
from commlib.node import Node
node = Node("parent", connection_params=url)
publisher = node.create_publisher(topic)
node.run()
publisher.publish("parent 1")
{child}
publisher.publish("parent 2")
node.stop()
end()
"""
OS_FORK = """
child = os.fork()
if not child:
    publisher.publish("child")
    {leave}
assert os.waitpid(child, 0)[1] == 0
"""
MULTIPROCESSING = """
import multiprocessing
child = multiprocessing.get_context("fork").Process(target=publisher.publish, args=("child",))
child.start()
child.join()
assert child.exitcode == 0
"""


@pytest.mark.parametrize(
    "child",
    [OS_FORK.format(leave="end(); sys.exit()"), MULTIPROCESSING],
    ids=["os.fork", "multiprocessing"],
)
def test_what_a_forked_child_publishes_last_arrives_and_the_parent_goes_on(
    program: Run, listener: RespConnection, child: str
) -> None:
    for _ in range(5):
        running = program(FORK.format(child=child))
        assert [payload(listener) for _ in range(3)] == [b'"parent 1"', b'"child"', b'"parent 2"']
        assert_clean(running.ended())


BRIDGE = """
import gc
from commlib.bridges import TopicBridge
from commlib.node import Node
bridge = TopicBridge(None, "there", topic, "memory://child", url)
bridge.run()
if not os.fork():
    bridge.run()
    with Node("child", connection_params="memory://child") as node:
        publisher = node.create_publisher("there")
        for word in "one", "two":
            publisher.publish(word)
        while bridge.stats.forwarded < 2:
            time.sleep(0.01)
    bridge.stop()
    gc.collect()  # what the parent has begun must not be found among the garbage
    os._exit(0)
assert os.wait()[1] == 0
bridge.stop()
end()
"""


def test_a_bridge_may_be_run_again_in_a_forked_child(
    program: Run, listener: RespConnection
) -> None:
    running = program(BRIDGE)
    assert [payload(listener) for _ in range(2)] == [b'"one"', b'"two"']
    assert_clean(running.ended())


def test_a_child_has_a_connection_of_its_own(
    program: Run, make_redis: Callable[..., RedisServer], topic: str
) -> None:
    server = make_redis()
    child = """
back, go = os.pipe()
if not os.fork():
    os.close(go)
    publisher.publish("child")
    os.read(back, 1)  # the parent closes its end
    end()
    sys.exit()
print("forked", flush=True)
sys.stdin.readline()
os.close(go)
assert os.wait()[1] == 0
"""
    with server.connection() as listener:
        listener.ask("SUBSCRIBE", topic)
        running = program(FORK.format(child=child), server.url)
        assert [payload(listener) for _ in range(2)] == [b'"parent 1"', b'"child"']
        # Two of the program's and the one that asks.
        assert server.cli("CLIENT", "LIST", "TYPE", "normal").count(b" addr=") == 3
        assert running._process.stdin is not None
        running._process.stdin.write("go on\n")
        running._process.stdin.flush()
        assert payload(listener) == b'"parent 2"'
        assert_clean(running.ended())


def test_parent_and_child_number_their_messages_apart(
    program: Run, redis_server: RedisServer, topic: str
) -> None:
    got = Collected()
    node = Node("counting", connection_params=redis_server.url)
    subscriber = node.create_subscriber(topic, got)
    node.run()
    child = OS_FORK.format(leave="publisher.publish('child, too'); end(); sys.exit()")
    assert_clean(program(FORK.format(child=child)).ended())
    assert got.until("parent 2") == ["parent 1", "child", "child, too"]
    stats = subscriber.stats
    node.stop()
    assert (stats.gaps, stats.duplicates, stats.reordered) == (0, 0, 0)


def test_a_child_calls_a_service_of_its_parent_while_the_parent_calls_it_too(
    program: Run, listener: RespConnection
) -> None:
    text = """
from commlib.node import Node
node = Node("parent", connection_params=url)
node.create_rpc(topic + ".double", lambda number: 2 * number)
client = node.create_rpc_client(topic + ".double")
node.run()
assert client.call(1) == 2
child = os.fork()
answers = [client.call(number) for number in range(100)]
assert answers == list(range(0, 200, 2)), answers
if not child:
    Publisher(topic, conn_params=url).publish("done")
    end()
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
node.stop()
"""
    running = program(text)
    assert payload(listener) == b'"done"'
    ended = running.ended()
    assert ended.stderr == ""
    assert ended.status == 0


def test_forks_amid_the_traffic_lose_and_double_nothing(
    program: Run, listener: RespConnection
) -> None:
    text = """
import threading
publisher = Publisher(topic, conn_params=url)
publisher.run()
def publish():
    for number in range(5000):
        publisher.publish(number)
        if number % 50 == 0:
            time.sleep(0.001)
thread = threading.Thread(target=publish)
thread.start()
for number in range(10):
    child = os.fork()
    if not child:
        publisher.publish(f"child {number}")
        publisher.stop()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
thread.join()
end()
"""
    running = program(text)
    got = [payload(listener) for _ in range(5010)]
    ours = [item for item in got if not item.startswith(b'"child')]
    theirs = [item for item in got if item.startswith(b'"child')]
    assert ours == [b"%d" % number for number in range(5000)]
    assert theirs == [b'"child %d"' % number for number in range(10)]
    assert_clean(running.ended())


def test_memory_nodes_hear_each_other_in_a_child(program: Run) -> None:
    text = """
from commlib.node import Node
far, near = Node("far", connection_params=url), Node("near", connection_params=url)
publisher = near.create_publisher(topic)
near.run()
child = os.fork()
if not child:
    import queue
    got = queue.Queue()
    far.create_subscriber(topic, got.put)
    far.run()
    publisher.publish("hello")
    assert got.get(timeout=10) == "hello"
    end()
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
near.stop()
"""
    ended = program(text, "memory://forked").ended()
    assert ended.stderr == ""
    assert ended.status == 0


# ---- in this process ----


def threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.endswith(("commlib-loop", "-worker"))}


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub that keeps the portal alive for a test."""
    hub = Hub(resolve("memory://"), "anchor")
    yield hub
    _face.stop(hub, hub.close)


def test_the_last_stop_leaves_no_thread(redis_server: RedisServer, topic: str) -> None:
    before = threads()
    got = Collected()
    nodes = [Node(f"n{number}", connection_params=redis_server.url) for number in range(3)]
    for node in nodes:
        node.create_subscriber(topic, got)
        node.create_rpc(f"{topic}.{node.node_name}", lambda request: request)
        node.run()
    for node in nodes:
        assert node.create_rpc_client(f"{topic}.n0").call(1) == 1
        node.create_publisher(topic).publish(1)
    got.wait(9)
    assert threads() > before
    for node in nodes:
        node.stop()
    assert threads() == before


def test_it_begins_anew_after_the_last_stop(redis_server: RedisServer, topic: str) -> None:
    got = Collected()
    node = Node("phoenix", connection_params=redis_server.url)
    node.create_subscriber(topic, got)
    publisher = node.create_publisher(topic)
    for life in range(5):
        node.run()
        publisher.publish(life)
        got.wait(life + 1)
        node.stop()
    assert got.items == list(range(5))


def test_the_hubs_of_a_process_share_one_loop(hub: Hub) -> None:
    other = Hub(resolve("memory://"), "other")
    here = _portal.enter(hub)
    assert _portal.enter(other) is here
    _face.stop(other, other.close)
    assert here.run(_number, 5) == 5
    assert _portal.home_of(hub) is here
    assert _portal.home_of(other) is None


async def _number(number: int) -> int:
    return number


def test_run_gives_back_what_the_work_returns_or_raises(hub: Hub) -> None:
    async def fail() -> None:
        raise KeyError("mine")

    here = _portal.enter(hub)
    assert here.run(_number, 7) == 7
    with pytest.raises(KeyError, match="mine"):
        here.run(fail)


def test_work_that_takes_too_long_is_cancelled(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def dawdle() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def wait_once_begun(queue: SimpleQueue[Any], timeout: float | None) -> Any:
        assert begun.wait(DEADLINE)
        return get_heeding_signals(queue, timeout)

    monkeypatch.setattr(_portal, "get_heeding_signals", wait_once_begun)
    with pytest.raises(TimeoutError):
        _portal.enter(hub).run(dawdle, timeout=0.01)
    assert cancelled.wait(DEADLINE)


def _place(frame: Any) -> tuple[str, int]:
    return frame.f_code.co_filename, frame.f_lineno


class _Interrupt:
    """Raises KeyboardInterrupt at the ``after``-th line that this thread runs of some modules."""

    def __init__(self, after: int, *modules: Any) -> None:
        self.left = after
        self._files = {module.__file__ for module in modules}

    def _trace(self, frame: Any, event: str, arg: object) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        # At the end of a `with` tracing can come before the lock is given back; a signal cannot.
        if event == "line" and not linecache.getline(*_place(frame)).lstrip().startswith("with "):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self._trace

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._before)


def test_a_signal_may_interrupt_run_at_any_line_and_leaves_nothing_half_done(hub: Hub) -> None:
    """An un-awaited coroutine would be a warning, and here those are errors."""
    node = Node("interrupted", connection_params="memory://interrupted")
    here = _portal.enter(hub)
    for after in range(1, 1000):
        interrupt = _Interrupt(after, _face, _portal, face_of_node)
        try:
            with interrupt:
                node.run()
        except KeyboardInterrupt:
            gc.collect()
            assert here.run(_number, after) == after
        node.stop()
        if interrupt.left > 0:
            break  # it came to its end before its turn to be interrupted
    assert 10 < after < 1000
    assert node.state is NodeState.STOPPED


def test_a_signal_may_interrupt_stop_at_any_line_and_the_next_one_leaves_no_thread() -> None:
    for after in range(1, 1000):
        subscriber = Subscriber("interrupted", print, conn_params="memory://interrupted")
        subscriber.run()
        interrupt = _Interrupt(after, _face, _portal)
        with contextlib.suppress(KeyboardInterrupt), interrupt:
            subscriber.stop()
        subscriber.stop()
        eventually(lambda: _portal._portal is None)
        if interrupt.left > 0:
            break  # it came to its end before its turn to be interrupted
    assert 10 < after < 1000


def test_a_blocking_call_on_the_loop_is_refused_with_the_remedy(hub: Hub) -> None:
    async def block() -> BlockingCall:
        with pytest.raises(BlockingCall) as caught:
            _portal.enter(hub).run(_number, 1)
        return caught.value

    text = str(_portal.enter(hub).run(block))
    for remedy in ("commlib.aio", "asyncio.wrap_future(client.call_async(msg))", "plain function"):
        assert remedy in text


def test_who_waits_when_the_loop_ends_is_told(hub: Hub) -> None:
    here = _portal.enter(hub)
    waiting, outcome = threading.Event(), Collected()

    async def wait() -> None:
        waiting.set()
        await asyncio.Event().wait()

    def run() -> None:
        try:
            here.run(wait)
        except BaseException as exc:
            outcome(exc)

    thread = threading.Thread(target=run)
    thread.start()
    assert waiting.wait(DEADLINE)
    _face.stop(hub, hub.close)
    assert isinstance(outcome.first, EndpointClosed)
    thread.join(DEADLINE)
    with pytest.raises(EndpointClosed):
        here.run(_number, 1)
    with pytest.raises(EndpointClosed):
        here.post(print)


@pytest.mark.parametrize("scheme", ["memory", "redis"])
def test_threads_that_run_and_stop_one_node_at_once_never_hang_and_leave_nothing(
    make_redis: Callable[..., RedisServer], scheme: str
) -> None:
    server = make_redis() if scheme == "redis" else None
    node = Node("contended", connection_params=server.url if server else "memory://contended")
    node.create_subscriber("contended", print)
    strange = Collected()

    def contend(act: Callable[[], Any]) -> None:
        for _ in range(50):
            try:
                act()
            except CommlibError:
                pass  # it was stopped meanwhile
            except BaseException as exc:
                strange(exc)

    acts = [node.run, node.stop, node.run, node.stop]
    workers = [threading.Thread(target=contend, args=(act,), daemon=True) for act in acts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(DEADLINE)
    assert not any(worker.is_alive() for worker in workers)
    node.stop()
    assert strange.items == []
    if server:
        # Only the one that asks is left.
        eventually(lambda: server.cli("CLIENT", "LIST").count(b" addr=") == 1)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, BaseException])
@pytest.mark.parametrize("inline", [False, True])
def test_what_callbacks_of_any_kind_raise_does_not_end_the_loop(
    inline: bool, error: type[BaseException]
) -> None:
    def end_all(*args: Any) -> None:
        raise error("not for the loop")

    async def end_all_later(*args: Any) -> None:
        end_all()

    got, told = Collected(), Collected()

    def tell_and_raise(error: BaseException, topic: str) -> None:
        told(type(error))
        end_all()

    node = Node("stoic", connection_params="memory://stoic", on_state=end_all)
    node.create_subscriber("t", end_all, on_error=tell_and_raise, inline=inline)
    node.create_subscriber("t", end_all_later, on_error=tell_and_raise)
    node.create_subscriber("t", got)
    publisher = node.create_publisher("t")
    node.run()
    for number in range(3):
        publisher.publish(number)
    assert got.wait(3) == [0, 1, 2]
    assert told.wait(6) == [error] * 6
    node.stop()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_nor_does_what_a_task_of_theirs_raises(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def end_all() -> None:
        raise error("not for the loop")

    async def begin(msg: object) -> None:
        tasks.append(asyncio.create_task(end_all()))

    got = Collected()
    with Node("stoic", connection_params="memory://stoic") as node:
        node.create_subscriber("t", begin)
        node.create_subscriber("t", got)
        publisher = node.create_publisher("t")
        for number in range(3):
            publisher.publish(number)
            got.wait(number + 1)
            eventually(lambda number=number: len(tasks) > number and tasks[number].done())
    assert [type(task.exception()) for task in tasks] == [error] * 3
    assert caplog.text.count("not for the loop") >= 3


@pytest.mark.parametrize("scheme", ["memory", "redis"])
def test_calls_of_threads_end_as_they_should_though_the_client_is_stopped_and_run_meanwhile(
    redis_server: RedisServer, topic: str, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = redis_server.url if scheme == "redis" else "memory://meanwhile"
    name, strange, done = f"{topic}.echo", Collected(), threading.Event()
    service, client = Node("s", connection_params=url), Node("c", connection_params=url)
    service.create_rpc(name, lambda number: number)
    caller, publisher = client.create_rpc_client(name), client.create_publisher(topic)
    service.run()

    def call() -> None:
        assert caller.call(1, timeout=0.2) == 1

    def call_many() -> None:
        futures = [caller.call_async(number, timeout=0.2) for number in range(10)]
        futures[3].cancel()
        for number, future in enumerate(futures):
            with contextlib.suppress(concurrent.futures.CancelledError):
                assert future.result(DEADLINE) == number

    def publish() -> None:
        publisher.publish(1)

    def contend(act: Callable[[], None]) -> None:
        while not done.is_set():
            try:
                act()
            except CommlibError:
                done.wait(0.001)  # it is stopped, or nobody answered in time
            except BaseException as exc:
                strange(exc)

    acts = [call, call, call_many, call_many, publish]
    workers = [threading.Thread(target=contend, args=(act,), daemon=True) for act in acts]
    for worker in workers:
        worker.start()
    for _ in range(20):
        client.run()
        time.sleep(0.02)  # let them get something done
        client.stop()
    done.set()
    for worker in workers:
        worker.join(DEADLINE)
    assert not any(worker.is_alive() for worker in workers)
    service.stop()
    assert strange.items == []
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


# ---- who runs while another one stops ----


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when the portal is asked to end; then it gives errands all the time they may need."""
    asked = threading.Event()

    def tell_and_leave(portal: _portal.Portal) -> None:
        portal.post(asked.set)
        leave(portal)

    leave = _portal.leave
    monkeypatch.setattr(_face, "leave", tell_and_leave)
    monkeypatch.setattr(_portal, "END_SECONDS", DEADLINE)
    return asked


def test_a_node_that_is_run_while_its_portal_is_about_to_end_runs_there(
    asked: threading.Event,
) -> None:
    node = Node("late", connection_params="memory://late")
    node.create_rpc("late", lambda number: number)
    client = node.create_rpc_client("late")
    node.run()
    here = _portal.enter(node._core.hub)
    begun, strange = threading.Event(), Collected()

    async def run_late() -> None:
        begun.set()
        turns = 0
        while not here.ending and turns < 1000:
            await asyncio.sleep(0)
            turns += asked.is_set()
        await node._core.run()

    def run() -> None:
        try:
            here.run(run_late)
        except BaseException as exc:
            strange(exc)

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(DEADLINE)
    node.stop()
    thread.join(DEADLINE)
    assert strange.items == []
    assert _portal.home_of(node._core.hub) is here
    assert client.call(1) == 1
    node.stop()
    assert not here.thread.is_alive()


def test_work_that_begins_a_node_anew_when_it_is_cancelled_leaves_it_fit_to_be_run() -> None:
    node = Node("anew", connection_params="memory://anew")
    node.create_rpc("anew", lambda number: number)
    client = node.create_rpc_client("anew")
    node.run()
    here = _portal.enter(node._core.hub)
    tasks: list[asyncio.Task[None]] = []
    waiting = threading.Event()

    async def run_when_cancelled() -> None:
        try:
            waiting.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            with Node("beside", connection_params="memory://beside"):
                pass  # the next portal comes and goes
            await node._core.run()

    here.post(lambda: tasks.append(here.loop.create_task(run_when_cancelled())))
    assert waiting.wait(DEADLINE)
    node.stop()
    here.thread.join(DEADLINE)
    assert tasks[0].done()
    node.run()
    assert client.call(1) == 1
    node.stop()


def leave_behind(core: Any) -> None:
    """Let its loop end without it."""
    asyncio.run(core.run())


def test_a_node_that_a_loop_has_left_behind_can_be_run() -> None:
    node = Node("left", connection_params="memory://left")
    node.create_rpc("left", lambda number: number)
    leave_behind(node._core)
    node.run()
    assert node.create_rpc_client("left").call(1) == 1
    node.stop()


def test_a_node_that_was_left_behind_publishes_though_only_a_part_of_it_was_stopped() -> None:
    got = Collected()
    node = Node("left", connection_params="memory://left")
    subscriber = node.create_subscriber("other", print)
    leave_behind(node._core)
    subscriber.stop()
    with Node("ear", connection_params="memory://left") as ear:
        ear.create_subscriber("left", got)
        node.create_publisher("left").publish(1)
        assert got.first == 1
        assert node._core.hub.started
    node.stop()


def test_the_loop_never_waits_for_a_lock_whose_holder_may_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node("last", connection_params="memory://last")
    node.run()
    portal = _portal.home_of(node._core.hub)
    assert portal is not None
    with monkeypatch.context() as patch:
        patch.setattr(_face, "leave", lambda portal: None)
        node.stop()
    assert not portal.hubs
    with _portal._lock:  # as by a thread that a signal has interrupted
        ended = asyncio.run_coroutine_threadsafe(portal.end_if_unused(), portal.loop)
        with portal._lock:
            assert portal.run(_answer) == "here"
        assert portal.run(_answer) == "here"
        assert not ended.done()
    assert ended.result(DEADLINE)
    portal.thread.join(DEADLINE)
    assert not portal.thread.is_alive()


async def _answer() -> str:
    return "here"


def test_a_node_that_a_loop_has_left_behind_is_stopped_without_a_portal_that_stays() -> None:
    before = threads()
    node = Node("left", connection_params="memory://left")
    subscriber = node.create_subscriber("left", print)
    leave_behind(node._core)
    node.stop()
    assert node.state is NodeState.STOPPED
    assert subscriber.core.stopped
    assert node._core.hub.loop is None
    assert threads() == before


def test_a_bridge_that_a_loop_has_left_behind_can_be_stopped_and_run() -> None:
    got = Collected()
    bridge = TopicBridge(None, "t", "t", "memory://here", "memory://there")
    leave_behind(bridge._core)
    bridge.stop()
    bridge.run()
    with (
        Node("here", connection_params="memory://here") as here,
        Node("there", connection_params="memory://there") as there,
    ):
        there.create_subscriber("t", got)
        here.create_publisher("t").publish(1)
        assert got.first == 1
    bridge.stop()


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_a_program_without_its_standard_streams_ends_as_others_do(closed: list[int]) -> None:
    pytest.importorskip("uvloop")
    text = (
        f"import os\nfor number in {closed}: os.close(number)\n"
        "from commlib.node import Node\n"
        "node = Node('closed', connection_params='memory://closed')\n"
        "node.run()\nnode.stop()\nos._exit(5)\n"
    )
    ended = subprocess.run([sys.executable, "-c", text], timeout=60, check=False)
    assert ended.returncode == 5


def test_streams_that_are_there_are_left_alone() -> None:
    before = [os.fstat(number).st_ino for number in range(3)]
    _portal.new_loop().close()
    assert [os.fstat(number).st_ino for number in range(3)] == before
