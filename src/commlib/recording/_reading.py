"""Reads MCAP files, also those that were cut off: up to the last chunk that is whole."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from commlib.recording._part import RECORDING, RecordingError

if TYPE_CHECKING:
    from mcap.records import Channel, Chunk, McapRecord, Message, Metadata, Schema, Statistics

MAX_CHUNK = 1 << 30  # bytes of one that is expanded; some programs write a file as one chunk
MAGIC = b"\x89MCAP0\r\n"


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

    @property
    def is_ours(self) -> bool:
        """Whether a recorder has written it, which puts messages in the order of their times."""
        return any(each.name == RECORDING for each in self.metadata)

    def messages(self) -> Iterator[Found]:
        """The messages, in the order of the file. Raises RecordingError for what is no MCAP."""
        from mcap.records import Channel, Message, Metadata, Schema

        for record in self._records():
            if isinstance(record, Message):
                if record.channel_id in self.channels:  # else its writer has left that out
                    yield Found(self.channels[record.channel_id], record)
            elif isinstance(record, Channel):
                self.channels[record.id] = record
            elif isinstance(record, Schema):
                self.schemas[record.id] = record
            elif isinstance(record, Metadata):
                self.metadata.append(record)

    def _records(self) -> Iterator[McapRecord]:
        from mcap.records import Chunk
        from mcap.stream_reader import StreamReader, breakup_chunk

        broken = _broken()
        with _opened(self.path) as file:
            size = self.path.stat().st_size
            reader = StreamReader(file, emit_chunks=True, record_size_limit=size)
            records = reader.records
            while True:
                try:
                    record = next(records, None)
                    if record is None:  # behind the footer and what has to follow it
                        self.is_complete = True
                        return
                    inside = [record]
                    if isinstance(record, Chunk):
                        inside = breakup_chunk(self._expanded(record), validate_crc=True)
                except broken:
                    return  # cut off, or broken from here on
                yield from inside

    def _expanded(self, chunk: Chunk) -> Chunk:
        """A chunk that is not compressed, of no more than the bytes that it says.

        Raises RecordingError for one that nobody could have in memory.
        """
        if chunk.uncompressed_size > MAX_CHUNK:
            raise RecordingError(
                f"{self.path}: a chunk of {chunk.uncompressed_size} bytes; no more than "
                f"{MAX_CHUNK} of a chunk are read"
            )
        expand = {"": _as_it_is, "zstd": _from_zstd, "lz4": _from_lz4}.get(chunk.compression)
        if expand is None:
            raise RecordingError(f"{self.path}: compressed by {chunk.compression[:40]!r}")
        data = expand(chunk.data, chunk.uncompressed_size)
        if len(data) != chunk.uncompressed_size:
            raise ValueError("a chunk is not as long as it says")
        return replace(chunk, compression="", data=data)

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


def _broken() -> tuple[type[Exception], ...]:
    """What is raised where a file is cut off, or makes no sense."""
    from mcap.exceptions import McapError
    from zstandard import ZstdError

    # lz4 raises RuntimeError; the others come of lengths that are garbage.
    garbage = (ValueError, struct.error, RuntimeError, EOFError, OverflowError, MemoryError)
    return (McapError, ZstdError, *garbage)


def _as_it_is(data: bytes, size: int) -> bytes:
    return data


def _from_zstd(data: bytes, size: int) -> bytes:
    from zstandard import ZstdDecompressor

    with ZstdDecompressor().stream_reader(data, read_across_frames=True) as stream:
        found: bytes = stream.read(size)
        return found


def _from_lz4(data: bytes, size: int) -> bytes:
    from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]

    found: bytes = LZ4FrameDecompressor().decompress(data, max_length=size)
    return found


def _opened(path: Path) -> BinaryIO:
    try:
        file = path.open("rb")
    except OSError as exc:
        raise RecordingError(f"{path}: {exc.strerror}") from exc
    head = file.read(len(MAGIC))
    if head != MAGIC:
        file.close()
        raise RecordingError(f"{path} is no MCAP file, or nothing of it has reached the disk")
    file.seek(0)
    return file
