"""Counts what was lost, doubled or overtaken on the way, by the sender's sequence numbers. Pure."""

from __future__ import annotations

from collections import OrderedDict
from itertools import count

from commlib._stats import Stats

LONGEST_ORIGIN = 64  # characters of a sender's id; ours have 8
MAX_TOPICS = 10_000  # counters kept at once, the oldest is forgotten first
MAX_INCOMPLETE, MAX_STRETCHES = 1000, 100  # of these, those with gaps, and the gaps of each


class Sequence:
    """The sending side: a counter from 0 per topic.

    ``never_again``: no number comes twice on a topic, not even on one that was forgotten.
    """

    def __init__(self, *, never_again: bool = False) -> None:
        self._counters: OrderedDict[str, count[int]] = OrderedDict()
        self._never_again = never_again
        self._first = 0

    def next(self, topic: str) -> int:
        """The number of the next message on this topic. Safe from several threads."""
        counter = self._counters.get(topic)
        if counter is None:
            if len(self._counters) >= MAX_TOPICS:
                # It will begin at 0 again; to a receiver that is a new sender, not a loss.
                _, forgotten = self._counters.popitem(last=False)
                if self._never_again:
                    self._first = max(self._first, next(forgotten))
            counter = self._counters.setdefault(topic, count(self._first))
        return next(counter)


class Gaps:
    """The receiving side: compares each number with the last one of the same sender and topic.

    What is missing is remembered, so that a message that comes twice (at least once is what QoS 1
    promises) is not taken for one that was missing. Of very many gaps the oldest are forgotten:
    whatever comes late for one of those counts as a duplicate, and stays counted as lost.
    """

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._last: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._first: dict[tuple[str, str], int] = {}
        self._missing: OrderedDict[tuple[str, str], list[range]] = OrderedDict()
        self._maybe_new: set[tuple[str, str]] = set()

    def note(self, origin: str, topic: str, seq: int) -> None:
        """A message of this sender has arrived; the first one of a sender is no gap."""
        if len(origin) > LONGEST_ORIGIN:
            return  # nobody's of ours, and it would be kept
        key = (origin, topic)
        last = self._last.get(key)
        if last is None:
            if len(self._last) >= MAX_TOPICS:
                self._forget(self._last.popitem(last=False)[0])
            self._first[key] = seq
        elif seq != last + 1:
            seq = self._note_irregular(key, seq, last)
        self._last[key] = seq

    def _forget(self, key: tuple[str, str]) -> None:
        self._maybe_new.discard(key)
        self._missing.pop(key, None)
        del self._first[key]

    def _note_irregular(self, key: tuple[str, str], seq: int, last: int) -> int:
        """Count it; returns the number to go on from."""
        stats = self._stats
        if seq > last:
            stats.gaps += seq - last - 1
            self._remember(key, range(last + 1, seq))
            return seq
        if seq == 1 and key in self._maybe_new:
            # A sender with very many topics has forgotten this one, and counts from 0 again.
            self._forget(key)
            self._first[key] = 0
            stats.reordered -= 1
            return seq
        if seq == 0 and last > 0:
            stats.reordered += 1
            self._maybe_new.add(key)
        elif self._was_missing(key, seq):
            # What was counted as a gap has only been overtaken.
            stats.reordered += 1
            stats.gaps -= 1
        elif seq < self._first[key]:
            stats.reordered += 1  # it was overtaken by the first one
        else:
            stats.duplicates += 1
        return last

    def _remember(self, key: tuple[str, str], numbers: range) -> None:
        gaps = self._missing.setdefault(key, [])
        gaps.append(numbers)
        if len(gaps) > MAX_STRETCHES:
            del gaps[0]
        if len(self._missing) > MAX_INCOMPLETE:
            self._missing.popitem(last=False)

    def _was_missing(self, key: tuple[str, str], seq: int) -> bool:
        """Whether this one has not come before; now it has."""
        gaps = self._missing.get(key, [])
        for index, numbers in enumerate(gaps):
            if seq in numbers:
                rest = range(numbers.start, seq), range(seq + 1, numbers.stop)
                gaps[index : index + 1] = filter(None, rest)
                return True
        return False
