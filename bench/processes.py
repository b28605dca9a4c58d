"""The child processes, as the benchmark sees them: started, given orders, ended by their id."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from typing import Any, Self

from bench.roster import ROOT, Contender

READY_SECONDS = 20.0  # to import, connect and find the others
ANSWER_SECONDS = 45.0  # for one measurement of a slow contender
LIMIT = 90  # s after which a child ends itself


class ChildFailed(Exception):
    """A child said nothing in time, or ended; with the last it said."""


class Child:
    """A process that plays one role; to be used with ``with``."""

    def __init__(self, contender: Contender, role: str, url: str, **options: object) -> None:
        pairs = [f"{name}={value}" for name, value in {**contender.options, **options}.items()]
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - __exit__ closes it
        self._unread = b""
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            # -P: the folder of the module must not hide the packages that it imports.
            [contender.python, "-P", "-m", contender.module, role, url, str(LIMIT), *pairs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,  # Ctrl-C in the terminal is for the benchmark to act on
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def hear(self, timeout: float = ANSWER_SECONDS) -> dict[str, Any]:
        """What it says next. Raises ChildFailed when it ends instead, or says nothing."""
        deadline = time.monotonic() + timeout
        while True:
            while b"\n" not in self._unread:
                self._unread += self._read(deadline)
            line, _, self._unread = self._unread.partition(b"\n")
            if line.startswith(b"{"):  # commlib-py 0.13.2 logs there, too
                words: dict[str, Any] = json.loads(line)
                return words

    def _read(self, deadline: float) -> bytes:
        assert self._process.stdout is not None, "it was started with a pipe"
        left = max(0.0, deadline - time.monotonic())
        if not select.select([self._process.stdout], [], [], left)[0]:
            raise ChildFailed(f"no answer in time{self._last_words()}")
        data = os.read(self._process.stdout.fileno(), 65536)
        if not data:
            raise ChildFailed(f"ended early, status {self._process.wait()}{self._last_words()}")
        return data

    def ready(self) -> Self:
        """Return when it says that it is ready."""
        self.hear(READY_SECONDS)
        return self

    def tell(self, *words: object) -> None:
        """Give an order."""
        assert self._process.stdin is not None, "it was started with a pipe"
        line = " ".join(str(word) for word in words).encode() + b"\n"
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; hear() tells why

    def ask(self, *words: object) -> dict[str, Any]:
        """Give an order and return the answer."""
        self.tell(*words)
        return self.hear()

    def _last_words(self) -> str:
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f": {last[:200]}" if last else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process.poll() is None:
            # Nothing it could still do matters, and some would take seconds to leave.
            os.kill(self._process.pid, signal.SIGKILL)
        # Closes the pipes, and waits.
        self._process.communicate()
        self._complaints.close()


def ready(*children: Child) -> None:
    """Return when all of them say that they are ready; they get so at the same time."""
    for child in children:
        child.ready()


def import_seconds(contender: Contender, broker: str) -> float:
    """How long a fresh process takes to import what a program on this contender imports."""
    code = f"import time; t = time.perf_counter(); import {contender.imports_on(broker)}; "
    code += "print(time.perf_counter() - t)"
    done = subprocess.run(
        [contender.python, "-P", "-c", code],
        capture_output=True,
        text=True,
        timeout=READY_SECONDS,
        check=False,
    )
    if done.returncode:
        raise ChildFailed(done.stderr.strip().rpartition("\n")[2])
    return float(done.stdout.split()[-1])
