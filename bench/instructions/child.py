"""The process that is counted: it plays one path, in laps, and marks where each begins and ends.

    python -m bench.instructions.child PATH URL TOPIC

It asks its peer for a turn by a byte on standard output, and is told by one on standard input that
the turn is over.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time

from bench.instructions.paths import PATHS

LIMIT = 240.0  # s after which the kernel ends it
LAPS = 3
UNCOUNTED = 2  # laps before: the interpreter learns what is done often
REST = 0.05  # s for other threads to come to rest after a lap
NEVER = 1e6  # s; so long a thread keeps the interpreter from others while it need not wait


def main() -> None:
    """Play the path that the command line names."""
    name, url, topic = sys.argv[1:]
    path = next(path for path in PATHS if path.name == name)
    # No handler: the signal ends the process even if a driver never returns to Python.
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    sys.setswitchinterval(NEVER)
    if path.burst > 1:
        _keep_bursts_together()
    if not path.uvloop:
        sys.modules["uvloop"] = None  # type: ignore[assignment] # importing it fails from now on
    if path.face == "aio":
        from bench.instructions import aio as plays
    else:
        from bench.instructions import plain as plays
    plays.play(path, url, topic)


def _keep_bursts_together() -> None:
    """A link that has written nothing for 0.1 ms writes at once what comes next.

    Here everything takes thirty times as long, so that no message would find it as busy as a burst
    makes it elsewhere.
    """
    from commlib.transports import _amqp_link, _mqtt_link

    for link in (_amqp_link, _mqtt_link):
        assert link.QUIET_SECONDS, "it still goes by that"
        link.QUIET_SECONDS = NEVER


def before_laps() -> None:
    """What has been made so far stays: nobody need look through it for garbage again."""
    gc.collect()
    gc.freeze()


def mark() -> None:
    """A lap begins or ends here."""
    time.sleep(REST)
    os.getppid()


def end() -> None:
    """What would be done at exit is of no interest."""
    os._exit(0)


if __name__ == "__main__":
    main()
