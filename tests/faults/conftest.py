"""Brokers that die, hang and come back. Each test asks for servers, never for one kind of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from brokers import Server

MakeServer = Callable[..., Server]

MAKERS: dict[str, tuple[str, dict[str, Any]]] = {
    "redis": ("make_redis", {}),
    "mqtt": ("make_mosquitto", {}),
    "mqtt311": ("make_mosquitto", {"protocol": "MQTTv311"}),
    "nats": ("make_nats", {}),
}
"""The fixture that starts each kind of broker, and what it is told."""


@pytest.fixture(params=MAKERS)
def make_server(request: pytest.FixtureRequest) -> MakeServer:
    """Starts servers of the test's own, of one kind of broker after the other."""
    fixture, options = MAKERS[request.param]
    return partial(request.getfixturevalue(fixture), **options)
