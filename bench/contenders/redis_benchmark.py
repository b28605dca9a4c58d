"""``redis-benchmark``, the tool of Redis, in C: one connection, pipelines of a hundred commands.

It publishes the same bytes over and over, made before. The CPU is that of the tool, and so is the
rate: it does not count how long it takes to start.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

from bench.child import Command, address_of, answer, order
from bench.messages import Sonar, packed

RATE = re.compile(rb"([\d.]+) requests per second")
BATCH = 100  # commands in a pipeline; without, it waits for the answer to each


def publish(url: str, *, topic: str, count: int, seconds: float) -> None:
    """Publish so many messages; it knows no limit to the time."""
    host, port = address_of(url)
    where = ("-h", host, "-p", str(port), "-c", "1", "-P", str(BATCH), "-q")
    command = ("-n", str(count), "PUBLISH", topic, packed(Sonar()).decode())
    answer(ready=True)
    order()
    tool = subprocess.Popen(["redis-benchmark", *where, *command], stdout=subprocess.PIPE)
    assert tool.stdout is not None, "it was started with a pipe"
    *_, rate = RATE.findall(tool.stdout.read())
    _, _, used = os.wait4(tool.pid, 0)
    cpu = used.ru_utime + used.ru_stime
    answer(count=count, rate=float(rate), cpu_us=cpu / count * 1e6)


if __name__ == "__main__":
    command = Command(sys.argv[1:])
    publish(command.url, **command.options)
