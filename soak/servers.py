"""The brokers on which it runs: those of the tests, each a server of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from bench.brokers import BROKERS

from brokers import MosquittoServer, NatsServer, RabbitServer, RedisServer, Server

# Its packets would wait for the proxy's acknowledgements otherwise, 40 ms each.
_mosquitto = partial(MosquittoServer, config=["set_tcp_nodelay true"])


class Kind(NamedTuple):
    """How a server is made, and how it says who it is."""

    make: Callable[[], Server]
    version: Callable[[Any], str]


KINDS = {
    "redis": Kind(RedisServer, BROKERS["redis"].version),
    "mqtt": Kind(_mosquitto, BROKERS["mqtt"].version),
    "amqp": Kind(RabbitServer, BROKERS["amqp"].version),
    "mqtt311": Kind(
        partial(_mosquitto, protocol="MQTTv311"),
        lambda server: f"{BROKERS['mqtt'].version(server)}, MQTT 3.1.1",
    ),
    "nats": Kind(NatsServer, lambda server: "NATS, MQTT 3.1.1"),
}
DEFAULT = ("redis", "mqtt", "amqp")
