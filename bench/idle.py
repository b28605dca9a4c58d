"""Count how often a node wakes up that has nothing to do.

    make idle ARGS="--brokers redis --seconds 10"

A node with ten endpoints, used once, is left alone until what was only on its way to rest is there.
Then Linux says how often its threads were put to sleep and woken again: the context switches of
each, from ``/proc``. A second look, by ``strace`` where it is installed, says which calls those
were for; what it costs to be traced is in none of the other figures. A run is written to
``bench/results/idle.json`` and ``idle.md``, a part of one is only shown.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench import machine
from bench.brokers import BROKERS, Broker, Server
from bench.proc import connections, status
from bench.processes import Child, ChildFailed
from bench.report import number
from bench.roster import CONTENDERS, ROOT, Contender

FOLDER = ROOT / "bench" / "results"
SETTLE_SECONDS = 12  # idle workers of ours end after 10
SECONDS = 20.0  # of rest
TRACE_SECONDS = 10.0
START_SECONDS = 40.0  # and those to settle

Figures = dict[str, Any]


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="make idle", description=__doc__.partition("\n")[0])
    parser.add_argument("--brokers", default=",".join(BROKERS))
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"({SECONDS:g})")
    options = parser.parse_args()
    names = options.brokers.split(",")
    tracer = shutil.which("strace")
    if tracer is None:
        print("no strace here, so no calls are listed: apt-get install strace", file=sys.stderr)
    described = machine.describe() | {"date": time.strftime("%Y-%m-%d")}
    found = {name: _measure(BROKERS[name], options.seconds, tracer) for name in names}
    record = {"machine": described, "seconds": options.seconds, "brokers": found}
    text = document(record)
    print(text)
    if names == list(BROKERS):
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / "idle.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        (FOLDER / "idle.md").write_text(text)
        print(f"written to {FOLDER.relative_to(ROOT)}/idle.json and idle.md")


# -- measuring ------------------------------------------------------------------------------------


def _measure(broker: Broker, seconds: float, tracer: str | None) -> dict[str, Figures]:
    """The figures of all contenders on a broker, at the same time: they only wait."""
    present = [
        who
        for who in CONTENDERS
        if who.kind in ("ours", "peer")
        and broker.name in who.brokers
        and not who.why_not("node", broker.name)
        and who.python.exists()
    ]
    with broker.start() as server, ThreadPoolExecutor(len(present)) as pool:

        def measure(who: Contender) -> Figures:
            try:
                return _of_one(who, server, seconds, tracer)
            except (ChildFailed, OSError, LookupError) as exc:
                return {"failed": f"{type(exc).__name__}: {exc}"}

        return dict(zip([who.name for who in present], pool.map(measure, present), strict=True))


def _of_one(who: Contender, server: Server, seconds: float, tracer: str | None) -> Figures:
    name = f"idle_{os.urandom(4).hex()}"
    with Child(who, "node", server.url, topic=name, settle=SETTLE_SECONDS, idle=0) as child:
        child.hear(START_SECONDS)  # it waits for an order from here on, and has nothing to do
        before = switches(child.pid)
        time.sleep(seconds)
        after = switches(child.pid)
        figures: Figures = {
            "wake_ups_per_s": sum(_waited(after, before)) / seconds,
            "wake_ups_of_threads_per_s": [n / seconds for n in sorted(_waited(after, before))],
            "preempted_per_s": sum(
                now[1] - before.get(thread, (0, 0))[1] for thread, now in after.items()
            )
            / seconds,
            "threads": status(child.pid, "Threads"),
            "connections": connections(child.pid, server.port),
        }
        if tracer is not None:
            figures["calls_per_s"] = calls(tracer, child.pid)
    return figures


def _waited(
    after: Mapping[str, tuple[int, int]], before: Mapping[str, tuple[int, int]]
) -> Iterator[int]:
    """How often each thread went to sleep between the two, which is how often it woke."""
    for thread, (waited, _) in after.items():
        yield waited - before.get(thread, (0, 0))[0]


def switches(pid: int) -> dict[str, tuple[int, int]]:
    """How often each thread went to sleep by itself, and how often it had to make way."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            lines = (task / "status").read_text().splitlines()
        except OSError:
            continue  # it has ended meanwhile
        words = dict(line.split(":", 1) for line in lines)
        found[task.name] = (
            int(words["voluntary_ctxt_switches"]),
            int(words["nonvoluntary_ctxt_switches"]),
        )
    return found


def calls(tracer: str, pid: int) -> dict[str, float]:
    """Which calls of the system its threads make, and how often a second; by ``strace -c -f``."""
    with tempfile.NamedTemporaryFile("r") as out:
        tracing = subprocess.Popen(
            [tracer, "-c", "-f", "-q", "-o", out.name, "-p", str(pid)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _, said = tracing.communicate(timeout=TRACE_SECONDS)
            raise LookupError(f"strace has ended early: {said.strip()}")
        except subprocess.TimeoutExpired:
            tracing.send_signal(signal.SIGINT)  # then it writes what it has counted, and lets go
            tracing.communicate()
        return {name: count / TRACE_SECONDS for name, count in _counted(out.read().splitlines())}


def _counted(lines: Sequence[str]) -> Iterator[tuple[str, int]]:
    """The calls in a table of ``strace -c``: % time, seconds, µs each, calls, (errors,) name."""
    for line in lines:
        words = line.split()
        if len(words) in (5, 6) and words[3].isdigit() and words[-1] != "total":
            yield words[-1], int(words[3])


# -- the page -------------------------------------------------------------------------------------

INTRODUCTION = """\
# How often an idle node wakes up

By `make idle`: a node with ten endpoints (three publishers, three subscriptions, two services, two
clients) that was used once and has been left alone since. A *wake-up* is a voluntary context switch
of one of its threads, as Linux counts them. The calls are those that `strace` saw in a further
{trace:g} s.

Ours publishes a sign of life every 10 s and asks each connection for one when it was silent for the
keepalive; nothing polls. Besides, the sockets to Redis are several, since a blocked one can say
nothing else.
"""


def document(record: Mapping[str, Any]) -> str:
    """The page."""
    described = record["machine"]
    parts = [
        INTRODUCTION.format(trace=TRACE_SECONDS),
        f"\n{record['seconds']:g} s each; {described['cores']} cores of {described['processor']}, "
        f"{described['system']}, {described['python']}; {described['date']}.\n",
    ]
    for broker, found in record["brokers"].items():
        parts += [
            f"\n## {broker}\n\n",
            "| | wake-ups/s | threads | connections | system calls/s | the most frequent |\n",
            "| --- | ---: | ---: | ---: | ---: | --- |\n",
            *(_row(name, figures) for name, figures in found.items()),
        ]
    return "".join(parts)


def _row(name: str, figures: Figures) -> str:
    if "failed" in figures:
        return f"| {name} | {figures['failed']} | | | | |\n"
    made = figures.get("calls_per_s")
    total, most = "–", "–"
    if made is not None:
        total = number(sum(made.values()))
        ranked = sorted(made.items(), key=lambda item: -item[1])[:3]
        most = ", ".join(f"{call} {number(rate)}" for call, rate in ranked)
    return (
        f"| {name} | {number(figures['wake_ups_per_s'])} | {figures['threads']} | "
        f"{figures['connections']} | {total} | {most} |\n"
    )


if __name__ == "__main__":
    main()
