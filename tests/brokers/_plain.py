"""Peers that never heard of commlib: mosquitto_pub and mosquitto_sub."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from brokers._server import START_SECONDS, find, missing
from collected import Collected

# Mosquitto has it stored: what asked for it is subscribed to all that it asked for before.
VERSION = "$SYS/broker/version"


class Heard(NamedTuple):
    """What mosquitto_sub was sent; ``stored``: the broker had it before."""

    topic: str
    payload: bytes
    stored: bool = False


class PlainPeer:
    """Publishes and subscribes on a Mosquitto; ``close`` ends what it has started."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._place = ["-h", place.hostname or "", "-p", str(place.port)]
        self._started = ExitStack()

    def publish(
        self, topic: str, text: str, *options: str, qos: int = 1, retain: bool = False
    ) -> None:
        """Publish a text; returns when the broker has it, or without its word at QoS 0.

        ``options`` are further ones of mosquitto_pub.
        """
        how = ["-q", str(qos), *(["-r"] if retain else []), *options]
        command = [_find("mosquitto_pub"), *self._place, *how, "-t", topic, "-m", text]
        subprocess.run(command, check=True, capture_output=True)

    def subscribe(self, topic: str) -> Collected:
        """Collect what is sent to a topic or filter from now on, as ``Heard``."""
        return self._started.enter_context(self._subscribed(topic))

    @contextmanager
    def _subscribed(self, topic: str) -> Iterator[Collected]:
        command = [_find("mosquitto_sub"), *self._place, "-t", topic, "-t", VERSION]
        collected, ready = Collected(), threading.Event()

        def read() -> None:
            for line in process.stdout or ():
                stored, found, payload = line.split(" ")
                if found == VERSION:
                    ready.set()
                else:
                    collected(Heard(found, bytes.fromhex(payload), stored == "1"))

        with subprocess.Popen(
            [*command, "-F", "%r %t %x"], stdout=subprocess.PIPE, text=True
        ) as process:
            reader = threading.Thread(target=read, daemon=True)
            reader.start()
            try:
                assert ready.wait(START_SECONDS), "mosquitto_sub was not let in"
                yield collected
            finally:
                process.kill()
                reader.join()

    def close(self) -> None:
        self._started.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _find(program: str) -> str:
    return find(program) or missing(
        f"{program} is missing; install it with: sudo apt-get install mosquitto-clients"
    )
