"""Opens a TCP connection, with TLS or without, to a host by name."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from commlib import _tls

if TYPE_CHECKING:
    from ssl import SSLContext

P = TypeVar("P", bound=asyncio.BaseProtocol)
Found = list[tuple[Any, ...]] | OSError


async def connect(
    make_protocol: Callable[[], P], host: str, port: int, ssl: SSLContext | None, timeout: float
) -> P:
    """A connected protocol; the addresses of the host are tried in turn.

    Each gets its share of ``timeout`` (s), so that one that does not answer leaves time for the
    next. Raises OSError with the reason of the last one, TimeoutError among them; or that of one
    whose certificate does not verify.
    """
    addresses = await resolve(host, port)
    failure: OSError = OSError(f"{host} has no address")
    for address in addresses:
        try:
            async with asyncio.timeout(timeout / len(addresses)):
                return await _connect(make_protocol, address, host, ssl)
        except OSError as exc:
            if not _tls.fault(failure):  # it says more than that another one is away
                failure = exc
    raise failure


async def _connect(
    make_protocol: Callable[[], P], address: tuple[Any, ...], host: str, ssl: SSLContext | None
) -> P:
    family, _, proto, _, _ = address
    # An address in digits is looked up by no loop, and uvloop starts no threads for it.
    _, protocol = await asyncio.get_running_loop().create_connection(
        make_protocol,
        *place_of(address),
        family=family,
        proto=proto,
        ssl=ssl,
        server_hostname=without_zone(host) if ssl else None,
    )
    return protocol


def place_of(address: tuple[Any, ...]) -> tuple[str, int]:
    """Host in digits and port of one address that ``resolve`` has found.

    A link-local address is in every network that this machine is in: its zone says which is meant.
    """
    digits, port, *rest = address[4]
    zone = rest[1] if address[0] == socket.AF_INET6 else 0
    return (f"{digits}%{zone}" if zone else digits), port


def without_zone(host: str) -> str:
    """A host as others know it: a zone has a meaning on this machine alone (RFC 6874)."""
    return host.partition("%")[0] if ":" in host else host


async def resolve(host: str, port: int) -> list[tuple[Any, ...]]:
    """The addresses of a host, as ``socket.getaddrinfo`` has them. Raises OSError.

    In a daemon thread of its own: those of the event loop are waited for when the program ends,
    however long the name server takes, and cannot be used any more while it does.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Found] = loop.create_future()

    def tell(found: Found) -> None:
        if not answer.done():
            answer.set_result(found)

    def look_up() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody has waited so long
            loop.call_soon_threadsafe(tell, _look_up(host, port))

    try:
        threading.Thread(target=look_up, name="commlib-resolver", daemon=True).start()
    except RuntimeError:  # the program is ending, or the system has no more threads for us
        tell(_look_up(host, port))
    found = await answer
    if isinstance(found, OSError):
        raise found
    return found


def _look_up(host: str, port: int) -> Found:
    # From a str Python would encode it by the rules for international names, and load their tables.
    name = host.encode() if host.isascii() else host
    try:
        return list(socket.getaddrinfo(name, port, type=socket.SOCK_STREAM))
    except OSError as exc:
        return exc
    except UnicodeError as exc:  # a label that is empty or too long
        return OSError(f"{host!r} is no host name: {exc}")
