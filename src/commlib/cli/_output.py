"""The standard output, which tells its own errors from those of anything else."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class OutputLost(BrokenPipeError):
    """What was printed cannot be written: its disk is full, or its terminal gone.

    To who prints, it is as if nobody read that any more.
    """


class _Raw(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as exc:
            raise OutputLost(exc.errno, exc.strerror) from exc


@contextmanager
def telling_what_is_lost() -> Iterator[None]:
    """End the program with a sentence and status 1 where its output cannot be written."""
    before = sys.stdout
    sys.stdout = _telling(before)
    try:
        try:
            yield
        finally:
            if not sys.stdout.closed:
                sys.stdout.flush()
    except OutputLost as exc:
        with suppress(OSError):  # what is yet to be written would be tried again
            sys.stdout.close()
        with suppress(OSError):  # both may be the same
            print(f"Error: the output cannot be written: {exc.strerror}", file=sys.stderr)
        sys.exit(1)
    finally:
        sys.stdout = before


def _telling(out: TextIO | None) -> TextIO:
    """The same output, which raises OutputLost; as it is if it is no file."""
    if out is None:  # as behind `>&-`
        return open(os.devnull, "w", encoding="utf-8")
    buffer = getattr(out, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # the same if Python is told not to buffer
    if type(raw) is not io.FileIO or not isinstance(out, io.TextIOWrapper):
        return out
    ours = _Raw(raw.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        ours if buffer is raw else io.BufferedWriter(ours),
        encoding=out.encoding,
        errors=out.errors,
        line_buffering=out.line_buffering,
        write_through=out.write_through,
    )
