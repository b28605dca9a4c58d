"""What a link can tell of the bytes that it was given, with TLS and without."""

from __future__ import annotations

import asyncio
import os
import resource
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress

import pytest
import trustme

from collected import DEADLINE
from commlib._parts import Frame, Parts
from commlib.transports._reading import CAN_BE_LENT
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


def long_frames(count: int) -> list[Frame]:
    """Frames long and short, in parts and not, each of which can be told from the others."""
    made: list[Frame] = []
    for number in range(count):
        mark = b"<%06d>" % number
        payload = memoryview(mark * 20_000)
        made += [b"short" + mark, Parts(mark, payload, b"\r\n"), Parts(mark, payload[:-1], mark)]
    return made


@pytest.mark.parametrize("direct", [False, True], ids=["loop", "direct"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_long_frames_arrive_whole_and_in_order(tls: bool, direct: bool) -> None:
    async with linked(tls) as (link, reader):
        if direct:
            link.allow_direct()
        frames = long_frames(30)
        whole = b"".join(map(bytes, frames))
        for at in range(0, len(frames), 7):
            link.write(frames[at : at + 7], [])
        assert link.written_bytes == len(whole)
        assert await reader.readexactly(len(whole)) == whole
        await until(lambda: link.unsent_bytes == 0)


async def test_long_frames_of_another_thread_and_of_the_loop_do_not_mix() -> None:
    async with linked(False) as (link, reader):
        link.allow_direct()
        written: list[Frame] = []

        def write_some() -> None:
            taken = (frame for frame in long_frames(60) if link.write_now(frame, None, True))
            written.extend(taken)

        async def write() -> None:
            await asyncio.to_thread(write_some)
            link.write([b"end"], [])  # so that there is something to come until this is done
            written.append(b"end")

        writing = asyncio.create_task(write())
        received = bytearray()
        while not writing.done() or len(received) < sum(map(len, written)):
            received += await reader.read(50_000)
        assert len(written) > 1
        assert received == b"".join(map(bytes, written))
        assert link.written_bytes == len(received)


async def test_links_of_one_loop_share_the_memory_that_they_read_into() -> None:
    async with linked(False) as (first, _), linked(False) as (second, _):
        assert first.get_buffer(-1) is second.get_buffer(-1)


async def test_links_of_two_loops_do_not() -> None:
    async def look() -> memoryview:
        async with linked(False) as (link, _):
            return link.get_buffer(-1)

    assert await look() is not await asyncio.to_thread(asyncio.run, look())


# ---- reading by a thread ----


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """While this program may open so many files more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
        spare = []
        with suppress(OSError):
            while True:
                spare.append(stack.enter_context(open(os.devnull)))
        for _ in range(count):
            spare.pop().close()
        yield


async def test_where_there_are_no_more_descriptors_the_loop_writes() -> None:
    async with linked(False) as (link, reader):
        with descriptors_left(0):
            link.allow_direct()
        assert not link.write_now(b"PING", None, True)
        link.write([b"PING"], [None])
        assert await reader.readexactly(4) == b"PING"


@pytest.mark.skipif(not CAN_BE_LENT, reason="only the loop reads on this system")
@pytest.mark.parametrize("left", range(5))
async def test_where_there_are_no_more_descriptors_the_loop_reads_on(left: int) -> None:
    async with linked(False) as (link, _):
        link.allow_direct()
        transport = link._transport
        assert transport is not None
        before = os.listdir("/proc/self/fd")
        with descriptors_left(left):
            assert link.read_here(lambda: True, lambda data: data, [], 0) is None
            await asyncio.sleep(0)
        is_lent = link._reading is not None
        assert is_lent == (left == 4)
        assert transport.is_reading() != is_lent
        assert is_lent or os.listdir("/proc/self/fd") == before


async def test_a_write_that_ctrl_c_has_interrupted_before_it_was_done_ends_the_link() -> None:
    """An answer that never comes would be taken for that to what is asked next."""

    def interrupt(notes: object) -> None:
        raise KeyboardInterrupt

    def write() -> None:
        with pytest.raises(KeyboardInterrupt):
            link.write_now(b"PING\r\n", None, True)

    async with linked(False) as (link, _):
        link.allow_direct()
        link._note = interrupt  # type: ignore[method-assign,assignment]
        await asyncio.to_thread(write)
        assert "interrupted" in str(await link.closed)
