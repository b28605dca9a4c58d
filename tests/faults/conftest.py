"""Brokers that die, hang and come back. Each test asks for servers, never for one kind of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from brokers import Server
from commlib.transports import resolve
from commlib.transports.base import Traits

HERE = Path(__file__).parent

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
"""Those that take seconds to start, or on a busy machine many."""
SLOW_TIMEOUT = 180  # s for a test of theirs, with all that is started for it
VARIANTS = ("mqtt311", "nats", "valkey")
"""Those that differ little from another one."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of broker in turn."""
    return KINDS[request.param]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Not all kinds are tried by `make test` in what ``restarts``, or has ``main_kinds``."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is None:
            continue
        kind = callspec.params.get("kind", callspec.params.get("broker"))
        for marker, kinds in (("restarts", SLOW), ("main_kinds", VARIANTS)):
            if item.get_closest_marker(marker) and kind in kinds:
                item.add_marker(pytest.mark.slow)
        is_here = item.path.is_relative_to(HERE)
        if is_here and kind in SLOW and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT))


@pytest.fixture
def make_server(kind: Kind, request: pytest.FixtureRequest) -> MakeServer:
    """Starts servers of the test's own, of this kind."""
    return partial(request.getfixturevalue(kind.maker), **kind.options)


@pytest.fixture
def traits(kind: Kind) -> Traits:
    """What this kind can do; known before a server is started."""
    return resolve(kind.url).make_transport().traits
