"""The kinds of brokers as security sees them: how each is told who may do what.

Data, so that no test need ask which broker it is.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brokers import MosquittoServer, NatsServer, RabbitServer, RedisServer, Server, missing
from commlib._params import NetworkParameters
from commlib.transports import amqp, mqtt, redis

ROBOT = "robot"
"""A user who may do everything."""
PICKY = "picky"
"""One who may do everything with ``allowed.…``, and nothing with ``forbidden.…``."""
DISCREET = "discreet"
"""One who may do everything with ``allowed.…``, and nothing with discovery."""
MUTE = "mute"
"""One who may not call, on brokers that cannot tell one service from another."""

# None of it may be seen anywhere: three words, and what URLs, shells and files take for their own.
WORDS = ("Zq7x", "31337", "Kw9v")
PASSWORD = "{}/@:{}?#%&;+é{}".format(*WORDS)

REDIS_COMMANDS = (
    "+ping +select +time +publish +subscribe +unsubscribe +psubscribe +punsubscribe "
    "+rpush +lpush +blpop +lpop +llen +lrem +del +expire"
)
"""All that a node asks a Redis server for; SECURITY.md has the same."""

RAISES, COUNTED, SILENT = "raises", "counted", "silent"
"""A refusal is an AuthError, or a count in ``stats.rejected``, or nobody is told.

Goals have a topic for feedback and one for states: where that may not be subscribed, nothing is
sent. Mosquitto 2.0.11 ends the connection when a message may not be published.
"""


@dataclass(frozen=True)
class Kind:
    """One kind of broker, and how it refuses each verb."""

    server: type[Server]
    parameters: type[NetworkParameters]
    plain: str
    """The fixture of the one of this run, without users."""
    rights: Callable[[Path], dict[str, Any]]
    """The options that make one with the users; the folder is for their files."""
    refusals: Mapping[str, str]
    """What becomes of each verb that ``PICKY`` may not do."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the parameters."""
    callers: str = PICKY
    """Who may not call."""
    has_tls: bool = True

    def params(self, port: int, **options: Any) -> NetworkParameters:
        """Those of a broker on this port."""
        return self.parameters(host="127.0.0.1", port=port, **{**self.options, **options})

    def secure_url(self, port: int) -> str:
        """A URL that asks for TLS and says nothing of certificates."""
        scheme = next(s for s in self.parameters.schemes if s in ("rediss", "mqtts", "amqps"))
        query = "&".join(f"{name}={value}" for name, value in self.options.items())
        return f"{scheme}://127.0.0.1:{port}?{query}"


def _redis(folder: Path) -> dict[str, Any]:
    channels = "resetchannels &allowed.* &$presence.*"
    picky = f"~allowed.* ~rpc-* {channels} &commlib.discovery* -@all {REDIS_COMMANDS}"
    discreet = f"~allowed.* ~rpc-* {channels} -@all {REDIS_COMMANDS}"
    users = {ROBOT: "~* &* +@all", PICKY: picky, DISCREET: discreet}
    return {"users": {name: f"on >{PASSWORD} {rights}" for name, rights in users.items()}}


def _mosquitto(folder: Path) -> dict[str, Any]:
    """Its plugin for rights: its file of rights is read for messages, never for subscriptions."""
    plugin = next(iter(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so")), None)
    if plugin is None:
        missing("mosquitto_dynamic_security.so is missing; install it with: apt install mosquitto")
    roles = [
        _role(ROBOT),
        _role(PICKY, "forbidden/#", "$share/commlib/forbidden/#"),
        _role(DISCREET, "commlib/discovery/#"),
    ]
    config = {
        "defaultACLAccess": {
            "publishClientReceive": True,
            "unsubscribe": True,
            "publishClientSend": False,
            "subscribe": False,
        },
        "clients": [_client(ROBOT), _client(PICKY), _client(DISCREET)],
        "roles": roles,
        "groups": [],
    }
    file = folder / "rights.json"
    file.write_text(json.dumps(config))
    file.chmod(0o644)
    return {"config": [f"plugin {plugin}", f"plugin_opt_config_file {file}"]}


def _client(user: str) -> dict[str, Any]:
    salt = os.urandom(12)
    password = hashlib.pbkdf2_hmac("sha512", PASSWORD.encode(), salt, 101)
    return {
        "username": user,
        "salt": base64.b64encode(salt).decode(),
        "password": base64.b64encode(password).decode(),
        "iterations": 101,
        "roles": [{"rolename": user}],
    }


def _role(name: str, *forbidden: str) -> dict[str, Any]:
    """One that may do all but this: no pattern of MQTT stands for the addresses of replies.

    Nor does ``#`` for what begins with a ``$``.
    """
    return {
        "rolename": name,
        "acls": [
            {"acltype": kind, "topic": topic, "allow": topic not in forbidden, "priority": priority}
            for kind in ("publishClientSend", "subscribePattern")
            for priority, topic in enumerate(("#", "$presence/#", "$share/+/#", *forbidden))
        ],
    }


def _nats(folder: Path) -> dict[str, Any]:
    # Nor has it a pattern for the addresses of replies.
    picky = _denied('"forbidden.>"')
    discreet = _denied('["commlib.discovery", "commlib.discovery.>"]')
    password = json.dumps(PASSWORD, ensure_ascii=False)
    return {
        "config": [
            "authorization { users = [",
            f"  {{ user: {ROBOT}, password: {password} }}",
            f"  {{ user: {PICKY}, password: {password}, {picky} }}",
            f"  {{ user: {DISCREET}, password: {password}, {discreet} }}",
            "] }",
        ]
    }


def _denied(subjects: str) -> str:
    deny = f"{{ deny: {subjects} }}"
    return f"permissions: {{ publish: {deny}, subscribe: {deny} }}"


def _rabbitmq(folder: Path) -> dict[str, Any]:
    mine = r"^amq\.gen-.*|^allowed\..*"
    queues = (mine, r"^amq\.(topic|default|gen-.*)$", rf"^amq\.topic$|{mine}")
    topics, discovery = r"^(allowed|\$presence)\.", r"^commlib\.discovery(\.|$)"
    return {
        "users": dict.fromkeys((ROBOT, PICKY, DISCREET, MUTE), PASSWORD),
        "permissions": {
            PICKY: queues,
            DISCREET: queues,
            MUTE: (".*", r"^(?!amq\.default$)", ".*"),
        },
        "topic_permissions": {
            PICKY: ("amq.topic", *2 * [rf"{topics}|{discovery}"]),
            DISCREET: ("amq.topic", topics, topics),
        },
    }


_MQTT = {
    "subscribe": RAISES,
    "publish": SILENT,
    "call": SILENT,
    "serve": RAISES,
    "send a goal": RAISES,
    "take goals": RAISES,
    "bridge from": RAISES,
    "bridge to": SILENT,
}

KINDS = {
    "mqtt": Kind(
        *(MosquittoServer, mqtt.ConnectionParameters, "mosquitto_server", _mosquitto),
        refusals={**_MQTT, "publish at QoS 1": COUNTED},
    ),
    "mqtt311": Kind(
        *(MosquittoServer, mqtt.ConnectionParameters, "mosquitto_server", _mosquitto),
        refusals={**_MQTT, "publish at QoS 1": SILENT},
        options={"protocol": "MQTTv311"},
    ),
    "amqp": Kind(
        *(RabbitServer, amqp.ConnectionParameters, "amqp_server", _rabbitmq),
        refusals={
            "subscribe": RAISES,
            "publish": COUNTED,
            "publish at QoS 1": COUNTED,
            "call": RAISES,
            "serve": RAISES,
            "send a goal": RAISES,
            "take goals": RAISES,
            "bridge from": RAISES,
            "bridge to": COUNTED,
        },
        callers=MUTE,
    ),
    "redis": Kind(
        *(RedisServer, redis.ConnectionParameters, "redis_server", _redis),
        refusals={
            "subscribe": RAISES,
            "publish": COUNTED,
            "call": RAISES,
            "serve": COUNTED,
            "send a goal": RAISES,
            "take goals": COUNTED,
            "bridge from": RAISES,
            "bridge to": COUNTED,
        },
    ),
    "nats": Kind(
        *(NatsServer, mqtt.ConnectionParameters, "nats_server", _nats),
        refusals={**_MQTT, "publish at QoS 1": SILENT},
        options={"protocol": "MQTTv311"},
        has_tls=False,
    ),
}

# Servers are shared by tests that have the same one at the same place of their list.
SECURE = [name for name, kind in KINDS.items() if kind.has_tls]
"""Those that are asked for TLS here."""
CONFIRMING = [name for name, kind in KINDS.items() if "publish at QoS 1" in kind.refusals]
"""Those that have QoS 1."""
