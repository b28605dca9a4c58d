"""The soak on one broker: the load, one fault after the other, and calm between them."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from brokers import Broker, Server
from faults.proxy import Proxy
from soak.child import Child, ProgramFailed
from soak.samples import NOISE, Sample, Sampler, count_fault, look, memory_fault
from soak.schedule import PARTS, Fault, schedule
from soak.servers import KINDS

KEEPALIVE = 3  # s, so that some silences are noticed and some are not
CONNECT_TIMEOUT = 3
CUT_SECONDS = 0.3  # between two cuts in a row
SHORT_LIFE = 20_000  # bytes
DELAY = 0.2  # s, each way


@dataclass
class Record:
    """What came of it on one broker."""

    broker: str
    version: str = ""
    seconds: float = 0.0
    counts: dict[str, Any] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    took: dict[str, list[float]] = field(default_factory=dict)
    """Seconds from the end of a fault until a pattern worked again."""
    samples: list[Sample] = field(default_factory=list)
    calm: list[dict[str, float]] = field(default_factory=list)
    """How big the program was at calm moments."""
    failures: list[str] = field(default_factory=list)
    log: str = ""
    """The end of the program's log, if anything failed."""


class Soak:
    """One run on one broker; ``interrupted`` ends it in good order."""

    def __init__(
        self, broker: str, seed: int, seconds: float, interrupted: threading.Event
    ) -> None:
        self.record = Record(broker)
        self._faults = schedule(seed, broker)
        self._seconds = seconds
        self._interrupted = interrupted
        self._begun = 0.0

    def run(self) -> Record:
        """All of it; whatever goes wrong is in the record."""
        try:
            self._run()
        except Exception as exc:  # the others go on, and the table tells
            self.record.failures.append(f"the soak itself: {type(exc).__name__}: {exc}")
        return self.record

    def _run(self) -> None:
        kind = KINDS[self.record.broker]
        with kind.make() as server, Proxy(server.url) as base, Proxy(server.url) as far:
            self.record.version = kind.version(server)
            with Child(_url(base), _url(far)) as child:
                self._begun = time.monotonic()
                try:
                    child.hear()
                    with Sampler(child.pid) as sampler:
                        self.record.samples = sampler.samples
                        self._play(server, {"base": base, "far": far}, child, sampler)
                    self.record.counts = child.tell("finish")
                    if failure := child.leave():
                        self.record.failures.append(failure)
                except ProgramFailed as exc:
                    self.record.failures.append(str(exc))
                self.record.seconds = round(time.monotonic() - self._begun, 1)
                self._judge(child)

    def _play(
        self, server: Server, proxies: dict[str, Proxy], child: Child, sampler: Sampler
    ) -> None:
        """Fault after fault until the time is up."""
        if not self._works_again(child, "the begin"):
            return
        for fault in self._faults:
            self._interrupted.wait(fault.calm)
            self.record.calm.append(
                look(child.pid, round(sampler.now, 2))._asdict() | _numbers(child.tell("look"))
            )
            child.tell("fault")
            if self._is_over:
                return
            self._tell(str(fault))
            self.record.faults[fault.kind] += 1
            if fault.kind in PARTS:
                child.tell("stop", fault.kind)
                _wait(fault.lasts)
                child.tell("run", fault.kind)
            elif fault.sides:
                _break_links([proxies[side] for side in fault.sides], fault)
            else:
                _break_server(server, fault)
            if not self._works_again(child, str(fault)):
                return

    @property
    def _is_over(self) -> bool:
        return self._interrupted.is_set() or time.monotonic() - self._begun > self._seconds

    def _works_again(self, child: Child, after: str) -> bool:
        answer = child.tell("check")
        if failure := answer.get("failure"):
            self.record.failures.append(f"after {after}: {failure}")
            child.show_stacks()
            return False
        for pattern, seconds in answer["took"].items():
            self.record.took.setdefault(pattern, []).append(seconds)
        return True

    def _judge(self, child: Child) -> None:
        record = self.record
        for kind, count in child.complaints["kinds"].items():
            record.failures.append(f"{kind}: {count} times")
        record.failures += [f"  {text}" for text in child.complaints["first"]]
        found = [
            memory_fault(record.samples),
            *(count_fault(name, [moment[name] for moment in record.calm]) for name in NOISE),
        ]
        record.failures += [fault for fault in found if fault]
        if record.failures:
            record.log = child.last_words()

    def _tell(self, text: str) -> None:
        at = time.monotonic() - self._begun
        print(f"{self.record.broker}, {at:.0f} s: {text}", file=sys.stderr, flush=True)


def _numbers(answer: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in answer.items() if name != "complaints"}


def _url(proxy: Proxy) -> str:
    options = {"keepalive": KEEPALIVE, "connect_timeout": CONNECT_TIMEOUT}
    return Broker(proxy.url).with_options(**options)


def _wait(seconds: float) -> None:
    """How long a fault lasts is part of it."""
    threading.Event().wait(seconds)


def _break_server(server: Server, fault: Fault) -> None:
    """Do it, and undo it."""
    if fault.kind == "kill":
        server.kill()
        _wait(fault.lasts)
        server.start()
    else:
        server.freeze()
        _wait(fault.lasts)
        server.thaw()


def _break_links(proxies: list[Proxy], fault: Fault) -> None:
    """Do it to each, and undo it."""
    begin, end = LINK_FAULTS[fault.kind]
    for proxy in proxies:
        begin(proxy)
    if fault.kind == "cuts":
        for _ in range(int(fault.lasts / CUT_SECONDS)):
            _wait(CUT_SECONDS)
            for proxy in proxies:
                proxy.cut()
    else:
        _wait(fault.lasts)
    for proxy in proxies:
        end(proxy)


def _set(name: str, value: object) -> Callable[[Proxy], None]:
    """Change something for the connections to come, and have all of them come anew."""

    def change(proxy: Proxy) -> None:
        setattr(proxy, name, value)
        proxy.cut()

    return change


def _slow_down(proxy: Proxy) -> None:
    proxy.quality.delay = DELAY


def _cut_with_much_under_way(proxy: Proxy) -> None:
    proxy.cut()
    proxy.quality.delay = 0


LINK_FAULTS: dict[str, tuple[Callable[[Proxy], None], Callable[[Proxy], None]]] = {
    "cut": (Proxy.cut, lambda proxy: None),
    "cuts": (Proxy.cut, lambda proxy: None),
    "short lives": (_set("longest", SHORT_LIFE), _set("longest", 0)),
    "refusal": (_set("refuses", True), _set("refuses", False)),
    "stall": (Proxy.stall, Proxy.resume),
    "half open": (Proxy.half_open, Proxy.resume),
    "delay": (_slow_down, _cut_with_much_under_way),
}
"""How each begins and ends."""
