"""`commlib doctor`: whether a broker and the nodes on it are well, and what to do where not."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from typing import TypeVar

import click

from commlib._packet import now_ms
from commlib._params import BaseParameters, NetworkParameters
from commlib.aio import Node
from commlib.cli._checks_link import check_clock, check_place, check_round_trip, failed_login
from commlib.cli._checks_nodes import check_nodes
from commlib.cli._checks_traffic import Ear, check_clocks, check_pings
from commlib.cli._common import CONNECT_SECONDS, command, discovering
from commlib.cli._findings import Finding, good, show, summary
from commlib.cli._options import JSON, WAIT, listen_option
from commlib.cli._printing import console, print_json, say
from commlib.cli._traffic import hearing
from commlib.exceptions import CommlibError, ConnectError

T = TypeVar("T")


@click.command()
@listen_option("How long to listen to what is published.", default=3.0)
@WAIT
@JSON
@command
async def doctor(url: BaseParameters, listen: float, wait: float, as_json: bool) -> None:
    """Examine the broker and the nodes on it; each finding comes with its cause and mend.

    It looks at the way to the broker (name, port, TLS, login, rights, round trip, clocks), listens
    to what is published (losses, delays, bridges that go in a circle), and compares what nodes tell
    of themselves (message classes, QoS, names, services). Nothing is changed.

    Exit status 1 if there is an error among the findings.
    """
    logging.getLogger("commlib").setLevel(logging.CRITICAL)  # what it tells is in the findings
    screen = console()
    findings = []
    async for finding in examine(url, listen, wait):
        findings.append(finding)
        if not as_json:
            show(finding, screen)
    if as_json:
        print_json({"broker": str(url), "findings": findings})
    else:
        say(f"\n{url}: {summary(findings)}")
    if any(finding.severity == "error" for finding in findings):
        raise SystemExit(1)


async def examine(params: BaseParameters, listen: float, wait: float) -> AsyncIterator[Finding]:
    """All findings, in the order in which they are made."""
    is_away = False
    if isinstance(params, NetworkParameters):
        async for finding in _check_places(params):
            is_away = is_away or finding.severity == "error"
            yield finding
    if is_away:
        return
    node = _own_node(params)
    try:
        fault = await _log_in(node)
        yield fault or good("login", f"{params} lets us in")
        if fault is None:
            yield await check_round_trip(node)
            yield check_clock(node)
            async for finding in _listen(node, listen, wait):
                yield finding
    finally:
        await node.stop()


async def _check_places(params: NetworkParameters) -> AsyncIterator[Finding]:
    """Each broker of several; that one is away is an error only if all of them are."""
    places = params.each_place()
    found = [[finding async for finding in check_place(place)] for place in places]
    are_away = [any(finding.severity == "error" for finding in each) for each in found]
    for each in found:
        for finding in each:
            if finding.severity == "error" and not all(are_away):
                yield Finding(
                    severity="warning",
                    check=finding.check,
                    text=f"{finding.text}; another broker stands in for it",
                    cause=finding.cause,
                    mend=finding.mend,
                )
            else:
                yield finding


def _own_node(params: BaseParameters) -> Node:
    # With ``reconnect`` nobody would say why there is no connection, but try again for ever.
    once = copy.copy(params)
    once.reconnect = False
    return Node("commlib-doctor", once, heartbeats=False, discovery=False)


async def _log_in(node: Node) -> Finding | None:
    """Connect; why that is not possible."""
    try:
        if not await node.wait_connected(CONNECT_SECONDS):
            raise ConnectError(f"the broker does not answer within {CONNECT_SECONDS:g} s")
        await node.run()
    except CommlibError as exc:
        return failed_login(exc)
    return None


async def _listen(node: Node, seconds: float, wait: float) -> AsyncIterator[Finding]:
    """What the nodes say, and what is heard of their messages meanwhile."""
    ear = Ear(node.hub.params.address, now_ms())
    loop = asyncio.get_running_loop()
    begin = loop.time()
    async with AsyncExitStack() as stack:
        # First, so that the answers of the nodes are heard, with the times in their headers.
        watch, fault = await _may_listen(stack.enter_async_context(hearing(node, ear.hear)))
        if fault is not None:
            yield fault
        discovery, fault = await _may_listen(stack.enter_async_context(discovering(node, wait)))
        if discovery is None:
            assert fault is not None, "it is one or the other"
            yield fault
            return
        nodes = discovery.nodes
        for finding in await check_pings(discovery, nodes):
            yield finding
        for finding in check_clocks(ear.ahead, nodes):
            yield finding
        if watch is not None:
            await asyncio.sleep(begin + seconds - loop.time())
            for finding in ear.findings(loop.time() - begin, watch.stats.dropped):
                yield finding
        nodes = discovery.nodes  # some may have come meanwhile
    for finding in check_nodes(nodes, node.hub.transport.traits, ear.topics):
        yield finding


async def _may_listen(beginning: Awaitable[T]) -> tuple[T | None, Finding | None]:
    """What listens, or that the broker does not let us."""
    try:
        return await beginning, None
    except CommlibError as exc:
        return None, Finding(
            severity="warning",
            check="rights",
            text=str(exc),
            cause="this user may not subscribe to everything, so not all can be looked at",
            mend="run it as a user who may read all topics",
        )
