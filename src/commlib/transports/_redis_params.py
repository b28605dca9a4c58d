"""Where a Redis server is, and how to get in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from commlib._hops import host_name, this_machine
from commlib._params import Credentials as Credentials
from commlib._params import NetworkParameters, host_in
from commlib.exceptions import MissingDriver

if TYPE_CHECKING:
    from ssl import SSLContext
    from urllib.parse import SplitResult

    from commlib.transports.redis import RedisTransport


@dataclass
class ConnectionParameters(NetworkParameters):
    """Where the server is and how to get in.

    ``unix_socket`` (a path) wins over host and port. ``creds``, or ``username`` and ``password``.
    ``ssl``: True checks certificate and host name against the system's CAs; or an SSLContext.
    """

    host: str = "localhost"
    port: int = 6379
    db: int = 0
    creds: Credentials | None = None
    unix_socket: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    ssl: bool | SSLContext = False

    schemes: ClassVar[tuple[str, ...]] = ("redis", "rediss", "redis+unix", "valkey", "valkeys")

    @property
    def address(self) -> str:
        # Channels know nothing of databases, and TLS is only another way in.
        if self.unix_socket:
            return f"redis+unix://{this_machine()}{self.unix_socket}"
        return f"redis://{host_name(self.host)}:{self.port}"

    def make_transport(self) -> RedisTransport:
        """A new transport. Raises MissingDriver without the extra ``redis``."""
        try:
            import hiredis  # noqa: F401 - better known now than at the first connection
        except ImportError as exc:
            raise MissingDriver('hiredis is missing: pip install "commlib-py[redis]"') from exc
        from commlib.transports.redis import RedisTransport

        return RedisTransport(self)

    @classmethod
    def _from_url_parts(cls, parts: SplitResult) -> dict[str, Any]:
        from urllib.parse import unquote

        options: dict[str, Any] = {
            "username": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
        }
        path = unquote(parts.path)
        if parts.scheme == "redis+unix":
            return options | {"unix_socket": path}
        if path.strip("/"):
            if not path.strip("/").isdecimal():
                raise ValueError(f"{path}: the path of a Redis URL is the number of the database")
            options["db"] = int(path.strip("/"))
        options["host"] = host_in(parts) or "localhost"
        options["port"] = parts.port or 6379
        options["ssl"] = parts.scheme in ("rediss", "valkeys")
        return options

    def __str__(self) -> str:
        if self.unix_socket:
            from urllib.parse import quote

            return f"redis+unix://{quote(self.unix_socket)}?db={self.db}"
        scheme = "rediss" if self.ssl else "redis"
        return f"{scheme}://{self.place}/{self.db}"


TCPConnectionParameters = ConnectionParameters


# The fields are the same ones, and so are repr and equality.
@dataclass(repr=False, eq=False)
class UnixSocketConnectionParameters(ConnectionParameters):
    """A server on this machine, through its unix socket."""

    unix_socket: str = "/tmp/redis.sock"
