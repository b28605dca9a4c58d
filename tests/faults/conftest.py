"""Brokers that die, hang and come back. Each test asks for servers, never for one kind of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import pytest

from brokers import Server
from commlib.transports import resolve
from commlib.transports.base import Traits

MakeServer = Callable[..., Server]


class Kind(NamedTuple):
    """A kind of broker: the fixture that starts them, what it is told, and how their URLs begin."""

    maker: str
    url: str
    options: Mapping[str, Any] = {}


KINDS = {
    "redis": Kind("make_redis", "redis://"),
    "mqtt": Kind("make_mosquitto", "mqtt://"),
    "mqtt311": Kind(
        "make_mosquitto", "mqtt://?protocol=MQTTv311", options={"protocol": "MQTTv311"}
    ),
    "nats": Kind("make_nats", "mqtt://?protocol=MQTTv311"),
    "amqp": Kind("make_rabbitmq", "amqp://"),
}


SLOW = ("amqp",)
"""Those that take seconds to start."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of broker in turn."""
    return KINDS[request.param]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What ``restarts`` brokers is for `make faults` where each start takes seconds."""
    for item in items:
        params = getattr(item, "callspec", None)
        if item.get_closest_marker("restarts") and params and params.params.get("kind") in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def make_server(kind: Kind, request: pytest.FixtureRequest) -> MakeServer:
    """Starts servers of the test's own, of this kind."""
    return partial(request.getfixturevalue(kind.maker), **kind.options)


@pytest.fixture
def traits(kind: Kind) -> Traits:
    """What this kind can do; known before a server is started."""
    return resolve(kind.url).make_transport().traits
