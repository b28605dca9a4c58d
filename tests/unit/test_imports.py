"""What is imported with a node: every program waits for it, at every start."""

from __future__ import annotations

import subprocess
import sys

import pytest

from commlib.transports import MODULES

OF_OTHERS = {"copy", "dataclasses", "queue", "_queue"}
"""Modules beyond those that asyncio and msgspec bring. Each costs all programs time and memory:
one that only some of them need is imported where they need it."""

FOR_SOME = {
    *("_bridge_stats", "_goal", "_replays", "_routes", "_signatures", "_store", "_verifier"),
    *("action", "aggregation", "aio.action", "aio.bridges", "bridges", "cli", "endpoints"),
    *("_readings", "_replaced", "_spans", "_traced", "metrics", "tracing"),
    *("logger", "proxy", "signing", "tcp_bridge", "timer", "utils"),
    *("transports._amqp_lasting", "transports._amqp_receipts", "transports._mqtt_lasting"),
}
"""Those of ours that many programs never need."""


def imported_with(*modules: str) -> set[str]:
    """What a fresh process imports with these modules, beyond what asyncio and msgspec bring."""
    program = f"""
import asyncio, msgspec, sys
before = set(sys.modules)
import {", ".join(modules)}
print(*sys.modules.keys() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def is_ours(name: str) -> bool:
    return name.partition(".")[0] == "commlib"


@pytest.mark.parametrize("transport", sorted(set(MODULES.values())))
def test_a_node_brings_little_beyond_asyncio_and_msgspec(transport: str) -> None:
    imported = imported_with("commlib.node", transport)
    assert {name for name in imported if not is_ours(name)} <= OF_OTHERS
    assert imported & {f"commlib.{name}" for name in FOR_SOME} == set()
    brokers = {f"commlib.transports.{name}" for name in ("amqp", "memory", "mqtt", "redis")}
    assert imported & brokers == {transport}


def test_the_package_alone_brings_nothing() -> None:
    assert imported_with("commlib") == {"commlib"}
