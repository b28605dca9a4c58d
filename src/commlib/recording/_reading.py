"""Reads MCAP files, also those that were cut off: up to the last chunk that is whole."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from commlib.recording._part import RecordingError

if TYPE_CHECKING:
    from mcap.records import Channel, McapRecord, Message, Metadata, Schema, Statistics

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
        from mcap.exceptions import McapError, UnsupportedCompressionError
        from mcap.records import Chunk
        from mcap.stream_reader import StreamReader, breakup_chunk

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
                    inside = (
                        breakup_chunk(record, validate_crc=True)
                        if isinstance(record, Chunk)
                        else [record]
                    )
                except UnsupportedCompressionError as exc:
                    raise RecordingError(f"{self.path}: {exc}") from exc
                except (McapError, ValueError, struct.error, RuntimeError, EOFError):
                    return  # cut off, or broken from here on
                except Exception as exc:
                    # zstandard's own error has no public base; lz4 raises RuntimeError.
                    if type(exc).__name__ != "ZstdError":
                        raise
                    return
                yield from inside

    def summary(self) -> Statistics | None:
        """What the end of a complete file says of it, with its channels and metadata; else None."""
        from mcap.exceptions import McapError
        from mcap.reader import SeekingReader

        with _opened(self.path) as file:
            try:
                reader = SeekingReader(file)
                summary = reader.get_summary()
                if summary is None or summary.statistics is None:
                    return None
                self.channels, self.schemas = summary.channels, summary.schemas
                self.metadata = list(reader.iter_metadata())
            except (McapError, ValueError, struct.error, OSError):
                return None
        self.is_complete = True
        return summary.statistics


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
