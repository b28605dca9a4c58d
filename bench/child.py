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
from time import monotonic, perf_counter, process_time, sleep
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bench.proc import status

if TYPE_CHECKING:
    from array import array

REST_SECONDS = 0.5  # a process is at rest that has used next to nothing of a core for so long
AT_REST = 0.01  # of a core
MOST_RESTS = 6  # some never are
PATIENCE = 3.0  # s without a message, after which the missing ones count as lost
NUMBER_BYTES = 8  # a double at the beginning of a payload, in the order of this machine


class Command:
    """What the command line asks for."""

    def __init__(self, arguments: list[str]) -> None:
        self.role, self.url, limit, *pairs = arguments
        self.options: dict[str, int | float | str] = {}
        for pair in pairs:
            name, _, value = pair.partition("=")
            self.options[name] = _number(value)
        # No handler: the signal ends the process even if a driver never returns to Python.
        signal.setitimer(signal.ITIMER_REAL, float(limit))
        if not self.options.pop("uvloop", 1):
            sys.modules["uvloop"] = None  # type: ignore[assignment] # importing it fails from now on


def _number(text: str) -> int | float | str:
    """What a text says, if that is a number; else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


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


def rest() -> None:
    """Return when this process has had nothing to do for a while.

    What it costs to begin is measured by itself, and must not count as the cost of some messages.
    """
    for _ in range(MOST_RESTS):
        begin = process_time()
        sleep(REST_SECONDS)
        if process_time() - begin < REST_SECONDS * AT_REST:
            return


class Tally:
    """The messages that arrive: how many, from when to when, at what cost, and whether twice.

    A message tells its number, in ``distance`` or as the first bytes of a payload.
    """

    def __init__(self) -> None:
        from array import array  # what only publishes need not load it

        self._new = array
        self.begun = threading.Event()
        self._enough = threading.Event()
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        # Arrays, for several threads may append at once where they could not count; and they take
        # what they hold and no more, which is no memory of the contender's.
        self._times: array[float] = self._new("d")
        self._numbers: array[float] = self._new("d")
        self._goal = sys.maxsize
        self._cpu = 0.0
        self.begun.clear()

    @property
    def count(self) -> int:
        """How many there were."""
        return len(self._times)

    def note(self, msg: Any) -> None:
        """Take a message."""
        # As by `count_one`, but without the call: it would be a share of what is measured.
        times = self._times
        if not times:
            self._begin()
        times.append(perf_counter())
        self._numbers.append(msg.distance)
        if len(times) >= self._goal:
            self._enough.set()

    def note_blob(self, data: bytes) -> None:
        """Take a payload."""
        self._numbers.frombytes(data[:NUMBER_BYTES])
        self.count_one(data)

    def count_one(self, msg: object) -> None:
        """Take a message whose number nobody reads."""
        times = self._times
        if not times:
            self._begin()
        times.append(perf_counter())
        if len(times) >= self._goal:
            self._enough.set()

    def _begin(self) -> None:
        self._cpu = process_time()
        self.begun.set()

    def settle(self, count: int, patience: float = PATIENCE) -> None:
        """Return when so many have arrived, or none has for ``patience`` seconds."""
        self._enough.clear()
        self._goal = count
        begin = perf_counter()
        while self.count < count:
            last = self._times[-1] if self._times else begin
            left = max(begin, last) + patience - perf_counter()
            if left <= 0:
                break
            self._enough.wait(left)

    def figures(self, sent: int, copies: int = 0) -> dict[str, float]:
        """The rate from the first message to the last, its cost, and what did not go well.

        ``copies``: how often each number was sent, at most; without it, nobody knows what came
        twice. ``begin`` and ``end`` are by a clock that all processes share. ``peak_mb`` is the
        memory of this process without what the tally itself takes.
        """
        cpu, times = process_time() - self._cpu, self._times
        own = (len(times) + len(self._numbers)) * times.itemsize
        figures = {"peak_mb": status("self", "VmHWM") / 1024 - own / 1e6}
        again = 0
        if copies and self._numbers:
            from collections import Counter

            again = sum(max(0, seen - copies) for seen in Counter(self._numbers).values())
            figures["duplicates"] = again
        figures["lost"] = sent - len(times) + again
        apart = len(times) - 1  # as many came after the clock was started
        if times:
            figures["begin"], figures["end"] = times[0], max(times)
        if apart > 0:
            figures["rate"] = apart / (figures["end"] - figures["begin"])
            figures["cpu_us"] = cpu / apart * 1e6
        return figures


def expected(tally: Tally) -> list[int]:
    """The numbers in the next order; before it may come ``anew``: nothing counts that has come."""
    words = order()
    if words == ["anew"]:
        tally.reset()
        answer(ready=True)
        words = order()
    return [int(word) for word in words]


class Delays(Tally):
    """Tells as well how long after its intended time each arrived, which is in ``horizontal_fov``.

    By ``time.monotonic``, which all processes share.
    """

    def reset(self) -> None:
        super().reset()
        self._delays: array[float] = self._new("d")

    def note(self, msg: Any) -> None:
        self._delays.append(monotonic() - msg.horizontal_fov)
        super().note(msg)

    def write(self, file: str) -> None:
        """The seconds of all of them, as doubles."""
        with open(file, "wb") as out:
            self._delays.tofile(out)


class Ledger:
    """The calls of any number of callers until the time is up."""

    def __init__(self, seconds: float, count: int) -> None:
        self._begin = perf_counter()
        self._end = self._begin + seconds
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
        else:
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
            # Those that were under way at the end count as well: they may be the slowest.
            is_all = self._left <= 0
            end = self._last if is_all else max(self._last, self._end)
            figures["rate"] = len(ranked) / (end - self._begin)
            figures["p50_us"] = ranked[len(ranked) // 2] * 1e6
            figures["p99_us"] = ranked[len(ranked) * 99 // 100] * 1e6
        if self._failed:
            figures["why"] = self._failed[0][:200]
        elif not ranked:
            figures["why"] = f"nothing was done within {self._end - self._begin:g} s"
        return figures
