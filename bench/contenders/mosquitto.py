"""The tools of Mosquitto, in C: ``mosquitto_pub -l`` and ``mosquitto_sub``, driven from here.

They neither encode nor decode: what is published was made before, and what is received is counted.
The CPU and the memory are those of the tool.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from time import perf_counter

from bench.child import Command, Tally, address_of, answer, order
from bench.messages import Sonar, packed
from bench.proc import status
from bench.roles import GLANCE, PROBE_SECONDS, QUIET_SECONDS

START_SECONDS = 0.3  # to connect; the tool does not say when it has
READ_BYTES = 65536  # what a pipe holds
GATHER_SECONDS = 0.001  # between two reads: one for each message would cost more than the tool
PR_SET_PDEATHSIG = 1  # prctl(2)
_prctl = ctypes.CDLL(None).prctl


def _die_with_parent() -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _start(tool: str, url: str, topic: str, *options: str) -> subprocess.Popen[bytes]:
    host, port = address_of(url)
    return subprocess.Popen(
        [tool, "-h", host, "-p", str(port), "-t", topic, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=_die_with_parent,
    )


def _cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    # The clock of another process, as clock_getcpuclockid(3) makes it of its id.
    return time.clock_gettime(~process.pid << 3 | 2)


def publish(url: str, *, topic: str, count: int, seconds: float) -> None:
    """Publish so many lines, for no longer than so many seconds."""
    lines = b"".join(packed(Sonar(float(number))) + b"\n" for number in range(GLANCE))
    tool = _start("mosquitto_pub", url, topic, "-l")
    assert tool.stdin is not None, "it was started with a pipe"
    time.sleep(START_SECONDS)
    answer(ready=True)
    order()
    begin, cpu = perf_counter(), _cpu_seconds(tool)
    end, sent = begin + seconds, 0
    while sent < count and perf_counter() < end:
        tool.stdin.write(lines)
        sent += GLANCE
    tool.stdin.close()
    _, _, used = os.wait4(tool.pid, 0)  # it ends when it has written all of it
    wall, cpu = perf_counter() - begin, used.ru_utime + used.ru_stime - cpu
    answer(count=sent, rate=sent / wall, cpu_us=cpu / sent * 1e6)


def receive(url: str, *, topic: str) -> None:
    """Receive; the order is how many messages to expect."""
    tool, tally = _start("mosquitto_sub", url, topic, "-N", "-F", "."), Tally()
    threading.Thread(target=_note_all, args=(tool, tally), daemon=True).start()
    while not tally.begun.wait(PROBE_SECONDS):
        _start("mosquitto_pub", url, topic, "-m", "?").wait()
    tally.settle(sys.maxsize, QUIET_SECONDS)
    tally.reset()
    cpu = _cpu_seconds(tool)
    answer(ready=True)
    sent = int(order()[0])
    tally.settle(sent)
    cpu = _cpu_seconds(tool) - cpu
    figures = tally.figures(sent)
    figures["cpu_us"] = cpu / max(1, tally.count) * 1e6
    figures["peak_mb"] = status(tool.pid, "VmHWM") / 1024
    answer(**figures)


def _note_all(tool: subprocess.Popen[bytes], tally: Tally) -> None:
    """Count the messages: it writes a byte for each."""
    assert tool.stdout is not None, "it was started with a pipe"
    while came := os.read(tool.stdout.fileno(), READ_BYTES):
        for _ in came:
            tally.count_one(None)
        time.sleep(GATHER_SECONDS)


ROLES: dict[str, Callable[..., None]] = {role.__name__: role for role in (publish, receive)}


def main() -> None:
    """Play the role that the command line names."""
    command = Command(sys.argv[1:])
    ROLES[command.role](command.url, **command.options)


if __name__ == "__main__":
    main()
