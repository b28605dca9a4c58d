"""Checks of `commlib doctor` on the way to the broker: name, port, TLS, login, rights, clock."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from os import urandom
from statistics import fmean, median
from time import perf_counter, time
from typing import Any

from commlib import _dial, _tls
from commlib._packet import Packet, now_ms
from commlib._params import NetworkParameters
from commlib.aio import Node
from commlib.aio.pubsub import Publisher
from commlib.cli._findings import Finding, good
from commlib.cli._watch import Watch
from commlib.exceptions import AuthError, CertificateError, CommlibError, MissingDriver

DIAL_SECONDS = 5.0
SOON = 21  # days in which a certificate expires that is to be renewed now
ROUND_TRIPS, WARM_UP = 30, 3
ROUND_TRIP_SECONDS = 2.0  # after which a message is taken for lost
SLOW_MS, UNSTEADY_MS = 100.0, 20.0
CLOCK_MS = 500  # by which clocks may differ
SET_CLOCK = "let NTP set the clocks of both machines: timedatectl set-ntp true"


def _error(check: str, text: str, cause: str, mend: str) -> Finding:
    return Finding(severity="error", check=check, text=text, cause=cause, mend=mend)


# ---- before the login ----


async def check_place(params: NetworkParameters) -> AsyncIterator[Finding]:
    """Look whether one broker can be reached, as far as its login; the first error is the last."""
    if params.unix_socket:
        yield await _check_socket(params)
        return
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            addresses = await _dial.resolve(params.host, params.port)
    except OSError as exc:
        yield _no_name(params, exc)
        return
    found = dict.fromkeys(_dial.place_of(address)[0] for address in addresses)
    if _dial.without_zone(params.host) not in map(_dial.without_zone, found):
        yield good("dns", f"{params.host} is {', '.join(found)}")
    address, fault = await _dial_each(params, list(found))
    if fault is not None:
        yield fault
        return
    yield good("tcp", f"{params.place} takes connections")
    if params.ssl:
        yield await _check_tls(params, address)


def _no_name(params: NetworkParameters, exc: OSError) -> Finding:
    slow = isinstance(exc, TimeoutError)
    return _error(
        "dns",
        f"{params.host}: {'the name server does not answer' if slow else exc}",
        "the name is misspelt, or the name server of this machine does not know it or is away",
        f"see what `getent hosts {params.host}` says, and whether an address in digits works",
    )


async def _dial_each(params: NetworkParameters, addresses: list[str]) -> tuple[str, Finding | None]:
    """The first address that takes a connection, or why the last one does not."""
    failure: OSError = OSError("it has no address")
    for address in addresses:
        try:
            async with asyncio.timeout(DIAL_SECONDS / len(addresses)):
                _, writer = await asyncio.open_connection(address, params.port)
        except OSError as exc:
            failure = exc
            continue
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return address, None
    return "", _unreachable(params, failure)


def _unreachable(params: NetworkParameters, exc: OSError) -> Finding:
    if isinstance(exc, ConnectionRefusedError):
        cause = "nothing listens there: the broker does not run, or on another port or interface"
        mend = (
            "start it, or name another one by --url; where it runs elsewhere, let it listen on an "
            "interface that this machine reaches, not on localhost alone"
        )
    elif isinstance(exc, TimeoutError):
        cause = "the machine is off, or a firewall drops what goes there"
        mend = f"see whether {params.host} answers, and open port {params.port} on its firewall"
    else:
        cause = "there is no way from this network to that one"
        mend = "see what `ip route` says, and whether a VPN is needed"
    why = "no answer" if isinstance(exc, TimeoutError) else exc.strerror or str(exc)
    return _error("tcp", f"{params.place} cannot be reached: {why}", cause, mend)


async def _check_socket(params: NetworkParameters) -> Finding:
    path = params.unix_socket
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            _, writer = await asyncio.open_unix_connection(path)
    except OSError as exc:
        return _error(
            "socket",
            f"{path}: {exc.strerror or 'no answer'}",
            "the broker does not run, listens on another socket, or gives this user no right to it",
            "see `unixsocket` and `unixsocketperm` in the configuration of the broker",
        )
    writer.close()
    return good("socket", f"{path} takes connections")


# ---- TLS ----


async def _check_tls(params: NetworkParameters, address: str) -> Finding:
    try:
        context = params.ssl_context()
        async with asyncio.timeout(DIAL_SECONDS):
            _, writer = await asyncio.open_connection(
                address, params.port, ssl=context, server_hostname=_dial.without_zone(params.host)
            )
    except OSError as exc:
        return _bad_tls(exc)
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    certificate: dict[str, Any] = tls.getpeercert() or {}
    version = tls.version()
    writer.close()
    return judge_certificate(certificate, version or "TLS", time())


def judge_certificate(certificate: dict[str, Any], version: str, now: float) -> Finding:
    """What there is to say of a certificate, as ``getpeercert`` gives it; ``now`` in s."""
    until = certificate.get("notAfter")
    if not isinstance(until, str):
        return Finding(
            severity="warning",
            check="tls",
            text=f"{version}, but the certificate of the broker is not verified",
            cause="the SSLContext that was given has verify_mode=CERT_NONE",
            mend="verify it: ssl.create_default_context(cafile=...) with the CA of the broker",
        )
    end = ssl.cert_time_to_seconds(until)
    days = int((end - now) // 86_400)
    date = datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%d")
    if days >= SOON:
        return good("tls", f"{version}, the certificate holds until {date}, {days} more days")
    return Finding(
        severity="warning",
        check="tls",
        text=f"the certificate of the broker expires on {date}, in {days} days",
        cause="nobody has renewed it; from then on nothing connects any more",
        mend="renew it, and let the broker load the new one",
    )


def _bad_tls(exc: OSError) -> Finding:
    reason = getattr(exc, "reason", "") or exc.strerror or type(exc).__name__
    advice = _tls.fault(exc)
    if advice:
        text = getattr(exc, "verify_message", "") or reason
        cause = "one side does not trust the certificate of the other"
        mend = f"{advice}; for this command SSL_CERT_FILE=ca.pem names another CA"
        return _error("tls", f"the certificate does not verify: {text}", cause, mend)
    return _error(
        "tls",
        f"no TLS there: {reason}",
        "the broker speaks without TLS on this port, or cuts the handshake off",
        "connect to the port on which it speaks TLS, or without TLS if it has no such port",
    )


# ---- the login ----


def failed_login(exc: CommlibError) -> Finding:
    """Why there is no connection though the port is open."""
    if isinstance(exc, MissingDriver):
        return _error("driver", str(exc), "an extra is not installed", "install it as it says")
    if isinstance(exc, CertificateError):
        cause = "one side does not trust the certificate of the other"
        return _error("tls", str(exc), cause, "see what the text says")
    if isinstance(exc, AuthError):
        return _error(
            "login",
            str(exc),
            "user name or password are wrong or missing, or the user has no right to this broker",
            "put them into the URL, scheme://user:password@host; in a password / is %2F, @ is %40",
        )
    return _error(
        "connection",
        str(exc),
        "what listens there is no such broker, or speaks TLS where the URL does not, or is full",
        "look at the scheme and the port of the URL, and into the log of the broker",
    )


# ---- behind the login ----


async def check_round_trip(node: Node) -> Finding:
    """Publish on a topic that nobody else has, and wait for it."""
    topic = f"commlib.doctor.{urandom(4).hex()}"
    came, refused = asyncio.Event(), list[Exception]()

    def take(packet: Packet) -> None:
        came.set()

    def note_refusal(target: str, exc: Exception) -> None:
        if target == topic:
            refused.append(exc)
            came.set()
        else:
            tell(target, exc)

    watch, publisher = Watch(node, topic, take), Publisher[Any](topic, hub=node.hub)
    tell, node.hub.transport.on_refused = node.hub.transport.on_refused, note_refusal
    try:
        await watch.run()
        times = []
        for number in range(ROUND_TRIPS + WARM_UP):
            came.clear()
            begin = perf_counter()
            await publisher.publish(number)
            async with asyncio.timeout(ROUND_TRIP_SECONDS):
                await came.wait()
            if refused:
                return _no_right(topic, refused[0])
            times.append((perf_counter() - begin) * 1000)
    except AuthError as exc:
        return _no_right(topic, exc)
    except TimeoutError:
        return _error(
            "roundtrip",
            f"what is published on {topic} does not come back within {ROUND_TRIP_SECONDS:g} s",
            "the user may publish or subscribe but not both, or the broker is at its limit",
            f"give the user the right to both on {topic.rpartition('.')[0]}.*, and look at the "
            "load of the broker",
        )
    finally:
        node.hub.transport.on_refused = tell
        await publisher.stop()
        await watch.stop()
    return judge_times(times[WARM_UP:])


def _no_right(topic: str, exc: Exception) -> Finding:
    return _error(
        "rights",
        f"{topic}: {exc}",
        "the broker does not let this user publish and subscribe on commlib.doctor.*",
        "give the user the rights that nodes need, or ask as a user who has them",
    )


def judge_times(times: list[float]) -> Finding:
    """What there is to say of round trips in ms."""
    middle = median(times)
    jitter = fmean(abs(b - a) for a, b in pairwise(times))
    text = f"median {middle:.2f} ms, worst {max(times):.2f} ms, jitter {jitter:.2f} ms"
    if middle < SLOW_MS and jitter < max(UNSTEADY_MS, middle):
        return good("roundtrip", text)
    return Finding(
        severity="warning",
        check="roundtrip",
        text=text,
        cause="the network is slow or unsteady (Wi-Fi that sleeps, a VPN), or the broker is busy",
        mend="use a cable, a broker nearby, `iw dev wlan0 set power_save off`, or longer timeouts",
    )


def check_clock(node: Node) -> Finding:
    """Compare the clock of the broker with ours; after the login."""
    transport = node.hub.transport
    if not transport.traits.tells_time:
        text = "a broker of this kind tells no time; it is not compared with the clock here"
        return Finding(severity="info", check="clock", text=text)
    return judge_clock(transport.clock() - now_ms())


def judge_clock(ahead: int) -> Finding:
    """What there is to say of a broker whose clock is so many ms ahead of ours."""
    if abs(ahead) < CLOCK_MS:
        return good("clock", f"the broker's differs by {abs(ahead)} ms from that of this machine")
    return Finding(
        severity="warning",
        check="clock",
        text=f"the broker's is {abs(ahead) / 1000:.1f} s {'ahead of' if ahead > 0 else 'behind'} "
        "that of this machine",
        cause="one of them is not set; ages of messages and dates of certificates are wrong by it",
        mend=SET_CLOCK,
    )
