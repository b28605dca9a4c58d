"""Redis, and Valkey, which speaks its protocol."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import hiredis

from brokers._server import Server, free_port, missing
from commlib.cli._valkey import ValkeyError, ValkeyProcess


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


class RedisServer(Server):
    """A redis-server.

    ``password`` is that of the default user; ``users`` are further ones with their ACL rules, as
    in ``{"robot": "on >secret ~* &* +@all"}``; ``config`` are lines for redis.conf. It also listens
    on a unix socket. With ``certificates``, the paths of cafile, certfile and keyfile, the port of
    its URL speaks TLS, and wants a certificate of the client as well if ``require_certificate``.
    """

    program = "redis-server"
    install = "sudo apt-get install redis-server"
    scheme = "redis"

    def __init__(
        self,
        *,
        password: str = "",
        users: Mapping[str, str] | None = None,
        config: Sequence[str] = (),
        certificates: tuple[Path, Path, Path] | None = None,
        require_certificate: bool = False,
    ) -> None:
        super().__init__()
        self.password = password
        self._users = dict(users or {})
        self._config = config
        self._certificates = certificates
        self._require_certificate = require_certificate
        self._port_beside_tls = free_port() if certificates else 0
        if certificates:
            self.scheme = "rediss"

    @property
    def url(self) -> str:
        """Where it is, with the password of the default user if it has one."""
        return self.url_as("", self.password)

    @property
    def unix_socket(self) -> str:
        """The path of its unix socket."""
        return f"{self.folder}/redis.sock"

    @property
    def _plain_port(self) -> int:
        return self._port_beside_tls or self.port

    def connection(self) -> RespConnection:
        """A bare connection, as a user with all rights."""
        if self._users:
            return RespConnection(self._plain_port, "keeper", "keeper")
        return RespConnection(self._plain_port, *([self.password] if self.password else []))

    def cli(self, *words: str | bytes | int) -> Any:
        """What the server answers to one command."""
        with self.connection() as connection:
            return connection.ask(*words)

    def _lines(self) -> Iterator[str]:
        yield f"bind 127.0.0.1\nport {self._plain_port}\ndir {self.folder}"
        yield f"unixsocket {self.unix_socket}"
        yield 'save ""\nappendonly no'
        if self.password:
            yield f"requirepass {self.password}"
        if self._users:
            yield "user keeper on >keeper ~* &* +@all"
        for name, rules in self._users.items():
            yield f"user {name} {rules}"
        if self._certificates:
            cafile, certfile, keyfile = self._certificates
            yield f"tls-port {self.port}\ntls-ca-cert-file {cafile}"
            yield f"tls-cert-file {certfile}\ntls-key-file {keyfile}"
            yield f"tls-auth-clients {'yes' if self._require_certificate else 'no'}"
        yield from self._config

    def _arguments(self, file: Path) -> list[Path]:
        return [file]

    def _answers(self) -> bool:
        info: bytes = self.cli("INFO", "server")
        return b"\nprocess_id:%d\r" % self.pid in info


@contextmanager
def running_valkey() -> Iterator[ValkeyProcess]:
    """The Valkey server of the wheel, for a whole run."""
    try:
        server = ValkeyProcess.start(free_port())
    except ValkeyError as exc:
        missing(str(exc))
    with server:
        yield server
