"""What must never happen, noted when it does."""

from __future__ import annotations

import logging
import sys
import threading
from collections import Counter

MAX_COMPLAINTS = 20


class Complaints:
    """What must never happen: how often each kind did, and the first of them in full."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self.kinds: Counter[str] = Counter()
        self._lock = threading.Lock()

    def note(self, kind: str, text: object) -> None:
        """One has happened."""
        with self._lock:
            self.kinds[kind] += 1
            if len(self.first) < MAX_COMPLAINTS:
                self.first.append(f"{kind}: {text}")
        print(f"{kind}: {text}", file=sys.stderr, flush=True)


class Heard(logging.Handler):
    """Takes errors that were only logged for what they are."""

    def __init__(self, complaints: Complaints) -> None:
        super().__init__(logging.WARNING)
        self._complaints = complaints

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.name == "py.warnings":
            self._complaints.note("logged", f"{record.name}: {record.getMessage()}"[:500])
