"""The machine in words that say nothing of whose it is: no names, no paths."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from pathlib import Path

from bench.roster import ROOT, Contender

_VERSIONS = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def describe() -> dict[str, object]:
    """Cores, processor, memory, kernel, Python, and how busy it is now."""
    return {
        "cores": os.cpu_count(),
        "processor": _first("/proc/cpuinfo", "model name") or platform.machine(),
        "architecture": platform.machine(),
        "memory_mb": int((_first("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) // 1024,
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load_before": round(os.getloadavg()[0], 2),
    }


def short_name() -> str:
    """The same in a word, for a file's name."""
    python = "".join(platform.python_version_tuple()[:2])
    return f"{os.cpu_count()}cores-{platform.machine()}-py{python}"


def source() -> str:
    """A digest of what is measured and of what measures: tells whether a record is of this code."""
    digest = hashlib.sha256()
    for folder in ("src", "bench", "tests/brokers"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            digest.update(file.relative_to(ROOT).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def versions(contender: Contender) -> dict[str, str]:
    """Which versions a contender runs on."""
    if not contender.python.exists() or not contender.packages:
        return {}
    done = subprocess.run(
        [contender.python, "-P", "-c", _VERSIONS, *contender.packages],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _first(file: str, name: str) -> str:
    """What a line ``name: what`` of such a file says; empty without one."""
    path = Path(file)
    if not path.exists():
        return ""
    lines = path.read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
