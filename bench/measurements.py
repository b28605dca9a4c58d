"""What is measured: each a function from a contender on a broker to its figures.

A measurement may be repeated in any order with others; whatever it needs, it starts and ends. The
figures have their unit in the name. ``lost`` and ``failed`` stand beside the rates they belong to.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from os import urandom
from pathlib import Path
from typing import Any

from bench.brokers import Broker, Server
from bench.contenders import CONTENDERS, Contender
from bench.processes import Child, ChildFailed, connections, import_seconds, status

MESSAGES, SECONDS = 200_000, 1  # published at most
BURST = 50_000  # messages; half of what the queue in front of our callbacks holds
CALLS = 10_000  # at most, in CALL_SECONDS
CALL_SECONDS = 1
BLOBS = 200  # payloads of 1 MB
FEW, MANY, SPREAD = 10, 10_000, 20_000  # subscriptions, and messages for them
STARTS = 5  # fresh processes
SETTLE, IDLE = 12, 5  # s: idle workers of ours end after 10
GROWTH_SECONDS = 10  # for a hundred subscriptions

FEEDER = next(contender for contender in CONTENDERS if contender.kind == "limit")
Figures = dict[str, Any]


@dataclass
class Lab:
    """A running broker, and what was recorded on it for repeated use."""

    broker: Broker
    server: Server
    folder: Path
    _recordings: dict[tuple[str, str], Path] = field(default_factory=dict)

    def start(self, contender: Contender, role: str, **options: object) -> Child:
        """A child that plays this role."""
        return Child(contender, role, self.server.url, **options)

    def recording(self, contender: Contender, count: int, **options: object) -> Path:
        """A file with up to so many messages as this contender publishes them."""
        key = (contender.name, str(options))
        if key not in self._recordings:
            file = self.folder / f"recording{len(self._recordings)}"
            topic = fresh_name()
            with (
                self.start(
                    contender, "publish", topic=topic, count=count, seconds=SECONDS, **options
                ).ready() as publisher,
                self.start(FEEDER, "record", topic=topic, file=file).ready() as recorder,
            ):
                recorder.ask(publisher.ask("go")["count"])
            self._recordings[key] = file
        return self._recordings[key]


def fresh_name() -> str:
    """A topic or service that nothing else has; one word, brokers differ in what parts words."""
    return f"bench_{urandom(4).hex()}"


def publish(lab: Lab, contender: Contender) -> Figures:
    """Publish to nobody, until the broker has it."""
    with lab.start(
        contender, "publish", topic=fresh_name(), count=MESSAGES, seconds=SECONDS
    ).ready() as publisher:
        return publisher.ask("go")


def receive(lab: Lab, contender: Contender) -> Figures:
    """Receive what another process of the same contender publishes."""
    topic = fresh_name()
    with (
        lab.start(contender, "receive", topic=topic).ready() as receiver,
        lab.start(
            contender, "publish", topic=topic, count=MESSAGES // 2, seconds=SECONDS
        ).ready() as publisher,
    ):
        return receiver.ask(publisher.ask("go")["count"])


def burst(lab: Lab, contender: Contender) -> Figures:
    """Receive messages of the same contender that come all at once."""
    file, topic = lab.recording(contender, BURST), fresh_name()
    with lab.start(contender, "receive", topic=topic).ready() as receiver:
        return _fed(lab, receiver, topic=topic, file=file, count=BURST)


def _fed(lab: Lab, receiver: Child, *, count: int, **options: object) -> Figures:
    with lab.start(FEEDER, "feed", count=count, **options).ready() as feeder:
        feeder.ask("go")
    return receiver.ask(count)


def blob(lab: Lab, contender: Contender) -> Figures:
    """Receive binary payloads of 1 MB."""
    file, topic = lab.recording(contender, 1, blob=1), fresh_name()
    with (
        lab.broker.roomy(lab.server),
        lab.start(contender, "receive", topic=topic, blob=1).ready() as receiver,
    ):
        figures = _fed(lab, receiver, topic=topic, file=file, count=BLOBS)
    figures["mb_per_s"] = figures.pop("rate")  # a payload has one MB
    return figures


def topics(lab: Lab, contender: Contender) -> Figures:
    """What a message costs with few and with many subscriptions, on one of them and on all."""
    file = lab.recording(contender, BURST)
    figures: Figures = {"lost": 0}
    for case, busy_of in (("one_busy", lambda many: 1), ("all_busy", lambda many: many)):
        costs = []
        for many in (FEW, MANY):
            topic = fresh_name()
            with lab.start(contender, "receive", topic=topic, topics=many).ready() as receiver:
                part = _fed(
                    lab,
                    receiver,
                    topic=topic,
                    file=file,
                    count=SPREAD,
                    topics=many,
                    busy=busy_of(many),
                )
            costs.append(part["cpu_us"])
            figures[f"{case}_{many}_cpu_us"] = part["cpu_us"]
            figures["lost"] += part["lost"]
        figures[f"{case}_ratio"] = costs[1] / costs[0]
    return figures


def _calling(at_once: int) -> Callable[[Lab, Contender], Figures]:
    def call(lab: Lab, contender: Contender) -> Figures:
        name = fresh_name()
        with (
            lab.start(contender, "serve", name=name).ready(),
            lab.start(
                contender,
                "call",
                name=name,
                at_once=at_once,
                count=CALLS * at_once,
                seconds=CALL_SECONDS,
            ).ready() as caller,
        ):
            return caller.ask("go")

    call.__doc__ = f"Call a service in another process, {at_once} at once on one client."
    return call


def goals(lab: Lab, contender: Contender) -> Figures:
    """Send goals that are reached at once to an action of another process, one after another."""
    name = fresh_name()
    with (
        lab.start(contender, "work", name=name).ready(),
        lab.start(
            contender, "goals", name=name, count=CALLS, seconds=CALL_SECONDS
        ).ready() as sender,
    ):
        return sender.ask("go")


def bridge(lab: Lab, contender: Contender) -> Figures:
    """As ``receive``, with a bridge of a third process between the two."""
    topic, to = fresh_name(), fresh_name()
    with (
        lab.start(contender, "receive", topic=to).ready() as receiver,
        lab.start(contender, "bridge", topic=topic, to=to).ready(),
        lab.start(
            contender, "publish", topic=topic, count=MESSAGES // 4, seconds=SECONDS
        ).ready() as publisher,
    ):
        return receiver.ask(publisher.ask("go")["count"])


def node(lab: Lab, contender: Contender) -> Figures:
    """A node with ten endpoints, used once and then at rest; seen from outside."""
    with lab.start(contender, "node", topic=fresh_name(), settle=SETTLE, idle=IDLE) as child:
        child.hear()
        figures: Figures = {
            "connections": connections(child.pid, lab.server.port),
            "threads": status(child.pid, "Threads"),
            "rss_mb": status(child.pid, "VmRSS") / 1024,
        }
        figures |= child.ask("idle")
        try:
            child.tell("more")
            child.hear(GROWTH_SECONDS)
        except ChildFailed as exc:
            return {**figures, "why": f"100 further subscriptions: {exc}"}
        figures["growth_mb"] = status(child.pid, "VmRSS") / 1024 - figures["rss_mb"]
    return figures


def start(lab: Lab, contender: Contender) -> Figures:
    """How long imports take, and all from the start of the process to its first message."""
    imports = [import_seconds(contender, lab.broker.name) for _ in range(STARTS)]
    first = [_first_message(lab, contender) for _ in range(STARTS)]
    return {
        "import_ms": statistics.median(imports) * 1000,
        "first_ms": statistics.median(first) * 1000,
    }


def _first_message(lab: Lab, contender: Contender) -> float:
    with lab.start(contender, "first", topic=fresh_name()) as child:
        seconds: float = child.hear()["first"] - child.started
    return seconds


@dataclass(frozen=True)
class Measurement:
    """A measurement; ``is_quiet``: all contenders may be measured at once, they only wait."""

    name: str
    measure: Callable[[Lab, Contender], Figures]
    is_quiet: bool = False


MEASUREMENTS = (
    Measurement("publish", publish),
    Measurement("receive", receive),
    Measurement("burst", burst),
    Measurement("call", _calling(1)),
    Measurement("calls", _calling(8)),
    Measurement("tasks", _calling(64)),
    Measurement("goals", goals),
    Measurement("bridge", bridge),
    Measurement("node", node, is_quiet=True),
    Measurement("start", start),
    Measurement("topics", topics),
    Measurement("blob", blob),
)
