"""How big a process is, again and again, and whether it grows."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20
BOUND_MB = 4.0
FEWEST = 9  # samples below which nothing is said about growth: three for each third
NOISE = {"handles": 2.0, "threads": 2.0, "objects": 1000.0, "blocks": 25_000.0}
"""What may be more at one calm moment than at another: a worker that idles, a cache of names, which
is emptied when it is full."""
MORE = 0.02  # the same as a share of what there was


class Sample(NamedTuple):
    """A process at a moment, in seconds since the begin."""

    at: float
    rss_mb: float
    handles: int
    threads: int


def look(pid: int, at: float) -> Sample:
    """How big it is now."""
    proc = Path(f"/proc/{pid}")
    pages = int((proc / "statm").read_text().split()[1])
    handles, threads = (len(os.listdir(proc / part)) for part in ("fd", "task"))
    return Sample(at, round(pages * PAGE_MB, 2), handles, threads)


class Sampler:
    """Looks at a process once a second, while it lasts."""

    def __init__(self, pid: int, seconds: float = 1.0) -> None:
        self.samples: list[Sample] = []
        self._pid = pid
        self._seconds = seconds
        self._begin = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler")

    @property
    def now(self) -> float:
        """Seconds since the begin."""
        return time.monotonic() - self._begin

    def _run(self) -> None:
        while not self._done.wait(self._seconds):
            try:
                self.samples.append(look(self._pid, round(self.now, 2)))
            except (FileNotFoundError, ProcessLookupError):
                return  # it has ended

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._done.set()
        self._thread.join()


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """How much more it is each second, by least squares."""
    if len(set(times)) < 2:
        return 0.0
    return statistics.linear_regression(times, values).slope


def second_half(samples: Sequence[Sample]) -> list[Sample]:
    """Those after the first half of the time, in which it warms up: caches fill, heaps settle."""
    if not samples:
        return []
    middle = (samples[0].at + samples[-1].at) / 2
    return [sample for sample in samples if sample.at >= middle]


def memory_fault(samples: Sequence[Sample]) -> str:
    """What is wrong with the memory, in a sentence; empty if nothing is.

    A slope alone says little: each outage fills a queue for seconds, and the heap is never given
    back exactly as it was. So it has to come to something, 4 MB over the second half, and to go on:
    the medians of the three thirds of that half, which an outage does not move, have to rise twice,
    each time by an eighth of the bound at least. Over half an hour at 1000 messages a second that
    finds five bytes a message.
    """
    late = second_half(samples)
    if len(late) < FEWEST:
        return ""
    times, values = [sample.at for sample in late], [sample.rss_mb for sample in late]
    growth = slope(times, values) * (times[-1] - times[0])
    first, second, third = map(statistics.median, thirds(values))
    if growth <= BOUND_MB or min(second - first, third - second) <= BOUND_MB / 8:
        return ""
    steps = f"{first:.1f}, {second:.1f}, {third:.1f}"
    return f"memory grows: {growth:.1f} MB over the second half, in thirds {steps} MB"


def count_fault(name: str, values: Sequence[float]) -> str:
    """What is wrong with a number that was taken at calm moments; empty if nothing is.

    It comes and goes, so what counts is that the least of the last third is above the most of the
    first one by more than noise, and that the medians rise all the way. Whatever each fault leaves
    behind adds up to that.
    """
    if len(values) < FEWEST:
        return ""
    first, second, third = thirds(values)
    noise = NOISE[name] + MORE * max(first)
    medians = [statistics.median(part) for part in (first, second, third)]
    if min(third) <= max(first) + noise or not medians[0] < medians[1] < medians[2]:
        return ""
    early, late = f"at most {max(first):g}", f"at least {min(third):g}"
    return f"{name} grow: {early} in the first third of the run, {late} in the last"


def thirds(values: Sequence[float]) -> tuple[Sequence[float], Sequence[float], Sequence[float]]:
    """The three parts of a series, the last one the longest."""
    third = len(values) // 3
    return values[:third], values[third : 2 * third], values[2 * third :]
