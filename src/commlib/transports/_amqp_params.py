"""Where an AMQP broker is, and how to get in."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar

from commlib._hops import host_name
from commlib._params import NO_CLIENT_ID, NetworkParameters, host_in
from commlib._params import Credentials as Credentials
from commlib._topics import has_control
from commlib.transports._amqp_bytes import short
from commlib.transports._amqp_methods import EXTERNAL, LASTING, PLAIN

if TYPE_CHECKING:
    from ssl import SSLContext
    from urllib.parse import SplitResult

    from commlib.transports.amqp import AmqpTransport

log = logging.getLogger("commlib.amqp")

PORT, TLS_PORT = 5672, 5671
TLS_SCHEMES = ("amqps",)
MECHANISMS = (PLAIN, EXTERNAL)
CLASSIC, QUORUM = "classic", "quorum"
LONGEST_CLIENT_ID = 100  # bytes: in the name of a queue there must be room for a topic, too
LONGEST_EXPIRY = 0xFFFFFFFF // 1000  # s: RabbitMQ takes 32 bits of ms
RELEASED_OPTIONS = {"exchange": ("",), "use_corr_id": (False, True)}
"""Of services and clients: they use the default exchange, and each call has a correlation id."""
RELEASED_TOPIC_OPTIONS = {"exchange": ("amq.topic",)}
"""Of publishers and subscribers: another one is a parameter of the connection."""


@dataclass
class ConnectionParameters(NetworkParameters):
    """Where the broker is and how to get in.

    * ``vhost``: the virtual host; nodes on different ones do not hear each other.
    * ``creds``, or ``username`` and ``password``; RabbitMQ's ``guest`` by default, which it lets
      in from its own machine only. ``mechanism="EXTERNAL"``: by the certificate of the client.
    * ``ssl``: True checks certificate and host name against the system's CAs; or an SSLContext,
      which may have a certificate of the client's. ``secure=True`` is the seed's name for it.
    * ``exchange``: the topic exchange that messages are published to; it is made if it is not
      there.
    * ``queue_size``: messages that the broker keeps for a slow connection, the oldest
      are dropped first; ``message_ttl`` (ms): and for how long. None: no bound of the broker's.
    * ``session_expiry`` (s): how long the broker keeps what comes for the subscribers of this
      ``client_id`` while they are away, after the end of the program as well, in a queue for each
      of them; 0, the default: not at all; ``math.inf``: for ever. No two connections may have the
      same ``client_id`` and subscribe to the same topic.
    * ``queue_type``: of these queues, ``"classic"``, or ``"quorum"``, which the nodes of a cluster
      have copies of. Those of services are what released commlib-py takes, in any case.
    * ``heartbeat_timeout`` (s): silence after which the broker gives us up, and we it; 0: it does
      not, and we still do after ``keepalive``, but for as long as it takes no messages.
    * ``blocked_connection_timeout`` (s): how long a broker that takes no messages for lack of
      memory or disk is waited for before the connection is given up; None: for ever.
    * ``timeout`` (s): the seed's name for ``connect_timeout``.
    * ``reconnect_attempts``, ``retry_delay``: taken from programs of the seed; they change
      nothing, for it is tried again for ever, with growing pauses, or not at all
      (``reconnect=False``).
    """

    host: str = "127.0.0.1"
    port: int = PORT
    vhost: str = "/"
    creds: Credentials | None = None
    secure: bool = False
    reconnect_attempts: int | None = None
    retry_delay: float | None = None
    timeout: float | None = None
    blocked_connection_timeout: float | None = None
    heartbeat_timeout: float = 60.0
    channel_max: int = 128
    username: str = ""
    password: str = field(default="", repr=False)
    keepalive: float = field(default=30.0, kw_only=True)
    ssl: bool | SSLContext = False
    mechanism: str = PLAIN
    exchange: str = "amq.topic"
    queue_size: int | None = None
    message_ttl: int | None = None
    client_id: str = ""
    session_expiry: float = 0.0
    queue_type: str = CLASSIC

    schemes: ClassVar[tuple[str, ...]] = ("amqp", *TLS_SCHEMES)

    def __post_init__(self) -> None:
        if self.timeout is not None:
            self.connect_timeout = self.timeout
        super().__post_init__()
        self.ssl = self.ssl or self.secure
        if self.reconnect_attempts is not None or self.retry_delay is not None:
            log.info("reconnect_attempts and retry_delay change nothing: see reconnect=")
        if self.mechanism not in MECHANISMS:
            raise ValueError(f"mechanism={self.mechanism!r}: it is {' or '.join(MECHANISMS)}")
        if not self.exchange:
            raise ValueError("exchange='': topics need one of the type topic, such as amq.topic")
        for name, least in (("heartbeat_timeout", 0), ("channel_max", self.first_service)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name}={getattr(self, name)}: at least {least} is needed")

        for name in ("queue_size", "message_ttl"):
            bound = getattr(self, name)
            if bound is not None and not (isinstance(bound, int) and 0 <= bound < 1 << 32):
                raise ValueError(f"{name}={bound!r}: it is a whole number of 32 bits")
        for name in ("vhost", "exchange"):
            short(getattr(self, name))  # what is too long is refused here
        self._check_session()

    def _check_session(self) -> None:
        if self.queue_type not in (CLASSIC, QUORUM):
            raise ValueError(f"queue_type={self.queue_type!r}: it is {CLASSIC} or {QUORUM}")
        seconds, name = self.session_expiry, self.client_id
        is_time = isinstance(seconds, int | float) and seconds >= 0
        if not is_time or LONGEST_EXPIRY < seconds < inf:
            raise ValueError(
                f"session_expiry={seconds!r}: it is a time in seconds, {LONGEST_EXPIRY} at most, "
                "or math.inf"
            )
        if seconds and not name:
            raise ValueError(NO_CLIENT_ID)
        if not isinstance(name, str) or has_control(name) or name.startswith("amq."):
            raise ValueError(
                f"client_id={name!r}: it is text without control characters that does not begin "
                "with 'amq.', for that is what the broker's own queues begin with"
            )
        if len(name.encode()) > LONGEST_CLIENT_ID:
            raise ValueError(f"client_id={name!r}: it has {LONGEST_CLIENT_ID} bytes at most")

    @property
    def credentials(self) -> tuple[str, str]:
        given = super().credentials
        return given if any(given) else ("guest", "guest")

    @property
    def address(self) -> str:
        # TLS is only another way in.
        return f"amqp://{host_name(self.host)}:{self.port}/{self.vhost}#{self.exchange}"

    @property
    def first_service(self) -> int:
        """The channel that services begin at; some brokers allow no more than one needs."""
        return LASTING + 1 if self.session_expiry else LASTING

    @property
    def queue_arguments(self) -> dict[str, Any]:
        """What a queue of subscriptions is bounded by."""
        arguments: dict[str, Any] = {}
        if self.queue_size is not None:
            arguments |= {"x-max-length": self.queue_size, "x-overflow": "drop-head"}
        if self.message_ttl is not None:
            arguments["x-message-ttl"] = self.message_ttl
        return arguments

    @property
    def lasting_arguments(self) -> dict[str, Any]:
        """What a queue is that outlives the connection."""
        arguments: dict[str, Any] = {"x-queue-type": self.queue_type}
        if self.session_expiry < inf:
            arguments["x-expires"] = max(1, round(self.session_expiry * 1000))
        if self.queue_type == QUORUM:
            arguments["x-single-active-consumer"] = True
        return arguments | self.queue_arguments

    def make_transport(self) -> AmqpTransport:
        """A new transport to this broker."""
        from commlib.transports.amqp import AmqpTransport

        return AmqpTransport(self)

    @classmethod
    def _from_url_parts(cls, parts: SplitResult) -> dict[str, Any]:
        from urllib.parse import unquote

        tls = parts.scheme in TLS_SCHEMES
        return {
            "username": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "host": host_in(parts) or "127.0.0.1",
            "port": parts.port or (TLS_PORT if tls else PORT),
            # As the URI specification of RabbitMQ has it: a slash in the name is %2F, and a path
            # that is only a slash is taken for the default one, as nearly everybody means it.
            "vhost": unquote(parts.path[1:]) or "/",
            "ssl": tls,
        }

    def __str__(self) -> str:
        vhost = "" if self.vhost == "/" else f"/{self.vhost}"
        return f"{'amqps' if self.ssl else 'amqp'}://{self.place}{vhost}"
