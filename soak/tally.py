"""What arrived, compared with what was sent, in memory that does not grow with it. Pure."""

from __future__ import annotations

from collections import deque

MAX_MISSING = 10_000  # stretches of missing numbers that are remembered; a fault makes a few


class Numbers:
    """The numbers that arrive of a sender that counts from 0 without a gap."""

    def __init__(self) -> None:
        self.received = 0
        """How many different ones."""
        self.last = -1
        self.duplicates = 0
        self.reordered = 0
        self._missing: list[range] = []

    def note(self, number: int) -> None:
        """One has arrived."""
        if number > self.last:
            if number > self.last + 1:
                self._missing.append(range(self.last + 1, number))
                del self._missing[:-MAX_MISSING]
            self.last = number
        elif self._was_missing(number):
            self.reordered += 1
        else:
            self.duplicates += 1
            return
        self.received += 1

    def _was_missing(self, number: int) -> bool:
        for index, numbers in enumerate(self._missing):
            if number in numbers:
                rest = range(numbers.start, number), range(number + 1, numbers.stop)
                self._missing[index : index + 1] = filter(None, rest)
                return True
        return False

    def faults(self, name: str, sent: int, gaps: int, last_ones: int) -> list[tuple[str, str]]:
        """What does not add up: its kind, ``repeated`` or ``miscounted``, and a sentence.

        ``sent`` were numbered, ``gaps`` is what the subscriber has counted as lost. The last ones,
        of which nobody can know that they are missing until another comes, are at most
        ``last_ones``.
        """
        faults = []
        if self.duplicates:
            faults.append(("repeated", f"{name}: {self.duplicates} messages came twice"))
        if self.reordered:
            faults.append(("repeated", f"{name}: {self.reordered} messages came after later ones"))
        if self.received + gaps != self.last + 1:
            text = (
                f"of the first {self.last + 1} messages {self.received} were received and {gaps} "
            )
            text += f"counted as lost; that makes {self.received + gaps}"
            faults.append(("miscounted", f"{name}: {text}"))
        if not 0 <= sent - self.last - 1 <= last_ones:
            text = f"{sent} were sent, and the last that came was {self.last}"
            faults.append(("miscounted", f"{name}: {text}"))
        return faults


class Once:
    """Tells what comes a second time; knows the newest ``capacity``."""

    def __init__(self, capacity: int = 500) -> None:
        self._order: deque[int] = deque()
        self._known: set[int] = set()
        self._capacity = capacity
        self.twice = 0

    def note(self, number: int) -> None:
        """One has come."""
        if number in self._known:
            self.twice += 1
            return
        self._order.append(number)
        self._known.add(number)
        if len(self._order) > self._capacity:
            self._known.discard(self._order.popleft())
