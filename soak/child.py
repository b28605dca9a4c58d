"""The program, as the soak sees it: started, given orders, left or ended by its id."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Self

ANSWER_SECONDS = 180.0  # all that an order may wait for, and a busy machine
LEAVE_SECONDS = 10.0
LAST_LINES = 60


class ProgramFailed(Exception):
    """It said nothing in time, or ended."""


class Child:
    """A running program; to be used with ``with``. Its log is a file, for when it fails."""

    def __init__(self, base_url: str, far_url: str) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - __exit__ closes it
        self._unread = b""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "soak.program", base_url, far_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C in the terminal is for the soak to act on
        )
        self.complaints: dict[str, Any] = {"kinds": {}, "first": []}

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, *words: str) -> dict[str, Any]:
        """Give an order, and return the answer. Raises ProgramFailed."""
        assert self._process.stdin is not None, "it was started with a pipe"
        try:
            self._process.stdin.write(" ".join(words).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; hear() tells how
        return self.hear()

    def hear(self) -> dict[str, Any]:
        """What it says next."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while b"\n" not in self._unread:
            self._unread += self._read(deadline)
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        self.complaints = answer.get("complaints", self.complaints)
        return answer

    def _read(self, deadline: float) -> bytes:
        assert self._process.stdout is not None, "it was started with a pipe"
        left = max(0.0, deadline - time.monotonic())
        if not select.select([self._process.stdout], [], [], left)[0]:
            self.show_stacks()
            raise ProgramFailed(f"no answer within {ANSWER_SECONDS:g} s")
        data = os.read(self._process.stdout.fileno(), 65536)
        if not data:
            raise ProgramFailed(f"it has ended, status {self._process.wait()}")
        return data

    def leave(self) -> str:
        """Let it stop its nodes and end; what went wrong with that, if anything did."""
        self.tell("leave")
        try:
            status = self._process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self.show_stacks()
            return f"it has not ended within {LEAVE_SECONDS:g} s"
        return f"it has ended with status {status}" if status else ""

    def show_stacks(self) -> None:
        """Have it write what its threads do into its log."""
        os.kill(self.pid, signal.SIGUSR1)
        time.sleep(1.0)  # nobody tells when it has

    def last_words(self) -> str:
        """The end of its log."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-LAST_LINES:])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self._log.close()
