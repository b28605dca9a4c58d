"""What Linux tells about a process, from outside and without its help."""

from __future__ import annotations

import os

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """What it has used of the processor until now, in steps of 10 ms."""
    with open(f"/proc/{pid}/stat") as stat:
        _, _, fields = stat.read().rpartition(")")  # the name before it may hold anything
    user, system = fields.split()[11:13]
    return (int(user) + int(system)) / TICKS


def status(pid: int | str, field: str) -> int:
    """A number out of its status: ``Threads``, or in KiB ``VmRSS``, and ``VmHWM``, its peak."""
    with open(f"/proc/{pid}/status") as lines:
        for line in lines:
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
    raise LookupError(f"no {field} of process {pid}")


def connections(pid: int, port: int) -> int:
    """How many TCP connections it has to a port of this machine."""
    ours = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(entry.path)
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            ours.add(target[8:-1])
    with open(f"/proc/{pid}/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return sum(row[9] in ours and int(row[2].rpartition(":")[2], 16) == port for row in rows)
