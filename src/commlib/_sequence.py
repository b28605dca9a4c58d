"""Counts what was lost, doubled or overtaken on the way, by the sender's sequence numbers. Pure."""

from __future__ import annotations

from collections import OrderedDict
from itertools import count
from os import urandom
from threading import Lock

from msgspec import Struct

from commlib._stats import Stats

LONGEST_ORIGIN = 64  # characters of a sender's id; ours have 8
MAX_TOPICS = 10_000  # counters kept at once, the oldest is forgotten first
MAX_INCOMPLETE, MAX_STRETCHES = 1000, 100  # of these, those with gaps, and the gaps of each


class Sequence:
    """The sending side: a counter from 0 per topic, and the id of the sender beside it.

    Of very many topics the oldest counter is forgotten, and what begins after that has another id:
    to a receiver it is a new sender, and nothing of it was lost or has come before.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._counters: OrderedDict[str, tuple[str, count[int]]] = OrderedDict()

    def next(self, topic: str) -> tuple[str, int]:
        """The id and number of the next message on this topic. Safe from several threads."""
        found = self._counters.get(topic)
        if found is None:
            if len(self._counters) >= MAX_TOPICS:
                self._counters.popitem(last=False)
                self._origin = new_origin()
            found = self._counters.setdefault(topic, (self._origin, count()))
        return found[0], next(found[1])

    def begin_anew(self, topic: str) -> None:
        """A number of this topic was taken, and nothing is sent with it: so that nobody misses it,
        what comes next is of another sender."""
        self._counters[topic] = new_origin(), count()


def new_origin() -> str:
    """The id of a sender: of one life of an endpoint."""
    return urandom(4).hex()


class _Sender(Struct, gc=False):
    """What has come of one sender on one topic: the first number, and the highest."""

    origin: str
    topic: str
    first: int
    last: int


NOBODY = _Sender("", "", 0, -1)


class Gaps:
    """The receiving side: compares each number with the last one of the same sender and topic.

    It sees what is decoded: what was dropped before that, for a callback that is too slow, is a gap
    like what was lost on the way.

    What is missing is remembered, so that a message that comes twice (at least once is what QoS 1
    promises) is not taken for one that was missing. Of very many gaps the oldest are forgotten:
    whatever comes late for one of those counts as a duplicate, and stays counted as lost.
    """

    __slots__ = ("_current", "_missing", "_senders", "_stats")

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._current = NOBODY  # whose message came last; most often that comes next
        # Both are made when they are needed: most receivers have one sender, and no gaps.
        self._senders: OrderedDict[tuple[str, str], _Sender] | None = None
        self._missing: OrderedDict[tuple[str, str], list[range]] | None = None

    def note(self, origin: str, topic: str, seq: int) -> None:
        """A message of this sender has arrived; the first one of a sender is no gap."""
        sender = self._current
        if origin != sender.origin or topic != sender.topic:
            if len(origin) > LONGEST_ORIGIN:
                return  # nobody's of ours, and it would be kept
            sender = self._current = self._find(origin, topic, seq)
        if seq == sender.last + 1:
            sender.last = seq
        else:
            self._note_irregular(sender, seq)

    def _find(self, origin: str, topic: str, seq: int) -> _Sender:
        """The one that this is of; it is new if there is none."""
        first = self._current
        if first is NOBODY:
            return _Sender(origin, topic, seq, seq - 1)
        if self._senders is None:
            self._senders = OrderedDict({(first.origin, first.topic): first})
        key = (origin, topic)
        sender = self._senders.get(key)
        if sender is None:
            if len(self._senders) >= MAX_TOPICS:
                oldest, _ = self._senders.popitem(last=False)
                if self._missing is not None:
                    self._missing.pop(oldest, None)
            sender = self._senders[key] = _Sender(origin, topic, seq, seq - 1)
        return sender

    def _note_irregular(self, sender: _Sender, seq: int) -> None:
        """Count it."""
        stats, key = self._stats, (sender.origin, sender.topic)
        if seq > sender.last:
            stats.gaps += seq - sender.last - 1
            self._remember(key, range(sender.last + 1, seq))
            sender.last = seq
        elif self._was_missing(key, seq):
            # What was counted as a gap has only been overtaken.
            stats.reordered += 1
            stats.gaps -= 1
        elif seq < sender.first:
            stats.reordered += 1  # it was overtaken by the first one
        else:
            stats.duplicates += 1

    def _remember(self, key: tuple[str, str], numbers: range) -> None:
        if self._missing is None:
            self._missing = OrderedDict()
        gaps = self._missing.setdefault(key, [])
        gaps.append(numbers)
        if len(gaps) > MAX_STRETCHES:
            del gaps[0]
        if len(self._missing) > MAX_INCOMPLETE:
            self._missing.popitem(last=False)

    def _was_missing(self, key: tuple[str, str], seq: int) -> bool:
        """Whether this one has not come before; now it has."""
        gaps = [] if self._missing is None else self._missing.get(key, [])
        for index, numbers in enumerate(gaps):
            if seq in numbers:
                rest = range(numbers.start, seq), range(seq + 1, numbers.stop)
                gaps[index : index + 1] = filter(None, rest)
                return True
        return False


class SharedGaps(Gaps):
    """The same for several threads at once."""

    __slots__ = ("_lock",)

    def __init__(self, stats: Stats) -> None:
        super().__init__(stats)
        self._lock = Lock()

    def note(self, origin: str, topic: str, seq: int) -> None:
        with self._lock:
            super().note(origin, topic, seq)
