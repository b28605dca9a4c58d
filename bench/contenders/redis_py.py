"""redis-py by itself, synchronous: a command per message, JSON by orjson, no types."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from os import urandom
from typing import Any

import orjson

import redis
from bench.roles import CALL_TIMEOUT, main


@dataclass
class Sonar:
    """Three floats."""

    distance: float = 0.001
    horizontal_fov: float = 30.0
    vertical_fov: float = 14.0


def packed(data: object, reply_to: str = "") -> bytes:
    """Data in the envelope that ours has."""
    properties = {"content_type": "application/json", "content_encoding": "utf8"}
    header = {
        "timestamp": int(time.time() * 1000),
        "properties": properties,
        "reply_to": reply_to,
    }
    return orjson.dumps({"header": header, "data": data})


def unpacked(payload: bytes) -> Any:
    """What came in an envelope."""
    return orjson.loads(payload)["data"]


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
                on_message(item["data"] if blob else unpacked(item["data"]))

        threading.Thread(target=listen, daemon=True).start()

    def serve(self, name: str) -> None:
        def work() -> None:
            while True:
                request = orjson.loads(self._redis.blpop(name)[1])
                data = {"c": request["data"]["a"] + request["data"]["b"]}
                self._redis.rpush(request["header"]["reply_to"], packed(data))

        threading.Thread(target=work, daemon=True).start()

    def caller(self, name: str) -> Callable[[int, int], int]:
        lists, prefix = count(), f"rpc-{urandom(4).hex()}"

        def call(a: int, b: int) -> int:
            reply_to = f"{prefix}-{next(lists)}"
            self._redis.rpush(name, packed({"a": a, "b": b}, reply_to))
            reply = self._redis.blpop(reply_to, CALL_TIMEOUT)
            if reply is None:
                raise TimeoutError(f"no reply within {CALL_TIMEOUT} s")
            return unpacked(reply[1])["c"]

        return call


if __name__ == "__main__":
    main(RedisPy)
