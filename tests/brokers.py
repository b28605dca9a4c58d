"""Real brokers for tests: on free ports of 127.0.0.1, ended by the process id they began with."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Self

import hiredis
import pytest

from commlib.cli._valkey import ValkeyError, ValkeyProcess, _guard
from commlib.transports import resolve
from commlib.transports.base import Traits

START_SECONDS = 10.0
STOP_SECONDS = 5.0
# Below the ports that the kernel gives to outgoing connections: a client that tries a dead
# broker's port again and again could otherwise be given that very port, and connect to itself.
PORTS = range(20_000, 32_000)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and no outgoing connection will take."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no free port between {PORTS.start} and {PORTS.stop}")


class RespConnection:
    """A bare connection to a Redis server, to look at it without the client under test."""

    def __init__(self, port: int, *login: str) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._reader = hiredis.Reader()
        if login:
            self.ask("AUTH", *login)

    def ask(self, *words: str | bytes | int) -> Any:
        """The server's answer to a command; an error is raised as ``hiredis.ReplyError``."""
        self.send(*words)
        return self.read()

    def send(self, *words: str | bytes | int) -> None:
        """Send a command; its answer has to be read."""
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        bulks = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        self._sock.sendall(b"*%d\r\n%b" % (len(parts), bulks))

    def read(self) -> Any:
        """The next answer, or what the server pushes; TimeoutError after ten seconds."""
        while (reply := self._reader.gets()) is False:
            data = self._sock.recv(65536)
            if not data:
                raise ConnectionError("the server has closed the connection")
            self._reader.feed(data)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def close(self) -> None:
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class RedisServer:
    """A redis-server that may be killed and started again; it is empty then, on the same port.

    ``password`` is that of the default user; ``users`` are further ones with their ACL rules, as
    in ``{"robot": "on >secret ~* &* +@all"}``; ``config`` are lines for redis.conf. It also listens
    on a unix socket. ``close()`` ends it for good.
    """

    def __init__(
        self,
        *,
        password: str = "",
        users: Mapping[str, str] | None = None,
        config: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        self.password = password
        self._users = dict(users or {})
        self._config = config
        self._folder = tempfile.TemporaryDirectory(prefix="commlib-redis-")
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is, with the password of the default user if it has one."""
        return self.url_as("", self.password)

    def url_as(self, user: str, password: str) -> str:
        """The same with other credentials."""
        login = f"{user}:{password}@" if user or password else ""
        return f"redis://{login}127.0.0.1:{self.port}"

    @property
    def unix_socket(self) -> str:
        """The path of its unix socket."""
        return f"{self._folder.name}/redis.sock"

    @property
    def log(self) -> str:
        """What it has written to its log."""
        return (Path(self._folder.name) / "log").read_text(errors="replace")

    def start(self) -> Self:
        """Start it and return when it answers."""
        assert self._process is None, "it runs already"
        folder = Path(self._folder.name)
        (folder / "redis.conf").write_text("\n".join(self._lines()) + "\n")
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["redis-server", folder / "redis.conf"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a process group of its own, which `_end` signals
            )
        # A test that runs into its time limit ends this process without a word.
        self._watcher = _guard(self._process.pid, folder)
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, and wait for that; idempotent."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Let it neither read nor answer, as behind a dead link."""
        assert self._process is not None, "it was started before"
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None, "it was started before"
        os.killpg(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop it and remove its files; idempotent."""
        self.stop()
        self._folder.cleanup()

    def connection(self) -> RespConnection:
        """A bare connection, as a user with all rights."""
        if self._users:
            return RespConnection(self.port, "keeper", "keeper")
        return RespConnection(self.port, *([self.password] if self.password else []))

    def cli(self, *words: str | bytes | int) -> Any:
        """What the server answers to one command."""
        with self.connection() as connection:
            return connection.ask(*words)

    def __enter__(self) -> Self:
        return self.start() if self._process is None else self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _lines(self) -> Iterator[str]:
        yield f"bind 127.0.0.1\nport {self.port}\ndir {self._folder.name}"
        yield f"unixsocket {self.unix_socket}"
        yield 'save ""\nappendonly no'
        if self.password:
            yield f"requirepass {self.password}"
        if self._users:
            yield "user keeper on >keeper ~* &* +@all"
        for name, rules in self._users.items():
            yield f"user {name} {rules}"
        yield from self._config

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None, "it was started before"
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert time.monotonic() < deadline, f"redis-server does not answer\n{self.log}"
            # Nobody tells when another process begins to listen, so this is a series of looks;
            # its own end is noticed at once.
            try:
                self._process.wait(0.005)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"redis-server ended at once\n{self.log}")

    def _answers(self) -> bool:
        """Whether it answers, and not a stranger on the same port."""
        assert self._process is not None, "it was started before"
        try:
            info: bytes = self.cli("INFO", "server")
        except OSError:
            return False
        return b"\nprocess_id:%d\r" % self._process.pid in info

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if self._watcher is not None:
            # First: once the server is reaped, its id may belong to another process.
            self._watcher.kill()
            self._watcher.communicate()
        if process.poll() is None:
            os.killpg(process.pid, number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """A Redis server for a whole run."""
    need_redis()
    with RedisServer() as server:
        yield server


@contextmanager
def running_valkey() -> Iterator[ValkeyProcess]:
    """The Valkey server of the wheel, for a whole run."""
    try:
        server = ValkeyProcess.start(free_port())
    except ValkeyError as exc:
        missing(str(exc))
    with server:
        yield server


def need_redis() -> None:
    """Skip or fail the test if there is no redis-server."""
    if shutil.which("redis-server") is None:
        missing("redis-server is missing; install it with: sudo apt-get install redis-server")


def missing(text: str) -> NoReturn:
    """A test cannot run here: that is a failure in CI, where nothing may be missing."""
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


@dataclass
class Broker:
    """A broker as a test of patterns sees it: where it is and what it can do, not which it is."""

    url: str
    _suffix: str = field(default_factory=lambda: os.urandom(4).hex())

    @property
    def traits(self) -> Traits:
        """What it can do."""
        return resolve(self.url).make_transport().traits

    @classmethod
    def named(cls, name: str, servers: Callable[[str], Any]) -> Self:
        """The broker of this name: one in this process, or on the server of the fixture."""
        if "memory" in name:
            broker = cls("")
            broker.url = f"memory://{broker.unique(name)}"
            return broker
        return cls(servers(f"{name}_server").url)

    def unique(self, word: str = "t") -> str:
        """A name, one word long, that no other test has."""
        return f"{word}_{self._suffix}"

    def with_options(self, **options: object) -> str:
        """The URL with options for the connection, such as ``max_payload=1000``."""
        return f"{self.url}?{'&'.join(f'{name}={value}' for name, value in options.items())}"
