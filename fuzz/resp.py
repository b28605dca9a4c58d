"""Hostile answers of a Redis server, on all connections of a transport."""

from __future__ import annotations

from typing import Any

import hiredis

from commlib._packet import Packet
from commlib.transports.base import Address
from commlib.transports.redis import ConnectionParameters, RedisTransport
from fuzz.script import Script
from fuzz.stage import Stage, perform
from played_socket import PlayedSocket

NAMES = ("a.b", "a.*", "svc", "a.?", "x")
WAKE = b"rpc-w-" + bytes(12).hex().encode()  # with the random numbers that are played
REPLY = b"rpc-" + bytes(12).hex().encode() + b"%08x"
WORDS = (
    *(b"message", b"pmessage", b"subscribe", b"punsubscribe", b"pong", b"PONG", b"OK", b""),
    *(b"a.b", b"a.*", b"svc", b"a.?", b"x", WAKE, *(REPLY % number for number in range(4))),
)
ERRORS = (b"NOAUTH", b"NOPERM 'lpop'", b"ERR", b"LOADING", b"WRONGTYPE", b"MOVED 1 2", b"")


class RedisStage(Stage):
    transport: RedisTransport

    def begin(self) -> None:
        password = "secret" if self.script.flag() else ""
        params = ConnectionParameters("broker", 6379, username="", password=password)
        self.transport = RedisTransport(params)
        self._calls = 1

    def act(self) -> None:
        script, transport = self.script, self.transport
        what, name = script.number() % 7, script.choice(NAMES)
        if what == 0:
            self.attempt(lambda: transport.publish(name, Packet(b"{}")))
        elif what == 1:
            self.attempt(lambda: transport.send(name, Packet(b"{}")))
        elif what == 2:
            self.attempt(lambda: transport.send(Address("rpc-other"), Packet(b"{}")))
        elif what == 3:
            self.start(transport.subscribe(name, self.take))
        elif what == 4:
            self.start(self.consume(name))
        elif what == 5 and self.endings:
            self.start(script.choice(self.endings).close())
        elif self.inbox is not None:
            self._calls += 1
            if self._calls < 200:
                self.inbox.address(str(self._calls))
            if self._calls > 2:
                self.inbox.release(str(self._calls - 2))

    def answer(self, socket: PlayedSocket[Any]) -> bytes:
        raw, socket.written[:] = b"".join(socket.written), []
        reader = hiredis.Reader()
        reader.feed(raw)
        answers = []
        while (words := reader.gets()) is not False:
            answers.append(_answer(words))
        return b"".join(answers)

    def something(self) -> bytes:
        return _value(self.script, 0)


def _answer(words: list[bytes]) -> bytes:
    """What a server says at once; a BLPOP waits."""
    match words[0]:
        case b"PING":
            return b"+PONG\r\n"
        case b"AUTH" | b"SELECT":
            return b"+OK\r\n"
        case b"TIME":
            return b"*2\r\n$10\r\n1700000000\r\n$1\r\n5\r\n"
        case b"SUBSCRIBE" | b"PSUBSCRIBE" | b"UNSUBSCRIBE" | b"PUNSUBSCRIBE":
            return b"*3\r\n%b%b:1\r\n" % (_bulk(words[0].lower()), _bulk(words[1]))
        case b"LPOP":
            return b"$-1\r\n"
        case b"BLPOP":
            return b""
    return b":1\r\n"


def _bulk(word: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(word), word)


def _value(script: Script, depth: int) -> bytes:
    """Any value of RESP, and some of RESP3, as the script chooses."""
    what = script.number()
    if what < 0x80 and depth < 4:  # mostly what is expected: a list of a few words
        size = what % 5
        kind = b"*" if what < 0x70 else script.choice((b">", b"~", b"*"))
        return b"%b%d\r\n" % (kind, size) + b"".join(_value(script, depth + 1) for _ in range(size))
    match what % 8:
        case 0 | 1 | 2:
            return _bulk(script.choice(WORDS))
        case 3:
            return _bulk(script.piece())
        case 4:
            return b":%d\r\n" % (script.number() - 2)
        case 5:
            return b"-%b %d\r\n" % (script.choice(ERRORS), depth)
        case 6:
            return script.choice((b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n"))
    return b"+%b\r\n" % script.piece().translate(None, b"\r\n")


def run(data: bytes) -> None:
    """Play one script."""
    perform(RedisStage, "commlib.transports._redis_link", data)
