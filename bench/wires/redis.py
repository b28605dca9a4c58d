"""RESP2, as the limit speaks it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import hiredis

from bench.messages import ENVELOPED, Form, read_sonar
from bench.roles import CALL_TIMEOUT
from bench.wires.link import (
    Exchange,
    OnMessage,
    Questions,
    ignore,
    open_link,
    open_socket,
    received,
    reply_address,
)

AHEAD = 64  # requests

pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command


class RedisWire:
    """RESP2 by hiredis. A message has nothing beside its payload."""

    form: ClassVar[Form] = ENVELOPED

    def __init__(self, url: str, on_message: OnMessage = ignore, *, whole: bool = False) -> None:
        self._on_message = on_message
        self._reader = hiredis.Reader()
        self._questions = Questions()
        self.link = open_link(url, self._feed)

    def _feed(self, data: bytes) -> None:
        reader, on_message = self._reader, self._on_message
        reader.feed(data)
        while (item := reader.gets()) is not False:
            if type(item) is list and item[0] == b"message":
                on_message(item[2])
            else:
                self._questions.note(item)

    def framer(self, topic: str, *, whole: bool = False) -> Callable[[bytes], bytes]:
        name = topic.encode()
        return lambda data: pack((b"PUBLISH", name, data))

    def flush(self, published: int) -> None:
        self._questions.wait(published)

    def subscribe(self, topics: Sequence[str]) -> None:
        self.link.send(pack(("SUBSCRIBE", *topics)))
        self._questions.wait(len(topics))

    @staticmethod
    def serve(url: str, name: str) -> None:
        reader, take = hiredis.Reader(), pack((b"BLPOP", name, 0))

        def feed(data: bytes) -> None:
            reader.feed(data)
            while (item := reader.gets()) is not False:
                if isinstance(item, list):
                    request = item[1]
                    reply_to = read_sonar(request).header.reply_to
                    replies.send(pack((b"RPUSH", reply_to, request)))
                    requests.send(take)

        # What waits for a request lets no reply pass on its connection; and it waits for several,
        # so that the broker need not be asked again before it gives the next one.
        requests, replies = open_link(url, feed), open_link(url, ignore)
        requests.send(pack(("DEL", name)) + take * AHEAD)

    @staticmethod
    def exchange(url: str, name: str) -> Exchange:
        sock, reader = open_socket(url), hiredis.Reader()
        take = pack((b"BLPOP", reply_address(), int(CALL_TIMEOUT)))

        def call(request: bytes) -> bytes:
            sock.sendall(pack((b"RPUSH", name, request)) + take)
            while not isinstance(item := reader.gets(), list):
                if item is None:
                    raise TimeoutError("no reply")
                if item is False:
                    reader.feed(received(sock))
            payload: bytes = item[1]
            return payload

        return call

    @staticmethod
    def pipe(url: str, name: str, on_reply: OnMessage) -> Callable[[bytes], None]:
        reader, reply_to = hiredis.Reader(), reply_address()
        take = pack((b"BLPOP", reply_to, 0))

        def feed(data: bytes) -> None:
            reader.feed(data)
            while (item := reader.gets()) is not False:
                on_reply(item[1])

        # What waits for a reply lets nothing else pass on its connection.
        requests, replies = open_link(url, ignore), open_link(url, feed)

        def send(request: bytes) -> None:
            requests.send(pack((b"RPUSH", name, request)))
            replies.send(take)

        return send
