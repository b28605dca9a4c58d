"""What a beacon says, as packets, how they are handed to a connection, and what is in others."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from commlib._discovery import ANNOUNCE, Announcement, Sign
from commlib._packet import Packet
from commlib._wire import Reader, Refused
from commlib.aio._hub import Hub
from commlib.aio.pubsub import Sender
from commlib.exceptions import CommlibError, PayloadTooBig

log = logging.getLogger("commlib.discovery")

T = TypeVar("T")

NODES_AT_ONCE = 16  # in one announcement


def in_portions(some: Sequence[T]) -> Iterator[Sequence[T]]:
    """The same, as many at a time as one announcement is to tell of."""
    return (some[at : at + NODES_AT_ONCE] for at in range(0, len(some), NODES_AT_ONCE))


def announcements(hub: Hub, said: Announcement) -> list[Packet]:
    """One packet, or as many as it takes, with less in them if they would be too big."""
    try:
        return [_sender(hub, Announcement).pack(said, ANNOUNCE)]
    except PayloadTooBig as exc:
        if len(said.nodes) > 1:
            half = len(said.nodes) // 2
            parts = said.nodes[:half], said.nodes[half:]
            return [p for nodes in parts for p in announcements(hub, replace(said, nodes=nodes))]
        for node in said.nodes:
            if node.schemas:
                return announcements(hub, replace(said, nodes=(replace(node, schemas={}),)))
            if node.endpoints:
                return announcements(hub, replace(said, nodes=(replace(node, endpoints=()),)))
        log.debug("%s: %s", ANNOUNCE, exc)
        return []


def sign_of_life(hub: Hub, sign: Sign) -> list[Packet]:
    """The packet for it, if there is room for one."""
    try:
        return [_sender(hub, Sign).pack(sign, ANNOUNCE)]
    except PayloadTooBig as exc:
        log.debug("%s: %s", ANNOUNCE, exc)
        return []


def offer(hub: Hub, topic: str, packet: Packet) -> bool:
    """Hand a packet to a connection; False if that is away or has no room now."""
    sender = _sender(hub, Announcement)
    try:
        return sender.connected and sender.post(packet, topic)
    except PayloadTooBig as exc:
        log.debug("%s: %s", topic, exc)
        return True  # it never will have room
    except CommlibError:
        return False


def _sender(hub: Hub, kind: Any) -> Sender[Any]:
    return Sender(ANNOUNCE, kind, None, hub=hub, sequence=False)


def said_in(packet: Packet, reader: Reader[T]) -> T | None:
    """What a message says, None if it makes no sense: strangers may send anything."""
    try:
        data: T = reader.read(packet).data
    except Refused as exc:
        log.debug("%s: %s", packet.topic, exc)
        return None
    return data
