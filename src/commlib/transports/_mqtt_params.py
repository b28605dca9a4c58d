"""Where an MQTT broker is, how to get in, and what to leave there."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Self

from msgspec import Struct

from commlib._hops import host_name
from commlib._params import Credentials as Credentials
from commlib._params import NetworkParameters
from commlib.transports import _mqtt_control as control

if TYPE_CHECKING:
    from ssl import SSLContext
    from urllib.parse import SplitResult

    from commlib.transports.mqtt import MqttTransport

TLS_PORT = 8883
TLS_SCHEMES = ("mqtts",)


class MQTTProtocolType(IntEnum):
    """Versions of MQTT, numbered as on the wire."""

    MQTTv311 = control.V311
    MQTTv5 = control.V5


class QoS(IntEnum):
    """Delivery levels of MQTT: how hard a message is tried to be delivered."""

    AT_MOST_ONCE = 0
    AT_LEAST_ONCE = 1
    EXACTLY_ONCE = 2


class Will(Struct, frozen=True):
    """A message for a moment in the life of a connection: its end without a word, or its birth.

    ``payload``: bytes or text as they are, anything else as JSON. ``retain``: the broker keeps it
    for those who subscribe later.
    """

    topic: str
    payload: Any = b""
    qos: int = 0
    retain: bool = False

    def as_will(self) -> control.Will:
        """The same as it goes on the wire. Raises ValueError, TypeError."""
        from commlib import _json
        from commlib._topics import check_topic, to_mqtt

        payload = self.payload
        if isinstance(payload, str):
            payload = payload.encode()
        elif not isinstance(payload, bytes):
            payload = _json.encode(payload)
        return control.Will(to_mqtt(check_topic(self.topic)), payload, QoS(self.qos), self.retain)


@dataclass
class ConnectionParameters(NetworkParameters):
    """Where the broker is and how to get in.

    * ``protocol``: MQTT 5, or 3.1.1, which is taken as well where the broker refuses 5; also as
      text, ``"MQTTv311"``.
    * ``creds``, or ``username`` and ``password``.
    * ``keepalive`` (s): a link silent for so long is probed, and given up 5 s later.
    * ``ssl``: True checks certificate and host name against the system's CAs; or an SSLContext,
      which may have a certificate of the client's.
    * ``client_id``: for brokers that give rights by it; a random one by default. No two
      connections may have the same.
    * ``will`` is published by the broker when this connection breaks, ``birth`` by us whenever it
      is there.
    """

    host: str = "localhost"
    port: int = 1883
    protocol: MQTTProtocolType | str = MQTTProtocolType.MQTTv5
    creds: Credentials | None = None
    username: str = ""
    password: str = field(default="", repr=False)
    keepalive: float = field(default=60.0, kw_only=True)
    ssl: bool | SSLContext = False
    client_id: str = ""
    will: Will | None = None
    birth: Will | None = None

    schemes: ClassVar[tuple[str, ...]] = ("mqtt", *TLS_SCHEMES)
    can_do_without_will = False
    """Of one that nobody has asked for: some brokers let nobody in who has no right to it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.protocol, str):
            if self.protocol not in MQTTProtocolType.__members__:
                known = " or ".join(MQTTProtocolType.__members__)
                raise ValueError(f"protocol={self.protocol!r}: it is {known}")
            self.protocol = MQTTProtocolType[self.protocol]
        if self.keepalive > 65_535:
            raise ValueError(f"keepalive={self.keepalive}: MQTT has room for 65535 s")
        for name in ("will", "birth"):
            message = getattr(self, name)
            if message is not None and not isinstance(message, Will):
                raise TypeError(f"{name}={message!r}: it is a Will(topic, payload)")
            if message is not None:
                message.as_will()  # what cannot be sent is refused here

    @property
    def address(self) -> str:
        # TLS is only another way in.
        return f"mqtt://{host_name(self.host)}:{self.port}"

    def with_will(self, topic: str, payload: bytes) -> Self:
        if self.will is not None:
            return self
        other = copy.copy(self)  # without a look at all the fields again
        other.will = Will(topic, payload)
        other.can_do_without_will = True
        return other

    def make_transport(self) -> MqttTransport:
        """A new transport to this broker."""
        from commlib.transports.mqtt import MqttTransport

        return MqttTransport(self)

    @classmethod
    def _from_url_parts(cls, parts: SplitResult) -> dict[str, Any]:
        from urllib.parse import unquote

        if parts.path.strip("/"):
            raise ValueError(f"{parts.path}: an MQTT URL has no path; topics belong to endpoints")
        tls = parts.scheme in TLS_SCHEMES
        return {
            "username": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "host": parts.hostname or "localhost",
            "port": parts.port or (TLS_PORT if tls else 1883),
            "ssl": tls,
        }

    def __str__(self) -> str:
        return f"{'mqtts' if self.ssl else 'mqtt'}://{self.place}"
