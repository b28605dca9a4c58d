"""Counts what was lost, doubled or overtaken on the way, by the sender's sequence numbers. Pure."""

from __future__ import annotations

from collections import OrderedDict
from itertools import count

from commlib._stats import Stats

LONGEST_ORIGIN = 64  # characters of a sender's id; ours have 8
MAX_TOPICS = 10_000  # counters kept at once, the oldest is forgotten first


class Sequence:
    """The sending side: a counter from 0 per topic."""

    def __init__(self) -> None:
        self._counters: OrderedDict[str, count[int]] = OrderedDict()

    def next(self, topic: str) -> int:
        """The number of the next message on this topic. Safe from several threads."""
        counter = self._counters.get(topic)
        if counter is None:
            if len(self._counters) >= MAX_TOPICS:
                # It will begin at 0 again; to a receiver that is a new sender, not a loss.
                self._counters.popitem(last=False)
            counter = self._counters.setdefault(topic, count())
        return next(counter)


class Gaps:
    """The receiving side: compares each number with the last one of the same sender and topic."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._last: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._maybe_new: set[tuple[str, str]] = set()

    def note(self, origin: str, topic: str, seq: int) -> None:
        """A message of this sender has arrived; the first one of a sender is no gap."""
        if len(origin) > LONGEST_ORIGIN:
            return  # nobody's of ours, and it would be kept
        key = (origin, topic)
        last = self._last.get(key)
        if last is None:
            if len(self._last) >= MAX_TOPICS:
                self._maybe_new.discard(self._last.popitem(last=False)[0])
        elif seq != last + 1:
            seq = self._note_irregular(key, seq, last)
        self._last[key] = seq

    def _note_irregular(self, key: tuple[str, str], seq: int, last: int) -> int:
        """Count it; returns the number to go on from."""
        stats = self._stats
        if seq > last:
            stats.gaps += seq - last - 1
            return seq
        if seq == 1 and key in self._maybe_new:
            # A sender with very many topics has forgotten this one, and counts from 0 again.
            self._maybe_new.discard(key)
            stats.reordered -= 1
            return seq
        if seq == last:
            stats.duplicates += 1
            return last
        stats.reordered += 1
        if seq == 0:
            self._maybe_new.add(key)
        else:
            # What was counted as a gap has only been overtaken.
            stats.gaps = max(0, stats.gaps - 1)
        return last
