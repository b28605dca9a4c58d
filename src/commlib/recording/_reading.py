"""Reads MCAP files, also those that are damaged or were cut off: every chunk that is whole.

A record says how long it is. So a chunk that is damaged costs what is in it and no more, until the
length of one makes no sense: from there on nobody knows where another begins.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from commlib.recording._chunk import MAX_CHUNK, expanded
from commlib.recording._part import RECORDING, RecordingError

if TYPE_CHECKING:
    from mcap.records import Channel, McapRecord, Message, Metadata, Schema, Statistics

MAGIC = b"\x89MCAP0\r\n"
HEAD = struct.Struct("<BQ")  # of a record: what it is, and how many bytes follow
FOOTER, MESSAGE_INDEX, ATTACHMENT, METADATA, DATA_END = 0x02, 0x07, 0x09, 0x0C, 0x0F
LENGTHS = {FOOTER: 20, 0x0E: 17, DATA_END: 4}  # bytes of the kinds that always are as long
RESERVED = range(0x10, 0x80)  # kinds that there are none of
INDEX = "index"  # with all else that stands behind the data
CHUNK_HEAD = 40  # bytes of a chunk beside its data and the name of its compression
BLOCK = 1 << 20  # bytes that are looked at together

_Read = Callable[[bytes], "McapRecord"]


class Found(NamedTuple):
    """A message in a file."""

    channel: Channel
    message: Message


class Reading:
    """One pass through a file; what has been met of it so far is in the attributes."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self.channels: dict[int, Channel] = {}
        self.schemas: dict[int, Schema] = {}
        self.metadata: list[Metadata] = []
        self.is_complete = False
        self.is_cut_off = False
        self.damaged = 0
        """The chunks, or records outside of them, that are damaged."""
        self.broken_at: int | None = None
        """The byte from which on nothing can be read, though there is something."""
        self._chunks = 0  # that were read
        self._messages = 0
        self._nameless = 0
        self._has_looked = False
        self._at = len(MAGIC)
        self._why = ""
        self._has_data = True
        self._doubt = ""  # what is damaged, unless the file is cut off there
        self._spoilt: set[str] = set()  # beside the data

    @property
    def is_ours(self) -> bool:
        """Whether a recorder has written it, which puts messages in the order of their times."""
        return any(each.name == RECORDING for each in self.metadata)

    @property
    def is_damaged(self) -> bool:
        """Whether something in the middle is missing; more than the end, as in one cut off."""
        return self.damaged > 0 or self.broken_at is not None

    @property
    def faults(self) -> list[str]:
        """What is wrong with what was read so far, in sentences."""
        found = []
        if self.damaged:
            chunks = "1 chunk is" if self.damaged == 1 else f"{self.damaged} chunks are"
            found.append(f"{chunks} damaged, what was in there is lost")
        if self._nameless and self.damaged:  # else its writer has left them out
            found.append(f"{self._nameless} messages have lost the names of their topics there")
        if self.broken_at is not None:
            found.append(f"damaged at byte {self.broken_at}{self._why}, all behind it is lost")
        for part in sorted(self._spoilt):
            is_all = not self.is_damaged
            found.append(f"its {part} is damaged{'; all messages were read' if is_all else ''}")
        if self.is_cut_off:
            found.append("cut off: it was not finished, and is read up to its last whole chunk")
        return found

    def messages(self) -> Iterator[Found]:
        """The messages, in the order of the file.

        Raises RecordingError for what is no MCAP, and at the end if no chunk is of a size and a
        compression that can be read.
        """
        from mcap.records import Channel, Message, Metadata, Schema, Statistics

        for record in self._records():
            if isinstance(record, Message):
                self._messages += 1
                channel = self.channels.get(record.channel_id) or self._named(record.channel_id)
                if channel is not None:
                    yield Found(channel, record)
                else:
                    self._nameless += 1
            elif isinstance(record, Channel):
                self.channels[record.id] = record
            elif isinstance(record, Schema):
                self.schemas[record.id] = record
            elif isinstance(record, Metadata):
                self.metadata.append(record)
            elif isinstance(record, Statistics):
                self._compare(record)

    def _records(self) -> Iterator[McapRecord]:
        from mcap.records import Chunk
        from mcap.stream_reader import breakup_chunk

        broken: tuple[type[Exception], ...] = (*_broken(), RecordingError)
        refusal: RecordingError | None = None
        readers = _readers()
        with _opened(self.path) as file:
            for kind, data in self._frames(file):
                try:
                    record = readers[kind](data)
                    inside = [record]
                    if isinstance(record, Chunk):
                        if not record.data and len(data) > CHUNK_HEAD + len(record.compression):
                            raise ValueError("a chunk with zeros over its head")
                        inside = breakup_chunk(expanded(record, self.path), validate_crc=True)
                        self._chunks += 1
                except broken as exc:
                    self._doubt_of(kind)
                    if isinstance(exc, RecordingError):
                        refusal = refusal or exc
                else:
                    yield from inside
        if refusal is not None and not self._chunks:
            raise refusal  # it is like this on purpose

    def _frames(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        """The records that are of use, each with its kind, as far as they can be read."""
        try:
            yield from self._walk(file)
        except OSError as exc:
            if self._at == len(MAGIC):
                raise RecordingError(f"{self.path}: {exc.strerror}") from exc
            self._count_damage()
            if self._has_data:
                self.broken_at = self._at
                self._why = f" ({exc.strerror})"
            else:
                self._spoilt.add(INDEX)
                self.is_complete = True

    def _walk(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        """The same, as far as their lengths go. Raises OSError."""
        readers = _readers()
        self._at, size = file.seek(len(MAGIC)), 0
        while True:
            at = self._at
            head = file.read(HEAD.size)
            is_whole = len(head) == HEAD.size
            kind, length = HEAD.unpack(head) if is_whole else (0, 0)
            end = at + HEAD.size + length
            if kind == DATA_END and (length ^ LENGTHS[kind]).bit_count() < 2:
                self._has_data = False  # also where a bit of its length is another one
            if end > size:
                size = os.fstat(file.fileno()).st_size  # it may have grown
            if not kind or end > size:
                is_senseless = is_whole and (
                    not kind or kind in RESERVED or (end - size > MAX_CHUNK and kind != ATTACHMENT)
                )
                self._end(file, at, is_senseless=is_senseless)
                return
            self._count_damage()
            if not _makes_sense(kind, length):
                self._doubt_of(kind)
                file.seek(end)
            elif kind in readers:
                data = file.read(length)
                self._at = end
                yield kind, data
            else:
                file.seek(end)
            self._at = end
            if kind == FOOTER and length == LENGTHS[kind]:
                tail = file.read(len(MAGIC))
                self.is_complete = len(tail) == len(MAGIC)
                self.is_cut_off = not self.is_complete
                if self.is_complete and tail != MAGIC:
                    self._spoilt.add(INDEX)
                return

    def _doubt_of(self, kind: int) -> None:
        """A record is damaged, unless the file is cut off there."""
        is_metadata = kind == METADATA
        self._doubt = ("metadata" if is_metadata else "chunk") if self._has_data else INDEX

    def _count_damage(self) -> None:
        """What was doubtful is damaged: the file goes on behind it."""
        if self._doubt == "chunk":
            self.damaged += 1
        elif self._doubt:
            self._spoilt.add(self._doubt)
        self._doubt = ""

    def _compare(self, told: Statistics) -> None:
        """Count chunks that are missing without a trace, by what the end of the file tells.

        Where all messages were read, what was taken for a damaged chunk was none.
        """
        if self._messages == told.message_count:
            if self.damaged and not self._nameless:
                self.damaged = 0
                self._spoilt.add(INDEX)
        elif self._messages < told.message_count and not self._has_data:
            self.damaged = max(self.damaged, told.chunk_count - self._chunks)

    def _named(self, id: int) -> Channel | None:
        """A channel that no chunk so far has told of: it may stand at the end as well."""
        if not self._has_looked:
            self._has_looked = True
            other = Reading(self.path)
            other.summary()
            self.channels = other.channels | self.channels
            self.schemas = other.schemas | self.schemas
        return self.channels.get(id)

    def _end(self, file: BinaryIO, at: int, *, is_senseless: bool) -> None:
        """No record begins here: tell a file that is cut off, also by zeros, from a damaged one."""
        file.seek(at - len(MAGIC))
        tail = file.read(len(MAGIC))
        is_empty = True
        for block in iter(partial(file.read, BLOCK), b""):
            tail = (tail + block)[-len(MAGIC) :]
            is_empty = is_empty and not block.strip(b"\0")
        if tail == MAGIC and not self._has_data:
            self._count_damage()
            self._spoilt.add(INDEX)
            self.is_complete = True
        elif self._has_data and not is_empty and (is_senseless or tail == MAGIC):
            self._count_damage()
            self.broken_at = at
        else:
            self.is_cut_off = True

    def summary(self) -> Statistics | None:
        """What the end of a complete file says of it, with its channels and metadata; else None."""
        from mcap.reader import SeekingReader

        broken: tuple[type[Exception], ...] = (*_broken(), OSError)
        with _opened(self.path) as file:
            try:
                reader = SeekingReader(file, record_size_limit=self.path.stat().st_size)
                summary = reader.get_summary()
                if summary is None or summary.statistics is None:
                    return None
                self.channels, self.schemas = summary.channels, summary.schemas
                self.metadata = list(reader.iter_metadata())
            except broken:
                return None
        self.is_complete = True
        return summary.statistics


def _makes_sense(kind: int, length: int) -> bool:
    """Whether a record can be of this kind: one bit makes a chunk another record."""
    if kind == MESSAGE_INDEX:
        return length % 16 == 6  # and 16 for each message
    return kind not in RESERVED and LENGTHS.get(kind, length) == length


def _readers() -> dict[int, _Read]:
    """What reads the records that are of use, by their kind."""
    from mcap import records
    from mcap.data_stream import ReadDataStream
    from mcap.opcode import Opcode

    def message(data: bytes) -> McapRecord:
        found: McapRecord = records.Message.read(ReadDataStream(BytesIO(data)), len(data))
        return found

    def reader(kind: Any) -> _Read:
        return lambda data: kind.read(ReadDataStream(BytesIO(data)))

    kinds = (
        *(records.Schema, records.Channel, records.Chunk, records.Metadata),
        records.Statistics,
    )
    found = {int(Opcode[kind.__name__.upper()]): reader(kind) for kind in kinds}
    return {**found, int(Opcode.MESSAGE): message}


def _broken() -> tuple[type[Exception], ...]:
    """What is raised where a file is cut off, or makes no sense."""
    from mcap.exceptions import McapError
    from zstandard import ZstdError

    # lz4 raises RuntimeError; the others come of lengths that are garbage.
    garbage = (ValueError, struct.error, RuntimeError, EOFError, OverflowError, MemoryError)
    return (McapError, ZstdError, *garbage)


def _opened(path: Path) -> BinaryIO:
    try:
        file = path.open("rb")
    except OSError as exc:
        raise RecordingError(f"{path}: {exc.strerror}") from exc
    try:
        head = file.read(len(MAGIC))
        file.seek(0)
    except OSError as exc:
        file.close()
        raise RecordingError(f"{path}: {exc.strerror}") from exc
    if head != MAGIC:
        file.close()
        raise RecordingError(f"{path} is no MCAP file, or nothing of it has reached the disk")
    return file
