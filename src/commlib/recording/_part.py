"""One file of a recording: its channels, its chunks, and what it has of each topic."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic
from typing import Literal, NamedTuple

import msgspec

from commlib._letter import Letter
from commlib._packet import unix_ms
from commlib.exceptions import CommlibError
from commlib.recording import _schema
from commlib.recording._counts import Losses, TopicCounter, Written
from commlib.recording._records import Place, Shape, to_record

LOSSES, TOPICS, RECORDING = "commlib.losses", "commlib.topics", "commlib.recording"
"""The metadata of a file: losses so far, all counts at the end, and what was recorded where."""

Compression = Literal["zstd", "lz4", "none"]
OBJECTS_SIZE = 1000  # bytes that a message takes beside its payload while it waits; measured
CLOSED = -1  # the number of no file
_json = msgspec.json.encode


class RecordingError(CommlibError):
    """A recording cannot be written or read; the text says which file, and why."""


class Entry(NamedTuple):
    """A message on its way into the file, and what was counted of its topic until then."""

    topic: TopicCounter
    letter: Letter
    log_time: int
    losses: Losses

    @property
    def weight(self) -> int:
        """The bytes that it takes while it waits; what was compressed is there twice."""
        letter = self.letter
        expanded = len(letter.data) if letter.compression is not None else 0
        return OBJECTS_SIZE + len(letter.packet.payload) + expanded


class Output:
    """A file as `mcap` writes it, unbuffered: it knows how much of it is whole."""

    def __init__(self, path: Path, overwrite: bool) -> None:
        flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if overwrite else os.O_EXCL)
        self._fd = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666)
        self.size = self.whole = 0

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            count = os.write(self._fd, view)
            self.size += count
            view = view[count:]
        return len(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self.whole = self.size

    def sync(self) -> None:
        getattr(os, "fdatasync", os.fsync)(self._fd)

    def cut(self) -> None:
        """Take off what is not whole."""
        os.ftruncate(self._fd, self.whole)
        self.size = self.whole

    def close(self) -> None:
        """Close it, once: by then another file of the program may have its number."""
        fd, self._fd = self._fd, CLOSED
        if fd != CLOSED:
            os.close(fd)


class Part:
    """One file: its channels, and what it has of each topic."""

    def __init__(
        self,
        path: Path,
        overwrite: bool,
        compression: Compression,
        about: dict[str, str],
        chunk_size: int,
    ) -> None:
        from mcap.writer import CompressionType, Writer

        from commlib import __version__

        self.path = path
        self.began = monotonic()
        self.output = Output(path, overwrite)
        self.writer = Writer(
            self.output,  # type: ignore[arg-type]
            chunk_size=chunk_size,
            compression=CompressionType[compression.upper()],
        )
        try:
            self.writer.start("", f"commlib {__version__}")
            self.writer.add_metadata(RECORDING, about)
            self.writer.flush()  # type: ignore[no-untyped-call]
        except BaseException:
            self.output.close()
            raise
        self.written: dict[TopicCounter, Written] = {}
        self.base: dict[TopicCounter, Losses] = {}
        self._channels: dict[tuple[TopicCounter, Shape], int] = {}
        self._schemas: dict[bytes, int] = {}
        self._told: dict[str, str] = {}
        self._unsaid: set[TopicCounter] = set()
        self.is_dirty = False

    def add(self, entry: Entry, place_beside: Place) -> int:
        """Write a message; how many bytes it had."""
        topic, letter, header = entry.topic, entry.letter, entry.letter.header
        record = to_record(letter, place_beside)
        channel = self._channels.get((topic, record.shape))
        if channel is None:
            channel = self._add_channel(topic, record.shape)
        told = unix_ms(header.timestamp)
        self.writer.add_message(
            channel,
            entry.log_time,
            record.data,
            entry.log_time if told is None else told * 1_000_000,
            header.seq & 0xFFFFFFFF if header.seq >= 0 else 0,
        )
        size = len(letter.packet.payload)
        written = self.count(topic, entry.losses)
        written.messages += 1
        written.bytes += size
        self.is_dirty = True
        return size

    def count(self, topic: TopicCounter, losses: Losses) -> Written:
        """Note what has been lost of a topic until now."""
        written = self.written.get(topic)
        if written is None:
            written = self.written[topic] = Written()
        now = losses.since(self.base.get(topic, Losses()))
        if now[:3] != (written.before, written.inside, written.duplicates):
            self._unsaid.add(topic)
        written.before, written.inside, written.duplicates, written.unnumbered = now
        return written

    def count_rest(self, topics: list[TopicCounter]) -> None:
        """Note what has been lost until the end, of topics of which nothing got in here as well."""
        for topic in topics:
            losses = topic.losses
            if topic in self.written or losses != self.base.get(topic, Losses()):
                self.count(topic, losses)

    def _add_channel(self, topic: TopicCounter, shape: Shape) -> int:
        about = topic.about
        schema = {"value": _schema.VALUE, "bytes": _schema.DATA}.get(shape)
        name = {"value": "commlib.Value", "bytes": "commlib.Bytes"}.get(shape)
        text = _json(schema or _schema.viewable(about.schema))
        name = name or about.type or "object"
        key = name.encode() + b"\0" + text
        if key not in self._schemas:
            self._schemas[key] = int(self.writer.register_schema(name, "jsonschema", text))
        metadata = {"kind": about.kind, "name": about.name, "qos": str(about.qos)}
        if about.type:
            metadata["type"] = about.type
        channel = self.writer.register_channel(topic.name, "json", self._schemas[key], metadata)
        self._channels[topic, shape] = channel
        return channel

    def flush(self) -> None:
        """Bring all of it to the disk, losses first: so what is in a cut file is counted."""
        if self._unsaid:
            self.writer.add_metadata(LOSSES, self._spelled(self._unsaid))
            self._unsaid.clear()
        elif not self.is_dirty:
            return
        self.writer.flush()  # type: ignore[no-untyped-call]
        self.output.sync()
        self.is_dirty = False

    def finish(self) -> None:
        """Write what makes it complete, and close it."""
        self.flush()
        self.writer.add_metadata(TOPICS, self._spelled(self.written))
        self.writer.finish()  # type: ignore[no-untyped-call]
        self.output.flush()
        self.output.sync()
        self.output.close()

    def _spelled(self, topics: set[TopicCounter] | dict[TopicCounter, Written]) -> dict[str, str]:
        return {topic.name: _json(self.written[topic]).decode() for topic in topics}
