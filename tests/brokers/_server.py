"""A broker as a process: started on a free port, killed, frozen, started again, always ended."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self, TypeVar
from urllib.parse import quote

import pytest

from brokers._broker import Broker

START_SECONDS = 10.0
STOP_SECONDS = 5.0
# Below the ports that the kernel gives to outgoing connections: a client that tries a dead
# broker's port again and again could otherwise be given that very port, and connect to itself.
PORTS = range(20_000, 32_000)
# Each worker of pytest-xdist has some to itself: a server that is down needs its own again.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
PORTS_OF_A_WORKER = 1_000
# Debian keeps servers where the PATH of a normal user does not lead.
SERVER_FOLDERS = ("/usr/local/sbin", "/usr/sbin")
# By force: a frozen server hears nothing else, and one that is still starting may not listen.
WHEN_WE_ARE_GONE = 'read -r _; kill -9 "$1"; rm -rf "$2"'


def _our_ports() -> Iterator[int]:
    """Our ports in any order, and then again; no port comes twice before all others came."""
    ours = PORTS
    if WORKER:
        first = int(WORKER.removeprefix("gw")) * PORTS_OF_A_WORKER % len(PORTS)
        ours = PORTS[first : first + PORTS_OF_A_WORKER]
    return cycle(random.sample(ours, len(ours)))


_ports = _our_ports()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and no outgoing connection will take."""
    for port in islice(_ports, PORTS_OF_A_WORKER):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no free port between {PORTS.start} and {PORTS.stop}")


def find(program: str) -> str | None:
    """The path of a program: in this environment, in PATH, or where servers are."""
    folders = [sysconfig.get_path("scripts"), *os.get_exec_path(), *SERVER_FOLDERS]
    return shutil.which(program, path=os.pathsep.join(folders))


def missing(text: str) -> NoReturn:
    """A test cannot run here: that is a failure in CI, where nothing may be missing."""
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


class Server(ABC):
    """A broker that may be killed and started again; it is empty then, on the same port.

    A subclass names its ``program``, the command that installs it (``install``) and the ``scheme``
    of its URLs, and says how it is configured and when it answers. ``close()`` ends it for good.
    """

    program: ClassVar[str]
    install: ClassVar[str]
    start_seconds: ClassVar[float] = START_SECONDS
    stop_seconds: ClassVar[float] = STOP_SECONDS
    scheme: str

    def __init__(self) -> None:
        self.port = free_port()
        self._temporary = tempfile.TemporaryDirectory(prefix=f"commlib-{self.program}-")
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    @classmethod
    def need(cls) -> None:
        """Skip or fail the test if its program is not installed."""
        if cls._found() is None:
            missing(f"{cls.program} is missing; install it with: {cls.install}")

    @property
    def url(self) -> str:
        """Where it is."""
        return self.url_as("", "")

    def url_as(self, user: str, password: str) -> str:
        """The same with credentials."""
        login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
        return f"{self.scheme}://{login}127.0.0.1:{self.port}"

    def url_with(self, **options: object) -> str:
        """The same with options for the connection, such as ``keepalive=1``."""
        return Broker(self.url).with_options(**options)

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, "it was started before"
        return self._process.pid

    @property
    def folder(self) -> Path:
        """Where its files are, until it is closed."""
        return Path(self._temporary.name)

    @property
    def log(self) -> str:
        """What it has written to its log since it was started."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def state(self) -> str:
        """Whether it runs, in words."""
        if self._process is None:
            return "not running"
        status = self._process.poll()
        return "running" if status is None else f"ended by itself with status {status}"

    def start(self) -> Self:
        """Start it and return when it answers."""
        assert self._process is None, "it runs already"
        self._prepare()
        file = self.folder / "broker.conf"
        file.write_text("\n".join(self._lines()) + "\n")
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._found() or self.program, *self._arguments(file)],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a process group of its own, which `_end` signals
            )
        # A test that runs into its time limit ends this process without a word.
        self._watcher = self._watched()
        try:
            self._wait_until_it_answers(self._process)
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
        os.killpg(self.pid, signal.SIGSTOP)
        # A signal takes effect a little later.
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), "it runs"

    def thaw(self) -> None:
        """Let it go on."""
        os.killpg(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop it and remove its files; idempotent."""
        self.stop()
        self._temporary.cleanup()

    def __enter__(self) -> Self:
        return self.start() if self._process is None else self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # ---- for subclasses ----

    @classmethod
    def _found(cls) -> str | None:
        """The path of its program."""
        return find(cls.program)

    def _environment(self) -> Mapping[str, str] | None:
        """The environment that it runs in; None is ours."""
        return None

    def _prepare(self) -> None:  # noqa: B027 (most have nothing to do)
        """Lay other files than its configuration into ``folder``; remove what an old run left."""

    @abstractmethod
    def _lines(self) -> Iterable[str]:
        """The lines of its configuration."""

    @abstractmethod
    def _arguments(self, file: Path) -> Iterable[str | Path]:
        """The arguments that let the program read this configuration."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it answers, and not a stranger on the same port; an OSError is a no."""

    # ---- its process ----

    def _watched(self) -> subprocess.Popen[bytes]:
        """A shell that ends it and removes its files once our process is gone, whatever ends us."""
        return subprocess.Popen(
            ["/bin/sh", "-c", WHEN_WE_ARE_GONE, "sh", str(self.pid), self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.start_seconds
        while not self._is_ready():
            assert time.monotonic() < deadline, f"{self.program} does not answer\n{self.log}"
            # Nobody tells when another process begins to listen, so this is a series of looks;
            # its own end is noticed at once.
            try:
                process.wait(0.005)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"{self.program} ended at once\n{self.log}")

    def _is_ready(self) -> bool:
        try:
            return self._answers()
        except OSError:
            return False

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
            os.killpg(process.pid, signal.SIGCONT)  # a frozen one hears no other signal
        try:
            process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


S = TypeVar("S", bound=Server)


@contextmanager
def running(kind: type[S]) -> Iterator[S]:
    """A server for a whole run, with the options of its kind that nobody asked for."""
    kind.need()
    with closing(kind()) as server:
        yield server.start()


@contextmanager
def making(kind: type[S]) -> Iterator[Callable[..., S]]:
    """Starts servers with the options of their kind, and ends all of them."""
    kind.need()
    with ExitStack() as stack:

        def make(**options: Any) -> S:
            return stack.enter_context(closing(kind(**options))).start()

        yield make
