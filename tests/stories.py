"""Pages that tell a story: files that belong together, and terminals in which they are run.

A fence with a title is a file, or goes on in the terminal of that name; one of ``console`` without
a title is run to its end. ``$ `` is before a command, ``^C`` is that key, and all else is what is
printed. ``...`` stands for any lines. What is another thing each time, an id, a date, a time, a
measured number, need only be of the same kind.

A broker is not where the page has it: the port that a page names is another one here.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from brokers import find, missing
from collected import DEADLINE
from commlib import __version__

FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
TERMINAL = "Terminal"
ANY_LINES = "..."
HOST, VERSION = "rover-pi", "1.0.0a1"  # of the pages
VARIES = [
    re.compile(pattern)
    for pattern in (
        r"\d{4}-\d\d-\d\d",
        r"\d\d:\d\d:\d\d(\.\d+)?",
        r"\d+\.\d+s?",  # what was measured
        r"\d{3,}",  # of a process
        r"[0-9a-f]{8,32}",
        r"[0-9a-f]{8}-\d+",  # a goal
    )
]
ASSIGNMENTS = re.compile(r"(?:\w+=\S* )*")
# mosquitto_sub does not say when it is subscribed; but this is stored, so it comes at once.
STORED, SAYS = "$SYS/broker/version", "mosquitto version "
TIMESTAMP = re.compile(r"(?<=:)\d{13}\b")  # in JSON
NUMBER = re.compile(r"\d+")


class Step(NamedTuple):
    """A fence of a story, and the line where it begins."""

    line: int
    kind: str
    title: str
    text: str


def steps(page: Path) -> list[Step]:
    """The fences of a page that tell the story."""
    text = page.read_text()
    return [
        Step(text.count("\n", 0, found.start()) + 1, found[1], found[2] or "", found[3])
        for found in FENCE.finditer(text)
        if found[2] or found[1] == "console"
    ]


class Terminal:
    """A terminal with at most one command that runs in it."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder = folder
        self._env = env
        self._process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread()
        self._lines: list[str] = []
        self._shown = 0  # lines that the page has shown already
        self._is_open = False  # whether it may print anything now
        self._is_subscribed = False
        self._has_ended = False  # and no more is printed
        self._changed = threading.Condition()

    def type(self, command: str) -> None:
        """Run a command."""
        self._lines, self._shown, self._is_open, self._is_subscribed = [], 0, False, False
        self._has_ended = False
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec {command}" if "|" not in command else command],
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        if "mosquitto_sub" in command:
            with self._changed:
                self._changed.wait_for(lambda: self._is_subscribed, DEADLINE)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                with self._changed:
                    if SAYS in line:
                        self._is_subscribed = True
                    else:
                        self._lines.append(line.rstrip())
                    self._changed.notify_all()
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def shows(self, expected: list[str]) -> None:
        """Wait until what it printed since the last look begins with these lines."""

        def is_clear() -> bool:
            return self._has_ended or self._count(expected) is not None

        with self._changed:
            self._changed.wait_for(is_clear, DEADLINE)
            count, printed = self._count(expected), self._lines[self._shown :]
            assert count is not None, "\n".join(["instead of", *expected, "it prints", *printed])
            self._shown += count
        self._is_open = expected[-1:] == [ANY_LINES]

    def _count(self, expected: list[str]) -> int | None:
        return matched(self._lines[self._shown :], expected)

    def ended(self, *, well: bool = True) -> None:
        """Wait for the end of the command; if ``well``, it has printed nothing more."""
        if self._process is None:
            return
        status = self._process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        self._process = None
        if well and not self._is_open:
            rest = [line for line in self._lines[self._shown :] if line]
            assert rest == [], f"it also prints {rest}"
        if well:
            told = any(line.startswith(("Error", "error ", "Usage")) for line in self._lines)
            assert status == 0 or told, f"exit status {status}"

    def interrupt(self) -> None:
        """Ctrl-C."""
        assert self._process is not None, "nothing runs there"
        os.killpg(self._process.pid, signal.SIGINT)

    def close(self) -> None:
        """End what runs there, whatever it does."""
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._reader.join(DEADLINE)


def matched(printed: list[str], expected: list[str]) -> int | None:
    """How many printed lines are the expected ones; None if they do not begin so."""
    if not expected:
        return 0
    first, *rest = expected
    skipped = range(len(printed) + 1) if first == ANY_LINES else range(1, 2)
    for count in skipped:
        if first == ANY_LINES or (printed and alike(printed[0], first)):
            further = matched(printed[count:], rest)
            if further is not None:
                return count + further
    return None


def alike(printed: str, expected: str) -> bool:
    """Whether a line is what the page says, but for what is different each time."""
    printed = printed.replace(socket.gethostname(), HOST).replace(__version__, VERSION)
    words, others = (TIMESTAMP.sub("0", line).split() for line in (printed, expected))
    return len(words) == len(others) and all(map(_same, words, others))


def _same(word: str, other: str) -> bool:
    if word == other:
        return True
    word, other = word.strip(",;:()"), other.strip(",;:()")
    return any(kind.fullmatch(word) and kind.fullmatch(other) for kind in VARIES)


class Story:
    """Runs the steps of a page in a folder. ``ports``: which one stands for one of the page."""

    def __init__(self, folder: Path, ports: Mapping[str, int]) -> None:
        self._folder = folder
        self._ports = {number: str(port) for number, port in ports.items()}
        self._terminals: dict[str, Terminal] = {}
        self._env = {
            **os.environ,
            "COMMLIB_URL": f"redis://127.0.0.1:{ports['6379']}",
            "NO_COLOR": "1",
            "COLUMNS": "100",
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "error",
            "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]),
        }

    def tell(self, step: Step) -> None:
        """Do what a fence says, and see that it prints what it is to print."""
        text = NUMBER.sub(lambda found: self._ports.get(found[0], found[0]), step.text)
        if step.kind != "console":
            path = self._folder / step.title
            path.write_text(text)
            if path.name == "mosquitto.conf" and os.getuid() == 0:
                path.write_text(f"user root\n{text}")  # as another one it could not read our files
            return
        terminal = self._terminals.get(step.title) or Terminal(self._folder, self._env)
        if step.title:
            self._terminals[step.title] = terminal
        try:
            self._play(terminal, text)
            if not step.title:
                terminal.ended()
        finally:
            if not step.title:
                terminal.close()

    def _play(self, terminal: Terminal, text: str) -> None:
        expected: list[str] = []
        for line in text.splitlines():
            if line.startswith("$ "):
                terminal.shows(expected)
                terminal.ended()
                terminal.type(self._as_here(line.removeprefix("$ ")))
                expected = []
            elif line.startswith("^C"):
                terminal.shows(expected)
                terminal.interrupt()
                terminal.ended(well=False)
                expected = []
            elif line:
                expected.append(line)
        terminal.shows(expected)

    def _as_here(self, command: str) -> str:
        """A command with the place of the broker that is used here."""
        settings = ASSIGNMENTS.match(command)[0]  # type: ignore[index] - which may be empty
        program, *rest = command.removeprefix(settings).split(" ")
        if command == "commlib broker":
            return f"{command} --port {self._ports['6379']}"
        if program in ("mosquitto_pub", "mosquitto_sub") and "-p" not in rest:
            stored = ["-t", f"'{STORED}'"] if program == "mosquitto_sub" else []
            rest = ["-p", self._ports["1883"], *stored, *rest]
        path = find(program) or missing(f"{program} is missing, which {command} needs")
        return f"env {settings}" + " ".join([shlex.quote(path), *rest])

    def close(self) -> None:
        """End what still runs."""
        for terminal in self._terminals.values():
            terminal.close()


@contextmanager
def story(folder: Path, ports: Mapping[str, int]) -> Iterator[Story]:
    """A story that ends with the block."""
    told = Story(folder, ports)
    try:
        yield told
    finally:
        told.close()


def tell(page: Path, folder: Path, ports: Mapping[str, int]) -> None:
    """Tell the story of a page from its beginning to its end."""
    began = time.monotonic()
    with story(folder, ports) as told:
        for step in steps(page):
            try:
                told.tell(step)
            except AssertionError as exc:
                after = time.monotonic() - began
                raise AssertionError(
                    f"{page.name}:{step.line}, after {after:.1f} s: {exc}"
                ) from exc
