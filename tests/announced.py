"""Nodes of a test that others know of: commands that ask who is there find them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import pytest

from collected import DEADLINE, eventually
from commlib._discovery import ANNOUNCE, WRITERS, Announcement, NodeInfo
from commlib._schemas import marked_schema
from commlib._wire import Reader
from commlib.aio import _beacon
from commlib.aio.discovery import Discovery
from commlib.msg import ActionMessage, PubSubMessage, RPCMessage
from commlib.node import Node
from raw_peer import RawPeer


class Number(PubSubMessage):
    value: int = 0


class Word(PubSubMessage):
    value: str = ""


class Add(RPCMessage):
    class Request(RPCMessage.Request):
        a: int = 0

    class Response(RPCMessage.Response):
        b: int = 0


class Drive(ActionMessage):
    class Goal(ActionMessage.Goal):
        x: float = 0.0

    class Result(ActionMessage.Result):
        y: float = 0.0

    class Feedback(ActionMessage.Feedback):
        z: float = 0.0


def answering_at_once(patch: pytest.MonkeyPatch) -> None:
    """Let nodes of this process tell of themselves at once, and those who ask not wait for more."""
    patch.setattr("commlib.aio.node.APPEARS_AFTER", 0.0)
    patch.setattr("commlib.aio._asked.JITTER", 0.0)
    patch.setattr("commlib.aio.discovery.QUIET", 0.02)
    patch.setattr(Discovery, "ask", _ask_for_all)


_ask = Discovery.ask


async def _ask_for_all(discovery: Discovery, wait: float = 1.0) -> list[NodeInfo]:
    """Ask again if a node of this process has not answered yet: a machine may stand still."""
    address = discovery.hub.params.address
    async with asyncio.timeout(wait + DEADLINE):
        while True:
            known = {node.id for node in await _ask(discovery, wait)}
            beacons = [by_address.get(address) for by_address in list(_beacon._beacons.values())]
            lives = [life for beacon in beacons if beacon for life in list(beacon._lives.values())]
            if known.issuperset(life.id for life in lives if life.info is not None):
                return discovery.nodes


@contextmanager
def announced(url: str, *nodes: Node) -> Iterator[None]:
    """Run nodes that have all their ports, until all of them are told of; then stop them."""
    peer = RawPeer(url)
    try:
        told, read = peer.subscribe(ANNOUNCE), Reader(Announcement)
        with ExitStack() as stack:
            for node in nodes:
                stack.enter_context(node)
            names = {node.node_name for node in nodes}

            def known() -> set[str]:
                said = (read.read(packet).data for packet in list(told.items))
                return {node.name for one in said for node in one.nodes}

            eventually(lambda: names <= known(), lambda: f"told of: {known()}")
            yield
    finally:
        peer.close()


def node(name: str, *ports: tuple[str, str, Any], **given: Any) -> NodeInfo:
    """What is told of a node with ports of ``(kind, name, class)``.

    A class stands for all parts of a pattern; ``given`` is of all ports.
    """
    schemas = {}
    endpoints = []
    for kind, topic, message in ports:
        parts = {}
        for part, kinds in WRITERS.items():
            if kind in kinds and message is not None:
                mark, schema = marked_schema(message)
                parts[part], schemas[mark] = mark, schema
        type_name = "" if message is None else message.__name__
        endpoints.append({"kind": kind, "name": topic, "type": type_name, "parts": parts} | given)
    raw = {"name": name, "id": name, "host": "here", "pid": 7, "endpoints": endpoints}
    return msgspec.convert(raw | {"schemas": schemas}, NodeInfo)
