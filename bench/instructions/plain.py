"""The paths by plain Python, each as a lap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import SimpleQueue

from bench.contenders.ours import AddTwoInts, Sonar, Sum
from bench.instructions import child, turns
from bench.instructions.paths import Path, Role
from commlib._packet import Header, Packet
from commlib._wire import Reader, Writer
from commlib.node import Node
from commlib.transports import resolve

Lap = Callable[[], None]
PATIENCE = 60.0  # s for a reply, or for the broker to take everything


class Stage:
    """A node, and what all roles need."""

    def __init__(self, path: Path, url: str, topic: str) -> None:
        self.path = path
        self.url = url
        self.topic = topic
        self.node = Node("counted", connection_params=url)
        self.is_alone = url.startswith("memory:")
        self.bursts = range(path.count // path.burst)
        self.burst = range(path.burst)

    def run(self) -> None:
        self.node.run()
        if not self.node.connected:
            raise ConnectionError("the broker does not answer")

    def flush(self) -> None:
        """Return when the broker has all that was published."""
        hub = self.node._core.hub
        assert hub.loop is not None, "it has published"
        asyncio.run_coroutine_threadsafe(hub.transport.flush(), hub.loop).result(PATIENCE)

    def burst_to(self, topic: str) -> Callable[[], None]:
        """Has a burst published there: by the peer, or without one by ourselves."""
        if not self.is_alone:
            return turns.ask
        publish, msg, burst = self.node.create_publisher(topic, Sonar).publish, Sonar(), self.burst

        def publish_all() -> None:
            for _ in burst:
                publish(msg)

        return publish_all


def play(path: Path, url: str, topic: str) -> None:
    """Play a path in laps."""
    lap = ROLES[path.role](Stage(path, url, topic))
    for _ in range(child.UNCOUNTED):
        lap()
    child.before_laps()
    for _ in range(child.LAPS):
        child.mark()
        lap()
        child.mark()
    child.end()


def encode(stage: Stage) -> Lap:
    native = resolve(stage.url).make_transport().traits.native_headers
    writer, msg, times = Writer(Sonar), Sonar(), range(stage.path.count)

    def lap() -> None:
        for number in times:
            msg.distance = float(number)
            writer.pack(
                msg, Header(1764115200000, writer.properties, "0123456789ab", number), native
            )

    return lap


def decode(stage: Stage) -> Lap:
    native = resolve(stage.url).make_transport().traits.native_headers
    writer, reader = Writer(Sonar), Reader(Sonar)
    header = Header(1764115200000, writer.properties, "0123456789ab", 1)
    there = writer.pack(Sonar(), header, native)
    times = range(stage.path.count)

    def lap() -> None:
        for _ in times:
            reader.read(Packet(there.payload, "", there.header))

    return lap


def publish(stage: Stage) -> Lap:
    publish, msg = stage.node.create_publisher(stage.topic, Sonar).publish, Sonar()
    stage.run()

    def lap() -> None:
        for _ in stage.bursts:
            for number in stage.burst:
                msg.distance = float(number)
                publish(msg)
            stage.flush()

    return lap


def receive(stage: Stage) -> Lap:
    arrived: SimpleQueue[None] = SimpleQueue()
    count = 0

    def note(msg: Sonar) -> None:
        nonlocal count
        count += 1
        if count == stage.path.burst:
            count = 0
            arrived.put(None)

    options = {"inline": True} if stage.path.inline else {}
    stage.node.create_subscriber(stage.topic, note, Sonar, **options)
    burst = stage.burst_to(stage.topic)
    stage.run()

    def lap() -> None:
        for _ in stage.bursts:
            burst()
            arrived.get(timeout=PATIENCE)

    return lap


def _add(request: AddTwoInts.Request) -> AddTwoInts.Response:
    return AddTwoInts.Response(c=request.a + request.b)


def call(stage: Stage) -> Lap:
    if stage.is_alone:
        stage.node.create_rpc(stage.topic, _add, AddTwoInts)
    call = stage.node.create_rpc_client(stage.topic, AddTwoInts).call
    stage.run()

    def lap() -> None:
        for number in range(stage.path.count):
            call(AddTwoInts.Request(number, 1), PATIENCE)

    return lap


def serve(stage: Stage) -> Lap:
    stage.node.create_rpc(stage.topic, _add, AddTwoInts)
    stage.run()
    return _turn


def send_goals(stage: Stage) -> Lap:
    if stage.is_alone:
        _create_action(stage)
    client = stage.node.create_action_client(stage.topic, Sum)
    stage.run()

    def lap() -> None:
        for number in range(stage.path.count):
            client.send_goal(Sum.Goal(number, 1), timeout=PATIENCE).result(PATIENCE)

    return lap


def reach_goals(stage: Stage) -> Lap:
    _create_action(stage)
    stage.run()
    return _turn


def _create_action(stage: Stage) -> None:
    stage.node.create_action(stage.topic, Sum, lambda goal: Sum.Result(c=goal.data.a + goal.data.b))


def bridge(stage: Stage) -> Lap:
    from commlib.bridges import TopicBridge

    there = f"{stage.topic}_there"
    TopicBridge(None, stage.topic, there, stage.url, stage.url).run()
    if not stage.is_alone:
        return _turn
    burst, arrived = stage.burst_to(stage.topic), SimpleQueue[Sonar]()
    stage.node.create_subscriber(there, arrived.put, Sonar, inline=True)
    stage.run()

    def lap() -> None:
        for _ in stage.bursts:
            burst()
            for _ in stage.burst:
                arrived.get(timeout=PATIENCE)

    return lap


def _turn() -> None:
    """All that is done is done for the peer."""
    turns.ask()
    turns.wait()


ROLES: dict[Role, Callable[[Stage], Lap]] = {
    "encode": encode,
    "decode": decode,
    "publish": publish,
    "receive": receive,
    "call": call,
    "serve": serve,
    "send goals": send_goals,
    "reach goals": reach_goals,
    "bridge": bridge,
}
