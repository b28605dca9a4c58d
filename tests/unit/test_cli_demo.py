"""`commlib demo` as its user sees it: what it prints, its exit status, what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brokers import RedisServer, free_port
from collected import eventually
from commlib.cli.demo import Result, Traffic
from commlib.cli.demo_orders import Called, Latency, Published, Received

COMMAND = "from commlib.cli import main; main()"
LONGEST = 30.0
# What the demo gives itself, its broker and its processes is little on a busy machine.
PATIENTLY = (
    "import commlib.cli.demo as demo, commlib.cli.demo_children as children; "
    "demo.LIMIT = 50.0; demo.CONNECT_TIMEOUT = children.STOP_TIMEOUT = 15.0; "
    "children.PROGRAM = ('-c', 'import commlib.cli.demo_roles as roles; '"
    " 'roles.CALL_TIMEOUT = roles.FLUSH_TIMEOUT = 15.0; roles.main()'); "
)

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks at processes through /proc"
)

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `commlib demo` with the arguments given, and ends it with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, before: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", before + COMMAND, "demo", *arguments],
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


def finish(demo: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit status and what it has printed, since the test last looked."""
    out, err = demo.communicate(timeout=LONGEST)
    return demo.returncode, out, err


def until_it_measures(demo: subprocess.Popen[str]) -> None:
    """Return when all processes are ready."""
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("measuring"):
            return
    raise AssertionError(finish(demo)[2])


def is_one_line(err: str) -> bool:
    return err.startswith("Error: ") and err.count("\n") == 1


def figure(out: str, row: str, column: int) -> float:
    """A figure of the table; columns are counted from the one after the name."""
    for line in out.splitlines():
        if line.startswith(row):
            return float(line.removeprefix(row).split()[column].replace(",", ""))
    raise AssertionError(f"no row {row!r} in\n{out}")


# -- processes ------------------------------------------------------------------------------------


def processes() -> Iterator[tuple[int, int, str]]:
    """Each living process of this machine: its id, its parent's, its command line."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (folder / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            yield int(folder.name), int(parent), command


def children_of(demo: subprocess.Popen[str]) -> dict[int, str]:
    """The command lines of the processes that it has started, by process id."""
    return {pid: command for pid, parent, command in processes() if parent == demo.pid}


def alive(children: dict[int, str]) -> list[str]:
    """The command lines of those that still run."""
    return [command for pid, _, command in processes() if children.get(pid) == command]


# -- what it shows --------------------------------------------------------------------------------

ROWS = (
    "messages, 200 a second",
    "messages in bursts: received",
    "calls, one at a time",
    "calls from 8 threads",
    "calls from asyncio, 64 at once",
)


@needs_proc
def test_it_measures_on_a_broker_of_its_own_and_leaves_no_process(start: Start) -> None:
    begin = time.monotonic()
    demo = start("--duration", "1", before=PATIENTLY)
    until_it_measures(demo)
    children = children_of(demo)
    status, out, err = finish(demo)

    assert (status, err) == (0, "")
    assert time.monotonic() - begin < LONGEST
    assert all(figure(out, row, 0) > 0 for row in ROWS)
    assert all(figure(out, row, 1) > 0 for row in ROWS)
    for row in ("messages, 200 a second", *ROWS[2:]):
        assert 0 < figure(out, row, 2) <= figure(out, row, 3), "latency is told where it tells"
    received = figure(out, "messages in bursts: received", 0)
    assert received == figure(out, "messages in bursts: published", 0)
    assert len(re.findall(r" lost 0$", out, re.MULTILINE)) == 2
    assert len(re.findall(r" wrong 0$", out, re.MULTILINE)) == 3
    assert out.endswith("\n\nAll as promised: lost = 0, wrong replies = 0.\n")
    assert not set("{}[]\"'") & set(out), "this is for people to read"

    roles = [command for command in children.values() if "demo_roles" in command]
    assert len(roles) == 5
    assert alive(children) == []


@needs_proc
def test_on_a_broker_given_it_shows_no_password_and_leaves_nothing_there(
    start: Start, make_redis: Callable[..., RedisServer]
) -> None:
    server = make_redis(password="a-secret")
    demo = start("--duration", "1", "--url", server.url, before=PATIENTLY)
    until_it_measures(demo)
    shown_by_ps = "\n".join(children_of(demo).values())
    status, out, err = finish(demo)

    assert (status, err) == (0, "")
    assert "a-secret" not in out + shown_by_ps
    assert server.cli("KEYS", "*") == []
    assert server.cli("PUBSUB", "NUMPAT") == 0


# -- when it does not hold ------------------------------------------------------------------------


def test_messages_that_are_lost_on_the_way_are_a_failure(
    start: Start, make_redis: Callable[..., RedisServer]
) -> None:
    server = make_redis()
    with server.connection() as spy:
        spy.ask("PSUBSCRIBE", "commlib_demo_*.sonar.*")
        soon = f"{PATIENTLY}demo.PATIENCE = 0.5; "
        demo = start("--duration", "8", "--url", server.url, before=soon)
        until_it_measures(demo)
        spy.read()  # the first message, so that the subscriber misses some in the midst
        assert server.cli("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes") >= 1
    status, out, err = finish(demo)
    assert status == 1
    assert "All as promised" not in out
    assert is_one_line(err)
    lost = re.search(r"not all was as promised: paced messages: lost = (\d+)", err)
    assert lost is not None, err
    assert int(lost[1]) > 0


def test_a_message_that_comes_twice_is_a_failure(
    start: Start, make_redis: Callable[..., RedisServer]
) -> None:
    server = make_redis()
    with server.connection() as spy:
        spy.ask("PSUBSCRIBE", "commlib_demo_*.sonar.*")
        demo = start("--duration", "8", "--url", server.url, before=PATIENTLY)
        until_it_measures(demo)
        seen: set[bytes] = set()
        while (message := spy.read())[2] not in seen:  # number 0 would be a new beginning
            seen.add(message[2])
    _, _, channel, payload = message
    assert server.cli("PUBLISH", channel, payload) == 1
    status, _, err = finish(demo)
    assert status == 1
    assert is_one_line(err)
    assert "lost = -1" in err
    assert "irregular messages = 1 " in err


def test_every_broken_promise_is_told() -> None:
    def called(count: int, wrong: int, error: str) -> Called:
        return Called(count, 1.0, Latency(), wrong, error)

    result = Result(
        paced=Traffic(Published(10, 1.0), Received(8, 1.0, Latency(), 0)),
        bursts=Traffic(Published(10, 1.0), Received(10, 1.0, Latency(), 4)),
        calls={
            "good": called(5, 0, ""),
            "bad": called(5, 2, "1 + 1 is not 3"),
            "dead": called(0, 0, ""),
        },
    )
    assert result.problems() == [
        "paced messages: lost = 2",
        "irregular messages = 4 (doubled, overtaken, dropped, refused)",
        "bad: wrong replies = 2 (1 + 1 is not 3)",
        "dead: no reply at all",
    ]


# -- when it cannot -------------------------------------------------------------------------------


def test_a_broker_that_is_not_there_is_one_line(start: Start) -> None:
    port = free_port()
    status, out, err = finish(start("--url", f"redis://127.0.0.1:{port}"))
    assert (status, out) == (1, "")
    assert is_one_line(err)
    assert f"redis://127.0.0.1:{port}/0" in err
    assert "cannot be reached" in err


def test_a_broker_that_never_answers_is_one_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        soon = "import commlib.cli.demo; commlib.cli.demo.CONNECT_TIMEOUT = 0.5; "
        status, out, err = finish(start("--url", url, before=soon))
    assert (status, out) == (1, "")
    assert is_one_line(err)
    assert "cannot be reached" in err


def test_a_password_that_is_wrong_is_one_line_without_it(
    start: Start, make_redis: Callable[..., RedisServer]
) -> None:
    server = make_redis(password="right")
    status, out, err = finish(start("--url", server.url_as("", "not-this")))
    assert (status, out) == (1, "")
    assert is_one_line(err)
    assert "not-this" not in err


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://x", "memory:// stays within one process"),
        ("mqqt://localhost", "no transport for mqqt://"),
        ("redis://localhost/robots", "number of the database"),
    ],
)
def test_a_url_that_cannot_serve_is_one_line(start: Start, url: str, words: str) -> None:
    status, out, err = finish(start("--url", url))
    assert (status, out) == (2, "")
    assert is_one_line(err)
    assert words in err


@needs_proc
@pytest.mark.parametrize("role", ["sonar", "watcher", "tasks"])
def test_a_process_that_dies_is_one_line_and_takes_the_others_along(
    start: Start, role: str
) -> None:
    demo = start("--duration", "20")
    until_it_measures(demo)
    children = children_of(demo)
    os.kill(next(pid for pid, c in children.items() if f"demo_roles {role} " in c), signal.SIGKILL)
    status, _, err = finish(demo)
    assert status == 1
    assert is_one_line(err)
    assert f"'{role}' ended early (status -9)" in err
    assert alive(children) == []


def test_a_broker_that_dies_is_one_line(
    start: Start, make_redis: Callable[..., RedisServer]
) -> None:
    server = make_redis()
    roles = "import commlib.cli.demo_roles as roles; roles.FLUSH_TIMEOUT = 0.5; roles.main()"
    soon = f"import commlib.cli.demo_children as c; c.PROGRAM = ('-c', {roles!r}); "
    demo = start("--duration", "1", "--url", server.url, before=soon)
    until_it_measures(demo)
    server.kill()
    status, out, err = finish(demo)
    assert status == 1
    assert "All as promised" not in out
    assert is_one_line(err)


@needs_proc
def test_who_has_seen_enough_ends_it_without_a_word(start: Start) -> None:
    demo = start("--duration", "1", before=PATIENTLY)
    until_it_measures(demo)
    children = children_of(demo)
    assert demo.stdout is not None
    assert demo.stderr is not None
    demo.stdout.close()  # as `| head` does
    assert demo.stderr.read() == ""
    assert demo.wait(LONGEST) == 0
    assert alive(children) == []


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_all_its_processes(start: Start, number: signal.Signals) -> None:
    demo = start("--duration", "20")
    until_it_measures(demo)
    children = children_of(demo)
    demo.send_signal(number)
    status, _, err = finish(demo)
    assert (status, err) == (130, "")
    assert alive(children) == []


@needs_proc
def test_its_processes_do_not_outlive_a_killed_demo(start: Start) -> None:
    demo = start("--duration", "20")
    until_it_measures(demo)
    children = children_of(demo)
    assert alive(children)
    demo.kill()
    eventually(lambda: not alive(children), lambda: alive(children))
