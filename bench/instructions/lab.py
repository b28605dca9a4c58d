"""One path counted on one broker: the process under callgrind, its gate and its peer."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path as File

from bench.instructions import callgrind, turns
from bench.instructions.gate import Gate
from bench.instructions.paths import Path
from bench.instructions.peer import PEERS
from bench.roster import ROOT

PLACES = f"{ROOT}{os.pathsep}{ROOT / 'src'}"  # of the code: that beside this, wherever installed
QUIETLY = "keepalive=600"  # s: no sign of life comes between


class CountFailed(Exception):
    """The counted process has ended early; with the last it said."""


def count(path: Path, url: str, topic: str) -> float:
    """The instructions of one message, in the middle one of its laps. Raises CountFailed."""
    with ExitStack() as stack:
        folder = File(stack.enter_context(tempfile.TemporaryDirectory(prefix="commlib-count-")))
        peer = None
        if path.role in PEERS and not url.startswith("memory:"):
            peer = stack.enter_context(PEERS[path.role](path, url, topic))
            url = stack.enter_context(Gate(f"{url}?{QUIETLY}", path.quiet)).url
        complaints = stack.enter_context((folder / "complaints").open("w+b"))
        process = stack.enter_context(_started(folder, path, url, topic, complaints.fileno()))
        try:
            assert process.stdin is not None, "it is a pipe"
            assert process.stdout is not None, "it is a pipe"
            while process.stdout.read(1):
                assert peer is not None, "who is alone asks nobody"
                peer.turn()
                process.stdin.write(turns.TURN)
                process.stdin.flush()
            status = process.wait()
        finally:
            process.kill()
        if status:
            complaints.seek(0)
            words = complaints.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise CountFailed(f"ended early, status {status}: {words[:300]}")
        return statistics.median(callgrind.read(folder)) / path.count


def _started(
    folder: File, path: Path, url: str, topic: str, complaints: int
) -> subprocess.Popen[bytes]:
    module = ["-P", "-m", "bench.instructions.child", path.name, url, topic]
    return subprocess.Popen(
        callgrind.command(folder, [sys.executable, *module]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        env={**_plain_environment(), "PYTHONPATH": PLACES, "PYTHONHASHSEED": "0"},
        start_new_session=True,  # Ctrl-C in the terminal is for us to act on
    )


def _plain_environment() -> dict[str, str]:
    """Ours without what would change how Python works."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
