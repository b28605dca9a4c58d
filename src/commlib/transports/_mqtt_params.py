"""Where an MQTT broker is, how to get in, and what to leave there."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self, TypeAlias, get_args

from msgspec import Struct

from commlib._hops import host_name
from commlib._params import NO_CLIENT_ID, NetworkParameters, host_in
from commlib._params import Credentials as Credentials
from commlib.exceptions import MissingDriver
from commlib.transports import _mqtt_control as control

if TYPE_CHECKING:
    from ssl import SSLContext
    from urllib.parse import SplitResult

    from commlib.transports.mqtt import MqttTransport

Carrier = Literal["tcp", "websockets"]
Headers: TypeAlias = Mapping[str, str]

PATH = "/mqtt"
"""Where brokers listen for websockets, unless they are told otherwise."""
OF_HANDSHAKE, ALL_OF_HANDSHAKE = ("host", "upgrade", "connection"), "sec-websocket-"
"""Headers that ask for the websocket itself, and what more of them begin with."""


class _Scheme(NamedTuple):
    """What the scheme of a URL says."""

    port: int
    tls: bool
    transport: Carrier


SCHEMES = {
    "mqtt": _Scheme(1883, tls=False, transport="tcp"),
    "mqtts": _Scheme(8883, tls=True, transport="tcp"),
    "ws": _Scheme(80, tls=False, transport="websockets"),
    "wss": _Scheme(443, tls=True, transport="websockets"),
}


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
    * ``client_id``: for brokers that give rights by it, and for ``session_expiry``; a random one
      by default. No two connections may have the same.
    * ``session_expiry`` (s): how long the broker keeps for the subscribers of this ``client_id``
      what is published at QoS 1 or 2 while they are away, after the end of the program as well;
      0, the default: not at all. ``math.inf`` is for ever. MQTT 3.1.1 leaves the time to the
      broker.
    * ``will`` is published by the broker when this connection breaks, ``birth`` by us whenever it
      is there.
    * ``transport``: ``"websockets"`` for a broker behind a web server, with the ``path`` that it
      has there, and ``headers`` for the door of that server, such as ``Authorization``; ``port`` is
      that of the websockets. Needs the extra ``websockets``.
    * ``alpn``: a name, or several, by which a port that many share knows MQTT (RFC 7301). With
      ``ssl=True``; a context of your own is told by its ``set_alpn_protocols``.
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
    session_expiry: float = field(default=0.0, kw_only=True)
    transport: Carrier = field(default="tcp", kw_only=True)
    path: str = field(default=PATH, kw_only=True, repr=False)  # there may be a token in its query
    headers: Headers = field(default_factory=dict, kw_only=True, repr=False)
    alpn: str | Sequence[str] = field(default=(), kw_only=True)

    schemes: ClassVar[tuple[str, ...]] = tuple(SCHEMES)
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
        self._check_session()
        for name in ("will", "birth"):
            message = getattr(self, name)
            if message is not None and not isinstance(message, Will):
                raise TypeError(f"{name}={message!r}: it is a Will(topic, payload)")
            if message is not None:
                message.as_will()  # what cannot be sent is refused here
        self._check_transport()
        self._check_alpn()

    def _check_transport(self) -> None:
        if self.transport not in get_args(Carrier):
            raise ValueError(
                f"transport={self.transport!r}: it is {' or '.join(get_args(Carrier))}"
            )
        # Not shown: there may be a token in either of them.
        if not isinstance(self.path, str) or not isinstance(self.headers, Mapping):
            raise TypeError("path= is text, and headers= are texts by their names")
        if self.transport == "tcp" and (self.path != PATH or self.headers):
            raise ValueError("path= and headers= are for transport='websockets', ws:// and wss://")
        if not (self.path.startswith("/") and _is_line(self.path)) or set(self.path) & set(" #"):
            raise ValueError("path= begins with /; what no URL may have in it is percent-encoded")
        if not all(_is_line(text) for header in self.headers.items() for text in header):
            raise ValueError("headers= are printable ASCII; other characters are encoded")
        for name in self.headers:
            _check_header(name)

    def _check_alpn(self) -> None:
        names = self.alpn.split(",") if isinstance(self.alpn, str) and self.alpn else self.alpn
        self.alpn = tuple(names)
        if not all(isinstance(name, str) and 0 < len(name.encode()) < 256 for name in names):
            raise ValueError(f"alpn={self.alpn!r}: names of 1 to 255 bytes")
        if names and not self.ssl:
            raise ValueError("alpn= is said within TLS: ssl=True, mqtts:// or wss://")
        if names and self.ssl is not True:
            raise ValueError(
                "alpn= goes with ssl=True; a context of your own is not changed: call its "
                f"set_alpn_protocols({list(names)})"
            )

    def _check_session(self) -> None:
        seconds = self.session_expiry
        if not (isinstance(seconds, int | float) and seconds >= 0):
            raise ValueError(f"session_expiry={seconds!r}: it is a time in seconds")
        if seconds and not self.client_id:
            raise ValueError(NO_CLIENT_ID)

    @property
    def address(self) -> str:
        # TLS is only another way in; behind one web server there may be several brokers.
        path = self._place_in_server
        return f"{'ws' if path else 'mqtt'}://{host_name(self.host)}:{self.port}{path}"

    @property
    def _place_in_server(self) -> str:
        return self.path.partition("?")[0] if self.transport == "websockets" else ""

    def ssl_context(self) -> SSLContext | None:
        context = super().ssl_context()
        if context is not None and self.alpn:
            context.set_alpn_protocols(list(self.alpn))
        return context

    def with_will(self, topic: str, payload: bytes) -> Self:
        if self.will is not None:
            return self
        other = copy.copy(self)  # without a look at all the fields again
        other.will = Will(topic, payload)
        other.can_do_without_will = True
        return other

    def make_transport(self) -> MqttTransport:
        """A new transport. Raises MissingDriver for websockets without their extra."""
        if self.transport == "websockets":
            try:
                import websockets  # noqa: F401 - better known now than at the first connection
            except ImportError as exc:
                text = 'websockets is missing: pip install "commlib-py[websockets]"'
                raise MissingDriver(text) from exc
        from commlib.transports.mqtt import MqttTransport

        return MqttTransport(self)

    @classmethod
    def _from_url_parts(cls, parts: SplitResult) -> dict[str, Any]:
        from urllib.parse import unquote

        scheme = SCHEMES[parts.scheme]
        options: dict[str, Any] = {
            "username": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "host": host_in(parts) or "localhost",
            "port": parts.port or scheme.port,
            "ssl": scheme.tls,
            "transport": scheme.transport,
        }
        if scheme.transport == "websockets":
            return options | {"path": parts.path or PATH}
        if parts.path.strip("/"):
            raise ValueError(
                f"{parts.path}: {parts.scheme}:// has no path; topics belong to endpoints, and the "
                "path of websockets to ws:// or wss://"
            )
        return options

    def __str__(self) -> str:
        scheme = "mqtt" if self.transport == "tcp" else "ws"
        return f"{scheme}{'s' if self.ssl else ''}://{self.place}{self._place_in_server}"


def _check_header(name: str) -> None:
    """Raises ValueError for what is no name of a header (RFC 9110, section 5.6.2), or not ours."""
    if not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII):
        # Not shown: who takes it for a whole line has a token in it.
        raise ValueError("headers=: a name is letters, digits and hyphens, without colon or space")
    if name.lower() in OF_HANDSHAKE or name.lower().startswith(ALL_OF_HANDSHAKE):
        raise ValueError(f"headers=: {name} belongs to the handshake of the websocket")


def _is_line(text: object) -> bool:
    """Whether it can stand in a line of HTTP, and does not end it."""
    return isinstance(text, str) and text.isascii() and text.isprintable()
