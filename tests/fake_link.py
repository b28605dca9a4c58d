"""A link to a broker that keeps what is written to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class FakeLink:
    """A link that keeps what is written to it."""

    keepalive: float | None = None
    written_bytes = unsent_bytes = 0

    def __init__(self, *, answers: bool = True) -> None:
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[Exception | None] = self._loop.create_future()
        self.heard = self._loop.time()
        self.probed, self.written = asyncio.Event(), asyncio.Event()
        self.writes: list[tuple[list[bytes], list[object]]] = []
        self.takes_now = False
        self._answers = answers

    @property
    def frames(self) -> list[bytes]:
        return [frame for frames, _ in self.writes for frame in frames]

    def write(self, frames: Iterable[bytes], notes: Iterable[object]) -> None:
        self.writes.append((list(frames), list(notes)))
        self.written.set()

    def may_be_now(self, urgent: bool) -> bool:
        return self.takes_now

    def write_now(self, frame: bytes, note: object, urgent: bool) -> bool:
        if self.takes_now:
            self.write([frame], [note])
        return self.takes_now

    def write_all_now(self, frames: Iterable[bytes], notes: Iterable[object]) -> bool:
        if self.takes_now:
            self.write(frames, notes)
        return self.takes_now

    def probe(self) -> None:
        self.probed.set()
        if self._answers:
            self.heard = self._loop.time()

    def abort(self, reason: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)
