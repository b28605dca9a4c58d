"""redis-py by itself, synchronous: a command per message, messages by msgspec."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import count
from os import urandom
from typing import Any

import redis
from bench.messages import Sonar, Sum, Terms, packed, read_sonar, read_sum, read_terms
from bench.roles import CALL_TIMEOUT, main


class RedisPy:
    """One client, and a thread for what is received."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url)

    def start(self) -> None:
        """Nothing to do: everything works as soon as it is made."""

    def message(self, blob: bytes | None) -> Any:
        return Sonar() if blob is None else blob

    def publisher(self, topic: str, *, blob: bool) -> Callable[[Any], object]:
        publish = self._redis.publish
        if blob:
            return lambda msg: publish(topic, msg)
        return lambda msg: publish(topic, packed(msg))

    def flush(self) -> None:
        """Nothing to do: each command waits for its answer."""

    def subscribe(
        self, topics: Sequence[str], on_message: Callable[[Any], None], *, blob: bool
    ) -> None:
        pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
        pubsub.subscribe(*topics)

        def listen() -> None:
            for item in pubsub.listen():
                on_message(item["data"] if blob else read_sonar(item["data"]).data)

        threading.Thread(target=listen, daemon=True).start()

    def serve(self, name: str) -> None:
        def work() -> None:
            while True:
                request = read_terms(self._redis.blpop(name)[1])
                data = Sum(request.data.a + request.data.b)
                self._redis.rpush(request.header.reply_to, packed(data))

        threading.Thread(target=work, daemon=True).start()

    def caller(self, name: str) -> Callable[[int, int], int]:
        lists, prefix = count(), f"rpc-{urandom(4).hex()}"

        def call(a: int, b: int) -> int:
            reply_to = f"{prefix}-{next(lists)}"
            self._redis.rpush(name, packed(Terms(a, b), reply_to))
            reply = self._redis.blpop(reply_to, CALL_TIMEOUT)
            if reply is None:
                raise TimeoutError(f"no reply within {CALL_TIMEOUT} s")
            return read_sum(reply[1]).data.c

        return call


if __name__ == "__main__":
    main(RedisPy)
