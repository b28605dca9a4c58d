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
PERCENTILES = {"p50_us": 50.0, "p99_us": 99.0, "p999_us": 99.9, "max_us": 100.0}


def percentiles(file: Path) -> dict[str, float]:
    """Of the seconds in this file, in µs; empty if there are none."""
    seconds = array("d")
    with file.open("rb") as raw:
        seconds.fromfile(raw, os.path.getsize(file) // seconds.itemsize)
    if not seconds:
        return {}
    histogram = HdrHistogram(1, HIGHEST_NS, DIGITS)
    for delay in seconds:
        histogram.record_value(round(delay * 1e9))
    return {
        name: histogram.get_value_at_percentile(percentile) / 1e3
        for name, percentile in PERCENTILES.items()
    }
