"""Latencies of many messages, as a few figures: by the histogram that the field has agreed on.

Whoever measured them wrote them down raw: a histogram is for who can have one.
"""

from __future__ import annotations

import os
from array import array
from pathlib import Path

from hdrh.histogram import HdrHistogram

HIGHEST_NS = 60_000_000_000  # longer than any measurement
DIGITS = 3  # of each figure


class Latencies:
    """Those of all rounds so far, and of the last one."""

    def __init__(self) -> None:
        self._all = HdrHistogram(1, HIGHEST_NS, DIGITS)

    def add(self, file: Path) -> dict[str, float]:
        """Take the seconds in this file; their percentiles in µs, empty if there are none.

        But p99.9 is that of all rounds so far: one has too few messages for it.
        """
        seconds = array("d")
        with file.open("rb") as raw:
            seconds.fromfile(raw, os.path.getsize(file) // seconds.itemsize)
        if not seconds:
            return {}
        these = HdrHistogram(1, HIGHEST_NS, DIGITS)
        for delay in seconds:
            these.record_value(round(delay * 1e9))
        self._all.add(these)
        return {
            "p50_us": _us(these, 50.0),
            "p99_us": _us(these, 99.0),
            "p999_us": _us(self._all, 99.9),
            "max_us": _us(these, 100.0),
        }


def _us(histogram: HdrHistogram, percentile: float) -> float:
    ns: float = histogram.get_value_at_percentile(percentile)
    return ns / 1e3
