"""Who takes part: each is a module of `bench.contenders`, and an entry in `CONTENDERS` here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[1]

REDIS, MQTT, AMQP = frozenset({"redis"}), frozenset({"mqtt"}), frozenset({"amqp"})
WITHOUT_UVLOOP, WITH_UVLOOP = {"uvloop": 0}, {"uvloop": 1}


@dataclass(frozen=True)
class Contender:
    """A library, or a way to use it.

    ``kind``: "ours" is measured against the "limit" and the best "peer"; a "client" is shown beside
    them, for it is a driver or a tool. It takes part in all measurements on these ``brokers`` but
    those that it ``cannot``, each with the reason; ``"topics on redis"`` is one on one broker.
    ``imports`` is what a program on it imports; ``names`` are what it calls a broker there, if not
    as we do.
    """

    name: str
    module: str
    kind: Literal["ours", "limit", "peer", "client"]
    cannot: Mapping[str, str] = field(default_factory=dict)
    brokers: frozenset[str] = REDIS | MQTT | AMQP
    imports: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    environment: str = ""
    packages: tuple[str, ...] = ()
    options: Mapping[str, int] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        """The interpreter that runs it."""
        if not self.environment:
            return Path(sys.executable)
        return ROOT / ".venv-bench" / self.environment / "bin/python"

    def why_not(self, measurement: str, broker: str) -> str:
        """Why it does not take part in this; empty if it does."""
        reason = self.cannot.get(measurement)
        return reason or self.cannot.get(f"{measurement} on {broker}", "")

    def imports_on(self, broker: str) -> str:
        """What a program on it imports for this broker."""
        return self.imports.format(broker=self.names.get(broker, broker))


def _all(reason: str, *measurements: str) -> dict[str, str]:
    """These measurements, with one reason for all of them."""
    return dict.fromkeys(measurements, reason)


# Why not.
PAYLOADS = ("payload_16", "payload_200", "payload_10k", "payload_1m")
FAN = ("fan_out", "spread", "fan_in")
NO_ASYNCIO = _all("it has no asyncio", "tasks")
NOT_AGAIN_WITH_UVLOOP = _all("to keep a run short", *FAN, *PAYLOADS)
ACTIONS = ("goals", "slow_goals")
BARE_SOCKET = _all("it is a bare socket", *ACTIONS, "bridge", "fan_out", "topics", "start", "node")
NO_LIBRARY = _all("that is up to the program", *ACTIONS, "bridge", "fan_out", "topics", "node")
ANOTHER_CLIENT = _all(
    "to keep a run short: other clients are measured", "burst", "spread", "fan_in", *PAYLOADS
)
A_TOOL = _all(
    "it is a tool",
    *("latency", "call", "calls", "tasks", "spread", "fan_in", *PAYLOADS, "blob", "start"),
)
ONLY_CALLS = _all(
    "only its calls differ from those of the limit",
    *("publish", "receive", "burst", "latency", "spread", "fan_in", *PAYLOADS, "blob"),
)
RELEASED = _all("its payloads are JSON", *PAYLOADS, "blob") | {
    "tasks": "it has no asyncio",
    "topics": "it starts a thread for each subscription",
    "goals": "that a goal has ended is told before its client knows which it is, and is lost",
}
OUR_PACKAGES = ("commlib-py", "msgspec", "hiredis", "uvloop")
OUR_IMPORTS = "commlib.node, commlib.transports.{broker}"
OUR_AIO_IMPORTS = "commlib.aio, commlib.transports.{broker}"

CONTENDERS = (
    Contender(
        "ours",
        "bench.contenders.ours",
        "ours",
        NO_ASYNCIO,
        imports=OUR_IMPORTS,
        packages=OUR_PACKAGES,
        options=WITHOUT_UVLOOP,
    ),
    Contender("limit", "bench.limits", "limit", BARE_SOCKET),
    Contender(
        "commlib 0.13.2",
        "bench.contenders.commlib_0_13_2",
        "peer",
        RELEASED,
        imports=OUR_IMPORTS,
        environment="commlib_0_13_2",
        packages=("commlib-py", "pydantic", "redis", "hiredis", "paho-mqtt", "pika", "orjson"),
    ),
    Contender(
        "ours, uvloop",
        "bench.contenders.ours",
        "ours",
        NO_ASYNCIO | NOT_AGAIN_WITH_UVLOOP,
        imports=OUR_IMPORTS + ", uvloop",
        options=WITH_UVLOOP,
    ),
    Contender(
        "commlib 0.6.3",
        "bench.contenders.commlib_0_6_3",
        "peer",
        RELEASED,
        imports=OUR_IMPORTS,
        environment="commlib_0_6_3",
        packages=("commlib-py", "redis", "hiredis", "paho-mqtt", "pika", "ujson"),
    ),
    Contender(
        "ours, aio",
        "bench.contenders.ours_aio",
        "ours",
        imports=OUR_AIO_IMPORTS,
        options=WITHOUT_UVLOOP,
    ),
    Contender(
        "FastStream",
        "bench.contenders.faststream",
        "peer",
        {
            **_all("it has no actions", *ACTIONS),
            "bridge": "it has no bridges",
            "fan_out on mqtt": "of several subscriptions of one topic it serves one",
            "topics on redis": "it opens a connection for each subscription",
            "topics on mqtt": "to keep a run short: 10 000 subscriptions take it half a minute",
            "topics on amqp": "10 000 subscriptions take it longer than it has to begin, 20 s",
        },
        imports="faststream.{broker}",
        names={"amqp": "rabbit"},
        environment="faststream",
        packages=(
            "faststream",
            "pydantic",
            "redis",
            "hiredis",
            "zmqtt",
            "aio-pika",
            "orjson",
            "uvloop",
        ),
    ),
    Contender(
        "ours, aio, uvloop",
        "bench.contenders.ours_aio",
        "ours",
        NOT_AGAIN_WITH_UVLOOP,
        imports=OUR_AIO_IMPORTS + ", uvloop",
        options=WITH_UVLOOP,
    ),
    Contender(
        "redis-py",
        "bench.contenders.redis_py",
        "client",
        NO_LIBRARY | NO_ASYNCIO,
        REDIS,
        imports="redis",
        environment="redis_py",
        packages=("redis", "hiredis", "msgspec", "uvloop"),
    ),
    Contender(
        "redis-py, asyncio",
        "bench.contenders.redis_py_aio",
        "client",
        NO_LIBRARY
        | _all(
            "as by its synchronous face",
            *("call", "calls", "tasks", "spread", "fan_in", *PAYLOADS, "start"),
        )
        | _all("a hundred messages wait for each other", "latency"),
        REDIS,
        environment="redis_py",
    ),
    Contender(
        "coredis",
        "bench.contenders.coredis_aio",
        "client",
        NO_LIBRARY,
        REDIS,
        imports="coredis",
        environment="coredis",
        packages=("coredis", "hiredis", "msgspec", "uvloop"),
    ),
    Contender(
        "redis-benchmark",
        "bench.contenders.redis_benchmark",
        "client",
        NO_LIBRARY | A_TOOL | _all("it only publishes", "receive", "burst"),
        REDIS,
    ),
    Contender(
        "paho-mqtt",
        "bench.contenders.paho",
        "client",
        NO_LIBRARY | NO_ASYNCIO,
        MQTT,
        imports="paho.mqtt.client",
        environment="paho",
        packages=("paho-mqtt", "msgspec"),
    ),
    Contender(
        "gmqtt",
        "bench.contenders.gmqtt",
        "client",
        NO_LIBRARY | ANOTHER_CLIENT | _all("to keep a run short", "latency"),
        MQTT,
        imports="gmqtt",
        environment="gmqtt",
        packages=("gmqtt", "msgspec", "uvloop"),
    ),
    Contender(
        "aiomqtt",
        "bench.contenders.aiomqtt",
        "client",
        NO_LIBRARY,
        MQTT,
        imports="aiomqtt",
        environment="aiomqtt",
        packages=("aiomqtt", "paho-mqtt", "msgspec", "uvloop"),
    ),
    Contender(
        "mqttium",
        "bench.contenders.mqttium",
        "client",
        NO_LIBRARY | ANOTHER_CLIENT,
        MQTT,
        imports="mqttium.api",
        environment="mqttium",
        packages=("mqttium", "msgspec"),
    ),
    Contender(
        "pika",
        "bench.contenders.pika_blocking",
        "client",
        NO_LIBRARY | NO_ASYNCIO,
        AMQP,
        imports="pika",
        environment="pika",
        packages=("pika", "msgspec", "uvloop"),
    ),
    Contender(
        "pika, asyncio",
        "bench.contenders.pika_aio",
        "client",
        NO_LIBRARY | ANOTHER_CLIENT,
        AMQP,
        imports="pika.adapters.asyncio_connection",
        environment="pika",
    ),
    Contender(
        "aio-pika",
        "bench.contenders.aio_pika",
        "client",
        NO_LIBRARY,
        AMQP,
        imports="aio_pika",
        environment="aio_pika",
        packages=("aio-pika", "aiormq", "msgspec", "uvloop"),
    ),
    Contender(
        "limit, asking as ours",
        "bench.contenders.asking_amqp",
        "client",
        BARE_SOCKET | ONLY_CALLS,
        AMQP,
    ),
    Contender(
        "mosquitto_pub and _sub",
        "bench.contenders.mosquitto",
        "client",
        NO_LIBRARY | A_TOOL,
        MQTT,
    ),
)
"""In the order in which they take turns: ours never twice in a row."""
