"""A handler of log records that looks whether whoever logs holds a lock meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from collected import DEADLINE


class Bystander(logging.Handler):
    """While a record is handled, has another thread do something that needs the lock."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__()
        self._work = work
        self.was_free: list[bool] = []
        """Of each record, whether that was done before the logging went on."""

    def emit(self, record: logging.LogRecord) -> None:
        thread = threading.Thread(target=self._work, daemon=True)
        thread.start()
        thread.join(DEADLINE)
        self.was_free.append(not thread.is_alive())

    @contextmanager
    def on(self, name: str) -> Iterator[Self]:
        """Handle what is logged there, for as long as it lasts."""
        logger = logging.getLogger(name)
        logger.addHandler(self)
        try:
            yield self
        finally:
            logger.removeHandler(self)
