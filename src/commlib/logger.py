"""A logger by its namespace, as commlib-py 0.6 has it: a thin cover of Python's own.

Nothing here sets up logging, for that is the program's business: without a word of the program
Python shows warnings and worse. The loggers of this library are ``commlib`` and below.

``RemoteLogger`` is a handler for Python's loggers that publishes what it is given.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from commlib.exceptions import CommlibError

if TYPE_CHECKING:
    from commlib import aio, pubsub
    from commlib._packet import Packet

__all__ = ["LOG_FORMAT", "Logger", "RemoteLogger"]

LOG_FORMAT = "%(asctime)s %(levelname)-8s %(name)s %(funcName)s:%(lineno)d: %(message)s"
"""What a line of a ``log_file`` looks like; for handlers of your own as well."""

MAX_RATE = 1000  # records a second: one that logs in a loop leaves the connection to the others
MAX_KEPT = 1000  # records that wait for the connection, as many as messages do by default
MAX_TEXT = 65_536  # characters of one record

_lock = threading.Lock()


class Logger:
    """The logger of Python with the name ``namespace``; its methods are for any thread.

    ``debug`` lets everything through; without it the level is left as the program has set it.
    With ``log_file`` what is let through is written to the end of that file too, as UTF-8,
    however many of these are made for it.

    Raises ValueError for the root logger, which is the program's, and OSError for a file that
    cannot be written.
    """

    def __init__(
        self, namespace: str, debug: bool = False, log_file: str | os.PathLike[str] | None = None
    ) -> None:
        self.namespace = namespace
        self.std_logger = logging.getLogger(namespace)
        """Python's own."""
        self.log_file = log_file
        self._other_level = logging.NOTSET
        if self.std_logger is logging.getLogger():
            raise ValueError(f"{namespace!r} is the root logger, the program's: choose a name")
        if log_file is not None:
            _write_to(self.std_logger, os.path.abspath(log_file))
        if debug:
            self.set_debug(True)

    def set_debug(self, status: bool) -> None:
        """Let everything through, or again what was let through before.

        Raises TypeError for what is no bool.
        """
        if not isinstance(status, bool):
            raise TypeError(f"debug is True or False, not {status!r}")
        level = self.std_logger.level
        if status and level != logging.DEBUG:
            self._other_level = level
            self.std_logger.setLevel(logging.DEBUG)
        elif not status and level == logging.DEBUG:
            self.std_logger.setLevel(self._other_level)

    # The program's line is logged, not one of these.

    def debug(self, msg: object, exc_info: bool = False) -> None:
        """Log what helps to find errors; ``exc_info`` adds the error that is being handled."""
        self.std_logger.debug(msg, exc_info=exc_info, stacklevel=2)

    def info(self, msg: object, exc_info: bool = False) -> None:
        """Log what goes on; ``exc_info`` adds the error that is being handled."""
        self.std_logger.info(msg, exc_info=exc_info, stacklevel=2)

    def warning(self, msg: object, exc_info: bool = False) -> None:
        """Log what should be looked at; ``exc_info`` adds the error that is being handled."""
        self.std_logger.warning(msg, exc_info=exc_info, stacklevel=2)

    warn = warning

    def error(self, msg: object, exc_info: bool = False) -> None:
        """Log what went wrong; ``exc_info`` adds the error that is being handled."""
        self.std_logger.error(msg, exc_info=exc_info, stacklevel=2)


def _write_to(logger: logging.Logger, path: str) -> None:
    with _lock:
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler) and handler.baseFilename == path:
                return
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
        logger.addHandler(handler)


class RemoteLogger(logging.Handler):
    """A handler that publishes log records, for whoever wants to watch a program from afar.

    ``publisher``, of either face, must take a dict: each record is published as
    ``{"msg": "[<ms since 1970>][<namespace>][<LEVEL>] - <text>"}``, where the text is what the
    formatter makes of it, by default the message and the traceback.

    Logging never waits for the broker and never raises because of it. Without a connection the
    last 1000 records are kept, and sent with the next one that finds it back, or by ``flush()``.
    More than that, or more than 1000 records in a second, are dropped and counted in ``dropped``,
    and so are those that a node still keeps when it has been stopped.
    Records of this library's own loggers are left out, for sending one might bring about another;
    those of nodes' loggers, ``commlib.node.<name>``, are the program's and are sent.

    Raises TypeError for a ``publisher`` that is none of one topic, such as a URL.
    """

    def __init__(
        self,
        namespace: str,
        publisher: pubsub.Publisher[Any] | aio.Publisher[Any],
        level: int | str = logging.NOTSET,
    ) -> None:
        super().__init__(level)
        self.namespace = namespace
        self.dropped = 0
        """How many records were not sent."""
        core: Any = getattr(publisher, "core", publisher)
        # Nobody is there to catch it later, when a record is sent.
        if not all(hasattr(core, name) for name in ("topic", "pack", "offer")):
            kind = type(publisher).__qualname__  # not its value: a URL may have a password
            raise TypeError(
                f"publisher= is a Publisher, such as node.create_publisher('all.logs'), not {kind}"
            )
        self._publisher: aio.Publisher[Any] = core
        self._kept: deque[Packet] = deque()
        self._flushing = threading.Lock()
        self._at_work = 0
        self._second = 0
        self._count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record now, or keep it for when there is a connection."""
        here = threading.get_ident()
        # What is logged by a formatter, or by a signal handler meanwhile, would come back here.
        if self._at_work == here:
            return
        self._at_work = here
        try:
            self._show_if_alone(record)
            if not _is_of_the_library(record.name):
                self._keep(record)
                self.flush()
        except CommlibError:
            self.dropped += 1
        except Exception:
            self.dropped += 1
            self.handleError(record)  # of the program's own making, as with every handler
        finally:
            self._at_work = 0

    def _show_if_alone(self, record: logging.LogRecord) -> None:
        """Python shows warnings where there is no handler; this shall not keep it from that."""
        handlers = list(_handlers(logging.getLogger(record.name)))
        last = logging.lastResort
        if last is None or record.levelno < last.level or self not in handlers[:1]:
            return  # of several that are alone, the first one does it
        if all(isinstance(handler, RemoteLogger) for handler in handlers):
            last.handle(record)

    def _keep(self, record: logging.LogRecord) -> None:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        if self._count > MAX_RATE:
            self.dropped += 1
            return
        text = self.format(record)[:MAX_TEXT].encode("utf8", "replace").decode()
        line = f"[{int(record.created * 1000)}][{self.namespace}][{record.levelname}] - {text}"
        packet = self._publisher.pack({"msg": line}, self._publisher.topic)
        if len(self._kept) >= MAX_KEPT:
            self._kept.popleft()
            self.dropped += 1
        self._kept.append(packet)

    def flush(self) -> None:
        """Send what was kept, as far as there is a connection that has room; never waits."""
        sent = True
        # Who finds another thread at it may go: that one looks again when it has let go.
        while sent and self._kept and self._flushing.acquire(blocking=False):
            try:
                sent = self._send_first()
            finally:
                self._flushing.release()

    def drop_kept(self) -> None:
        """Drop what waits for the connection, and count it: there will be none."""
        self.acquire()  # other threads may be about to keep or drop something
        try:
            self.dropped += len(self._kept)
            self._kept.clear()
        finally:
            self.release()

    def _send_first(self) -> bool:
        packet = self._kept.popleft()
        if self._publisher.offer(packet, self._publisher.topic):
            return True
        self._kept.appendleft(packet)
        return False


def _handlers(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    """All those that a record of this logger comes to."""
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _is_of_the_library(name: str) -> bool:
    return (name == "commlib" or name.startswith("commlib.")) and not name.startswith(
        "commlib.node."
    )
