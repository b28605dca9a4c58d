"""The connections of one transport: all of them are with the same broker, or are about to be."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from collected import DEADLINE, eventually
from commlib.exceptions import AuthError, CertificateError, ConnectError
from commlib.transports import redis
from commlib.transports._sessions import Sessions
from commlib.transports.base import LinkStats
from fake_link import FakeLink

Dial = Callable[[str], Awaitable[FakeLink]]


class Transport:
    """Two sessions with brokers of a test's own; ``dial`` is told which one is tried."""

    def __init__(self, dial: Dial, **options: Any) -> None:
        params = redis.ConnectionParameters("a", fallbacks=["b", "c"], **options)
        self.tried: list[str] = []
        self.links: dict[str, tuple[str, FakeLink]] = {}
        self._dial = dial
        self.sessions = Sessions(params, LinkStats(), lambda connected, reason: None)
        self.main, self.other = [self._add(role) for role in ("main", "other")]

    def _add(self, role: str) -> Any:
        async def dial_here() -> FakeLink:
            host = self.sessions.params.host
            self.tried.append(host)
            link = await self._dial(host)
            self.links[role] = host, link
            return link

        return self.sessions.add(role, dial_here, lambda link: None)

    async def ready(self, *sessions: Any) -> None:
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*(session.ready() for session in sessions))

    async def close(self) -> None:
        await asyncio.gather(self.main.close(), self.other.close())


def away(*hosts: str) -> Dial:
    async def dial(host: str) -> FakeLink:
        if host in hosts:
            raise ConnectionRefusedError(host)
        return FakeLink()

    return dial


async def test_the_first_broker_that_can_be_reached_is_used_by_all() -> None:
    transport = Transport(away("a", "b"))
    await transport.ready(transport.main)
    assert transport.tried == ["a", "b", "c"]
    await transport.ready(transport.other)
    assert {host for host, _ in transport.links.values()} == {"c"}
    assert transport.other.name == "redis://c:6379/0 (other)"
    await transport.close()


async def test_one_that_is_in_use_is_not_left_for_a_connection_that_fails() -> None:
    failing = ["once"]

    async def dial(host: str) -> FakeLink:
        if len(transport.tried) == 2 and failing.pop():
            raise ConnectionResetError
        return FakeLink()

    transport = Transport(dial)
    await transport.ready(transport.main)
    await transport.ready(transport.other)
    assert transport.tried == ["a", "a", "a"]
    await transport.close()


async def test_a_connection_that_comes_late_is_not_with_another_broker_than_the_rest() -> None:
    late = asyncio.Event()

    async def dial(host: str) -> FakeLink:
        if host == "a" and len(transport.tried) == 1:
            await late.wait()
        elif host == "a":
            raise ConnectionRefusedError
        return FakeLink()

    transport = Transport(dial)
    transport.main.start()
    await asyncio.sleep(0)
    await transport.ready(transport.other)
    assert transport.links["other"][0] == "b"
    late.set()
    await transport.ready(transport.main)
    assert transport.links["main"][0] == "b"
    assert transport.tried == ["a", "a", "b", "b"]
    await transport.close()


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (AuthError("who are you?"), AuthError),
        (ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED]"), CertificateError),
    ],
)
async def test_what_a_person_has_to_mend_is_told_and_not_passed_over(
    error: Exception, raised: type[Exception]
) -> None:
    if isinstance(error, ssl.SSLError):
        error.reason = "CERTIFICATE_VERIFY_FAILED"

    async def dial(host: str) -> FakeLink:
        raise error

    transport = Transport(dial)
    with pytest.raises(raised):
        await transport.ready(transport.main)
    assert transport.tried == ["a"]
    await transport.close()


async def test_each_is_tried_once_where_nothing_is_tried_again() -> None:
    transport = Transport(away("a", "b", "c"), reconnect=False)
    with pytest.raises(ConnectError, match="redis://c"):
        await transport.ready(transport.main)
    assert transport.tried == ["a", "b", "c"]
    await transport.close()
    transport = Transport(away("a"), reconnect=False)
    await transport.ready(transport.main)
    assert transport.links["main"][0] == "b"
    await transport.close()


async def test_one_that_does_not_answer_leaves_time_for_the_next() -> None:
    async def dial(host: str) -> FakeLink:
        if host == "a":
            await asyncio.Event().wait()
        return FakeLink()

    transport = Transport(dial, connect_timeout=3.0, reconnect=False)
    await transport.ready(transport.main)
    assert transport.links["main"][0] == "b"
    await transport.close()


async def test_one_that_is_the_wrong_one_is_left_by_all_for_the_next() -> None:
    transport = Transport(away())
    await transport.ready(transport.main, transport.other)
    place = transport.sessions.params
    gone = [link for _, link in transport.links.values()]
    reason = ConnectError("wrong")
    for _ in range(2):  # who finds it out second changes nothing
        assert transport.sessions.leave(place, reason)
        assert transport.sessions.params.host == "b"
    assert [link.closed.result() for link in gone] == [reason, reason]
    for session in (transport.main, transport.other):
        await asyncio.to_thread(eventually, lambda s=session: s.link not in (*gone, None))
    assert {host for host, _ in transport.links.values()} == {"b"}
    await transport.close()


@pytest.mark.parametrize("options", [{"fallbacks": ()}, {"reconnect": False}])
async def test_one_that_nothing_follows_is_not_left(options: dict[str, Any]) -> None:
    params = redis.ConnectionParameters(**{"fallbacks": ["b"], **options})
    sessions = Sessions(params, LinkStats(), lambda connected, reason: None)
    assert not sessions.leave(sessions.params, ConnectError("wrong"))
    assert sessions.params.host == params.host
