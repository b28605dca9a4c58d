"""A logger by its namespace, as commlib-py 0.6 has it: a thin cover of Python's own.

Nothing here sets up logging, for that is the program's business: without a word of the program
Python shows warnings and worse. The loggers of this library are ``commlib`` and below.
"""

from __future__ import annotations

import logging
import os
import threading

__all__ = ["LOG_FORMAT", "Logger"]

LOG_FORMAT = "%(asctime)s %(levelname)-8s %(name)s %(funcName)s:%(lineno)d: %(message)s"
"""What a line of a ``log_file`` looks like; for handlers of your own as well."""

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
