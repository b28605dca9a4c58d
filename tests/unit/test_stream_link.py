"""What a link can tell of the bytes that it was given, with TLS and without."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trustme

from collected import DEADLINE
from commlib.transports._redis_link import RedisLink
from commlib.transports._stream_link import StreamLink, open_stream
from commlib.transports.redis import ConnectionParameters

SIZE = 16_000_000  # more than the buffers of both ends take


@asynccontextmanager
async def linked(tls: bool) -> AsyncIterator[tuple[StreamLink, asyncio.StreamReader]]:
    """A link, and what reads at its other end."""
    readers: asyncio.Queue[asyncio.StreamReader] = asyncio.Queue()
    writers: list[asyncio.StreamWriter] = []

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        readers.put_nowait(reader)
        writers.append(writer)

    ours = theirs = None
    if tls:
        authority = trustme.CA()
        theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(theirs)
        ours = ssl.create_default_context()
        authority.configure_trust(ours)
    server = await asyncio.start_server(serve, "127.0.0.1", ssl=theirs)
    params = ConnectionParameters("127.0.0.1", server.sockets[0].getsockname()[1], ssl=ours)
    async with server, asyncio.timeout(DEADLINE):
        link = await open_stream(lambda: RedisLink("r"), params)
        try:
            yield link, await readers.get()
        finally:
            link.abort(None)
            for writer in writers:
                writer.transport.abort()
            await link.gone


async def until(holds: Callable[[], bool]) -> None:
    """Return when it holds."""
    while not holds():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_it_can_tell_how_many_bytes_have_not_left(tls: bool) -> None:
    async with linked(tls) as (link, reader):
        link.write([bytes(SIZE)], [])
        assert link.written_bytes == SIZE
        unsent = link.unsent_bytes
        assert 0 < unsent <= SIZE
        await reader.readexactly(SIZE // 2)
        await until(lambda: link.unsent_bytes != unsent)
        await reader.readexactly(SIZE - SIZE // 2)
        await until(lambda: link.unsent_bytes == 0)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_link_that_has_ended_has_nothing_to_send(tls: bool) -> None:
    async with linked(tls) as (link, _):
        link.write([bytes(SIZE)], [])
        link.abort(None)
        assert link.unsent_bytes == 0


async def test_what_another_thread_writes_is_counted_once() -> None:
    async with linked(False) as (link, reader):
        link.allow_direct()
        sent = 0
        while sent < SIZE and await asyncio.to_thread(link.write_now, bytes(100_000), None, False):
            sent += 100_000
            link._pending.clear()  # type: ignore[attr-defined] # as if it were answered
        assert sent > 0
        await reader.readexactly(sent)
        assert link.written_bytes == sent
        await until(lambda: link.unsent_bytes == 0)
