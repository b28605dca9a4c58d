"""`commlib bench`: it measures, tells, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from brokers import Broker, RedisServer
from commlib.cli import _common
from commlib.cli._main import commlib
from commlib.transports.memory import MemoryTransport

QUICK = ("--duration", "0.2")
FIGURES = ("publish_rate", "receive_rate", "call_p50", "call_p99", "calls", "calls_64")


def run(url: str, *words: str) -> Result:
    """`commlib bench` on this broker."""
    return CliRunner().invoke(commlib, ["bench", "--url", url, *words], catch_exceptions=False)


@pytest.mark.parametrize("broker", ["memory", "redis", "mqtt", "amqp"], indirect=True)
def test_each_figure_is_measured_on_every_broker(broker: Broker) -> None:
    found = json.loads(run(broker.url, "--json", *QUICK).stdout)
    assert all(found[name] > 0 for name in FIGURES), found
    assert found["call_p50"] <= found["call_p99"]
    assert (found["failed"], found["size"]) == (0, 100)


def test_people_get_a_table() -> None:
    result = run("memory://bench", "--size", "0", *QUICK)
    head, *lines = result.stdout.splitlines()
    assert head.split() == ["WHAT", "VALUE", "UNIT"]
    assert len(lines) == len(FIGURES)
    assert result.stderr == ""


def test_nothing_stays_on_the_broker(make_redis: Callable[..., RedisServer]) -> None:
    server = make_redis()
    assert run(server.url, *QUICK).exit_code == 0
    left = server.cli("KEYS", "*")
    # What wakes our own reader may stay, for a minute.
    assert all(server.cli("TTL", key) > 0 and key.startswith(b"rpc-w-") for key in left), left


def test_a_broker_that_takes_nothing_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    async def flush(self: MemoryTransport) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(MemoryTransport, "flush", flush)
    monkeypatch.setattr(_common, "CONFIRM_SECONDS", 0.05)
    result = run("memory://stuck", *QUICK)
    assert result.exit_code == 1
    assert "has not confirmed within 0.05 s" in result.stderr
