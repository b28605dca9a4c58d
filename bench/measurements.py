"""What is measured: each a function from a contender on a broker to its figures.

A measurement may be repeated in any order with others; whatever it needs, it starts and ends. The
figures have their unit in the name. ``lost``, ``duplicates`` and ``failed`` stand beside the rates
they belong to.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from os import urandom
from pathlib import Path
from typing import Any, NamedTuple

from bench.brokers import Broker, Server
from bench.latencies import Latencies
from bench.proc import connections, status
from bench.processes import Child, ChildFailed, import_seconds, ready
from bench.roster import CONTENDERS, Contender

MESSAGES, SECONDS = 150_000, 0.5  # published at most
BURST = 50_000  # messages; half of what the queue in front of our callbacks holds
CALLS = 10_000  # at most, in CALL_SECONDS
CALL_SECONDS = 0.5
PACES = {"": (1000, 2000), "fast_": (10_000, 5000)}  # messages/s, and how many of them
SOME_BYTES = 100_000_000  # of payloads, at most: brokers keep what is not fetched yet
BLOB, BLOBS = 1_000_000, 100  # bytes, and how many
SLOW_GOALS_SECONDS = 1.0  # for goals that take 50 ms
WIDE = 10  # subscriptions of one topic, or subscribers or publishers in processes of their own
WIDE_MESSAGES, WIDE_SECONDS = 20_000, 0.2  # published at most, each to ten
FEW, MANY, SPREAD = 10, 10_000, 20_000  # subscriptions, and messages for them
STARTS = 1  # fresh processes
SETTLE, IDLE = 12, 5  # s: idle workers of ours end after 10
GROWTH_SECONDS = 10  # for a hundred subscriptions

FEEDER = next(contender for contender in CONTENDERS if contender.kind == "limit")
Figures = dict[str, Any]


class Recording(NamedTuple):
    """A file of messages, and how many it has; each has another number."""

    file: Path
    count: int


@dataclass
class Lab:
    """A running broker, and what was recorded on it for repeated use."""

    broker: Broker
    server: Server
    folder: Path
    latencies: dict[tuple[str, str], Latencies] = field(
        default_factory=lambda: defaultdict(Latencies)
    )
    """By contender and pace, of all rounds."""
    _recordings: dict[tuple[str, str], Recording] = field(default_factory=dict)

    def start(self, contender: Contender, role: str, **options: object) -> Child:
        """A child that plays this role."""
        return Child(contender, role, self.server.url, **options)

    def recording(self, contender: Contender, count: int, **options: object) -> Recording:
        """Up to so many messages as this contender publishes them."""
        key = (contender.name, str(options))
        if key not in self._recordings:
            file = self.folder / f"recording{len(self._recordings)}"
            topic = fresh_name()
            with (
                self.start(
                    contender, "publish", topic=topic, count=count, seconds=SECONDS, **options
                ) as publisher,
                self.start(FEEDER, "record", topic=topic, file=file) as recorder,
            ):
                ready(publisher, recorder)
                recorded = recorder.ask(publisher.ask("go")["count"])["count"]
            self._recordings[key] = Recording(file, recorded)
        return self._recordings[key]


def fresh_name() -> str:
    """A topic or service that nothing else has; one word, brokers differ in what parts words."""
    return f"bench_{urandom(4).hex()}"


def publish(lab: Lab, contender: Contender) -> Figures:
    """Publish to nobody, until the broker has it."""
    with lab.start(
        contender, "publish", topic=fresh_name(), count=MESSAGES, seconds=SECONDS
    ) as publisher:
        ready(publisher)
        return publisher.ask("go")


def receive(lab: Lab, contender: Contender) -> Figures:
    """Receive what another process of the same contender publishes."""
    return _received(lab, contender, MESSAGES // 2)


def _received(lab: Lab, contender: Contender, count: int, **options: object) -> Figures:
    topic = fresh_name()
    with (
        lab.start(contender, "receive", topic=topic, **options) as receiver,
        lab.start(
            contender, "publish", topic=topic, count=count, seconds=SECONDS, **options
        ) as publisher,
    ):
        ready(receiver, publisher)
        published = publisher.ask("go")
        return {"published_rate": published["rate"], **receiver.ask(published["count"], 1)}


def latency(lab: Lab, contender: Contender) -> Figures:
    """How long after it was due a message arrives in another process, at fixed rates.

    What is late makes nothing less to be sent: see `bench.metronome`. What was not sent at all, for
    the rate is too much, is lost.
    """
    topic, file = fresh_name(), lab.folder / "delays"
    figures: Figures = {"lost": 0, "duplicates": 0}
    with (
        lab.start(contender, "delays", topic=topic, file=file) as receiver,
        lab.start(contender, "pace", topic=topic) as publisher,
    ):
        ready(receiver, publisher)
        for name, (rate, count) in PACES.items():
            sent = publisher.ask(rate, count)["count"]
            came = receiver.ask(sent)
            figures["lost"] += came["lost"] + count - sent
            figures["duplicates"] += came["duplicates"]
            found = lab.latencies[contender.name, name].add(file)
            figures |= {f"{name}{percentile}": us for percentile, us in found.items()}
    return figures


def _payloads(size: int) -> Callable[[Lab, Contender], Figures]:
    def payloads(lab: Lab, contender: Contender) -> Figures:
        with lab.broker.roomy(lab.server):
            count = min(MESSAGES // 2, SOME_BYTES // size)
            figures = _received(lab, contender, count, blob=size)
        if "rate" in figures:
            figures["mb_per_s"] = figures["rate"] * size / 1e6
        return figures

    payloads.__doc__ = f"As ``receive``, with binary payloads of {size} bytes."
    return payloads


def fan_out(lab: Lab, contender: Contender) -> Figures:
    """One publisher, and ten subscriptions of its topic in one process: what a node would have."""
    topic = fresh_name()
    with (
        lab.broker.roomy(lab.server),
        lab.start(contender, "receive", topic=topic, again=WIDE) as receiver,
        lab.start(
            contender, "publish", topic=topic, count=WIDE_MESSAGES, seconds=WIDE_SECONDS
        ) as publisher,
    ):
        ready(receiver, publisher)
        return receiver.ask(publisher.ask("go")["count"] * WIDE, WIDE)


def spread(lab: Lab, contender: Contender) -> Figures:
    """One publisher, and ten subscribers, each a process; what all of them receive."""
    topic = fresh_name()
    with ExitStack() as children:
        children.enter_context(lab.broker.roomy(lab.server))
        receivers = [
            children.enter_context(lab.start(contender, "receive", topic=topic))
            for _ in range(WIDE)
        ]
        ready(*receivers)
        # Each looked for first messages of its own, which the others have got as well.
        for receiver in receivers:
            receiver.ask("anew")
        publisher = children.enter_context(
            lab.start(contender, "publish", topic=topic, count=WIDE_MESSAGES, seconds=WIDE_SECONDS)
        )
        ready(publisher)
        sent = publisher.ask("go")["count"]
        for receiver in receivers:
            receiver.tell(sent, 1)
        received = [receiver.hear() for receiver in receivers]
    figures: Figures = {
        key: sum(found.get(key, 0) for found in received) for key in ("lost", "duplicates")
    }
    if came := [found for found in received if "end" in found]:
        seconds = max(found["end"] for found in came) - min(found["begin"] for found in came)
        figures["rate"] = (sent * WIDE - figures["lost"]) / seconds
    return figures


def fan_in(lab: Lab, contender: Contender) -> Figures:
    """Ten publishers, each a process, and one subscription."""
    topic, count = fresh_name(), MESSAGES // 2 // WIDE
    with ExitStack() as children:
        receiver = children.enter_context(lab.start(contender, "receive", topic=topic))
        publishers = [
            children.enter_context(
                lab.start(
                    contender,
                    "publish",
                    topic=topic,
                    count=count,
                    seconds=SECONDS,
                    begin_at=number * count,
                )
            )
            for number in range(WIDE)
        ]
        ready(receiver, *publishers)
        for publisher in publishers:
            publisher.tell("go")
        return receiver.ask(sum(publisher.hear()["count"] for publisher in publishers), 1)


def burst(lab: Lab, contender: Contender) -> Figures:
    """Receive messages of the same contender that come all at once."""
    recording, topic = lab.recording(contender, BURST), fresh_name()
    with lab.start(contender, "receive", topic=topic) as receiver:
        return _fed(lab, receiver, recording, topic=topic, count=BURST)


def _fed(
    lab: Lab, receiver: Child, recording: Recording, *, count: int, busy: int = 1, **options: object
) -> Figures:
    how = {"count": count, "file": recording.file, "busy": busy, **options}
    with lab.start(FEEDER, "feed", **how) as feeder:
        ready(receiver, feeder)
        feeder.ask("go")
    rounds = -(-count // (busy * recording.count))  # of all that was recorded, on all topics
    return receiver.ask(count, busy * rounds)


def blob(lab: Lab, contender: Contender) -> Figures:
    """Receive binary payloads of 1 MB."""
    recording, topic = lab.recording(contender, 1, blob=BLOB), fresh_name()
    with (
        lab.broker.roomy(lab.server),
        lab.start(contender, "receive", topic=topic, blob=BLOB) as receiver,
    ):
        figures = _fed(lab, receiver, recording, topic=topic, count=BLOBS)
    figures["mb_per_s"] = figures.pop("rate")  # a payload has one MB
    return figures


def topics(lab: Lab, contender: Contender) -> Figures:
    """What a message costs with few and with many subscriptions, on one of them and on all."""
    recording = lab.recording(contender, BURST)
    figures: Figures = {"lost": 0, "duplicates": 0}
    for case, busy_of in (("one_busy", lambda many: 1), ("all_busy", lambda many: many)):
        costs = []
        for many in (FEW, MANY):
            topic = fresh_name()
            with lab.start(contender, "receive", topic=topic, topics=many) as receiver:
                part = _fed(
                    lab,
                    receiver,
                    recording,
                    topic=topic,
                    count=SPREAD,
                    topics=many,
                    busy=busy_of(many),
                )
            costs.append(part["cpu_us"])
            figures[f"{case}_{many}_cpu_us"] = part["cpu_us"]
            figures["lost"] += part["lost"]
            figures["duplicates"] += part["duplicates"]
        figures[f"{case}_ratio"] = costs[1] / costs[0]
    return figures


def _calling(at_once: int) -> Callable[[Lab, Contender], Figures]:
    def call(lab: Lab, contender: Contender) -> Figures:
        name = fresh_name()
        with lab.start(contender, "serve", name=name) as service:
            ready(service)  # before somebody calls: some wait long for who is not there
            with lab.start(
                contender,
                "call",
                name=name,
                at_once=at_once,
                count=CALLS * at_once,
                seconds=CALL_SECONDS,
            ) as caller:
                ready(caller)
                return caller.ask("go")

    call.__doc__ = f"Call a service in another process, {at_once} at once on one client."
    return call


def goals(lab: Lab, contender: Contender) -> Figures:
    """Send goals that are reached at once to an action of another process, one after another."""
    return _sending(lab, contender, "work", "goals", CALL_SECONDS)


def slow_goals(lab: Lab, contender: Contender) -> Figures:
    """The same with goals that take 50 ms, of which three feedbacks tell."""
    return _sending(lab, contender, "work_slowly", "slow_goals", SLOW_GOALS_SECONDS)


def _sending(lab: Lab, contender: Contender, work: str, send: str, seconds: float) -> Figures:
    name = fresh_name()
    with lab.start(contender, work, name=name) as worker:
        ready(worker)
        with lab.start(contender, send, name=name, count=CALLS, seconds=seconds) as sender:
            ready(sender)
            return sender.ask("go")


def bridge(lab: Lab, contender: Contender) -> Figures:
    """As ``receive``, with a bridge of a third process between the two."""
    topic, to = fresh_name(), fresh_name()
    with (
        lab.start(contender, "receive", topic=to) as receiver,
        lab.start(contender, "bridge", topic=topic, to=to) as between,
        lab.start(
            contender, "publish", topic=topic, count=MESSAGES // 4, seconds=SECONDS
        ) as publisher,
    ):
        ready(receiver, between, publisher)
        return receiver.ask(publisher.ask("go")["count"], 1)


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
    """A measurement.

    ``is_quiet``: all contenders may be measured at once, they only wait.
    """

    name: str
    measure: Callable[[Lab, Contender], Figures]
    is_quiet: bool = False


MEASUREMENTS = (
    Measurement("publish", publish),
    Measurement("receive", receive),
    Measurement("burst", burst),
    Measurement("latency", latency),
    Measurement("call", _calling(1)),
    Measurement("calls", _calling(8)),
    Measurement("tasks", _calling(64)),
    Measurement("goals", goals),
    Measurement("slow_goals", slow_goals),
    Measurement("bridge", bridge),
    Measurement("fan_out", fan_out),
    Measurement("spread", spread),
    Measurement("fan_in", fan_in),
    Measurement("payload_16", _payloads(16)),
    Measurement("payload_200", _payloads(200)),
    Measurement("payload_10k", _payloads(10_000)),
    Measurement("payload_1m", _payloads(BLOB)),
    Measurement("blob", blob),
    Measurement("topics", topics),
    Measurement("start", start),
    Measurement("node", node, is_quiet=True),
)
