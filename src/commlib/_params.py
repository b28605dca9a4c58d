"""What every kind of connection can be told, and how it is read from a URL."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

from msgspec import Struct

from commlib._packet import MAX_PAYLOAD

if TYPE_CHECKING:
    from ssl import SSLContext
    from urllib.parse import SplitResult

    from commlib.transports.base import Transport

Policy = Literal["buffer", "wait", "raise"]

ENCODED = (
    "special characters, those of a password most of all, are written %2F for /, %40 for @, "
    "%3A for :, %3F for ?, %23 for # and %25 for %"
)
NO_CLIENT_ID = (
    "session_expiry: it needs a client_id, by which the broker knows these subscribers again; one "
    "that no other connection has"
)


class Offline(Struct, frozen=True):
    """What becomes of messages that are published while the connection is away.

    ``buffer`` keeps the newest of them for a while (a robot must not execute a minute-old
    command); ``wait`` makes the publisher wait; ``raise`` raises ConnectionLost. ``max_age`` in
    seconds, ``max_bytes`` as they will be on the wire. ``timeout`` (s) is how long a publisher
    waits for room, under ``wait`` and whenever the outgoing queue is full; then OutboxFull.
    """

    policy: Policy = "buffer"
    max_messages: int = 1000
    max_bytes: int = 1_000_000
    max_age: float = 5.0
    timeout: float = 10.0

    def __post_init__(self) -> None:
        if self.policy not in get_args(Policy):
            raise ValueError(f"offline={self.policy!r}: it is one of {', '.join(get_args(Policy))}")


@dataclass(frozen=True, slots=True)
class Credentials:
    """User name and password; some brokers know a password alone."""

    username: str = ""
    password: str = field(default="", repr=False)


@dataclass(kw_only=True)
class BaseParameters:
    """The parameters that all brokers share.

    * ``connect_timeout`` (s): how long ``run()`` waits for the broker, and one attempt lasts.
    * ``reconnect``: try again for ever, with growing jittered pauses; False: raise at once.
    * ``keepalive`` (s): a link silent for so long is probed, and given up 5 s later.
    * ``offline``: an ``Offline`` or the name of its policy.
    * ``max_payload`` (bytes): larger payloads are refused on both ways.
    """

    connect_timeout: float = 10.0
    reconnect: bool = True
    keepalive: float = 15.0
    offline: Offline | Policy = field(default_factory=Offline)
    max_payload: int = MAX_PAYLOAD

    schemes: ClassVar[tuple[str, ...]] = ()
    """The URL schemes of this kind of broker."""
    url_names: ClassVar[dict[str, str]] = {}
    """Options that have another name in a URL."""

    if not TYPE_CHECKING:  # checkers know the fields

        def __new__(cls, *args, **given):
            is_ours = cls.__init__.__module__.startswith("commlib.")  # else it may take others
            for name in given:
                if is_ours and name not in cls.__dataclass_fields__:
                    near = nearest(name, [each.name for each in fields(cls)])
                    raise TypeError(f"ConnectionParameters have no {name!r}; {near}")
            return super().__new__(cls)

    def __post_init__(self) -> None:
        if not isinstance(self.offline, Offline):
            Offline(self.offline)  # a name that is none is refused here
        # Below a second there is no keepalive: Redis and MQTT count it in whole ones.
        for name, least in (("connect_timeout", 0.001), ("keepalive", 1), ("max_payload", 1)):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and value >= least):
                raise ValueError(f"{name}={value!r}: at least {least} is needed")
        if not isinstance(self.reconnect, bool):
            raise ValueError(f"reconnect={self.reconnect!r}: it is True or False")

    @property
    def offline_policy(self) -> Offline:
        """``offline`` in full, also where only the name of the policy was given."""
        return self.offline if isinstance(self.offline, Offline) else Offline(self.offline)

    @property
    def address(self) -> str:
        """Which broker it is: connections with the same one share all topics."""
        return str(self)

    def with_will(self, topic: str, payload: bytes) -> Self:
        """These parameters, or, where a broker does such a thing, with a message for it to publish.

        It does when the connection ends without a word. One that the user gave has precedence.
        """
        return self

    def make_transport(self) -> Transport:
        """A new transport for these parameters; it connects when told to."""
        raise NotImplementedError

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Parameters from a URL; options stand in its query, e.g. ``?keepalive=5``.

        Raises ValueError that names what is wrong, but nothing that may belong to a password.
        """
        parts = _split(url)
        if parts.scheme not in cls.schemes:
            raise ValueError(f"{parts.scheme}:// is not one of {', '.join(cls.schemes)}")
        try:
            return cls._from_split(parts)
        except ValueError:
            if "password=" not in parts.query:
                raise
        raise ValueError(
            f"{parts.scheme}://: an option cannot be read; it is not shown, for it may be the end "
            f"of a password: {ENCODED}"
        )

    @classmethod
    def _from_split(cls, parts: SplitResult) -> Self:
        from urllib.parse import parse_qsl

        options = cls._from_url_parts(parts)
        known = {f.name: f.type for f in fields(cls) if _is_plain(str(f.type))}
        for spelled, text in parse_qsl(parts.query, keep_blank_values=True):
            name = cls.url_names.get(spelled, spelled)
            if name not in known:
                raise ValueError(
                    f"{name!r} is no option of {cls.schemes[0]}://; {nearest(name, known)}"
                )
            value = _read_option(name, text, str(known[name]))
            if name == "ssl" and options.get("ssl") and not value:
                raise ValueError(f"{parts.scheme}:// asks for TLS, and {spelled}={text} for none")
            options[name] = value
        return cls(**options)

    @classmethod
    def _from_url_parts(cls, parts: SplitResult) -> dict[str, Any]:
        """What the URL says before its query, as arguments of the constructor."""
        raise NotImplementedError


# Its parts, not it, are what is made: they have their methods from dataclasses of their own.
@dataclass(kw_only=True, init=False, repr=False, eq=False)
class _Several(BaseParameters):
    """Parameters of brokers that stand in for one another."""

    fallbacks: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.fallbacks, Sequence):
            raise TypeError(f"fallbacks={self.fallbacks!r}: it is a list of 'host' or 'host:port'")
        if isinstance(self.fallbacks, str):
            self.fallbacks = self.fallbacks.split(",") if self.fallbacks else ()
        self.fallbacks = tuple(self.fallbacks)


class NetworkParameters(_Several):
    """What parameters have in common where the broker is reached through a network.

    ``fallbacks``: ``"host"`` or ``"host:port"`` of brokers that stand in for this one; in a URL
    with commas between them. Those that cannot be reached are passed over, in turn; one that was
    reached is used as long as it is there.

    No other fields of its own: each kind of broker has them in the order that its users know.
    """

    host: str
    port: int
    creds: Credentials | None
    username: str
    password: str
    unix_socket: str = ""
    ssl: bool | SSLContext

    url_names: ClassVar[dict[str, str]] = {"tls": "ssl"}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_types()
        self.each_place()  # one that is none is refused here
        try:
            "".join(self.credentials).encode()
        except UnicodeEncodeError:  # its text would show what is wrong
            raise ValueError("user name and password: UTF-8 has no room for a surrogate") from None

    def _check_types(self) -> None:
        if not isinstance(self.host, str) or not self.host:
            raise ValueError(f"host={self.host!r}: it is the name or address of a machine")
        if "://" in self.host or self.host.count(":") == 1:  # not shown: a URL may have a password
            raise ValueError(
                "host: the name or address of a machine alone; the port is port=, and a URL is "
                "given whole, as connection_params"
            )
        if not isinstance(self.port, int) or not 0 < self.port <= 65535:
            raise ValueError(f"port={self.port!r}: it is a number from 1 to 65535")
        if not all(isinstance(text, str) for text in self.credentials):
            raise TypeError("user name and password are text")  # not shown: one may be the other
        if not isinstance(self.ssl, bool | None) and not hasattr(self.ssl, "wrap_bio"):
            raise TypeError(
                f"ssl={self.ssl!r}: it is True, or an SSLContext; with a CA of your own "
                "ssl.create_default_context(cafile=...)"
            )

    @property
    def credentials(self) -> tuple[str, str]:
        """User name and password, from whichever field they were given in."""
        creds = self.creds or Credentials(self.username, self.password)
        return creds.username, creds.password

    @property
    def place(self) -> str:
        """Host and port as in a URL."""
        if ":" not in self.host:
            return f"{self.host}:{self.port}"
        return f"[{self.host.replace('%', '%25', 1)}]:{self.port}"  # the zone, see `host_in`

    def each_place(self) -> list[Self]:
        """These parameters for each of the brokers, the first one first."""
        all_of_them = [self]
        for text in self.fallbacks:
            is_place = isinstance(text, str) and not self.unix_socket
            place = _host_and_port(text) if is_place else None
            if place is None:
                raise ValueError(
                    "fallbacks: 'host' or 'host:port' each, of brokers that are reached through "
                    "a network as this one"
                )
            other = copy.copy(self)
            other.host, other.port = place[0], place[1] or self.port
            all_of_them.append(other)
        return all_of_them

    def ssl_context(self) -> SSLContext | None:
        """The TLS context to connect with, None without TLS."""
        if not self.ssl:
            return None
        import ssl

        if self.ssl is not True:
            return self.ssl
        context = ssl.create_default_context()
        # Debian's Python leaves that to the system.
        context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
        return context


def host_in(parts: SplitResult) -> str:
    """The host that a URL names; empty if it names none.

    The % before the zone of an IPv6 address is %25 in a URL (RFC 6874, section 2). Most people
    leave it as it is, and are understood, too.
    """
    host = parts.hostname or ""
    return re.sub("%25(?=.)", "%", host, count=1) if ":" in host else host


def _host_and_port(text: str) -> tuple[str, int | None] | None:
    """What ``host:port`` or ``host`` alone says; None if it is neither."""
    from urllib.parse import urlsplit  # most programs have one broker

    try:
        parts = urlsplit(f"//{text.strip()}")
        if parts.hostname and not (parts.username or parts.path):
            return host_in(parts), parts.port
    except ValueError:  # of a port that is none
        return None
    return None


def together(each: Sequence[BaseParameters]) -> BaseParameters:
    """The first of them, with the others as its fallbacks. Raises ValueError."""
    first, others = (each[0] if each else None), each[1:]
    if not isinstance(first, NetworkParameters):
        raise ValueError("a list of brokers: at least one, each reached through a network")
    places = []
    for other in others:
        alike = copy.copy(first)
        if isinstance(other, NetworkParameters):
            alike.host, alike.port = other.host, other.port
        if other != alike:
            raise ValueError(
                "the brokers of a list stand in for one another: they may differ in host and port, "
                "and in nothing else"
            )
        places.append(alike.place)
    return replace(first, fallbacks=places) if places else first


def _split(url: str) -> SplitResult:
    """The parts of a URL. Raises ValueError, without a word of the URL but its scheme.

    A password with a ``/``, ``?`` or ``#`` ends where the host is looked for: the first half of it
    is taken for a port, the rest for a path.
    """
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"a URL that cannot be read; {ENCODED}") from None
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(f"{parts.scheme}://: a port is a number up to 65535; {ENCODED}") from None
    if parts.fragment or "@" in parts.path or "@" in parts.query:
        raise ValueError(f"{parts.scheme}://: a # or @ where none can be; {ENCODED}")
    return parts


def nearest(word: str, known: Iterable[str]) -> str:
    """What was probably meant, for the end of an error message."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), 1)
    return f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"


def _is_plain(kind: str) -> bool:
    """Whether a value of this type can be spelled in a URL."""
    return any(word in kind for word in ("bool", "int", "float", "str", "Policy", "Carrier"))


def _read_option(name: str, text: str, kind: str) -> Any:
    try:
        if "bool" in kind:
            return {"1": True, "true": True, "0": False, "false": False}[text.lower()]
        if "int" in kind:
            return int(text)
        return float(text) if "float" in kind else text
    except (KeyError, ValueError) as exc:
        raise ValueError(f"{name}={text}: {kind} expected") from exc
