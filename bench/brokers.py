"""The brokers on which the contenders meet. A further one is an entry in `BROKERS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

# The servers are those of the tests: on a free port, ended by their process id, and also when this
# process is killed.
from brokers import MosquittoServer, RabbitServer, RedisServer


class Server(Protocol):
    """A running broker."""

    port: int

    @property
    def url(self) -> str:
        """Where it is."""
        ...


@dataclass(frozen=True)
class Broker:
    """A kind of broker.

    ``start`` gives a running server, which the others take. ``version`` asks it who it is.
    ``roomy`` lets it, for a while, hold any amount for a subscriber that is slower than the
    publisher. `bench.wires` has its wire, `bench.targets` what is expected on it.
    """

    name: str
    start: Callable[[], AbstractContextManager[Server]]
    version: Callable[[Any], str]
    roomy: Callable[[Any], AbstractContextManager[None]]


def _redis_version(server: RedisServer) -> str:
    lines: bytes = server.cli("INFO", "server")
    version = next(line for line in lines.split() if line.startswith(b"redis_version:"))
    return f"Redis {version.partition(b':')[2].decode()}"


@contextmanager
def _roomy_redis(server: RedisServer) -> Iterator[None]:
    name = "client-output-buffer-limit"
    # As in {b"normal 0 0 0 slave ... pubsub 33554432 8388608 60"}, which can be set as it is.
    _, before = server.cli("CONFIG", "GET", name)
    server.cli("CONFIG", "SET", name, "pubsub 0 0 0")
    try:
        yield
    finally:
        server.cli("CONFIG", "SET", name, before)


def _mosquitto_version(server: MosquittoServer) -> str:
    # As in "1764115200: mosquitto version 2.0.11 starting".
    return f"Mosquitto {server.log.partition(' version ')[2].split()[0]}"


def _rabbitmq_version(server: RabbitServer) -> str:
    # As in "2026-11-26 03:00:00.000000+00:00 [info] <0.222.0>  Starting RabbitMQ 3.10.8 on Erlang".
    return f"RabbitMQ {server.log.partition(' Starting RabbitMQ ')[2].split()[0]}"


def _is_roomy(server: MosquittoServer | RabbitServer) -> AbstractContextManager[None]:
    return nullcontext()  # always: the tests have Mosquitto drop nothing, and RabbitMQ never does


BROKERS = {
    broker.name: broker
    for broker in (
        Broker("redis", RedisServer, _redis_version, _roomy_redis),
        Broker("mqtt", MosquittoServer, _mosquitto_version, _is_roomy),
        Broker("amqp", RabbitServer, _rabbitmq_version, _is_roomy),
    )
}
