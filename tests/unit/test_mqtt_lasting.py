"""Sessions that the broker keeps: who gets what it sends before it is asked for anything."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from collected import met
from commlib.exceptions import CommlibError
from commlib.transports import _mqtt_bytes as wire
from commlib.transports import _mqtt_control as control
from commlib.transports import _mqtt_frames as frames
from commlib.transports import _mqtt_lasting as module
from commlib.transports._mqtt_board import Board
from commlib.transports._mqtt_control import V5, V311
from commlib.transports._mqtt_lasting import NAMES, NUMBERED, Lasting, LastingBoard, LastingBoards
from commlib.transports.base import LinkStats
from mqtt_wire import Wire

BOTH = pytest.mark.parametrize("version", [V311, V5])


class Network:
    """The sessions of one client at a broker, which the test plays."""

    def __init__(self, version: int = V5) -> None:
        self.version = version
        self.stats = LinkStats()
        self.boards = LastingBoards(self._open, self._close)
        self.opened: dict[str, LastingBoard] = {}
        self.wires: dict[str, Wire] = {}
        self.got: list[tuple[str, Any]] = []
        self._acknowledged: list[bytes] = []

    def _open(self, end: str) -> LastingBoard:
        board = self.opened[end] = LastingBoard(self.stats, "broker")
        return board

    def _close(self, closed: Board) -> None:
        self.opened = {end: board for end, board in self.opened.items() if board is not closed}

    def settle(self) -> None:
        self.boards.settle(numbered=self.version == V5)

    def add(self, topic: str, who: str = "") -> Lasting:
        return self.boards.add(
            topic, lambda packet: self.got.append((who or topic, packet.payload))
        )

    def begin(self, end: str = NUMBERED, *kept: bytes, is_resumed: bool = True) -> None:
        """A connection; the broker sends what it has kept right behind its yes."""
        wires = self.wires[end] = Wire(self.version)
        wires.link.granted.is_resumed = is_resumed
        self.opened[end].prepare(wires.link)
        wires.comes(b"".join(kept))

    async def restore(self, end: str = NUMBERED, code: int = 2) -> list[str]:
        """The broker is asked for all filters, and says the same to all; which these are."""
        restoring = asyncio.ensure_future(self.opened[end].restore(self.wires[end].link))
        asked = []
        while not restoring.done():
            await asyncio.sleep(0)
            asked += self.answer(end, code)
        await restoring
        return asked

    def answer(self, end: str = NUMBERED, code: int = 2) -> list[str]:
        """Say the same to all questions; the filters asked for, or with a minus given up."""
        wires, found = self.wires[end], []
        nothing = b"\x00" if self.version == V5 else b""
        for packet in wires.packets():
            if packet[0] == control.SUBSCRIBE:
                found.append(self._text(packet, 1))
                body = packet[2:4] + nothing + bytes((code,))
                wires.comes(b"\x90%c%b" % (len(body), body))
            elif packet[0] == control.UNSUBSCRIBE:
                found.append(f"-{self._text(packet, 0)}")
                body = packet[2:4] + (b"\x00\x00" if self.version == V5 else b"")
                wires.comes(b"\xb0%c%b" % (len(body), body))
            elif packet == control.PINGREQ:
                wires.comes(b"\xd0\x00")
            else:
                self._acknowledged.append(packet)
        return found

    def _text(self, packet: bytes, behind: int) -> str:
        at = 4 + (packet[4] + 1 if self.version == V5 else 0)
        return wire.read_text(packet[: len(packet) - behind], at)[0]

    def message(
        self, topic: str, payload: bytes, *filters: str, packet_id: int = 1, qos: int = 1
    ) -> bytes:
        """A message that was kept for these filters."""
        told = b"".join(
            b"\x0b" + wire.length(LastingBoard(self.stats, "")._number_for(text))
            for text in filters
        )
        properties = wire.length(len(told)) + told if self.version == V5 else b""
        if not qos:
            return bytes(frames.publish(wire.text(topic), payload, 0, properties))
        head, rest = frames.publish_parts(
            wire.text(topic), payload, qos << frames.QOS_SHIFT, properties
        )
        return head + wire.u16.pack(packet_id) + bytes(rest)

    def acknowledged(self, end: str = NUMBERED) -> list[bytes]:
        """What was acknowledged since the last look."""
        self.answer(end)
        found, self._acknowledged = self._acknowledged, []
        return found


PUBACK = b"\x40\x02\x00\x01"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody claims is given up at once."""
    monkeypatch.setattr(module, "UNCLAIMED_SECONDS", 0)


# ---- where a filter is kept ----


async def test_with_numbers_one_session_has_all_filters() -> None:
    network = Network(V5)
    for topic in ("a.b", "a.*", "*.b"):
        network.add(topic)
    network.settle()
    assert [*network.opened] == [NUMBERED]
    network.begin()
    assert sorted(await network.restore()) == ["+/b", "a/#", "a/b"]


async def test_without_numbers_names_share_a_session_and_each_pattern_has_one() -> None:
    network = Network(V311)
    network.settle()
    for topic in ("a.b", "c", "a.*", "*.b"):
        network.add(topic)
    assert [*network.opened] == [NAMES, "-lasting-062f311a", "-lasting-7af9480a"]
    for end, filters in zip(network.opened, (["a/b", "c"], ["a/#"], ["+/b"]), strict=True):
        network.begin(end)
        assert await network.restore(end) == filters


async def test_the_number_of_a_filter_is_the_same_in_every_run() -> None:
    # What a broker has kept bears it: to change this loses messages.
    board = LastingBoard(LinkStats(), "")
    assert [board._number_for(text) for text in ("a/b", "a/#")] == [0x7F4401C, 0x62F311A]


# ---- what was kept ----


async def test_what_was_kept_comes_before_anything_is_asked_for_and_reaches_its_own() -> None:
    network = Network()
    for topic in ("a.b", "a.*"):
        network.add(topic)
    network.settle()
    network.begin(
        NUMBERED, network.message("a/b", b"1", "a/b"), network.message("a/b", b"2", "a/#")
    )
    assert network.got == [("a.b", b"1"), ("a.*", b"2")]
    assert network.acknowledged() == [PUBACK, PUBACK]


async def test_two_filters_of_one_number_are_told_apart_by_the_topic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LastingBoard, "_number_for", lambda self, text: 7)
    network = Network()
    for topic in ("a", "b"):
        network.add(topic)
    network.settle()
    network.begin(NUMBERED, network.message("b", b"1", "b"))
    assert network.got == [("b", b"1")]


async def test_so_are_their_new_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LastingBoard, "_number_for", lambda self, text: 7)
    network = Network()
    for topic in ("a", "b"):
        network.add(topic)
    network.settle()
    network.begin(NUMBERED)
    await network.restore()
    for topic in ("b", "a") * 2:
        network.wires[NUMBERED].comes(network.message(topic, b"1", topic, qos=0))
    assert network.got == [("b", b"1"), ("a", b"1")] * 2


async def test_what_the_broker_stores_of_a_topic_does_not_follow_what_it_has_kept() -> None:
    network = Network()
    network.add("a")
    network.settle()
    network.begin(NUMBERED, network.message("a", b"kept", "a"))
    restoring = asyncio.ensure_future(network.restore())
    await asyncio.sleep(0)
    retained = bytearray(network.message("a", b"kept", "a"))
    retained[0] |= frames.RETAIN
    network.wires[NUMBERED].comes(bytes(retained))
    await restoring
    assert network.got == [("a", b"kept")]


async def test_who_comes_late_gets_what_was_kept_in_order_and_only_then_is_it_acknowledged() -> (
    None
):
    network = Network()
    network.add("a")
    network.settle()
    kept = [network.message("b", payload, "b", packet_id=1) for payload in (b"1", b"2")]
    network.begin(NUMBERED, *kept)
    await network.restore()
    network.wires[NUMBERED].comes(network.message("b", b"3", "b"))
    assert network.acknowledged() == []
    network.add("b")
    assert network.got == [("b", b"1"), ("b", b"2"), ("b", b"3")]
    assert network.acknowledged() == [PUBACK] * 3


async def test_what_nobody_claims_is_dropped_and_its_filter_given_up(
    hasty: None, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network()
    network.add("a")
    network.settle()
    kept = [network.message(topic, b"x", "b/+/c") for topic in ("b/1/c", "b/2/c")]
    network.begin(NUMBERED, *kept, network.message("d", b"live", "d", qos=0))
    asked = await network.restore()
    await met(lambda: network.stats.expired == 3)
    assert {*asked, *network.answer()} == {"a", "-b/+/c", "-d"}
    assert network.acknowledged() == [PUBACK, PUBACK]
    assert [r.args[1] for r in caplog.records if r.args] == ["b/+/c", "d"]  # type: ignore[index]


async def test_the_rest_of_what_nobody_claims_is_dropped_as_it_comes(hasty: None) -> None:
    network = Network()
    network.add("a")
    network.settle()
    network.begin(NUMBERED, network.message("b", b"x", "b"))
    asked = await network.restore()
    await met(lambda: network.stats.expired == 1)
    assert {*asked, *network.answer()} == {"a", "-b"}
    network.wires[NUMBERED].comes(network.message("b", b"y", "b") * 2)
    assert (network.stats.expired, network.acknowledged()) == (3, [PUBACK] * 3)
    network.add("b")
    assert network.answer() == ["b"]
    network.wires[NUMBERED].comes(network.message("b", b"z", "b"))
    assert network.got == [("b", b"z")]


@BOTH
async def test_what_was_given_up_on_one_connection_may_be_wanted_on_the_next(
    version: int, hasty: None
) -> None:
    network = Network(version)
    end = NUMBERED if version == V5 else NAMES
    network.add("a")
    network.settle()
    network.begin(end, network.message("b", b"x", "b"))
    await met(lambda: network.stats.expired == 1)
    network.opened[end].attach(None)
    network.begin(end, network.message("b", b"y", "b"))
    network.add("b")
    assert network.got == [("b", b"y")]


async def test_what_is_live_is_not_held_for_who_may_come() -> None:
    network = Network()
    network.add("a")
    network.settle()
    live = [network.message("b", payload, "b", qos=0) for payload in (b"1", b"2")]
    network.begin(NUMBERED, *live, network.message("b", b"kept", "b"))
    assert network.stats.expired == 2
    network.add("b")
    assert network.got == [("b", b"kept")]


async def test_what_a_filter_matches_and_its_pattern_does_not_is_no_reason_to_give_it_up(
    hasty: None,
) -> None:
    network = Network()
    network.add("a.*")
    network.settle()
    network.begin(NUMBERED, network.message("a", b"1", "a/#"))
    assert network.acknowledged() == [PUBACK]
    await network.restore()
    await asyncio.sleep(0.01)
    assert network.answer() == []
    assert network.stats.expired == 0


@BOTH
async def test_what_waits_for_somebody_is_forgotten_with_its_connection(version: int) -> None:
    network = Network(version)
    end = NUMBERED if version == V5 else NAMES
    network.add("a")
    network.settle()
    network.begin(end, network.message("b", b"1", "b"))
    network.opened[end].attach(None)
    network.begin(end, network.message("b", b"1", "b"))
    network.add("b")
    assert network.got == [("b", b"1")], "the broker has sent it again"


async def test_what_was_received_at_qos_2_is_known_on_the_next_connection() -> None:
    network = Network()
    network.add("a")
    network.settle()
    message = network.message("a", b"1", "a", qos=2, packet_id=5)
    network.begin(NUMBERED, message)
    network.begin(NUMBERED, b"\x20\x03\x01\x00\x00", message)
    assert network.got == [("a", b"1")]
    network.begin(NUMBERED, b"\x20\x03\x00\x00\x00", message)
    assert network.got == [("a", b"1")] * 2, "of another session"


async def test_a_session_that_the_broker_has_forgotten_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = Network()
    network.add("a")
    network.settle()
    network.begin(is_resumed=False)
    await network.restore()
    assert not caplog.records, "in its first run there was none"
    network.begin(is_resumed=False)
    await network.restore()
    assert "is lost" in caplog.text


# ---- the end ----


async def test_what_is_ended_is_given_up_with_its_last_handler() -> None:
    network = Network()
    network.settle()
    first, second, other = network.add("a", "first"), network.add("a", "second"), network.add("b")
    network.begin()
    await network.restore()
    await first.close()
    assert network.answer() == []
    await second.close()
    await second.close()
    assert network.answer() == ["-a"]
    await other.close()
    assert network.answer() == ["-b"]
    await asyncio.sleep(0)
    assert not network.opened, "nobody needs the connection any more"


async def test_what_is_ended_while_the_connection_is_away_is_given_up_when_it_is_back() -> None:
    network = Network()
    network.settle()
    ended, again = network.add("a"), network.add("c")
    network.add("b")
    await ended.close()
    await again.close()
    network.add("c")
    network.begin()
    assert await network.restore() == ["-a", "b", "c"]


async def test_what_is_ended_is_given_up_again_if_the_broker_has_not_confirmed_it() -> None:
    network = Network()
    network.settle()
    subscription = network.add("a")
    network.begin()
    await network.restore()
    await subscription.close()
    network.wires[NUMBERED].link.abort(None)
    network.opened[NUMBERED].attach(None)
    await asyncio.sleep(0)
    network.begin(NUMBERED, network.message("a", b"1", "a"))
    assert network.acknowledged() == [PUBACK], "nobody is waited for"
    assert await network.restore() == ["-a"]
    await asyncio.sleep(0)
    assert (network.opened, network.got) == ({}, [])


async def test_what_is_ended_twice_is_confirmed_when_the_second_question_is_answered() -> None:
    network = Network()
    network.settle()
    network.add("b")
    first = network.add("a")
    network.begin()
    await network.restore()
    await first.close()
    unsubscribe = network.wires[NUMBERED].packets()[0]
    await network.add("a").close()
    body = unsubscribe[2:4] + b"\x00\x00"
    network.wires[NUMBERED].comes(b"\xb0%c%b" % (len(body), body))
    await asyncio.sleep(0)
    network.opened[NUMBERED].attach(None)
    network.begin()
    assert await network.restore() == ["-a", "b"]


async def test_the_connection_of_one_that_is_ended_while_it_is_away_is_closed_then() -> None:
    network = Network()
    network.settle()
    await network.add("a").close()
    assert network.opened, "the broker is to be told"
    network.begin()
    assert await network.restore() == ["-a"]
    await asyncio.sleep(0)
    assert not network.opened


async def test_what_is_kept_is_not_given_up_and_not_acknowledged_any_more() -> None:
    network = Network()
    network.settle()
    subscription = network.add("a")
    network.begin()
    await network.restore()
    subscription.keep()
    assert not network.opened, "its connection is closed"
    await subscription.close()
    network.wires[NUMBERED].comes(network.message("a", b"1", "a"))
    assert network.got == []
    assert network.wires[NUMBERED].packets() == []


async def test_what_comes_for_one_that_is_kept_while_others_go_on_reaches_nobody() -> None:
    network = Network()
    network.settle()
    kept = network.add("a")
    network.add("b")
    network.begin()
    await network.restore()
    kept.keep()
    await kept.close()
    network.wires[NUMBERED].comes(network.message("a", b"1", "a"))
    assert network.acknowledged() == [PUBACK], "else the others would wait for it"
    network.add("a")
    network.wires[NUMBERED].comes(network.message("a", b"2", "a"))
    assert network.got == [("a", b"2")]


async def test_what_was_left_can_be_subscribed_again_on_a_new_connection() -> None:
    network = Network()
    network.settle()
    subscription = network.add("a")
    subscription.keep()
    network.add("a", "again")
    network.begin()
    assert await network.restore() == ["a"]
    await subscription.close()
    network.wires[NUMBERED].comes(network.message("a", b"1", "a"))
    assert network.got == [("again", b"1")]


async def test_a_filter_that_is_refused_is_not_asked_for_again_without_a_handler(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = Network()
    network.settle()
    network.add("b")
    subscription = network.add("a")
    network.begin()
    assert await network.restore(code=0x87) == ["b", "a"]
    with pytest.raises(CommlibError, match="not authorized"):
        await subscription.channel.confirmed
    subscription.keep()
    await subscription.close()
    network.begin()
    assert await network.restore() == ["-a", "b"]


@BOTH
async def test_on_another_kind_of_broker_the_filters_find_other_places(version: int) -> None:
    network = Network(version)
    network.add("a")
    network.settle()
    before = [*network.opened]
    network.version = V311 if version == V5 else V5
    network.settle()
    assert sorted([*before, *network.opened]) == [NUMBERED, NAMES]
