"""A released commlib-py in a process of its own, and a look at what it has asked of the broker."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self
from urllib.parse import urlsplit

from brokers import PlainPeer, RespConnection, missing
from collected import DEADLINE, Collected, eventually
from commlib._topics import mqtt_filter

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".venv-interop"
SCRIPT = Path(__file__).with_name("peer.py")
STOP_SECONDS = 5.0


class Received(NamedTuple):
    """What an endpoint of the peer was given: the name of its class, its fields, the topic."""

    type: str
    data: Any
    topic: str | None


class Watch(Protocol):
    """Sees what is asked of a broker, so that a test can wait until a peer is ready."""

    def subscribed(self, topic: str) -> AbstractContextManager[None]:
        """Leaves when somebody has subscribed, since it was entered."""

    def serving(self, name: str) -> AbstractContextManager[None]:
        """The same for a service that waits for requests."""


class RedisWatch:
    """A look at the commands that a Redis server carries out."""

    def __init__(self, url: str) -> None:
        port = urlsplit(url).port
        assert port is not None, "the tests choose one"
        self._port = port

    def subscribed(self, topic: str) -> AbstractContextManager[None]:
        return self._carried_out("psubscribe", topic)

    def serving(self, name: str) -> AbstractContextManager[None]:
        return self._carried_out("blpop", name)

    @contextmanager
    def _carried_out(self, command: str, argument: str) -> Iterator[None]:
        wanted = f'"{command}" "{argument}"'.casefold().encode()
        with RespConnection(self._port) as connection:
            connection.ask("MONITOR")
            yield
            deadline = time.monotonic() + DEADLINE
            while wanted not in connection.read().lower():
                assert time.monotonic() < deadline, f"the peer did not come to {wanted!r}"


MOSQUITTO_TELLS = ["log_dest stderr", "log_dest topic"]
MOSQUITTO_TELLS += [f"log_type {kind}" for kind in ("error", "warning", "information", "subscribe")]
"""What lets a Mosquitto publish which filters it is asked for, and have its log as well."""


class MosquittoWatch:
    """A look at the filters that a Mosquitto is asked for; ``MOSQUITTO_TELLS`` lets it tell."""

    def __init__(self, url: str) -> None:
        self._url = url

    @contextmanager
    def subscribed(self, topic: str) -> Iterator[None]:
        wanted = f" {mqtt_filter(topic)}".encode()
        with PlainPeer(self._url) as looker:
            told = looker.subscribe("$SYS/broker/log/M/subscribe")
            yield
            eventually(
                lambda: any(heard.payload.endswith(wanted) for heard in told.items),
                lambda: f"the peer did not subscribe{wanted!r}",
            )

    serving = subscribed


class BlindWatch:
    """For a broker that shows nobody what it is asked for.

    The peer is ready all the same: ``Peer.settle`` waits until it has the broker's word.
    """

    def __init__(self, url: str) -> None:
        pass

    def subscribed(self, topic: str) -> AbstractContextManager[None]:
        return nullcontext()

    serving = subscribed


WATCHES: dict[str, Callable[[str], Watch]] = {
    "redis": RedisWatch,
    "mqtt": MosquittoWatch,
    "amqp": BlindWatch,
}
"""How to look at a broker, by the scheme of its URL."""


class Released:
    """A process with a released commlib-py; ``peer.Peer`` has what it can be asked to do."""

    def __init__(self, version: str, url: str, folder: Path) -> None:
        python = ENVIRONMENTS / version / "bin" / "python"
        if not python.exists():
            missing(f"commlib-py {version} is not installed; make interop does it")
        place = urlsplit(url)
        self.version = version
        self.watch = WATCHES[place.scheme](url)
        self._ids = count(1)
        self._pending: dict[int, Future[Any]] = {0: Future()}
        self._collected: dict[int, Collected] = {}
        self._log = folder / f"{version}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                # Isolated: nothing of this repository can be imported by mistake.
                [python, "-I", SCRIPT, place.scheme, place.hostname or "", str(place.port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                text=True,
                encoding="utf8",
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            assert self._pending[0].result(DEADLINE) == version, "it says which it is"
        except BaseException:
            self.close()
            raise

    @property
    def log(self) -> str:
        """What the release has logged and printed."""
        return self._log.read_text(errors="replace")

    def begin(self, do: str, **options: Any) -> Future[Any]:
        """Let it do something; the future brings the result."""
        return self._send(next(self._ids), do, options)

    def ask(self, do: str, **options: Any) -> Any:
        """The result of something that it does."""
        return self.begin(do, **options).result(DEADLINE)

    def subscribe(self, topic: str, **options: Any) -> Collected:
        """Subscribe it; what it receives is collected, from now on."""
        with self._ready(self.watch.subscribed(topic)):
            return self._collect("subscribe", topic=topic, **options)

    def serve(self, name: str, **options: Any) -> Collected:
        """Let it serve a name; its requests are collected."""
        with self._ready(self.watch.serving(name)):
            return self._collect("serve", name=name, **options)

    def call(self, name: str, data: Any, timeout: float = DEADLINE, **options: Any) -> Received:
        """Let it call a service; what its ``call`` has returned."""
        return Received(**self.ask("call", name=name, data=data, timeout=timeout, **options))

    def serve_action(self, name: str, **options: Any) -> Collected:
        """Let it serve an action; its goals are collected."""
        parts = ("send_goal", "cancel_goal", "get_result")
        with self._ready(*(self.watch.serving(f"{name}.{part}") for part in parts)):
            return self._collect("serve_action", name=name, **options)

    def make_action_client(self, name: str, **options: Any) -> Collected:
        """Make it a client of an action; what its callbacks are told is collected."""
        parts = ("status", "feedback")
        with self._ready(*(self.watch.subscribed(f"{name}.{part}") for part in parts)):
            return self._collect("make_action_client", name=name, **options)

    def close(self) -> None:
        """End it; idempotent."""
        assert self._process.stdin is not None, "it is a pipe"
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextmanager
    def _ready(self, *asked: AbstractContextManager[None]) -> Iterator[None]:
        """Leaves when the broker was asked for all this, and the peer can take what comes."""
        with ExitStack() as stack:
            for one in asked:
                stack.enter_context(one)
            yield
        self.ask("settle")

    def _collect(self, do: str, **options: Any) -> Collected:
        id = next(self._ids)
        self._collected[id] = collected = Collected()
        self._send(id, do, options).result(DEADLINE)
        return collected

    def _send(self, id: int, do: str, options: dict[str, Any]) -> Future[Any]:
        assert self._process.stdin is not None, "it is a pipe"
        self._pending[id] = future = Future()
        self._process.stdin.write(json.dumps({"id": id, "do": do, **options}) + "\n")
        self._process.stdin.flush()
        return future

    def _read(self) -> None:
        assert self._process.stdout is not None, "it is a pipe"
        with self._process.stdout as answers:
            for line in answers:
                self._take(**json.loads(line))
        for future in list(self._pending.values()):
            if not future.done():
                future.set_exception(PeerError(f"the peer has ended\n{self.log}"))

    def _take(
        self, id: int, result: Any = None, error: str = "", received: dict[str, Any] | None = None
    ) -> None:
        if received is not None:
            self._collected[id](Received(**received))
        elif error:
            self._pending[id].set_exception(PeerError(error))
        else:
            self._pending[id].set_result(result)


class PeerError(Exception):
    """What the released code has raised, or how it has ended."""
