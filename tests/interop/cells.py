"""The cells of the matrix: which test shows what of which pattern, in which direction.

Every test of a cell is under ``works``, ``fault`` or ``limit``, and ``test_page.py`` compares what
they say with ``docs/interop.md``.
"""

from __future__ import annotations

from enum import StrEnum

import pytest

TO_PEER, FROM_PEER = "to", "from"
"""Who publishes or calls: ours, towards the peer, or the peer."""

READS_ENVELOPES = {"0.6.3": True, "0.13.2": False}
"""The releases, and how ours has to publish for each: ``envelope=READS_ENVELOPES[version]``.

``releases/`` has what their environments need, ``peer.py`` in what they differ to program with.
"""

WRAPS_CALLS = {"0.6.3": False, "0.13.2": True}
"""How ours has to call the services of each on AMQP; elsewhere calls are wrapped anyway."""

VERSIONS = tuple(READS_ENVELOPES)

REDIS = ("redis",)
MQTT = ("mqtt", "mqtt311")  # ours speaks MQTT 5, and 3.1.1; the releases speak 3.1.1
AMQP = ("amqp",)
WRAPPING = (*REDIS, *MQTT)  # AMQP has properties for what an envelope is for
BROKERS = (*REDIS, *MQTT, *AMQP)
"""The brokers, each a fixture ``<name>_server`` with a ``url``, and one of ``released.WATCHES``."""

SECTIONS = {
    **dict.fromkeys(REDIS, "Redis"),
    **dict.fromkeys(MQTT, "MQTT"),
    **dict.fromkeys(AMQP, "AMQP"),
}
"""The section of the page that has the table of a broker; those of one section are the same."""


class Row(StrEnum):
    """The rows of the matrix, in the order of the page."""

    PUBSUB_TYPED = "PubSub, typed"
    PUBSUB_UNTYPED = "PubSub, untyped"
    PUBSUB_PATTERN = "PubSub by pattern, with the topic"
    PUBSUB_WRAPPED = "PubSub in an envelope"
    PUBSUB_BARE = "PubSub without an envelope"
    PUBSUB_NEGATIVE = "PubSub, negative numbers"
    PUBSUB_INFINITY = "PubSub, infinity"
    PUBSUB_NAN = "PubSub, NaN"
    PUBSUB_NEW_FIELD = "PubSub, typed, a field that the subscriber does not know"
    PUBSUB_BOTH = "PubSub, both sides set to compress"
    PUBSUB_SENDER = "PubSub, only the publisher set to compress"
    PUBSUB_READER = "PubSub, only the subscriber set to compress"
    EVENT = "Event"
    RPC_TYPED = "RPC, typed"
    RPC_UNTYPED = "RPC, untyped"
    RPC_WRAPPED = "RPC in an envelope"
    RPC_BARE = "RPC without an envelope"
    RPC_NEGATIVE = "RPC, negative numbers"
    RPC_ONE_CLIENT = "RPC, 200 calls at once through one client"
    RPC_MANY_CLIENTS = "RPC, 200 calls through 50 clients at once"
    RPC_AT_A_TIME = "RPC, a service that handles several requests at a time"
    RPC_WAITING = "RPC, a request sent before the service starts"
    RPC_LATE = "RPC, an answer that comes after its call has timed out"
    RPC_BESIDE = "RPC, a service of the release and one of ours on one name"
    RPC_RAISES = "RPC, the service raises"
    RPC_BOTH = "RPC, both sides set to compress"
    RPC_CLIENT = "RPC, only the client set to compress"
    RPC_SERVICE = "RPC, only the service set to compress"
    ACTION_TYPED = "Action, typed: goal, feedback, result"
    ACTION_UNTYPED = "Action, untyped: goal, feedback, result"
    ACTION_CALLBACKS = "Action, the callbacks of the client, in order"
    ACTION_INSTANT = "Action, goals that are done at once"
    ACTION_CANCEL = "Action, a goal that is cancelled"
    ACTION_BUSY = "Action, a second goal while the first one runs"
    ACTION_RAISES = "Action, the goal raises"


IMPOSSIBLE = {
    (Row.PUBSUB_WRAPPED, FROM_PEER, "0.13.2"),
    (Row.PUBSUB_BARE, FROM_PEER, "0.6.3"),
    # The rows for calls are of AMQP; elsewhere all are wrapped.
    (Row.RPC_WRAPPED, FROM_PEER, "0.6.3"),
    (Row.RPC_BARE, FROM_PEER, "0.13.2"),
    # 0.13.2 has no events, only subscribers of their topics.
    (Row.EVENT, FROM_PEER, "0.13.2"),
    # 0.6.3 knows no compression.
    *(
        (row, direction, "0.6.3")
        for row in (Row.PUBSUB_BOTH, Row.RPC_BOTH)
        for direction in (TO_PEER, FROM_PEER)
    ),
    (Row.PUBSUB_SENDER, FROM_PEER, "0.6.3"),
    (Row.PUBSUB_READER, TO_PEER, "0.6.3"),
    (Row.RPC_CLIENT, FROM_PEER, "0.6.3"),
    (Row.RPC_SERVICE, TO_PEER, "0.6.3"),
}
"""The cells that there are no programs for."""


def works(
    row: Row, direction: str, *versions: str, on: tuple[str, ...] = BROKERS
) -> pytest.MarkDecorator:
    """The test shows, for each of the versions (or all) on these brokers, that this works."""
    return _cell("works", row, direction, versions or VERSIONS, on)


def fault(
    row: Row, direction: str, *versions: str, on: tuple[str, ...] = BROKERS
) -> pytest.MarkDecorator:
    """The test shows what these versions do instead; its docstring tells it in one sentence."""
    return _cell("fault", row, direction, versions, on)


def limit(
    row: Row, direction: str, *versions: str, on: tuple[str, ...] = BROKERS
) -> pytest.MarkDecorator:
    """As ``fault``, where it is not the release that is to blame but ours."""
    return _cell("limit", row, direction, versions, on)


def _cell(
    kind: str, row: Row, direction: str, versions: tuple[str, ...], on: tuple[str, ...]
) -> pytest.MarkDecorator:
    """``conftest.py`` runs the test for each pair of broker and version of all its marks."""
    pairs = [(broker, version) for broker in on for version in versions]
    return pytest.mark.cell(kind, row, direction, pairs)
