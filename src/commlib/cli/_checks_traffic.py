"""Checks of `commlib doctor` on what it hears: losses, loops, delays, clocks, silent processes."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from commlib._discovery import ANSWER, Announcement, NodeInfo
from commlib._hops import MAX_HOPS, place
from commlib._packet import Header, Packet
from commlib._wire import Reader, Refused
from commlib.aio.discovery import Discovery
from commlib.cli._checks_link import CLOCK_MS, SET_CLOCK
from commlib.cli._figures import counted
from commlib.cli._findings import Finding, good, listed
from commlib.cli._topic_ports import is_inner
from commlib.cli._traffic import Overheard, age_of

MAX_TOPICS = 10_000  # that are remembered
MAX_MESSAGES = 20_000  # that are known again when they come a second time
ROUNDS = 3  # comings of one message that no delivery at least once explains
LATE_MS = 2000  # beyond any good network
PING_SECONDS, SLUGGISH = 2.0, 0.5  # s
PINGS_AT_ONCE, MAX_PINGS = 16, 200


class Ear:
    """Notes what is wrong with messages, in bounded memory. On the loop."""

    def __init__(self, address: str, since: int) -> None:
        self.address = address
        self.since = since
        self.topics: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.late: Counter[str] = Counter()
        self.around: Counter[str] = Counter()
        self.twice: Counter[str] = Counter()
        self.far: Counter[str] = Counter()
        self.ahead: dict[str, int] = {}
        """By how many ms the clocks of processes are ahead of ours, as well as can be told."""
        self._known: OrderedDict[tuple[str, str, int], tuple[int, tuple[str, ...]]] = OrderedDict()
        self._read: Reader[Announcement] = Reader(Announcement)

    def hear(self, heard: Overheard) -> None:
        """A message has come."""
        topic, header = heard.packet.topic, heard.header
        if topic.startswith(f"{ANSWER}."):
            self._compare_clocks(heard.packet, header)
        if is_inner(topic):
            return
        if topic not in self.topics and len(self.topics) >= MAX_TOPICS:
            return
        self.topics[topic] += 1
        self.lost[topic] += heard.lost
        if header is None:
            return
        age = age_of(header, self.since)
        if age is not None and age > LATE_MS:
            self.late[topic] = max(self.late[topic], age)
        self._follow(topic, header)

    def _follow(self, topic: str, header: Header) -> None:
        """Look whether a message comes round."""
        if header.hops:
            self.around[topic] += place(self.address, topic) in header.hops
            self.far[topic] += len(header.hops) >= MAX_HOPS
        if not header.origin or header.seq < 0:
            return
        key = (topic, header.origin, header.seq)
        times, hops = self._known.get(key, (0, header.hops))
        self._known[key] = times + 1, header.hops
        if times and hops != header.hops:
            self.twice[topic] += 1
        elif times + 1 == ROUNDS:
            self.around[topic] += 1
        if len(self._known) > MAX_MESSAGES:
            self._known.popitem(last=False)

    def _compare_clocks(self, packet: Packet, header: Header | None) -> None:
        age = age_of(header)
        if age is None or len(self.ahead) >= MAX_TOPICS:
            return
        try:
            process = self._read.read(packet).data.process
        except Refused:
            return
        known = self.ahead.get(process)
        if known is None or abs(age) < abs(known):
            self.ahead[process] = -age

    # ---- what came of it ----

    def findings(self, seconds: float, dropped: int) -> Iterator[Finding]:
        """What is wrong with the messages of so many seconds; ``dropped`` are those not heard."""
        count, topics = self.topics.total(), len(self.topics)
        what = f"{counted(count, 'message')} on {counted(topics, 'topic')}"
        yield good("traffic", f"{what} in {seconds:.1f} s")
        yield from self._losses(dropped)
        yield from self._loops()
        late = [f"{topic} ({ms / 1000:.1f} s)" for topic, ms in self.late.most_common() if ms]
        if late:
            yield Finding(
                severity="warning",
                check="delay",
                text=f"messages are old when they come: {listed(late)}",
                cause="they waited in the queue of a publisher or of the broker, or the clock of "
                "the sender is behind",
                mend="publish less than the network carries, or set the clock of the sender",
            )

    def _losses(self, dropped: int) -> Iterator[Finding]:
        lost = [f"{topic} ({n})" for topic, n in self.lost.most_common() if n > 0]
        if dropped:
            yield Finding(
                severity="info",
                check="losses",
                text=f"{dropped} messages were too many for this program, others may miss none",
                cause="more is published than one Python process can look at",
            )
        elif lost:
            yield Finding(
                severity="warning",
                check="losses",
                text=f"messages did not come: {listed(lost)}",
                cause="the queue of their publisher was full or its connection broke "
                "(stats.discarded and stats.unconfirmed there), or the broker drops what goes to "
                "slow consumers",
                mend="publish less often or smaller messages, look into the log of the broker for "
                "slow consumers, and use qos=1 where every message counts",
            )

    def _loops(self) -> Iterator[Finding]:
        around = [topic for topic, n in self.around.items() if n]
        far = [topic for topic, n in self.far.items() if n and topic not in around]
        twice = [topic for topic, n in self.twice.items() if n and topic not in around]
        if around or far:
            yield Finding(
                severity="error",
                check="bridges",
                text=f"messages go round in a circle: {listed([*around, *far])}",
                cause="bridges lead from a topic over other brokers back to it; those that know "
                "a broker by several addresses, or write bare data, notice it late or never",
                mend="name each broker in one way everywhere, let one bridge of the circle take "
                "fewer topics, and see `commlib bridge check`",
            )
        if twice:
            yield Finding(
                severity="warning",
                check="bridges",
                text=f"messages come twice, on different ways: {listed(twice)}",
                cause="several bridges lead to the same topic",
                mend="take one of them away, or let them carry different topics",
            )


def check_clocks(ahead: dict[str, int], nodes: Sequence[NodeInfo]) -> Iterator[Finding]:
    """Compare the clocks of the nodes' machines with ours."""
    hosts: dict[str, int] = {}
    for node in nodes:
        if node.process in ahead:
            hosts.setdefault(node.host, ahead[node.process])
    wrong = {host: ms for host, ms in hosts.items() if abs(ms) >= CLOCK_MS}
    if hosts and not wrong:
        most = max(map(abs, hosts.values()))
        yield good("clocks", f"those of the nodes differ by at most {most} ms from ours")
    for host, ms in wrong.items():
        yield Finding(
            severity="warning",
            check="clocks",
            text=f"that of {host} is {abs(ms) / 1000:.1f} s {'ahead of' if ms > 0 else 'behind'} "
            "that of this machine",
            cause="one of them is not set; ages of messages are wrong by it",
            mend=SET_CLOCK,
        )


async def check_pings(discovery: Discovery, nodes: Iterable[NodeInfo]) -> list[Finding]:
    """Ask each process, of the first ``MAX_PINGS``, and see how long it takes to answer."""
    each = list({node.process: node for node in nodes}.values())[:MAX_PINGS]
    some = asyncio.Semaphore(PINGS_AT_ONCE)

    async def ping(node: NodeInfo) -> float | None:
        async with some:
            try:
                return await discovery.ping(node, PING_SECONDS)
            except TimeoutError:
                return None

    times = await asyncio.gather(*map(ping, each))
    bad = [
        _sluggish(node, took)
        for node, took in zip(each, times, strict=True)
        if took is None or took > SLUGGISH
    ]
    if each and not bad:
        worst = max(took for took in times if took is not None)
        of_whom = counted(len(each), "process")
        return [good("pings", f"the slowest of {of_whom} answers in {worst * 1000:.1f} ms")]
    return bad


def _sluggish(node: NodeInfo, took: float | None) -> Finding:
    text = f"within {PING_SECONDS:g} s" if took is None else f"for {took:.1f} s"
    return Finding(
        severity="error" if took is None else "warning",
        check="pings",
        text=f"the process of {node.label} does not answer {text}",
        cause="its event loop is held up by an async callback, or one with inline=True, that "
        "blocks, or it has just gone, or it or its network is overloaded",
        mend="let callbacks that block be plain functions, which have threads of their own, and "
        f"see what it does: py-spy dump --pid {node.pid}",
    )
