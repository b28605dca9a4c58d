"""Load, faults and calm on each broker at once, and what came of it.

make soak ARGS="--minutes 30 --brokers redis,mqtt,amqp --seed 7 --json soak.json"
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from soak import report
from soak.run import Soak
from soak.servers import DEFAULT, KINDS


def main() -> None:
    """Do what the command line says; the status is 1 if anything failed."""
    parser = _parser()
    options = parser.parse_args()
    if options.json is not None:
        try:
            options.json.touch()
        except OSError as exc:  # better now than after half an hour
            parser.error(f"--json: {exc}")
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", file=sys.stderr, flush=True)
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    soaks = [Soak(name, seed, options.minutes * 60, interrupted) for name in options.brokers]
    with ThreadPoolExecutor(len(soaks)) as pool:
        records = list(pool.map(Soak.run, soaks))
    print(report.document(records, seed), flush=True)
    if options.json is not None:
        record = report.as_json(records, seed, options.minutes)
        options.json.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    sys.exit(any(record.failures for record in records))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=_minutes, default=3.0, help="how long (3)")
    parser.add_argument(
        "--brokers", type=_brokers, default=list(DEFAULT), help=f"of {', '.join(KINDS)}"
    )
    parser.add_argument("--seed", type=int, help="of the faults; without it, a random one")
    parser.add_argument("--json", type=Path, help="the file for all figures and samples")
    return parser


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes above 0")
    return minutes


def _brokers(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in KINDS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(KINDS)}")
    return names


if __name__ == "__main__":
    main()
