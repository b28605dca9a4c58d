"""Which filters a broker is asked for, and who gets what it sends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from commlib._packet import Packet
from commlib.exceptions import AuthError, ConnectError
from commlib.transports import _mqtt_board as module
from commlib.transports import _mqtt_control as control
from commlib.transports import _mqtt_frames as frames
from commlib.transports._confirmation import Ending
from commlib.transports._mqtt_board import Board, Boards
from commlib.transports._mqtt_channel import Channel
from commlib.transports._mqtt_control import V5, V311
from commlib.transports.base import LinkStats
from mqtt_wire import Wire


class Network:
    """All connections of one transport to a broker that says yes to everything."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.numbered = version == V5
        self.wires: dict[Board, Wire] = {}
        self.closed: list[Board] = []
        self.stats = LinkStats()
        self.boards = Boards(self.stats, self._open, self.closed.append)
        self.got: list[tuple[str, str, bytes]] = []

    async def begin(self) -> None:
        self.boards.settle(numbered=self.numbered)
        await self.link(self.boards.main)

    async def link(self, board: Board) -> list[str]:
        """Connect a board; the filters that it asks for."""
        wire = self.wires[board] = Wire(self.version)
        restored = asyncio.ensure_future(board.restore(wire.link))
        asked = []
        while not restored.done():
            await asyncio.sleep(0)
            asked += self.answer()
        await restored
        return asked

    def _open(self) -> Board:
        board = Board(self.stats)
        wire = self.wires[board] = Wire(self.version)
        board.attach(wire.link)
        return board

    def add(
        self, topic: str, who: str = "", **options: bool
    ) -> tuple[Channel, Callable[..., None]]:
        def take(packet: Packet) -> None:
            self.got.append((who or topic, packet.topic, packet.payload))

        return self.boards.add(topic, take, **options), take

    def asked(self) -> list[str]:
        """The filters that were asked for, or with a minus given up, since the last look."""
        found = []
        for wire in self.wires.values():
            for packet in wire.packets():
                if packet[0] == control.SUBSCRIBE:
                    found.append(self._filter(packet[2:-1]))
                elif packet[0] == control.UNSUBSCRIBE:
                    found.append(f"-{self._filter(packet[2:])}")
        return found

    def _filter(self, body: bytes) -> str:
        at = 2 + (body[2] + 1 if self.version == V5 else 0)
        return body[at + 2 :].decode()

    def answer(self, code: int = 2) -> list[str]:
        """Say the same to all questions."""
        found = []
        for wire in self.wires.values():
            for packet in wire.packets():
                if packet[0] == control.SUBSCRIBE:
                    found.append(self._filter(packet[2:-1]))
                    nothing = b"\x00" if self.version == V5 else b""
                    body = packet[2:4] + nothing + bytes((code,))
                    wire.comes(b"\x90%c%b" % (len(body), body))
                elif packet == control.PINGREQ:
                    wire.comes(b"\xd0\x00")
        return found

    def says(self, topic: str, payload: bytes = b"", *numbers: int, flags: int = 0) -> None:
        """The broker sends a message to the first connection."""
        told = b"".join(b"\x0b%c" % number for number in numbers)
        properties = bytes((len(told),)) + told if self.version == V5 else None
        wire = self.wires[self.boards.main]
        wire.comes(wire.publish(topic, payload, flags, properties))

    def takers(self) -> list[str]:
        """Who got something since the last look."""
        found = sorted(who for who, _, _ in self.got)
        self.got.clear()
        return found


async def network(version: int) -> Network:
    """A broker that is connected."""
    network = Network(version)
    await network.begin()
    return network


# ---- with numbers ----


async def test_each_filter_has_a_number_and_a_copy_goes_to_its_own() -> None:
    new = await network(V5)
    for topic in ("o.*", "o.a", "o.*.c"):
        new.add(topic)
    assert new.answer() == ["o/#", "o/a", "o/+/c"]
    new.says("o/a", b"", 1)
    new.says("o/a", b"", 2)
    assert new.takers() == ["o.*", "o.a"]
    new.says("o/a", b"", 1, 2)  # one copy for both
    assert new.takers() == ["o.*", "o.a"]
    new.says("o/a", b"", 99)
    new.says("unknown", b"")
    assert new.takers() == []


async def test_whoever_comes_or_goes_is_heeded_with_the_next_message() -> None:
    new = await network(V5)
    first, take = new.add("a.b", "first")
    new.add("other")
    for _ in range(2):
        new.says("a/b", b"", 1)
        new.says("other", b"", 2)
    assert new.takers() == ["first", "first", "other", "other"]
    new.add("a.b", "second")
    third, takes = new.add("a/b", "third")
    for _ in range(2):
        new.says("a/b", b"", 1)
    assert new.takers() == ["first", "first", "second", "second", "third", "third"]
    new.boards.remove(first, take)
    new.says("a/b", b"", 1)
    assert new.takers() == ["second", "third"]
    new.boards.remove(third, takes)
    for _ in range(2):
        new.says("a/b", b"", 1)
    assert new.got == [("second", "a.b", b"")] * 2
    new.takers()
    new.says("other", b"", 2)
    assert new.takers() == ["other"]


async def test_a_topic_whose_number_was_not_its_own_still_gets_what_is_stored() -> None:
    new = await network(V5)
    new.add("a")
    new.add("b")
    new.says("b", b"", 1)  # as only a broker says it that is wrong
    new.got.clear()
    new.says("a", b"stored", 1, flags=frames.RETAIN)
    assert new.got == [("a", "a", b"stored")]


async def test_both_spellings_of_a_name_share_a_filter() -> None:
    new = await network(V5)
    new.add("a.b")
    new.add("a/b")
    assert new.answer() == ["a/b", "a/b"]
    new.says("a/b", b"", 1)
    assert new.got == [("a.b", "a.b", b""), ("a/b", "a/b", b"")]


async def test_a_pattern_is_filtered_again_by_our_grammar() -> None:
    new = await network(V5)
    new.add("a.*")
    new.add("a/*")
    new.add("a/#")
    for topic in ("a", "a/b", "a/b/c"):
        new.says(topic, b"", 1)
    assert [name for who, name, _ in new.got if who == "a.*"] == ["a.b", "a.b.c"]
    assert [name for who, name, _ in new.got if who == "a/*"] == ["a/b", "a/b/c"]
    assert [name for who, name, _ in new.got if who == "a/#"] == ["a", "a/b", "a/b/c"]


async def test_those_who_share_ask_for_a_share() -> None:
    new = await network(V5)
    channel, take = new.add("work", is_queue=True)
    new.add("work", "all")
    assert new.answer() == ["$share/commlib/work", "work"]
    new.says("work", b"", 1)
    assert new.takers() == ["work"]
    new.says("work", b"", 2)
    assert new.takers() == ["all"]
    new.boards.remove(channel, take)
    assert new.asked() == ["-$share/commlib/work"]


# ---- without numbers ----


async def test_what_is_covered_is_served_from_what_the_wider_filter_brings() -> None:
    old = await network(V311)
    old.add("o.*")
    old.add("o.a")
    old.add("o.b.c")
    # Asked for again, so that each gets what the broker has stored.
    assert old.answer() == ["o/#", "o/#", "o/#"]
    old.says("o/a")
    assert old.takers() == ["o.*", "o.a"]
    old.says("o/b/c")
    assert old.takers() == ["o.*", "o.b.c"]


@pytest.mark.parametrize(
    ("first", "second"), [("o.a", "o.*"), ("*.a.b", "o.*.b"), ("o/+/x", "o/y/+"), ("a", "a/#")]
)
async def test_what_overlaps_without_being_covered_needs_a_connection_of_its_own(
    first: str, second: str
) -> None:
    old = await network(V311)
    old.add(first)
    channel, take = old.add(second)
    assert len(old.wires) == 2
    assert channel.wanted is not None
    assert channel.wanted.board is not old.boards.main
    old.add(second.replace("*", "z").replace("+", "z").replace("#", "z"), "covered")
    assert len(old.wires) == 2, "it finds room on one of the two"
    old.boards.remove(channel, take)
    covered = next(c for c in old.boards._channels.values() if c is not channel)
    assert covered.wanted is not None


async def test_a_further_connection_is_closed_with_its_last_filter() -> None:
    old = await network(V311)
    old.add("o.a")
    channel, take = old.add("o.*")
    assert channel.wanted is not None
    board = channel.wanted.board
    old.boards.remove(channel, take)
    assert old.closed == [board]


async def test_what_does_not_overlap_shares_the_connection() -> None:
    old = await network(V311)
    for topic in ("a.b", "a.c", "b.*", "c/+/d", "c/+/e", "rpc-1/+"):
        old.add(topic)
    assert len(old.wires) == 1
    for topic, takers in {"a/b": ["a.b"], "b/x": ["b.*"], "rpc-1/t": ["rpc-1/+"]}.items():
        old.says(topic)
        assert old.takers() == takers


async def test_a_filter_stays_as_long_as_what_it_covers() -> None:
    old = await network(V311)
    wide, take_wide = old.add("o.*")
    narrow, take_narrow = old.add("o.a")
    old.answer()
    old.boards.remove(wide, take_wide)
    assert old.asked() == []
    old.says("o/a")
    old.says("o/b")
    assert old.takers() == ["o.a"]
    old.boards.remove(narrow, take_narrow)
    assert old.asked() == ["-o/#"]


# ---- what the broker has stored ----


@pytest.mark.parametrize("version", [V311, V5])
async def test_what_is_stored_goes_to_those_who_have_just_come(version: int) -> None:
    broker = await network(version)
    numbers = (1,) if version == V5 else ()
    broker.add("a", "first")
    broker.answer()
    broker.says("a", b"old", *numbers, flags=frames.RETAIN)
    assert broker.takers() == ["first"]
    broker.add("a", "second")
    assert broker.answer() == ["a"]
    broker.says("a", b"old", *numbers, flags=frames.RETAIN)
    assert broker.takers() == ["second"]
    broker.says("a", b"new", *numbers)
    assert broker.takers() == ["first", "second"]


@pytest.mark.parametrize("version", [V311, V5])
async def test_what_is_stored_may_take_its_time(version: int) -> None:
    broker = await network(version)
    numbers = (1,) if version == V5 else ()
    broker.add("a.*", "first")
    broker.answer()
    await asyncio.sleep(0)
    broker.says("a/1", b"", *numbers, flags=frames.RETAIN)
    broker.add("a.*", "second")
    for n in (2, 1, 2):  # at QoS 1 what was asked for first may still be under way
        broker.says(f"a/{n}", b"", *numbers, flags=frames.RETAIN)
    assert sorted((who, name) for who, name, _ in broker.got) == [
        ("first", "a.1"),
        ("first", "a.2"),
        ("second", "a.1"),
        ("second", "a.2"),
    ]


async def test_after_a_while_of_silence_nothing_stored_is_under_way_any_more() -> None:
    new = await network(V5)
    new.add("a", "first")
    for _ in range(4):
        new.answer()
        await asyncio.sleep(0)
    wire = new.wires[new.boards.main]
    assert control.PINGREQ not in wire.packets()
    new.says("a", b"", 1, flags=frames.RETAIN)
    assert new.takers() == []


async def test_a_stored_request_is_nobodys() -> None:
    new = await network(V5)
    new.add("work", is_queue=True)
    new.says("work", b"", 1, flags=frames.RETAIN)
    assert new.takers() == []
    assert new.stats.expired == 1


# ---- yes, no, and again ----


async def test_replies_go_to_their_inbox_and_to_whoever_else_begins_to_listen() -> None:
    net = await network(V5)
    net.add("rpc-x/+", "inbox", is_queue=True)
    net.answer()
    for token in "abc":
        net.says(f"rpc-x/{token}", b"", 1)
    assert net.takers() == ["inbox"] * 3
    net.add("rpc-x/b", "other")
    net.answer()
    net.says("rpc-x/b", b"", 1)
    net.says("rpc-x/b", b"", 2)
    net.says("rpc-x/b", b"", 1, 2)
    net.says("rpc-x/a", b"", 1)
    assert net.takers() == ["inbox"] * 3 + ["other"] * 2


async def test_without_numbers_replies_are_looked_at_one_by_one() -> None:
    net = await network(V311)
    net.add("rpc-x/+", "inbox", is_queue=True)
    net.add("rpc-x/b", "other")
    net.answer()
    for token in "abab":
        net.says(f"rpc-x/{token}")
    assert net.takers() == ["inbox"] * 4 + ["other"] * 2


async def test_the_brokers_word_is_waited_for() -> None:
    new = await network(V5)
    channel, _ = new.add("a")
    assert not channel.confirmed.done()
    new.answer()
    await channel.confirmed


@pytest.mark.parametrize(
    ("code", "kind"), [(0x87, AuthError), (0x80, ConnectError), (0x8F, ConnectError)]
)
async def test_a_no_is_raised(code: int, kind: type[Exception]) -> None:
    new = await network(V5)
    channel, _ = new.add("a")
    new.answer(code)
    with pytest.raises(kind, match="SUBSCRIBE a: the broker says"):
        await channel.confirmed


async def test_a_new_connection_is_asked_for_everything() -> None:
    new = await network(V5)
    kept = [new.add(topic)[0] for topic in ("a", "b.*")]
    gone, take = new.add("c")
    new.answer()
    new.boards.main.attach(None)
    new.boards.remove(gone, take)
    late, _ = new.add("d")

    assert not any(channel.confirmed.done() for channel in (*kept, late))
    new.wires.clear()
    assert await new.link(new.boards.main) == ["a", "b/#", "d"]
    for channel in (*kept, late):
        await channel.confirmed


async def test_another_kind_of_broker_gives_all_filters_another_place() -> None:
    new = await network(V5)
    for topic in ("o.*", "o.a", "*.a"):
        new.add(topic)
    new.version = V311
    new.boards.settle(numbered=False)
    channels = list(new.boards._channels.values())
    places = [channel.wanted.board for channel in channels if channel.wanted is not None]
    assert places[0] is places[1] is new.boards.main
    assert places[2] is not new.boards.main


async def test_handlers_of_one_name_share_a_channel() -> None:
    new = await network(V5)
    first, take = new.add("a", "first")
    second, _ = new.add("a", "second")
    assert first is second
    new.says("a", b"", 1)
    assert new.takers() == ["first", "second"]
    new.boards.remove(first, take)
    new.boards.remove(first, take)  # once more: nothing happens
    new.says("a", b"", 1)
    assert new.takers() == ["second"]


async def test_what_a_refused_filter_covered_is_asked_for_by_itself() -> None:
    old = await network(V311)
    wide, take = old.add("*", "all")
    narrow, _ = old.add("a.b")
    inbox, _ = old.add("rpc-1/+", is_queue=True)
    assert old.answer(0x80)[:1] == ["#"]
    with pytest.raises(ConnectError, match="SUBSCRIBE #"):
        await wide.confirmed
    old.boards.remove(wide, take)
    assert set(old.answer()) >= {"a/b", "rpc-1/+"}
    await narrow.confirmed
    await inbox.confirmed
    assert len(old.wires) == 1


async def test_what_was_refused_is_tried_again_on_the_next_connection() -> None:
    old = await network(V311)
    wide, _ = old.add("*", "all")
    old.add("a.b")
    old.answer(0x80)
    old.answer()
    old.boards.settle(numbered=False)
    assert (await old.link(old.boards.main))[0] == "#"
    await wide.confirmed
    old.says("a/b")
    assert old.takers() == ["a.b", "all"]


# ---- what was refused is asked for again ----

REFUSED = 0x87


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was refused is asked for again at once."""
    monkeypatch.setattr(module, "AUTH_PAUSE", 0)


async def asked_again(new: Network) -> list[str]:
    """What is asked for when the pause after a refusal is over."""
    for _ in range(5):
        await asyncio.sleep(0)
    return new.asked()


async def test_a_right_that_is_given_back_makes_a_subscription_work_again(
    hasty: None, caplog: pytest.LogCaptureFixture
) -> None:
    new = await network(V5)
    channel, take = new.add("a")
    subscription = Ending(new.boards.remove, channel, take)
    assert not subscription.working, "the broker has not answered"
    new.answer()
    assert subscription.working
    await new.link(new.boards.main)
    channel.renew()
    assert not subscription.working
    new.boards.main.ask(channel.wanted, ())  # as a new connection does
    for _ in range(3):
        assert new.answer(REFUSED) == ["a"]
        assert not subscription.working
        for _ in range(5):
            await asyncio.sleep(0)
    assert new.answer() == ["a"]
    assert subscription.working
    await channel.confirmed
    assert await asked_again(new) == []
    assert caplog.text.count("a cannot be subscribed") == 1
    assert caplog.text.count("a is subscribed again") == 1


async def test_what_is_refused_when_nobody_wants_it_any_more_is_left_to_its_end() -> None:
    new = await network(V311)
    wide, take_all = new.add("a.*")
    queue, take = new.add("a.b", is_queue=True)
    assert queue.wanted is wide.wanted
    new.boards.remove(wide, take_all)
    new.boards.remove(queue, take, keep_until_confirmed=True)
    new.answer(0x80)
    assert not any(wire.link.closed.done() for wire in new.wires.values())


async def test_who_asks_for_what_was_refused_is_told_what_holds_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new = await network(V5)
    first, _ = new.add("a")
    new.answer(REFUSED)
    assert first.confirmed.exception() is not None
    second, _ = new.add("a", "second")
    assert second is first
    assert not second.confirmed.done()
    new.answer()
    await second.confirmed


@pytest.mark.parametrize("version", [V5, V311])
async def test_what_nobody_wants_any_more_is_not_asked_for_again(hasty: None, version: int) -> None:
    new = await network(version)
    channel, take = new.add("a")
    new.answer(REFUSED)
    new.boards.remove(channel, take)
    assert await asked_again(new) == ["-a"]


@pytest.mark.parametrize("version", [V5, V311])
async def test_without_a_connection_nothing_is_asked_for_again(hasty: None, version: int) -> None:
    new = await network(version)
    channel, _ = new.add("a")
    new.answer(REFUSED)
    new.boards.main.attach(None)
    assert await asked_again(new) == []
    assert not channel.working, "nobody has said anything else"


async def test_a_filter_that_is_asked_for_again_meets_no_other_one_that_overlaps(
    hasty: None,
) -> None:
    old = await network(V311)
    wide, _ = old.add("*")
    narrow, _ = old.add("a.b")
    assert old.answer(0x80)[:1] == ["#"]
    old.answer()
    assert (wide.working, narrow.working) == (False, True)
    assert await asked_again(old) == ["-#", "#"]
    assert wide.wanted is not None
    assert wide.wanted.board is not old.boards.main, "a/b is there"
    assert not wide.working


# ---- many ----


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was compared, or looked at, to find out how filters stand to each other."""
    made: list[str] = []
    for name in ("is_exact", "covers", "overlap"):
        real = getattr(module, name)

        def counting(*levels: Any, name: str = name, real: Callable[..., bool] = real) -> bool:
            made.append(name)
            return real(*levels)

        monkeypatch.setattr(module, name, counting)
    return made


@pytest.mark.parametrize("version", [V5, V311])
async def test_a_further_topic_is_not_compared_with_each_of_many(
    version: int, comparisons: list[str]
) -> None:
    new = await network(version)
    for number in range(300):
        new.add(f"a.t{number}")
    assert len(comparisons) < 300 * 10


@pytest.mark.parametrize("version", [V5, V311])
async def test_a_message_is_not_compared_with_each_of_many_patterns(
    version: int, comparisons: list[str]
) -> None:
    new = await network(version)
    for number in range(100):
        new.add(f"*.b{number}.c")
    new.answer()
    comparisons.clear()
    new.says("a/b7/c", b"", *([8] if version == V5 else []))
    assert new.takers() == ["*.b7.c"]
    assert len(comparisons) < 10
