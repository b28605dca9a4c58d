"""One connection to Redis, against a peer that is played by the test."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collected import DEADLINE, Collected, eventually
from commlib._outbox import Outbox
from commlib._params import Offline
from commlib._parts import parts_of
from commlib.exceptions import AuthError, CommlibError, ConnectError, ConnectionLost
from commlib.transports import _stream_link
from commlib.transports._redis_link import (
    RedisLink,
    Replica,
    command,
    dial,
    error_from,
    expire,
    push,
    take_out,
)
from commlib.transports.base import LinkStats
from commlib.transports.redis import ConnectionParameters

# ---- commands ----

# A lone surrogate is no character: no name may hold one, and UTF-8 cannot spell it.
texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.one_of(texts, st.binary(), st.integers()), min_size=1))
def test_a_command_is_written_as_hiredis_writes_it(words: list[str | bytes | int]) -> None:
    assert command(*words) == hiredis.pack_command(tuple(words))


@given(texts, st.binary())
def test_a_push_is_written_as_hiredis_writes_it(queue: str, payload: bytes) -> None:
    assert push(queue, payload) == hiredis.pack_command(("RPUSH", queue, payload))


@given(texts, st.integers(min_value=0))
def test_an_expiry_is_written_as_hiredis_writes_it(queue: str, seconds: int) -> None:
    assert expire(queue, seconds) == hiredis.pack_command(("EXPIRE", queue, seconds))


# ---- errors ----


@pytest.mark.parametrize(
    "text",
    [
        "NOAUTH Authentication required.",
        "WRONGPASS invalid username-password pair or user is disabled.",
        "NOPERM this user has no permissions to run the 'publish' command",
        "NOPERM this user has no permissions to access one of the channels used as arguments",
        "ERR invalid password",  # Redis 5
        "ERR Client sent AUTH, but no password is set",  # Redis 5
        "ERR wrong number of arguments for 'auth' command",  # Redis 5, which has no user names
        "ERR AUTH <password> called without any password configured for the default user. "
        "Are you sure your configuration is correct?",
        "ERR DB index is out of range",
        "DENIED Redis is running in protected mode because protected mode is enabled",
    ],
)
def test_what_only_a_person_can_mend_is_an_auth_error(text: str) -> None:
    error = error_from(hiredis.ReplyError(text), "robot")
    assert type(error) is AuthError
    assert str(error) == f"robot: the server says: {text}"


@pytest.mark.parametrize(
    "text",
    [
        "LOADING Redis is loading the dataset in memory",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "MISCONF Redis is configured to save RDB snapshots",
        "READONLY You can't write against a read only replica.",
        "ERR max number of clients reached",
        "WRONGTYPE Operation against a key holding the wrong kind of value",
    ],
)
def test_what_may_pass_is_no_auth_error(text: str) -> None:
    error = error_from(hiredis.ReplyError(text), "robot")
    assert isinstance(error, ConnectError)
    assert not isinstance(error, AuthError)
    assert str(error) == f"robot: the server says: {text}"


# ---- a link and its peer ----


class Peer:
    """The other end of a link."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()

    async def says(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._sock, data)

    async def hears(self) -> list[bytes]:
        """The next command; ConnectionError when the link was closed."""
        while (found := self._reader.gets()) is False:
            data = await self._loop.sock_recv(self._sock, 65536)
            if not data:
                raise ConnectionError
            self._reader.feed(data)
        words: list[bytes] = found
        return words

    def leaves(self) -> None:
        self._sock.close()


@contextlib.asynccontextmanager
async def linked(sndbuf: int = 0) -> AsyncIterator[tuple[RedisLink, Peer]]:
    ours, theirs = socket.socketpair()
    if sndbuf:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(lambda: RedisLink("robot"), sock=ours)
    peer = Peer(theirs)
    yield link, peer
    link.abort(None)
    peer.leaves()
    await asyncio.sleep(0)  # asyncio closes the socket in its next round


async def soon(awaitable: Awaitable[Any]) -> Any:
    """What it gives, before the test is given up."""
    async with asyncio.timeout(DEADLINE):
        return await awaitable


async def left_unread(link: RedisLink, peer: Peer, words: bytes) -> None:
    """The peer says this and leaves while the link is not read, which a write finds out."""
    link.pause()
    await peer.says(words)
    peer.leaves()
    async with asyncio.timeout(DEADLINE):
        while not link.closed.done():
            link.write([b"x"], [None])
            await asyncio.sleep(0)


async def reached(holds: Callable[[], bool]) -> None:
    """Let the loop go on until something holds."""
    await soon(asyncio.to_thread(eventually, holds))


def test_what_takes_a_request_out_is_the_same_however_long_it_is() -> None:
    for payload in (b"x", b"x" * 100_000):
        frame = b"".join(parts_of(take_out("queue", payload)))
        assert frame == command("LREM", "queue", 1, payload)


async def test_answers_come_to_those_who_asked_in_the_order_of_asking() -> None:
    async with linked() as (link, peer):
        asked = [link.ask("GET", number) for number in range(3)]
        assert [await peer.hears() for _ in range(3)] == [
            [b"GET", b"%d" % number] for number in range(3)
        ]
        await peer.says(b"$1\r\na\r\n:5\r\n*2\r\n$1\r\nb\r\n$-1\r\n")
        assert await soon(asyncio.gather(*asked)) == [b"a", 5, [b"b", None]]


async def test_a_refusal_is_raised_where_it_was_asked_and_nowhere_else() -> None:
    async with linked() as (link, peer):
        asked = [link.ask("GET", number) for number in range(3)]
        await peer.says(b"+OK\r\n-NOPERM no\r\n+OK\r\n")
        first, second, third = await soon(asyncio.gather(*asked, return_exceptions=True))
        assert first == third == b"OK"
        assert isinstance(second, AuthError)


async def test_answers_may_come_in_fragments_of_one_byte() -> None:
    async with linked() as (link, peer):
        asked = [link.ask("X") for _ in range(4)]
        for byte in b"$5\r\nab\r\nc\r\n*-1\r\n*2\r\n:-7\r\n*1\r\n$0\r\n\r\n-ERR \xc3\xa9\r\n":
            await peer.says(bytes([byte]))
            await asyncio.sleep(0)
        *found, error = await soon(asyncio.gather(*asked, return_exceptions=True))
        assert found == [b"ab\r\nc", None, [-7, [b""]]]
        assert isinstance(error, ConnectError)


async def test_a_refused_message_is_told_with_its_topic_and_the_others_are_not() -> None:
    async with linked() as (link, peer):
        refused = Collected()
        link.on_refused = refused
        link.write([b""], ["fine", "bad", ("push", None), ("bad push", None), ("x", "y")])
        asked = link.ask("PING")
        await peer.says(b":1\r\n-OOM\r\n:1\r\n:1\r\n-OOM\r\n:0\r\n:1\r\n-OOM\r\n+PONG\r\n")
        assert await soon(asked) == b"PONG"
        assert [note for note, _ in refused.items] == ["bad", "bad push", "y"]
        assert {type(error) for _, error in refused.items} == {ConnectError}
        assert link.unconfirmed == 0


async def test_what_has_no_answer_yet_is_unconfirmed() -> None:
    async with linked() as (link, peer):
        link.write([b"", b""], ["a", ("b", None), None])
        asked = link.ask("PING")
        assert link.unconfirmed == 2
        await peer.says(b":1\r\n")
        await reached(lambda: link.unconfirmed == 1)
        peer.leaves()
        await soon(link.closed)
        assert link.unconfirmed == 1
        link.write([b"x"], ["too late"])  # it has to be counted, too
        assert link.unconfirmed == 2
        with pytest.raises(ConnectionLost):
            await asked


async def test_every_sign_of_life_is_noted() -> None:
    async with linked() as (link, peer):
        link.heard = 0.0
        link.probe()
        assert await soon(peer.hears()) == [b"PING"]
        await peer.says(b"+PONG\r\n")
        await reached(lambda: link.heard > 0)
        assert abs(asyncio.get_running_loop().time() - link.heard) < DEADLINE
        assert not link.closed.done()


# ---- how it ends ----


async def test_a_peer_that_leaves_ends_the_link_and_those_who_wait_are_told() -> None:
    async with linked() as (link, peer):
        asked = [link.ask("PING") for _ in range(3)]
        peer.leaves()
        await soon(link.closed)
        for answer in asked:
            with pytest.raises(ConnectionLost):
                await answer
        with pytest.raises(ConnectionLost):
            await link.ask("PING")


async def test_what_the_peer_has_said_last_is_taken_though_it_was_not_read_in_time() -> None:
    async with linked() as (link, peer):
        told: list[tuple[object, str]] = []
        link.on_refused = lambda note, error: told.append((note, str(error)))
        link.allow_direct()
        link.write([command("PUBLISH", "t", "1")] * 2, ["t", "u"])
        await left_unread(link, peer, b":1\r\n-ERR Protocol error: too big\r\n")
        assert told == [("u", "u: the server says: ERR Protocol error: too big")]
        link.go_on()  # the look that was about to be taken does no harm


async def test_a_link_ends_though_who_is_told_of_its_last_words_fails() -> None:
    async with linked() as (link, peer):
        errors: list[object] = []
        link._loop.set_exception_handler(lambda loop, about: errors.append(about["exception"]))
        link.on_refused = lambda note, error: {}["no such key"]
        link.allow_direct()
        link.write([command("PUBLISH", "t", "1")], ["t"])
        await left_unread(link, peer, b"-ERR Protocol error: too big\r\n")
        await soon(link.gone)
        assert [type(error) for error in errors] == [KeyError]


async def test_abort_ends_the_link_for_the_reason_given_and_only_the_first_counts() -> None:
    async with linked() as (link, peer):
        asked = link.ask("PING")
        assert await soon(peer.hears()) == [b"PING"]
        reason = ConnectionLost("cut by the test")
        link.abort(reason)
        link.abort(None)
        assert link.closed.result() is reason
        with pytest.raises(ConnectionLost):
            await asked
        link.probe()  # does no harm any more
        link.write([b"x"], [None])
        # The peer hears nothing but the end.
        with pytest.raises(ConnectionError):
            await soon(peer.hears())


@pytest.mark.parametrize(
    "garbage",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x01\x02\r\n", b"SSH-2.0-OpenSSH\r\n", b"$x\r\n"],
)
async def test_a_peer_that_does_not_speak_resp_is_left(garbage: bytes) -> None:
    async with linked() as (link, peer):
        asked = link.ask("PING")
        await peer.says(garbage)
        reason = await soon(link.closed)
        assert isinstance(reason, ConnectionLost)
        assert "robot does not speak RESP" in str(reason)
        with pytest.raises(ConnectionLost):
            await asked


async def test_an_answer_that_nobody_asked_for_ends_the_link_for_that_reason() -> None:
    async with linked() as (link, peer):
        await peer.says(b"+hello, I am a mail server\r\n")
        reason = await soon(link.closed)
        assert isinstance(reason, ConnectionLost)
        assert "what nobody has asked" in str(reason)


# ---- backpressure ----


async def test_a_peer_that_does_not_read_is_told_of_as_is_the_end_of_it() -> None:
    async with linked(sndbuf=4096) as (link, peer):
        room: list[bool] = []
        link.on_room = room.append
        link.write([b"x" * 10_000_000], ["big"])
        assert room == [False]
        left = 10_000_000
        loop = asyncio.get_running_loop()
        while left:
            left -= len(await soon(loop.sock_recv(peer._sock, 1 << 20)))
        await reached(lambda: room == [False, True])


# ---- threads that write themselves ----


async def test_a_thread_writes_itself_when_nothing_is_under_way() -> None:
    async with linked() as (link, peer):
        link.allow_direct()
        assert not link.write_now(b"", "on the loop", False)  # it gathers what comes in one turn
        # The loop is held up meanwhile: so it was the thread.
        written = Collected()
        thread = threading.Thread(
            target=lambda: written(link.write_now(command("PING"), "a", False))
        )
        thread.start()
        thread.join(DEADLINE)
        assert written.items == [True]
        assert peer._sock.recv(100) == command("PING")
        assert not await asyncio.to_thread(
            link.write_now, command("PING"), "not yet answered", False
        )
        await peer.says(b":1\r\n")
        await reached(lambda: link.unconfirmed == 0)
        assert await asyncio.to_thread(link.write_now, command("PING"), "b", False)
        assert await asyncio.to_thread(link.write_now, command("PING"), "urgent", True)


async def test_the_loop_writes_an_urgent_frame_at_once_and_gathers_those_behind_it() -> None:
    async with linked() as (link, peer):
        link.allow_direct()
        assert link.write_now(command("PING"), "a", True)
        assert peer._sock.recv(100) == command("PING")
        assert not link.write_now(command("PING"), "b", True)
        await peer.says(b":1\r\n")
        await reached(lambda: link.unconfirmed == 0)
        assert link.write_now(command("PING"), "c", True)


async def test_a_link_that_is_gone_or_does_not_allow_it_is_not_written_to_by_a_thread() -> None:
    async with linked() as (link, _):
        assert not await asyncio.to_thread(link.write_now, b"x", "not allowed", True)
        link.allow_direct()
        link.abort(None)
        assert not await asyncio.to_thread(link.write_now, b"x", "gone", True)
        assert link.unconfirmed == 0


async def test_what_the_socket_does_not_take_of_a_threads_frame_follows_before_all_others() -> None:
    async with linked(sndbuf=4096) as (link, peer):
        link.allow_direct()
        big = command("SET", b"x" * 3_000_000)
        assert await asyncio.to_thread(link.write_now, big, "big", False)
        assert link._rest or link._pending
        link.write([command("PING")], ["next"])
        assert await soon(peer.hears()) == [b"SET", b"x" * 3_000_000]
        assert await soon(peer.hears()) == [b"PING"]


async def test_many_threads_and_the_loop_write_whole_frames_and_keep_their_order() -> None:
    """Through an outbox, to a peer that refuses each frame and says which one it was."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(lambda: RedisLink("robot"), sock=ours)
    outbox = Outbox("robot", Offline(), LinkStats(), lambda: None, lambda: False)
    refused: list[tuple[object, str]] = []
    link.on_refused = lambda note, error: refused.append((note, str(error).split()[-1]))
    link.on_room = outbox.on_room
    link.allow_direct()
    outbox.set_link(link)
    heard: list[tuple[int, int]] = []
    total, threads, direct = 4000, 8, 0
    barrier, write_now = threading.Barrier(threads), link.write_now

    def count_direct(frame: bytes, note: object, urgent: bool) -> bool:
        nonlocal direct
        written = write_now(frame, note, urgent)
        direct += written
        return written

    link.write_now = count_direct  # type: ignore[method-assign]

    def answer() -> None:
        reader = hiredis.Reader()
        while len(heard) < total:
            reader.feed(theirs.recv(5000))
            while (words := reader.gets()) is not False:
                thread, number, filler = words
                assert filler == b"x" * len(filler)
                heard.append((int(thread), int(number)))
                theirs.sendall(b"-ERR %b/%b\r\n" % (thread, number))

    def publish(thread: int) -> None:
        for number in range(total // threads):
            filler = b"x" * (number * 7919 % 3000)
            while not outbox.put(command(thread, number, filler), f"{thread}/{number}"):
                asyncio.run_coroutine_threadsafe(outbox.room(), loop).result(DEADLINE)
            if number % 50 == 0:
                # All of them wait until nothing is under way: then the next one writes itself.
                barrier.wait(DEADLINE)
                eventually(lambda: not link._pending)
                barrier.wait(DEADLINE)

    acts = [threading.Thread(target=answer, daemon=True)]
    acts += [threading.Thread(target=publish, args=(n,), daemon=True) for n in range(threads)]
    for act in acts:
        act.start()
    for act in acts:
        await asyncio.to_thread(act.join, DEADLINE)
        assert not act.is_alive()
    await reached(lambda: len(refused) == total)
    for thread in range(threads):
        numbers = [number for of, number in heard if of == thread]
        assert numbers == list(range(total // threads))
    assert all(note == told for note, told in refused)
    assert 0 < direct < total
    assert link.unconfirmed == 0
    link.abort(None)
    theirs.close()
    await asyncio.sleep(0)


# ---- dialling ----


@contextlib.asynccontextmanager
async def server(**answers: bytes) -> AsyncIterator[tuple[ConnectionParameters, list[list[bytes]]]]:
    """A server that answers commands by their first word, +OK to those that are not given."""
    heard: list[list[bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        while data := await reader.read(65536):
            parser.feed(data)
            while (words := parser.gets()) is not False:
                heard.append(words)
                writer.write(answers.get(words[0].decode(), b"+OK\r\n"))
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    yield ConnectionParameters(host, port), heard
    listening.close()


async def test_dialling_authenticates_selects_the_database_and_makes_sure() -> None:
    async with server() as (params, heard):
        for options, expected in [
            ({}, [[b"PING"]]),
            ({"password": "pw"}, [[b"AUTH", b"pw"], [b"PING"]]),
            (
                {"username": "me", "password": "pw", "db": 2},
                [[b"AUTH", b"me", b"pw"], [b"SELECT", b"2"], [b"PING"]],
            ),
        ]:
            heard.clear()
            vars(params).update(options)
            link = await soon(dial("robot", params))
            assert heard == expected
            assert not link.closed.done()
            link.abort(None)
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ({"AUTH": b"-WRONGPASS no\r\n", "PING": b"-NOAUTH no\r\n"}, AuthError),
        ({"SELECT": b"-ERR DB index is out of range\r\n"}, AuthError),
        ({"PING": b"-LOADING not yet\r\n"}, ConnectError),
    ],
)
async def test_a_server_that_says_no_is_left_with_its_words(
    answers: dict[str, bytes], error: type[CommlibError]
) -> None:
    async with server(**answers) as (params, _):
        params.password, params.db = "pw", 1
        with pytest.raises(error) as caught:
            await soon(dial("robot", params))
        assert type(caught.value) is error
        assert "robot: the server says: " in str(caught.value)
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("words", "error"),
    [("ERR max number of clients reached", ConnectError), ("DENIED protected mode", AuthError)],
)
async def test_a_server_that_says_no_before_it_is_asked_anything_is_left_with_its_words(
    words: str, error: type[CommlibError]
) -> None:
    async with linked() as (link, peer):
        await peer.says(f"-{words}\r\n".encode())
        reason = await soon(link.closed)
        assert type(reason) is error
        assert str(reason) == f"robot: the server says: {words}"

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"-{words}\r\n".encode())
        writer.close()

    listening = await asyncio.start_server(refuse, "127.0.0.1", 0)
    params = ConnectionParameters(*listening.sockets[0].getsockname())
    for _ in range(3):
        with pytest.raises(error, match=words) as caught:
            await soon(dial("robot", params))
        assert type(caught.value) is error
        await asyncio.sleep(0)
    listening.close()


@pytest.mark.parametrize(
    ("role", "passes"),
    [
        (b"*2\r\n$6\r\nmaster\r\n:0\r\n", True),
        (b"*2\r\n$5\r\nslave\r\n:0\r\n", False),
        (b"-NOPERM not you\r\n", True),
        (b"-ERR unknown command\r\n", True),
    ],
)
async def test_a_replica_is_passed_over_where_others_stand_in_for_it(
    role: bytes, passes: bool
) -> None:
    async with server(ROLE=role) as (params, heard):
        params.fallbacks = ["other"]
        if passes:
            (await soon(dial("robot", params))).abort(None)
        else:
            with pytest.raises(Replica, match="robot is a replica"):
                await soon(dial("robot", params))
        heard.clear()
        params.fallbacks = ()
        (await soon(dial("robot", params))).abort(None)
        assert heard == [[b"PING"]]
        await asyncio.sleep(0)


async def test_giving_up_while_dialling_leaves_no_connection_open() -> None:
    async with server(PING=b"") as (params, heard):
        dialling = asyncio.create_task(dial("robot", params))
        await reached(lambda: heard == [[b"PING"]])
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(dialling)
        assert heard == [[b"PING"]]
        await asyncio.sleep(0)  # a socket left open would be a ResourceWarning, an error here


async def test_a_socket_that_the_kernel_has_joined_to_itself_is_no_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_stream_link, "_is_own_end", lambda link: True)
    async with server() as (params, _):
        with pytest.raises(ConnectError, match="connected to itself"):
            await soon(dial("robot", params))
        await asyncio.sleep(0)


async def test_a_port_where_nobody_listens_is_an_os_error_for_the_session_to_tell() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await soon(dial("robot", ConnectionParameters("127.0.0.1", unused.getsockname()[1])))


async def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with server(AUTH=b"-WRONGPASS no\r\n") as (params, _):
        params.password = "correct horse"
        with pytest.raises(AuthError) as caught:
            await soon(dial("robot", params))
        assert "correct horse" not in caplog.text + str(caught.value)
        await asyncio.sleep(0)
