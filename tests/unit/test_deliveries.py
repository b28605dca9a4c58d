"""Messages on their way out, until the broker has taken them over: what all kinds share."""

from __future__ import annotations

import asyncio

from commlib.transports._deliveries import MAX_LOSSES, MAX_WAITING, Deliveries, Delivery
from commlib.transports.base import LinkStats


class Numbered(Deliveries[Delivery]):
    """Numbers what it writes, and leaves the answers to the test."""

    def __init__(self, stats: LinkStats) -> None:
        super().__init__(stats, lambda topic, error: None)
        self.open = True
        self.window = 3
        self.written: list[str] = []
        self.refused: set[str] = set()
        self._number = 0

    @property
    def _window(self) -> int:
        return self.window if self.open else 0

    def _begin(self, delivery: Delivery) -> bytes:
        if delivery.topic in self.refused:
            return b""
        self._number += 1
        self._under_way[self._number] = delivery
        return delivery.frame

    def _write(self, out: list[bytes]) -> None:
        self.written += [frame.decode() for frame in out]

    def answer(self, *numbers: int) -> None:
        for number in numbers:
            self._end(number)
            self._pump()

    def lose(self) -> list[str]:
        """The connection is lost; what goes again on the next one, at once."""
        again = self.detach()
        self._number = 0
        self.written.clear()
        self.write([delivery.frame for delivery in again], list(again))
        return [delivery.topic for delivery in again]


class Sender:
    """Deliveries, and what is told of them."""

    def __init__(self, window: int = 3) -> None:
        self.stats = LinkStats()
        self.deliveries = Numbered(self.stats)
        self.deliveries.window = window
        self.room: list[bool] = []
        self.deliveries.on_room = self.room.append

    def send(self, *topics: str, qos: int = 1) -> None:
        frames = [topic.encode() for topic in topics]
        self.deliveries.write(frames, [Delivery(topic, qos, 0.0) for topic in topics])

    def sent(self) -> list[str]:
        written, self.deliveries.written = self.deliveries.written, []
        return written


async def test_no_more_is_under_way_than_the_window_has_room_for() -> None:
    sender = Sender(window=2)
    sender.send("a", "b", "c", "d")
    assert sender.sent() == ["a", "b"]
    sender.deliveries.answer(2)
    assert sender.sent() == ["c"]
    sender.deliveries.answer(1, 3)
    assert sender.sent() == ["d"]


async def test_what_is_refused_before_it_is_written_takes_no_room() -> None:
    sender = Sender(window=1)
    sender.deliveries.refused = {"bad"}
    sender.send("bad", "a", "bad", "b")
    assert sender.sent() == ["a"]
    sender.deliveries.answer(1)
    assert sender.sent() == ["b"]


async def test_while_the_window_is_shut_everything_waits() -> None:
    sender = Sender()
    sender.deliveries.open = False
    sender.send("a", "b")
    assert sender.sent() == []
    assert not sender.deliveries.is_idle
    sender.deliveries.open = True
    sender.send("c")
    assert sender.sent() == ["a", "b", "c"]


async def test_beyond_a_bound_there_is_no_room() -> None:
    sender = Sender(window=1)
    sender.send(*["a"] * MAX_WAITING)
    assert sender.room == []
    sender.send("a")
    assert sender.room == [False]
    sender.deliveries.answer(1)
    assert sender.room == [False, True]


async def test_beyond_a_bound_of_bytes_there_is_no_room_either() -> None:
    """As in an outbox: what waits there for a broker that takes nothing is bounded by 4 MB."""
    sender = Sender(window=1)
    sender.send(*["x" * 1_000_000] * 10)
    assert sender.room == [False]


async def test_drained_returns_when_the_broker_has_everything() -> None:
    sender = Sender(window=1)
    await sender.deliveries.drained()
    sender.send("a", "b")
    drained = [asyncio.ensure_future(sender.deliveries.drained()) for _ in range(2)]
    await asyncio.sleep(0)
    drained.pop().cancel()  # one of those who wait has given up
    sender.deliveries.answer(1)
    await asyncio.sleep(0)
    assert not drained[0].done()
    sender.deliveries.answer(2)
    await drained[0]


async def test_drained_returns_too_when_all_of_it_is_given_up() -> None:
    sender = Sender()
    sender.send("a", qos=2)
    drained = asyncio.ensure_future(sender.deliveries.drained())
    await asyncio.sleep(0)
    assert sender.deliveries.detach() == []
    await drained


async def test_a_thread_never_writes_by_itself() -> None:
    assert not Sender().deliveries.write_now(b"", None, True)


async def test_what_was_not_answered_goes_again_where_that_is_promised() -> None:
    sender = Sender(window=4)
    sender.send("one")
    sender.send("two", qos=2)
    sender.send("answered", "three", "waiting")
    sender.deliveries.answer(3)
    assert sender.deliveries.lose() == ["one", "three", "waiting"]
    assert sender.stats.unconfirmed == 1, "at QoS 2 the broker may have had it"


async def test_after_a_second_loss_those_that_were_under_way_go_one_by_one() -> None:
    sender = Sender(window=3)
    sender.send("a", "b", "c", "d", "e")
    sender.sent()
    sender.deliveries.lose()
    assert sender.sent() == ["a", "b", "c"], "links break for many a reason"
    sender.deliveries.lose()
    assert sender.sent() == ["a"]
    for number, topic in enumerate(["b", "c"], start=1):
        sender.deliveries.answer(number)
        assert sender.sent() == [topic]
    sender.deliveries.answer(3)
    assert sender.sent() == ["d", "e"], "none of these can have been the reason"


async def test_a_message_with_which_the_connection_is_lost_each_time_is_given_up() -> None:
    sender = Sender()
    sender.send("poison")
    for _ in range(MAX_LOSSES - 1):
        assert sender.deliveries.lose() == ["poison"]
    assert sender.deliveries.lose() == []
    assert sender.stats.unconfirmed == 1


async def test_a_message_that_ends_the_connection_takes_no_other_with_it() -> None:
    sender = Sender(window=10)
    sender.send("poison", "a", "b")
    for _ in range(MAX_LOSSES):
        sender.deliveries.lose()
    assert sender.sent() == ["a"]
    sender.deliveries.answer(1)
    assert sender.sent() == ["b"]
    assert sender.stats.unconfirmed == 1


async def test_a_loss_before_anything_was_written_costs_nothing() -> None:
    sender = Sender()
    sender.deliveries.open = False
    sender.send("a", "b")
    for _ in range(MAX_LOSSES + 1):
        assert sender.deliveries.lose() == ["a", "b"]
    sender.deliveries.open = True
    sender.send("c")
    assert sender.sent() == ["a", "b", "c"]
    assert sender.stats.unconfirmed == 0
