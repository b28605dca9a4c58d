"""A peer that publishes again and again, for what listens for a while."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PAUSE = 0.005  # s between two turns


@contextmanager
def talking(turn: Callable[[int], object]) -> Iterator[None]:
    """Call a function with 0, 1, 2, ... every few ms meanwhile, on a thread."""
    over = threading.Event()

    def talk() -> None:
        for number in itertools.count():
            turn(number)
            if over.wait(PAUSE):
                return

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
