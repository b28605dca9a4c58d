"""What was published on a topic, for a test to look at."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from reprlib import Repr
from typing import Any, Generic, NamedTuple, Self

from commlib._packet import Packet
from commlib._topics import check_pattern, matcher
from commlib._typing import T
from commlib._wire import Reader, Refused
from commlib.testing._tested import Tap, TestedBroker

DEADLINE = 5.0
"""The seconds that are waited by default; far more than a message takes on a busy machine."""
SHOWN = 5  # messages in a failure's text, and topics that others were on

_shown = Repr()
_shown.maxstring = _shown.maxother = 200  # characters
_shown.maxdict = _shown.maxlist = 20
_OWN = "commlib."  # what begins so is told by nodes themselves


class Captured(NamedTuple):
    """One message: its topic, its data, and when it was sent in ms since 1970, 0 if unknown."""

    topic: str
    data: Any
    timestamp: int


class Capture(Generic[T]):
    """The messages that were published on a topic or pattern, from its making to ``close()``.

    They are recorded as they reach the broker: when ``publish()`` has returned, the message is
    here, unless the connection was away or a fault took it. ``msg_type`` is what they are read as;
    None gives plain decoded data. A message that is none of that kind fails whoever looks.

    Can be used from any thread, as a context manager, and in ``len()`` and loops, which give the
    data.
    """

    def __init__(self, broker: TestedBroker, topic: str, msg_type: type[T] | None = None) -> None:
        self.topic = check_pattern(topic)
        matches = matcher(topic)
        assert matches is not None, "this broker has no wildcards of its own"
        self._broker = broker
        self._reader = Reader(msg_type)
        self._tap = Tap(matches, self._take)
        self._packets: list[Packet] = []
        self._read: list[Captured] = []
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        with broker.changed:
            broker.taps.append(self._tap)

    def _take(self, packet: Packet) -> None:
        self._packets.append(packet)
        for loop, news in self._waiting:
            with suppress(RuntimeError):  # a loop that was closed
                loop.call_soon_threadsafe(news.set)

    def close(self) -> None:
        """Record no more; what came so far stays. Idempotent."""
        with self._broker.changed:
            if self._tap in self._broker.taps:
                self._broker.taps.remove(self._tap)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # What came.

    @property
    def captured(self) -> list[Captured]:
        """All messages in the order of their coming. Raises AssertionError for a wrong one."""
        with self._broker.changed:
            # Read here and not when they come: what is wrong with them is for the test to hear.
            for packet in self._packets[len(self._read) :]:
                self._read.append(self._open(packet))
            return list(self._read)

    def _open(self, packet: Packet) -> Captured:
        try:
            envelope = self._reader.read(packet)
        except Refused as exc:
            raise AssertionError(
                f"message {len(self._read) + 1} on {packet.topic!r} cannot be read: {exc}"
            ) from exc
        return Captured(packet.topic, envelope.data, envelope.header.timestamp)

    @property
    def messages(self) -> list[T]:
        """The data of all of them."""
        return [message.data for message in self.captured]

    @property
    def topics(self) -> list[str]:
        """The topics that there were messages on, in the order of the first one on each."""
        return list(dict.fromkeys(message.topic for message in self.captured))

    @property
    def last(self) -> T:
        """The data of the newest one. Raises AssertionError if there is none."""
        found = self.captured
        if not found:
            raise AssertionError(f"nothing was published on {self.topic!r}{self._instead()}")
        data: T = found[-1].data
        return data

    def on(self, topic: str) -> list[T]:
        """The data of those on one topic of the pattern."""
        return [message.data for message in self.captured if message.topic == topic]

    def __len__(self) -> int:
        return len(self._packets)

    def __iter__(self) -> Iterator[T]:
        return iter(self.messages)

    def __repr__(self) -> str:
        return f"<{len(self)} messages on {self.topic!r}>"

    def clear(self) -> None:
        """Forget what came so far."""
        with self._broker.changed:
            self._packets.clear()
            self._read.clear()

    # Waiting.

    def wait(self, count: int = 1, timeout: float = DEADLINE) -> list[T]:
        """The data of all messages, as soon as there are ``count`` at least.

        Raises AssertionError after ``timeout`` seconds, with what came instead, and RuntimeError
        on an event loop, which it would block: there it is ``await arrived()``.
        """
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("wait() would block the event loop; use: await capture.arrived(...)")
        deadline = time.monotonic() + timeout
        with self._broker.changed:
            while len(self._packets) < count:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(self._too_few(count, timeout))
                self._broker.changed.wait(left)
        return self.messages

    async def arrived(self, count: int = 1, timeout: float = DEADLINE) -> list[T]:
        """As ``wait``, for asyncio. On a ``VirtualLoop`` the time is that of the loop."""
        news = asyncio.Event()
        entry = (asyncio.get_running_loop(), news)
        with self._broker.changed:
            self._waiting.append(entry)
        try:
            async with asyncio.timeout(timeout):
                while len(self._packets) < count:
                    news.clear()
                    if len(self._packets) < count:  # one may have come just before that
                        await news.wait()
        except TimeoutError:
            raise AssertionError(self._too_few(count, timeout)) from None
        finally:
            with self._broker.changed:
                self._waiting.remove(entry)
        return self.messages

    # Failing.

    def _too_few(self, count: int, timeout: float) -> str:
        came = len(self)
        many = f"{came} of {count} messages" if count > 1 else "no message"
        return f"{many} on {self.topic!r} within {timeout:g} s{self._came()}{self._instead()}"

    def _came(self) -> str:
        found = self.captured[-SHOWN:]
        if not found:
            return ""
        is_pattern = any(message.topic != self.topic for message in found)
        lines = (
            f"{message.topic}: {_shown.repr(message.data)}"
            if is_pattern
            else _shown.repr(message.data)
            for message in found
        )
        return "".join(f"\n  {line}" for line in lines)

    def _instead(self) -> str:
        """What came elsewhere, and the faults that there were."""
        with self._broker.changed:
            others = {
                topic: count
                for topic, count in self._broker.published.items()
                if not (topic.startswith(_OWN) or self._tap.matches(topic))
            }
            suffered = +self._broker.suffered
        text = ""
        if others:
            # First the ones that were probably meant.
            near = get_close_matches(self.topic, others, SHOWN)
            named = list(dict.fromkeys([*near, *others]))[:SHOWN]
            listed = ", ".join(f"{topic} ({others[topic]})" for topic in named)
            more = f" and {len(others) - len(named)} more topics" if len(others) > SHOWN else ""
            text += f"\npublished elsewhere: {listed}{more}"
        else:
            text += "\nnothing was published elsewhere"
        if suffered:
            faults = self._broker.faults
            seed = "" if faults is None else f" of seed {faults.seed!r}"
            struck = ", ".join(f"{count} {name}" for name, count in suffered.items())
            text += f"\nfaults{seed}: {struck}"
        return text
