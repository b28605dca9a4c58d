"""paho-mqtt by itself, synchronous: one client and its thread, messages by msgspec."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from os import urandom
from queue import SimpleQueue
from typing import Any

import paho.mqtt.client as mqtt

from bench.child import address_of
from bench.messages import Sonar, Sum, Terms, packed, read_sonar, read_sum, read_terms
from bench.roles import CALL_TIMEOUT, FLUSH_TIMEOUT, main


class Paho:
    """What is received is worked off on the client's own thread."""

    def __init__(self, url: str) -> None:
        self._takers: dict[str, Callable[[bytes], object]] = {}
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.on_message = self._take
        self._client.connect(*address_of(url))
        self._client.loop_start()

    def _take(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        take = self._takers.get(message.topic)
        if take is not None:  # else it is a reply that came too late
            take(message.payload)

    def start(self) -> None:
        """Nothing to do: everything begins as soon as it is made."""

    def message(self, blob: bytes | None) -> Any:
        return Sonar() if blob is None else blob

    def publisher(self, topic: str, *, blob: bool) -> Callable[[Any], object]:
        publish = self._client.publish
        if blob:
            return lambda msg: publish(topic, msg)
        return lambda msg: publish(topic, packed(msg))

    def flush(self) -> None:
        self._client.publish("bench_asked", b"", qos=1).wait_for_publish(FLUSH_TIMEOUT)

    def subscribe(
        self, topics: Sequence[str], on_message: Callable[[Any], None], *, blob: bool
    ) -> None:
        take = on_message if blob else lambda payload: on_message(read_sonar(payload).data)
        self._takers.update(dict.fromkeys(topics, take))
        self._client.subscribe([(topic, 0) for topic in topics])

    def serve(self, name: str) -> None:
        def add(payload: bytes) -> None:
            request = read_terms(payload)
            data = Sum(request.data.a + request.data.b)
            self._client.publish(request.header.reply_to, packed(data))

        self._takers[name] = add
        self._client.subscribe(name)

    def caller(self, name: str) -> Callable[[int, int], int]:
        numbers, prefix = count(), f"rpc-{urandom(4).hex()}"
        self._client.subscribe(f"{prefix}/+")

        def call(a: int, b: int) -> int:
            reply_to, reply = f"{prefix}/{next(numbers)}", SimpleQueue[bytes]()
            self._takers[reply_to] = reply.put
            try:
                self._client.publish(name, packed(Terms(a, b), reply_to))
                return read_sum(reply.get(timeout=CALL_TIMEOUT)).data.c
            finally:
                del self._takers[reply_to]

        return call


if __name__ == "__main__":
    main(Paho)
