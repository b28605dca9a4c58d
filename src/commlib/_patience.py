"""How long the answer to a probe is waited for."""

from __future__ import annotations

from typing import Protocol

LOOKS = 8  # at the progress of what was written, in the time that is given for it


class Written(Protocol):
    """What a connection knows of the bytes that it was given."""

    @property
    def written_bytes(self) -> int:
        """How many there were so far."""
        ...

    @property
    def unsent_bytes(self) -> int:
        """How many of them the other machine has not acknowledged, as far as this one can tell."""
        ...


class Patience:
    """The wait for the answer to a probe that was just written.

    ``grace`` (s) is how long the broker may take once it has the probe. On a slow link much may be
    written that is still under way, and the probe comes behind it: then the link is alive as long
    as bytes of it leave within a grace.
    """

    def __init__(self, link: Written, grace: float, now: float) -> None:
        self.begun = now
        self._link = link
        self._grace = grace
        self._until = now + grace
        self._end = link.written_bytes
        self._left = link.written_bytes - link.unsent_bytes

    def wait(self, now: float) -> float:
        """Seconds until one should look again; none when it is over."""
        if self._left >= self._end:  # the other machine has the probe
            return self._until - now
        left = self._link.written_bytes - self._link.unsent_bytes
        # Each record of TLS has some bytes more than were written: those make it less.
        if left > self._left:
            self._until = now + self._grace
        self._left = left
        # Nobody tells when bytes leave. A look costs a system call, and is rare.
        return min(self._until - now, self._grace / LOOKS)
