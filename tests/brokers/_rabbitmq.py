"""RabbitMQ: a node that is alone, and has all that is its own in one folder."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from brokers._server import Server, find, free_port
from commlib._packet import MAX_PAYLOAD

# AMQP 0-9-1, section 4.2.2: what a client begins with.
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
# Sections 2.3.5 and 1.4.2.1: a frame (1) of channel 0, of whatever size, with Connection.Start.
CONNECTION_START = re.compile(rb"\x01\x00\x00.{4}\x00\x0a\x00\x0a", re.DOTALL)

# The program of that name in Debian's PATH changes user, and drops our settings with it.
PACKAGED = Path("/usr/lib/rabbitmq/bin")
MEMORY = "2GB"
ALL = (".*", ".*", ".*")

Rights = tuple[str, str, str]


class RabbitServer(Server):
    """A RabbitMQ without plugins.

    ``users`` are passwords by name; with some, guest is gone. All of them may do all in each of
    the ``vhosts``, but for those in ``permissions`` (patterns of the names that a user may
    configure, write and read) and in ``topic_permissions`` (an exchange, and patterns of the
    routing keys that a user may write to it and read from it). ``config`` are further lines for
    rabbitmq.conf. With ``certificates``, the paths of cafile, certfile and keyfile, its port speaks
    TLS, and it wants a certificate of the client as well if ``require_certificate``: one that was
    issued to a name, for Erlang refuses trustme's for an address.
    """

    program = "rabbitmq-server"
    install = "sudo apt-get install rabbitmq-server"
    scheme = "amqp"
    start_seconds = 60.0  # it takes 2 here, most of which is the processor's
    stop_seconds = 30.0  # one that is killed while it stops may have lost its quorum queues

    def __init__(
        self,
        *,
        users: Mapping[str, str] | None = None,
        permissions: Mapping[str, Rights] | None = None,
        topic_permissions: Mapping[str, Rights] | None = None,
        vhosts: Sequence[str] = ("/",),
        config: Sequence[str] = (),
        certificates: tuple[Path, Path, Path] | None = None,
        require_certificate: bool = False,
    ) -> None:
        super().__init__()
        self._users = dict(users or {})
        self._permissions = dict(permissions or {})
        self._topic_permissions = dict(topic_permissions or {})
        self._vhosts = vhosts
        self._config = config
        self._certificates = certificates
        self._require_certificate = require_certificate
        self._node = f"commlib-{os.urandom(4).hex()}@localhost"
        self._node_port = free_port()
        if certificates:
            self.scheme = "amqps"

    def url_as(self, user: str, password: str | None = None, *, vhost: str = "") -> str:
        """The same with credentials; without ``password``, with that which the user has.

        Without ``vhost``, the URL names none.
        """
        url = super().url_as(user, self._users.get(user, "") if password is None else password)
        return f"{url}/{quote(vhost, safe='')}" if vhost else url

    def ctl(self, *words: str) -> str:
        """What rabbitmqctl answers to a command, such as ``list_queues``."""
        program = _find("rabbitmqctl") or "rabbitmqctl"
        command = [program, "--quiet", *words]
        environment = self._environment()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def block(self) -> None:
        """Have it read nothing more from whoever publishes, as if memory ran out.

        It tells a client so (Connection.Blocked) when that publishes the next time.
        """
        self.ctl("set_vm_memory_high_watermark", "absolute", "1")

    def unblock(self) -> None:
        """Have it read on, and tell those that it had told."""
        self.ctl("set_vm_memory_high_watermark", "absolute", MEMORY)

    def close(self) -> None:
        """End it and remove its files; idempotent. Nobody needs the second of a polite end."""
        self.kill()
        super().close()

    # ---- what it finds in its folder ----

    def _prepare(self) -> None:
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        (self.folder / "plugins").write_text("[].\n")
        (self.folder / "definitions.json").write_text(json.dumps(self._definitions()))
        cookie = self.folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(os.urandom(16).hex())
            _lay_out(self.folder / "home", Path(_find(self.program) or "").resolve().parents[1])

    def _lines(self) -> Iterator[str]:
        yield f"listeners.{'ssl' if self._certificates else 'tcp'}.1 = 127.0.0.1:{self.port}"
        yield f"load_definitions = {self.folder}/definitions.json"
        yield "loopback_users = none"
        yield "log.console = true\nlog.file = false"
        yield f"max_message_size = {2 * MAX_PAYLOAD}"
        # On a small machine nothing blocks publishers, but for `block`.
        yield f"vm_memory_high_watermark.absolute = {MEMORY}\ndisk_free_limit.absolute = 1MB"
        if self._certificates:
            cafile, certfile, keyfile = self._certificates
            yield "listeners.tcp = none"
            yield f"ssl_options.cacertfile = {cafile}"
            yield f"ssl_options.certfile = {certfile}\nssl_options.keyfile = {keyfile}"
            yield f"ssl_options.verify = verify_{'peer' if self._require_certificate else 'none'}"
            yield f"ssl_options.fail_if_no_peer_cert = {str(self._require_certificate).lower()}"
        yield from self._config

    def _definitions(self) -> dict[str, Any]:
        """What it imports instead of making its defaults, which are guest and the vhost /."""
        users = self._users or {"guest": "guest"}
        permissions = {user: self._permissions.get(user, ALL) for user in users}
        topic_permissions = self._topic_permissions.items()
        return {
            "vhosts": [{"name": vhost} for vhost in self._vhosts],
            "users": [
                {
                    "name": user,
                    "password_hash": _hash(password),
                    "hashing_algorithm": "rabbit_password_hashing_sha256",
                    "tags": "",
                }
                for user, password in users.items()
            ],
            "permissions": [
                {"user": user, "vhost": vhost, "configure": configure, "write": write, "read": read}
                for user, (configure, write, read) in permissions.items()
                for vhost in self._vhosts
            ],
            "topic_permissions": [
                {"user": user, "vhost": vhost, "exchange": exchange, "write": write, "read": read}
                for user, (exchange, write, read) in topic_permissions
                for vhost in self._vhosts
            ],
        }

    # ---- its process ----

    def _environment(self) -> dict[str, str]:
        """Its settings and those of rabbitmqctl; no file outside its folder has any.

        Nodes find each other by name with the help of epmd, which the first one starts and nobody
        ends. So these are told the port instead.
        """
        folder = self.folder
        found = f"-start_epmd false -erl_epmd_port {self._node_port}"
        # With a name from the beginning it does not ask epmd whether the name is taken.
        named = f"-sname {self._node} -kernel inet_dist_use_interface {{127,0,0,1}}"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),  # where the cookie is
            "LANG": "C.UTF-8",
            "ERL_AFLAGS": "-start_epmd false",  # for the nodes that these nodes start
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_DIST_PORT": str(self._node_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{named} {found}",
            "RABBITMQ_CTL_ERL_ARGS": f"{found} -dist_listen false",
            "RABBITMQ_CONFIG_FILE": f"{folder}/broker.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/none",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/none",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/data",
            "RABBITMQ_LOGS": "-",
            # Then the script becomes the node, of which it would be the parent otherwise.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
        if (folder / "home").exists():
            environment["RABBITMQ_SCRIPTS_DIR"] = f"{folder}/home/sbin"
        return environment

    def _arguments(self, file: Path) -> list[str]:
        return []

    def _answers(self) -> bool:
        # It ends if a stranger has its port, so it is the one that answers.
        return " Server startup complete" in self.log and self._begins()

    def _begins(self) -> bool:
        """Whether it begins to talk to a client.

        With TLS it greets first, for which it loads more code than for all else. It looks at our
        certificate, which it may want, only after that, as TLS 1.3 has it.
        """
        with socket.create_connection(("127.0.0.1", self.port), self.start_seconds) as sock:
            if self._certificates:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                with context.wrap_socket(sock):
                    return True
            sock.sendall(PROTOCOL_HEADER)
            with sock.makefile("rb") as frames:
                return CONNECTION_START.fullmatch(frames.read(11)) is not None

    @classmethod
    def _found(cls) -> str | None:
        return _find(cls.program)


def _find(program: str) -> str | None:
    packaged = PACKAGED / program
    return str(packaged) if packaged.exists() else find(program)


def _hash(password: str) -> str:
    """As the manual has it under "Passwords": four bytes of salt, and the SHA-256 of both."""
    salt = os.urandom(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _lay_out(folder: Path, installed: Path) -> None:
    """Lay out a folder like that where it is installed, without the plugins that nobody wants.

    It reads every plugin that it finds at each start, which takes as long as all else together.
    """
    parts = {part.name.partition("-")[0]: part for part in installed.glob("plugins/*-*")}
    if not (installed / "sbin").exists() or not parts.keys() >= {"rabbit", "rabbit_common"}:
        return  # another layout than the one we know: it has to do without
    (folder / "plugins").mkdir(parents=True)
    for name in ("sbin", "escript"):
        (folder / name).symlink_to(installed / name)
    for part in _needed("rabbit", parts):
        (folder / "plugins" / part.name).symlink_to(part)


def _needed(first: str, parts: Mapping[str, Path]) -> list[Path]:
    """The parts that one needs, itself among them, by what their files say of each other."""
    names = [first]
    for name in names:  # it grows meanwhile
        text = (parts[name] / "ebin" / f"{name}.app").read_text()
        for needed in re.findall(r"applications,\s*\[(.*?)\]", text, re.DOTALL):
            words = re.findall(r"\w+", needed)
            names += [word for word in words if word in parts and word not in names]
    return [parts[name] for name in names]
