"""Let each target look for bytes that crash it, and say what came of it.

    make fuzz ARGS="--seconds 600 --only wire,resp --jobs 2"

A target begins with its corpus and with what it has found before, which `.fuzz` keeps. It ends
when its time is over or at the first crash.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from fuzz import CORPUS, ROOT, TARGETS

FOUND = ROOT / ".fuzz"
LONGEST = 1500  # bytes of an input; what needs more is a longer way to the same
HANG_SECONDS = 20  # of one input: some ms are usual
MEMORY = 1024  # MB of a process: 100 are usual
GRACE_SECONDS = 120  # over its time, that a target has to read its corpus and end


@dataclass
class Result:
    """What one target came to."""

    name: str
    seconds: float = 0.0
    executions: int = 0
    corpus: int = 0
    reached: int = 0
    """Places in the code, as the engine counts them."""
    crashes: list[Path] = field(default_factory=list)
    failure: str = ""
    """Why it did not end as it should."""
    said: str = ""


def main() -> None:
    """Do what the command line says."""
    options = _parser().parse_args()
    if options.replay:
        return _replay(*options.replay)
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(
            pool.map(lambda name: _run(name, options.seconds, options.shrink), options.only)
        )
    print(_table(results))
    failed = [result for result in results if result.failure]
    for result in failed:
        print(_report(result), file=sys.stderr)
    if failed:
        sys.exit(1)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 on is needed")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=_at_least_one, default=60, help="for each target (60)")
    parser.add_argument(
        "--only", type=_names, default=list(TARGETS), help=f"of {', '.join(TARGETS)}"
    )
    parser.add_argument(
        "--jobs", type=_at_least_one, default=1, help="targets at the same time (1)"
    )
    parser.add_argument(
        "--shrink", action="store_true", help="first leave out what was found twice in .fuzz"
    )
    parser.add_argument(
        "--replay", nargs=2, metavar=("TARGET", "FILE"), help="run one input, without atheris"
    )
    return parser


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in TARGETS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(TARGETS)}")
    return names


def _replay(name: str, file: str) -> None:
    from fuzz import target

    target(name)(Path(file).read_bytes())
    print(f"{name} takes {file}")


def _run(name: str, seconds: int, shrink: bool) -> Result:
    """One target, in a process of its own."""
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    (FOUND / ".gitignore").write_text("*\n")
    if shrink:
        _shrink(name, found)
    began = time.monotonic()
    done = _engine(
        name,
        *(f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-len_control=0"),
        *(f"-timeout={HANG_SECONDS}", f"-rss_limit_mb={MEMORY}", "-print_final_stats=1"),
        *(f"-artifact_prefix={FOUND}/{name}-", str(found), str(CORPUS / name)),
        timeout=seconds + GRACE_SECONDS,
    )
    result = Result(name, time.monotonic() - began, said=done.stderr)
    result.executions = _number(r"stat::number_of_executed_units: (\d+)", done.stderr)
    result.reached = _number(r"cov: (\d+)", done.stderr)
    result.corpus = sum(1 for _ in found.iterdir())
    written = re.findall(r"Test unit written to (.+)$", done.stderr, re.MULTILINE)
    result.crashes = [Path(file) for file in written]
    if done.returncode or result.crashes:
        result.failure = f"it ended with {done.returncode}"
    print(f"{name}: {result.executions} executions", file=sys.stderr, flush=True)
    return result


def _engine(name: str, *options: str, timeout: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fuzz.engine", name, *options]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", cwd=ROOT,
            env=environment, timeout=timeout,
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        said = exc.stderr.decode("utf8", "replace") if isinstance(exc.stderr, bytes) else ""
        return subprocess.CompletedProcess(command, -1, "", f"{said}\nit did not end")


def _shrink(name: str, found: Path) -> None:
    """Keep only what reaches something that nothing else does."""
    old = found.rename(FOUND / f"{name}.old")
    found.mkdir()
    _engine(name, "-merge=1", str(found), str(CORPUS / name), str(old), timeout=GRACE_SECONDS)
    for file in old.iterdir():
        file.unlink()
    old.rmdir()


def _number(pattern: str, text: str) -> int:
    """The last one of that kind."""
    return int((re.findall(pattern, text) or ["0"])[-1])


def _table(results: Sequence[Result]) -> str:
    heads = ("target", "seconds", "executions", "exec/s", "corpus", "places", "crashes")
    lines = ["{:8}{:>9}{:>12}{:>9}{:>8}{:>8}{:>9}".format(*heads)]
    for each in results:
        rate = each.executions / each.seconds if each.seconds else 0
        crashes = str(len(each.crashes)) if each.crashes or not each.failure else "failed"
        lines.append(
            f"{each.name:8}{each.seconds:9.0f}{each.executions:12}{rate:9.0f}"
            f"{each.corpus:8}{each.reached:8}{crashes:>9}"
        )
    return "\n".join(lines)


def _report(result: Result) -> str:
    """What is wrong, and how to see it again."""
    lines = [f"\n{result.name}: {result.failure}", _last_words(result.said)]
    for file in result.crashes:
        shown = file.relative_to(ROOT)
        lines.append(f"base64: {base64.b64encode(file.read_bytes()).decode()}")
        lines.append(f'again:  make fuzz ARGS="--replay {result.name} {shown}"')
        lines.append(f"keep:   mv {shown} fuzz/corpus/{result.name}/ (then make test replays it)")
    return "\n".join(lines)


def _last_words(said: str) -> str:
    """The traceback, if there is one, or the last lines."""
    lines = [line for line in said.splitlines() if not re.match(r"INFO|\[INFO\]|WARNING|#\d", line)]
    ends = [at for at, line in enumerate(lines) if "Uncaught Python exception" in line]
    return "\n".join(lines[: ends[0]][-60:] if ends else lines[-40:])


if __name__ == "__main__":
    main()
