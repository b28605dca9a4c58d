"""A bridge for calls whose connection to the services breaks while it waits for an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from collected import DEADLINE
from commlib import aio
from commlib._packet import Packet
from commlib.aio import _repeat
from commlib.aio.bridges import ActionBridge, RPCBridge
from commlib.exceptions import CommlibError, ConnectionLost, PayloadTooBig, RPCRemoteError
from commlib.transports.base import Address

HERE, THERE = "memory://rpc-bridge-here", "memory://rpc-bridge-there"


class Work:
    """A service that answers when it may."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.count = 0

    async def __call__(self, request: Any) -> Any:
        self.count += 1
        self.begun.set()
        await self.may_end.wait()
        return {"n": 7}


@asynccontextmanager
async def nodes() -> AsyncIterator[tuple[aio.Node, aio.Node]]:
    async with aio.Node("here", HERE) as here, aio.Node("there", THERE) as there:
        yield here, there


def lose(bridge: aio.bridges.Bridge, error: CommlibError | None = None) -> None:
    """No reply to what was asked will come: the connection breaks, or it is another error."""
    caller = bridge.sink.caller
    assert caller._calls._under_way, "it waits for a reply"
    for token in list(caller._calls._under_way):
        caller._take(token, error or ConnectionLost("cut by the test"))


async def soon(awaitable: Any) -> Any:
    async with asyncio.timeout(DEADLINE):
        return await awaitable


async def test_who_calls_is_told_that_the_reply_is_lost() -> None:
    work = Work()
    async with nodes() as (here, there), RPCBridge(None, "near", "far", HERE, THERE) as bridge:
        there.create_rpc("far", work)
        calling = asyncio.ensure_future(here.create_rpc_client("near").call({}, timeout=DEADLINE))
        await soon(work.begun.wait())
        lose(bridge)
        with pytest.raises(RPCRemoteError, match="ConnectionLost: cut by the test"):
            await soon(calling)
        work.may_end.set()


async def test_who_calls_is_told_that_the_bridge_is_stopped_before_the_reply_comes() -> None:
    work = Work()
    async with nodes() as (here, there), RPCBridge(None, "near", "far", HERE, THERE) as bridge:
        there.create_rpc("far", work)
        calling = asyncio.ensure_future(here.create_rpc_client("near").call({}, timeout=3600))
        await soon(work.begun.wait())
        await soon(bridge.stop())
        text = "EndpointClosed: the bridge was stopped while it worked on this request"
        with pytest.raises(RPCRemoteError, match=text):
            await soon(calling)
        work.may_end.set()


async def test_of_a_goal_whose_answer_a_stopped_bridge_has_lost_nobody_says_that_it_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, answers = asyncio.Event(), []
    async with nodes() as (here, _), ActionBridge(None, "near", "far", HERE, THERE) as bridge:

        def pass_on(to: str | Address, packet: Packet) -> bool:
            asked.set()
            return True

        def answer(to: str | Address, packet: Packet) -> bool:
            answers.append(packet)
            return True

        monkeypatch.setattr(bridge.sink.transport, "send", pass_on)
        monkeypatch.setattr(bridge.hub.transport, "send", answer)
        client = here.create_action_client("near")
        sending = asyncio.ensure_future(client.send_goal({}, timeout=3600))
        await soon(asked.wait())
        await soon(bridge.stop())
        assert answers == []
        sending.cancel()
        await soon(asyncio.wait([sending]))


async def test_a_call_that_may_be_repeated_is_and_handled_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_repeat, "FIRST_PAUSE", 0.1)
    work = Work()
    async with nodes() as (here, there), RPCBridge(None, "near", "far", HERE, THERE) as bridge:
        there.create_rpc("far", work)
        client = here.create_rpc_client("near", idempotent=True)
        calling = asyncio.ensure_future(client.call({}, timeout=DEADLINE))
        await soon(work.begun.wait())
        lose(bridge)
        work.may_end.set()
        assert await soon(calling) == {"n": 7}
        assert work.count == 1
        assert bridge.stats.errors == 1


async def test_what_no_repetition_mends_is_told_at_once() -> None:
    work = Work()
    async with nodes() as (here, there), RPCBridge(None, "near", "far", HERE, THERE) as bridge:
        there.create_rpc("far", work)
        client = here.create_rpc_client("near", idempotent=True)
        calling = asyncio.ensure_future(client.call({}, timeout=3600))
        await soon(work.begun.wait())
        lose(bridge, PayloadTooBig(2, 1))
        with pytest.raises(RPCRemoteError, match="PayloadTooBig"):
            await soon(calling)
        work.may_end.set()


async def test_a_goal_that_was_heard_of_is_followed_though_its_answer_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = Work()
    async with nodes() as (here, there), ActionBridge(None, "near", "far", HERE, THERE) as bridge:
        there.create_action("far", None, work)
        client = here.create_action_client("near")
        transport = bridge.sink.transport
        send = transport.send

        def send_and_lose(to: str | Address, packet: Packet) -> bool:
            monkeypatch.undo()
            asyncio.get_running_loop().call_soon(lose, bridge)
            return send(to, packet)

        monkeypatch.setattr(transport, "send", send_and_lose)
        goal = await soon(client.send_goal({}, timeout=1))
        assert bridge.stats.errors == 1
        work.may_end.set()
        assert await soon(goal.result()) == {"n": 7}
