"""What somebody does who has got in, and what is logged of somebody who has not."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from collected import DEADLINE, Collected, eventually
from commlib.node import Node


def check(node: Node, topic: str) -> None:
    """Publish, subscribe and call on this node."""
    seen = Collected()
    node.create_subscriber(topic, seen)
    node.create_rpc(f"{topic}.double", lambda request: {"n": request["n"] * 2})
    node.create_publisher(topic).publish({"n": 1})
    assert seen.first == {"n": 1}
    assert node.create_rpc_client(f"{topic}.double").call({"n": 4}, timeout=DEADLINE) == {"n": 8}


def round_trip(params: Any, topic: str) -> None:
    """The same with these parameters."""
    with Node("n", connection_params=params) as node:
        check(node, topic)


def the_warning(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    """The one thing that is logged for people; an error may be raised a moment before.

    A node may have several connections, of which the first one speaks.
    """
    eventually(lambda: _warnings(caplog) != [])
    (warning,) = _warnings(caplog)
    return warning


def _warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]
