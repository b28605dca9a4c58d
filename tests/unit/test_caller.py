"""Whose reply it is that comes to an address."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import msgspec
import pytest

from collected import DEADLINE
from commlib._packet import Header, Packet
from commlib._wire import Writer
from commlib.aio import _caller
from commlib.aio._caller import Call, Caller
from commlib.compression import compressor
from commlib.exceptions import CommlibError, RPCTimeout
from commlib.transports.base import Address, NotServedYet, ReplyHandler, Traits, Transport


class Lines:
    """A transport that keeps what is sent, with addresses that are used again."""

    capacity = 32
    traits = Traits()

    def __init__(self) -> None:
        self.sent: list[Packet] = []
        self._is_sent = asyncio.Event()

    async def open_inbox(self, handler: ReplyHandler) -> Lines:
        self.handler = handler
        return self

    def address(self, token: str) -> Address:
        return Address(f"inbox.{token}")

    def release(self, token: str, *, unused: bool = False) -> None:
        """It has none to take back."""

    async def close(self) -> None:
        """It leaves nothing."""

    def send(self, to: str, packet: Packet) -> bool:
        self.sent.append(packet)
        self._is_sent.set()
        return True

    async def has_sent(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE):
            while len(self.sent) < count:
                self._is_sent.clear()
                await self._is_sent.wait()


@pytest.fixture
def lines() -> Lines:
    return Lines()


async def opened(lines: Lines) -> Caller:
    caller = Caller(cast("Transport", lines))
    await caller.open()
    return caller


async def asked(caller: Caller, call_id: str = "") -> tuple[Call, asyncio.Task[Any]]:
    """A call that was sent, and who waits for its outcome."""
    call = caller.new_call()
    call.id = call_id
    writer = Writer[Any](None)
    call.fill("service", writer, writer.encode({}), 5.0, lambda outcome: None)
    waiting = asyncio.create_task(caller.ask(call, lambda: RPCTimeout("nobody")))
    await asyncio.sleep(0)
    return call, waiting


def reply(call_id: str, data: Any = None, **more: Any) -> bytes:
    return json.dumps(
        {"header": {"timestamp": 1, "id": call_id, **more}, "data": data}, separators=(",", ":")
    ).encode()


@pytest.mark.parametrize(
    "write",
    [
        lambda token: reply(token),
        lambda token: reply(""),
        lambda token: b'{"header":{},"data":{}}',
        lambda token: b'{ "header": { "id" : "%b" }, "data": {}}' % token.encode(),
        lambda token: reply(token, origin="x" * 1000),
        lambda token: reply(token, reply_to="x" * 1000),
        lambda token: msgspec.msgpack.encode({"header": {"id": token}, "data": {}}),
        lambda token: (compressor("zlib") or bytes)(reply(token)),
        lambda token: b"no envelope at all",
    ],
)
async def test_a_reply_says_whose_it_is_or_nothing(lines: Lines, write: Any) -> None:
    caller = await opened(lines)
    call, waiting = await asked(caller)
    assert lines.handler(call.token, Packet(write(call.token)))
    outcome = await waiting
    assert isinstance(outcome, Packet)
    assert outcome.payload == write(call.token)
    assert outcome.correlation_id == call.token


@pytest.mark.parametrize(
    "write",
    [
        lambda token: reply("of-another"),
        lambda token: reply(f"{token}0"),
        lambda token: reply("of-another", f'"id":"{token}"'),
        lambda token: reply("of-another", traceparent=f'"id":"{token}"'),
        lambda token: msgspec.msgpack.encode({"header": {"id": "of-another"}, "data": token}),
    ],
)
async def test_a_reply_to_another_call_is_late_and_ends_none(lines: Lines, write: Any) -> None:
    caller = await opened(lines)
    call, waiting = await asked(caller)
    assert not lines.handler(call.token, Packet(write(call.token)))
    assert caller.late == 1
    assert lines.handler(call.token, Packet(reply(call.token, 5)))
    assert (await waiting).payload == reply(call.token, 5)


async def test_a_header_beside_the_reply_says_whose_it_is(lines: Lines) -> None:
    caller = await opened(lines)
    call, waiting = await asked(caller)
    own = reply(call.token)
    assert not lines.handler(call.token, Packet(own, header=Header(id="of-another")))
    assert lines.handler(call.token, Packet(b"{}", header=Header(id=call.token)))
    assert (await waiting).payload == b"{}"


async def test_an_id_of_its_own_is_what_a_reply_echoes(lines: Lines) -> None:
    caller = await opened(lines)
    call, waiting = await asked(caller, "the-first-attempt")
    assert lines.handler(call.token, Packet(reply("the-first-attempt")))
    outcome = await waiting
    assert outcome.correlation_id == "the-first-attempt"


async def test_a_request_that_has_reached_nobody_is_sent_again_as_it_was(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_caller, "FIRST_PAUSE", 0.0)
    caller = await opened(lines)
    call, waiting = await asked(caller)
    for sent in (2, 3):
        assert lines.handler(call.token, NotServedYet("nobody"))
        await lines.has_sent(sent)
    assert lines.sent[0] is lines.sent[1] is lines.sent[2]
    assert 0 < (lines.sent[0].ttl or 0) < call.timeout
    assert lines.handler(call.token, Packet(reply(call.token, 5)))
    assert (await waiting).payload == reply(call.token, 5)


@pytest.mark.parametrize("end", ["time is up", "it is closed"])
async def test_one_that_nobody_waits_for_any_more_is_not(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(_caller, "FIRST_PAUSE", 0.0)
    caller = await opened(lines)
    call, waiting = await asked(caller)
    assert lines.handler(call.token, NotServedYet("nobody"))
    if end == "it is closed":
        await caller.close()
    else:
        caller.drop(call.token, RPCTimeout("nobody"))
    assert isinstance(await waiting, CommlibError)
    await asyncio.sleep(0.01)  # the loop's timer of no time at all is over by then
    assert len(lines.sent) == 1


async def test_so_many_addresses_are_kept_ready_and_each_is_used_once(
    lines: Lines,
) -> None:
    caller = await opened(lines)
    for _ in range(5):
        caller.book()
    calls = [caller.new_call() for _ in range(4)]
    ready = [call for call in calls if call.address is not None]
    assert len(ready) == lines.capacity // 16
    assert len({call.token for call in calls}) == 4


async def test_nothing_is_kept_ready_before_there_are_addresses(lines: Lines) -> None:
    caller = Caller(cast("Transport", lines))
    caller.book()
    assert caller.new_call().address is None
