"""Discovery for those who may not take part in it: all else works, and they are told once."""

from __future__ import annotations

import logging

import pytest

from brokers import Server
from collected import eventually
from commlib.discovery import Discovery
from commlib.node import Node
from security.access import check
from security.kinds import DISCREET, PASSWORD, PICKY, Kind


def test_a_node_without_the_right_to_discovery_works_and_warns_once(
    kind: Kind, guarded: Server, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    params = kind.params(guarded.port, username=DISCREET, password=PASSWORD)
    with Node("allowed", connection_params=params) as node:
        eventually(lambda: warnings(caplog) != [])
        check(node, f"allowed.{topic}")
        node.create_publisher(f"allowed.{topic}.more").publish(1)
        eventually(lambda: node.connected)
    (warning,) = warnings(caplog)
    assert "commlib.discovery" in warning.getMessage()
    assert "discovery=False" in warning.getMessage()
    assert PASSWORD not in warning.getMessage()


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What is logged of discovery; the connection has logged what it may not subscribe to."""
    return [record for record in caplog.records if record.name == "commlib.discovery"]


def test_who_has_the_right_is_known_and_who_has_not_is_not(
    kind: Kind, guarded: Server, caplog: pytest.LogCaptureFixture
) -> None:
    def params(user: str) -> object:
        return kind.params(guarded.port, username=user, password=PASSWORD)

    with (
        Discovery(params(PICKY)) as found,
        Node("allowed.shy", connection_params=params(DISCREET), discovery=False),
        Node("allowed", connection_params=params(PICKY)) as node,
    ):
        eventually(lambda: any(info.name == node.node_name for info in found.nodes))
        assert not any(info.name == "allowed.shy" for info in found.ask())
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []
