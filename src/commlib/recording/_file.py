"""The file of a recorder: written by a thread of its own, in chunks that are whole each.

The loop puts messages into a bounded queue, the thread writes them. At least each second it ends
the chunk and has the system bring it to the disk, so that a power failure costs no more than that.
When the disk is full the file is cut behind its last whole chunk.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Callable
from itertools import count, takewhile
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import msgspec

from commlib.recording._counts import Losses, TopicCounter
from commlib.recording._part import Compression, Entry, Part, RecordingError
from commlib.recording._records import Place

log = logging.getLogger("commlib.recording")

FLUSH_SECONDS = 1.0
CHUNK_SIZE = 1024 * 1024  # what `mcap` takes, too


class Limits(NamedTuple):
    """When a file is full, and what may wait for it; None: no such limit.

    ``max_size`` is of all files together.
    """

    split_size: int | None = None
    split_seconds: float | None = None
    max_size: int | None = None
    max_waiting: int = 64 * 1024 * 1024

    def check(self) -> None:
        """Raises ValueError for what is no limit."""
        for name, value in self._asdict().items():
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value!r}: it is more than 0")

    @property
    def chunk_size(self) -> int:
        """The bytes of a chunk: by so much, before compression, a file may be too large."""
        sizes = [each for each in (self.split_size, self.max_size) if each is not None]
        return max(4096, min([CHUNK_SIZE, *(size // 10 for size in sizes)]))


class Counts(msgspec.Struct):
    """What is written so far, in all files."""

    messages: int = 0
    bytes: int = 0
    size: int = 0
    files: int = 0


class RecordingFile:
    """Writes what is put into it to a file, or several in turn.

    ``on_end`` is called on the thread when it ends by itself: with what is wrong, or None when
    ``max_size`` is reached. Raises RecordingError if the first file cannot be made.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        compression: Compression,
        overwrite: bool,
        about: dict[str, str],
        place_beside: Place,
        on_end: Callable[[RecordingError | None], None],
    ) -> None:
        self.counts = Counts()
        self._path = path
        self._limits = limits
        self._how = (overwrite, compression, about, limits.chunk_size)
        self._place_beside: Place = place_beside
        self._on_end = on_end
        self._splits = limits.split_size is not None or limits.split_seconds is not None
        self._queue: deque[Entry] = deque()
        # Two counters instead of one, so that each has one writer.
        self._bytes_in = self._bytes_out = 0
        self._earlier = 0  # bytes of the files before this one
        self._last: dict[TopicCounter, Losses] = {}
        self._news = threading.Event()
        self._closing = False
        self._ended = False
        self._failure: RecordingError | None = None
        try:
            if self._splits:
                self._make_room(overwrite)
            self._part = self._open()
        except OSError as exc:
            raise self._error(Path(exc.filename or path), exc) from exc
        self._thread = threading.Thread(target=self._work, name="commlib-recording", daemon=True)

    @property
    def path(self) -> Path:
        """The file that is being written."""
        return self._part.path

    @property
    def is_open(self) -> bool:
        """Whether it has not ended; what comes after that is no part of the recording."""
        return not (self._closing or self._ended)

    def start(self) -> None:
        """Begin to write; until then what is put waits."""
        if self._thread.ident is None:
            self._thread.start()

    def put(self, entry: Entry) -> bool:
        """Take a message; False if there is no room for it. On the loop."""
        size = entry.weight
        waiting = self._bytes_in - self._bytes_out
        if waiting and waiting + size > self._limits.max_waiting:
            return False
        self._bytes_in += size
        self._queue.append(entry)
        if not self._news.is_set():
            self._news.set()
        return True

    def close(self, topics: list[TopicCounter]) -> None:
        """Write all that waits, then what was lost in the end, and finish the file. It blocks.

        Raises RecordingError also for what has ended it before.
        """
        self._closing = True
        self._news.set()
        self.start()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        if self._ended:
            return
        self._ended = True
        try:
            self._part.count_rest(topics)
            self._part.finish()
        except OSError as exc:
            self._failure = self._give_up(exc)
            raise self._failure from exc
        finally:
            self._note_size()

    def _make_room(self, overwrite: bool) -> None:
        """Remove the parts of a recording by this name, or refuse what has the name of a part."""
        if not overwrite:
            if (other := self._part_before()) is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(other))
        elif self._numbered(1).is_file():
            # The last one first: what is left, should that fail, still has no gap.
            for part in reversed([*takewhile(Path.is_file, map(self._numbered, count(2)))]):
                part.unlink()

    def _part_before(self) -> Path | None:
        """The first file there is that has the name of a part; None: there is none to be seen."""
        path = self._path
        form = re.compile(rf"{re.escape(path.stem)}-([0-9]{{4,}}){re.escape(path.suffix)}")
        try:
            found = [form.fullmatch(each.name) for each in path.parent.iterdir()]
        except OSError:  # the file itself cannot be made either, or is the only one to be seen
            return None
        numbers = {int(each[1]) for each in found if each and each[1] == f"{int(each[1]):04}"}
        numbers.discard(0)
        return self._numbered(min(numbers)) if numbers else None

    def _numbered(self, number: int) -> Path:
        return self._path.with_stem(f"{self._path.stem}-{number:04}")

    # ---- on the thread ----

    def _work(self) -> None:
        try:
            if not self._write_all():
                return
            self._part.finish()
        except OSError as exc:
            self._failure = self._give_up(exc)
        except Exception as exc:  # nobody would see it, and the recorder would wait for ever
            log.exception("%s: the recording has failed", self.path)
            self._failure = RecordingError(f"{self.path}: {type(exc).__name__}: {exc}")
        self._note_size()
        self._ended = True
        self._on_end(self._failure)

    def _write_all(self) -> bool:
        """Write until it is closed; True when ``max_size`` is reached before."""
        flush_at = monotonic() + FLUSH_SECONDS
        while True:
            self._news.wait(max(flush_at - monotonic(), 0))
            self._news.clear()
            closing = self._closing
            while self._queue:
                self._write(self._queue.popleft())
                if self._is_full():
                    return True
                if monotonic() >= flush_at:
                    break
            if closing and not self._queue:
                return False
            if monotonic() >= flush_at:
                self._part.flush()
                self._note_size()
                flush_at = monotonic() + FLUSH_SECONDS
            if self._queue:
                self._news.set()

    def _write(self, entry: Entry) -> None:
        self._split_if_due()
        size = self._part.add(entry, self._place_beside)
        self._last[entry.topic] = entry.losses
        self._bytes_out += entry.weight
        self.counts.messages += 1
        self.counts.bytes += size
        self._note_size()

    def _note_size(self) -> None:
        self.counts.size = self._earlier + self._part.output.size

    def _is_full(self) -> bool:
        most = self._limits.max_size
        return most is not None and self.counts.size >= most

    def _split_if_due(self) -> None:
        limits, part = self._limits, self._part
        if not part.written:
            return
        is_big = limits.split_size is not None and part.output.size >= limits.split_size
        is_old = (
            limits.split_seconds is not None and monotonic() - part.began >= limits.split_seconds
        )
        if is_big or is_old:
            part.finish()
            self._earlier += part.output.size
            self._part = self._open()
            self._part.base = dict(self._last)

    def _open(self) -> Part:
        self.counts.files += 1
        path = self._numbered(self.counts.files) if self._splits else self._path
        return Part(path, *self._how)

    def _give_up(self, exc: OSError) -> RecordingError:
        """Leave a file that can be read."""
        self._ended = True
        output = self._part.output
        try:
            output.cut()
            output.close()
        except OSError:
            pass  # it is read up to the last chunk all the same
        return self._error(Path(exc.filename or self._part.path), exc)

    def _error(self, path: Path, exc: OSError) -> RecordingError:
        if exc.errno == errno.EEXIST:
            return RecordingError(
                f"{path} is there already; choose another name, or overwrite it (--overwrite, "
                "overwrite=True)"
            )
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            return RecordingError(
                f"{path}: the disk is full; of the {self.counts.messages} messages until then all "
                "can be read but those of the last second"
            )
        return RecordingError(f"{path}: {exc.strerror}")
