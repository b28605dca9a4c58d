"""`commlib record`, `replay` and `info` as their user sees them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from mcap.writer import CompressionType, Writer

from brokers import Broker
from collected import DEADLINE, Collected, eventually
from commlib.cli._main import commlib
from commlib.cli._options import Size, Time, seconds_of
from commlib.cli.record import Part
from commlib.msg import PubSubMessage
from commlib.node import Node
from commlib.recording import _file, _recorder
from commlib.recording._reading import MAGIC

COMMAND = "from commlib.cli import main; main()"


class Sonar(PubSubMessage):
    distance: float
    count: int = 0


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a recorder waits for, shortened: nobody here looks at the time."""
    monkeypatch.setattr(_recorder, "DISCOVERY_SECONDS", 0.1)
    monkeypatch.setattr(_file, "FLUSH_SECONDS", 0.05)


@pytest.fixture
def url() -> str:
    """A broker in this process that no other test has."""
    return Broker.named("memory", lambda name: None).url


@pytest.fixture(params=["redis", "mqtt", "amqp"])
def real(request: pytest.FixtureRequest) -> Broker:
    """Each kind of broker in turn."""
    return Broker.named(request.param, request.getfixturevalue)


def run(*arguments: object) -> Result:
    """What `commlib` does."""
    result = CliRunner().invoke(commlib, [str(argument) for argument in arguments])
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    return result


def printed(result: Result) -> str:
    """What it has printed, if it went well."""
    assert result.exit_code == 0, result.output
    return result.stdout


def told(path: Path) -> Any:
    """What `commlib info --json` tells of a file."""
    return json.loads(printed(run("info", path, "--json")))


@contextmanager
def publishing(url: str, topic: str) -> Iterator[None]:
    """A node that publishes all the time."""
    over = threading.Event()
    node = Node("robot", url, heartbeats=False)
    publisher = node.create_publisher(topic, msg_type=Sonar)

    def publish() -> None:
        for number in count():
            publisher.publish(Sonar(distance=number / 2, count=number))
            if over.wait(0.003):
                return

    thread = threading.Thread(target=publish)
    with node:
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(DEADLINE)


@contextmanager
def interrupting(when: Callable[[], bool]) -> Iterator[None]:
    """Press Ctrl-C as soon as something holds; the command runs in the main thread."""

    def press() -> None:
        eventually(when)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    yield
    thread.join(DEADLINE)


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def record(url: str, path: Path, *arguments: str) -> Result:
    """Record until there is something in the file, then press Ctrl-C."""
    with interrupting(lambda: size_of(path) > 2000):
        return run("record", *arguments, "-o", path, "--url", url)


def test_what_was_recorded_until_ctrl_c_is_told_and_replayed(real: Broker, tmp_path: Path) -> None:
    path, topic = tmp_path / "run.mcap", f"{real.unique()}.sonar"
    with publishing(real.url, topic):
        line = printed(record(real.url, path, topic.replace(".sonar", ".*")))
    info = told(path)
    messages = info["messages"]
    assert f"{messages} messages of 1 topic," in line
    assert info["complete"] is True
    assert [(each["name"], each["lost_before"], each["published"]) for each in info["topics"]] == [
        (topic, 0, messages)
    ]

    heard = Collected()
    with Node("watcher", real.url, heartbeats=False) as node:
        subscriber = node.create_subscriber(topic, heard, msg_type=Sonar)
        line = printed(run("replay", path, "--to", real.url, "--rate", 0))
        again = heard.wait(messages)
        assert subscriber.stats.gaps == 0
    assert f"{messages} messages published" in line
    first = again[0].count
    assert [msg.count for msg in again] == [*range(first, first + messages)]


def test_a_table_tells_what_is_in_a_file(url: str, tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    with publishing(url, "sonar"):
        record(url, path, "--all")
    text = printed(run("info", path))
    messages = told(path)["messages"]
    assert f"{messages} messages" in text
    assert "0 lost" in text
    row = text.splitlines()[-1].split()
    assert (row[0], row[2], row[-1]) == ("sonar", str(messages), str(messages))
    path.write_bytes(path.read_bytes()[:-30])
    assert "cut off" in printed(run("info", path))
    assert told(path)["messages"] == messages


def test_a_replay_tells_what_is_wrong_with_the_file(url: str, tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    with publishing(url, "sonar"):
        record(url, path, "sonar")
    whole = path.read_bytes()
    replayed = ("replay", path, "--rate", 0, "--url", url)
    path.write_bytes(whole[:-30])
    result = run(*replayed)
    assert result.exit_code == 0
    assert result.stderr == (
        f"{path}: cut off: it was not finished, and is read up to its last whole chunk\n"
    )
    path.write_bytes(whole + whole[len(MAGIC) :])
    assert run(*replayed).exit_code == 0, "what is behind the end is none of it"
    with path.open("wb") as file:
        writer: Any = Writer(file, chunk_size=10, compression=CompressionType.NONE)
        writer.start()
        for n in range(3):  # each in a chunk of its own
            writer.add_message(writer.register_channel(f"t{n}", "json", 0), n, b'{"a":%d}' % n, n)
        writer.finish()
    path.write_bytes(path.read_bytes().replace(b'{"a":1}', b'{"b":1}'))
    result = run(*replayed)
    assert result.exit_code == 1
    assert result.stdout.startswith("2 messages published")
    assert result.stderr == (
        f"{path}: 1 chunk is damaged, what was in there is lost\n"
        "Error: damaged: 1 file; what could be read of it was played\n"
    )


@pytest.mark.parametrize(("loop", "status"), [(False, 130), (True, 0)])
def test_ctrl_c_ends_the_replay_of_a_damaged_file_like_any_other(
    loop: bool, status: int, url: str, tmp_path: Path
) -> None:
    path, heard = tmp_path / "run.mcap", Collected()
    with path.open("wb") as file:
        writer: Any = Writer(file, chunk_size=10, compression=CompressionType.NONE)
        writer.start()
        for n in range(3):  # each in a chunk of its own
            channel = writer.register_channel("sonar", "json", 0)
            writer.add_message(channel, n * 10**12, b'{"count":%d}' % n, n * 10**12)
        writer.finish()
    path.write_bytes(path.read_bytes().replace(b'{"count":1}', b'{"tnuoc":1}'))
    with Node("watcher", url, heartbeats=False) as node:
        node.create_subscriber("sonar", heard)
        with interrupting(lambda: bool(heard.items)):
            result = run("replay", path, *["--loop"] * loop, "--url", url)
    assert "1 chunk is damaged" in result.stderr
    assert result.exit_code == status


def test_a_recording_ends_after_its_time_and_at_its_size(url: str, tmp_path: Path) -> None:
    with publishing(url, "sonar"):
        printed(run("record", "sonar", "-o", tmp_path / "t.mcap", "-d", "0.2s", "--url", url))
        printed(run("record", "-a", "-o", tmp_path / "s.mcap", "--max-size", "9kB", "--url", url))
        line = printed(
            run("record", "-a", "-o", tmp_path / "p.mcap", "--split", "4kB", "--max-size", "12kB",
                "--url", url)
        )  # fmt: skip
    assert told(tmp_path / "t.mcap")["complete"]
    assert size_of(tmp_path / "s.mcap") >= 9000
    parts = sorted(tmp_path.glob("p-*.mcap"))
    assert len(parts) > 1
    assert parts[-1].name in line
    assert all(told(part)["complete"] for part in parts)


def test_a_part_of_a_recording_is_replayed(url: str, tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    with publishing(url, "sonar"):
        record(url, path, "sonar")
    for part in (("-t", "other"), ("--start", "1h")):
        result = run("replay", path, *part, "--url", url)
        assert result.stdout.startswith("0 messages")
        assert result.exit_code == 1
        assert "no message is of these topics and times" in result.stderr


@pytest.mark.parametrize(
    ("messages", "why"), [(0, "there is no message in it"), (1, "there is nothing to be published")]
)
def test_a_replay_of_nothing_has_come_to_nothing(
    messages: int, why: str, url: str, tmp_path: Path
) -> None:
    path = tmp_path / "foreign.mcap"
    with path.open("wb") as file:
        writer: Any = Writer(file)
        writer.start()
        for n in range(messages):
            writer.add_message(writer.register_channel("t", "cdr", 0), n, b"\0", n)
        writer.finish()
    result = run("replay", path, "--url", url)
    assert result.exit_code == 1
    assert result.stderr.endswith(f"Error: {why}{' among the messages' * messages}\n")


def test_a_replay_in_a_loop_ends_with_ctrl_c(url: str, tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    with publishing(url, "sonar"):
        record(url, path, "sonar")
    messages, heard = told(path)["messages"], Collected()
    with Node("watcher", url, heartbeats=False) as node:
        node.create_subscriber("sonar", heard, msg_type=Sonar)
        with interrupting(lambda: len(heard.items) > 2 * messages):
            line = printed(run("replay", path, "--loop", "--rate", 0, "--url", url))
    assert int(line.split()[0]) > 2 * messages


def test_ctrl_c_in_what_would_have_ended_is_told_by_the_status(url: str, tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    with publishing(url, "sonar"):
        assert record(url, path, "sonar", "--duration", "1h", "--json").exit_code == 130
    info = told(path)
    assert info["complete"]
    heard = Collected()
    with Node("watcher", url, heartbeats=False) as node:
        node.create_subscriber("sonar", heard, msg_type=Sonar)
        with interrupting(lambda: bool(heard.items)):
            result = run("replay", path, "--rate", 0.001, "--json", "--url", url)
    assert result.exit_code == 130
    assert 0 < json.loads(result.stdout)["messages"] < info["messages"]


def test_a_recording_is_finished_though_its_terminal_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    # Whoever runs the tests may have it ignored, as `nohup` does.
    program = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); {COMMAND}"
    words = [sys.executable, "-c", program, "record", "--all", "-o", path, "--url", "memory://tty"]
    near, far = os.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(words, stdin=far, stdout=far, stderr=far, env=environment) as process:
        os.close(far)
        assert os.read(near, 1), "it shows how far it has come"
        os.close(near)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGHUP)
        process.wait(DEADLINE)
    assert told(path)["complete"]


def test_calls_are_recorded_on_mqtt_and_refused_elsewhere(real: Broker, tmp_path: Path) -> None:
    path, name = tmp_path / "calls.mcap", real.unique("service")
    if real.traits.separator != "/":
        result = run("record", "--rpc", name, "-o", path, "--url", real.url)
        assert result.exit_code == 2
        assert "calls cannot be recorded" in result.stderr
        assert not path.exists()
        return
    with Node("adder", real.url, heartbeats=False) as node:
        node.create_rpc(name, lambda request: request)
        client = node.create_rpc_client(name)
        over = threading.Event()

        def call() -> None:
            while not over.is_set():
                client.call({"n": 1}, timeout=DEADLINE)

        thread = threading.Thread(target=call)
        thread.start()
        try:
            printed(record(real.url, path, "--rpc", name))
        finally:
            over.set()
            thread.join(DEADLINE)
    assert {each["name"] for each in told(path)["topics"]} == {
        f"{name}.request",
        f"{name}.response",
    }


def test_who_records_an_action_is_told_what_cannot_be_heard(url: str, tmp_path: Path) -> None:
    result = run(
        "record", "--action", "drive", "-o", tmp_path / "a.mcap", "-d", "0.1", "--url", url
    )
    assert result.exit_code == 0
    assert "status and feedback of an action can" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["record", "-o", "x.mcap"], "name a TOPIC"),
        (["record", "t"], "--output"),
        (["record", "t", "-o", "x.mcap", "--split", "5"], "of what?"),
        (["record", "t", "-o", "x.mcap", "--split", "5 parsec"], "no size"),
        (["record", "t", "-o", "x.mcap", "--max-size", "0"], "no size"),
        (["record", "t", "-o", "x.mcap", "-d", "soon"], "no time"),
        (["record", "a*", "-o", "x.mcap", "--url", "memory://w"], "whole words"),
        (["record", "t", "-o", "nowhere/x.mcap", "--url", "memory://w"], "No such file"),
        (["replay", "nothing.mcap"], "does not exist"),
        (["info", "nothing.mcap"], "No such file"),
    ],
)
def test_what_cannot_be_done_is_told(
    arguments: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert text in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_sizes_and_times_are_read_as_people_write_them() -> None:
    sizes = {"1000": 1000, "2k": 2000, "1.5MB": 1_500_000, "2GiB": 2 * 1024**3, "1 KiB": 1024}
    assert {text: Size().convert(text, None, None) for text in sizes} == sizes
    times = {
        "90": 90,
        "1.5": 1.5,
        "90s": 90,
        "250ms": 0.25,
        "5m": 300,
        "5min": 300,
        "1.5h": 5400,
        "1d": 86400,
        "x": None,
    }
    assert {text: seconds_of(text) for text in times} == times
    assert Part().convert("10m", None, None) == (None, 600)
    assert Part().convert("10M", None, None) == (10_000_000, None)


@pytest.mark.parametrize("text", ["0", "0s", "-1", "soon", "", "0.9", "21"])
def test_times_that_are_none_or_too_short_or_too_long_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Time(least=1, most=20).convert(text, None, None)


def test_without_its_extra_the_command_says_what_to_install(tmp_path: Path) -> None:
    program = f"import sys; sys.modules['mcap'] = None; {COMMAND}"
    process = subprocess.run(
        [sys.executable, "-c", program, "info", tmp_path / "x.mcap"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 1
    assert "commlib-py[record]" in process.stderr
