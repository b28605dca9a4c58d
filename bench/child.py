"""What every child of the benchmark has in common: its options, orders and answers, its end.

    python -m bench.contenders.ours ROLE URL LIMIT [NAME=VALUE...]

A child says on standard output when it is ready, reads orders from standard input, and answers in
JSON, a line each. It is ended by the kernel after LIMIT seconds, whatever it is doing then, and
ends itself when its input does: nothing is left of a benchmark that was killed. Nothing beyond the
standard library is imported, and of that little: the memory of a child is measured.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from time import perf_counter, process_time
from urllib.parse import urlsplit

PATIENCE = 3.0  # s without a message, after which the missing ones count as lost


class Command:
    """What the command line asks for."""

    def __init__(self, arguments: list[str]) -> None:
        self.role, self.url, limit, *pairs = arguments
        self.options: dict[str, int | str] = {}
        for pair in pairs:
            name, _, value = pair.partition("=")
            self.options[name] = int(value) if value.isdigit() else value
        # No handler: the signal ends the process even if a driver never returns to Python.
        signal.setitimer(signal.ITIMER_REAL, float(limit))
        if not self.options.pop("uvloop", 1):
            sys.modules["uvloop"] = None  # type: ignore[assignment] # importing it fails from now on


def address_of(url: str) -> tuple[str, int]:
    """The host and the port in a broker's URL."""
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 0


def answer(**figures: object) -> None:
    """Report, as one line of JSON."""
    import json

    print(json.dumps(figures), flush=True)


def order() -> list[str]:
    """The next order, in words; ends the process if whoever gives them is gone."""
    # Not sys.stdin: what it would read ahead, the event loop would not be told of.
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(0)
        line += byte
    return line.decode().split()


async def order_on_loop() -> list[str]:
    """The next order, while the loop runs on and without a further thread."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(0, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(0)
    return order()


class Tally:
    """The messages that arrive: how many, from when to when, at what cost."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self._enough = threading.Event()
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        # A list, for several threads may append at once where they could not count.
        self._times: list[float] = []
        self._goal = sys.maxsize
        self._cpu = 0.0
        self.begun.clear()

    @property
    def count(self) -> int:
        """How many there were."""
        return len(self._times)

    def note(self, msg: object) -> None:
        """Take a message."""
        times = self._times
        if not times:
            self._cpu = process_time()
            self.begun.set()
        times.append(perf_counter())
        if len(times) >= self._goal:
            self._enough.set()

    def settle(self, count: int, patience: float = PATIENCE) -> None:
        """Return when so many have arrived, or none has for ``patience`` seconds."""
        self._enough.clear()
        self._goal = count
        seen = -1
        while seen < self.count < count:
            seen = self.count
            self._enough.wait(patience)

    def figures(self, sent: int) -> dict[str, float]:
        """The rate from the first message to the last, its cost, and what did not arrive."""
        cpu, times = process_time() - self._cpu, self._times
        apart = len(times) - 1  # as many came after the clock was started
        if apart < 1:
            return {"lost": sent - len(times)}
        seconds = max(times) - times[0]
        return {"rate": apart / seconds, "cpu_us": cpu / apart * 1e6, "lost": sent - len(times)}


class Ledger:
    """The calls of any number of callers until the time is up."""

    def __init__(self, seconds: float, count: int) -> None:
        self._seconds = seconds
        self._end = perf_counter() + seconds
        self._left = count
        self._times: list[float] = []
        self._failed: list[str] = []
        self._last = 0.0

    @property
    def is_open(self) -> bool:
        """Whether another call shall be made."""
        return perf_counter() < self._end and self._left > 0

    def note(self, sent: float, expected: int, got: int) -> None:
        """Take the reply to a call that was made then."""
        now = perf_counter()
        if got != expected:
            self.note_failure(ValueError(f"the reply is {got}, not {expected}"))
        elif now <= self._end:
            self._left -= 1
            self._times.append(now - sent)
            self._last = now

    def note_failure(self, error: Exception) -> None:
        """Take what a call raised."""
        self._failed.append(f"{type(error).__name__}: {error}")

    def figures(self) -> dict[str, object]:
        """Right replies in a second, their latency, and how many calls failed."""
        ranked = sorted(self._times)
        figures: dict[str, object] = {"failed": len(self._failed), "count": len(ranked)}
        if ranked:
            begin = self._end - self._seconds
            figures["rate"] = len(ranked) / (
                self._last - begin if self._left <= 0 else self._seconds
            )
            figures["p50_us"] = ranked[len(ranked) // 2] * 1e6
            figures["p99_us"] = ranked[len(ranked) * 99 // 100] * 1e6
        if self._failed:
            figures["why"] = self._failed[0][:200]
        elif not ranked:
            figures["why"] = f"nothing was done within {self._seconds:g} s"
        return figures
