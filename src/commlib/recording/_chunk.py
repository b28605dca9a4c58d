"""What is in a chunk of an MCAP file, by whatever it is compressed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from commlib.recording._part import RecordingError

if TYPE_CHECKING:
    from mcap.records import Chunk

MAX_CHUNK = 1 << 30  # bytes of one that is expanded; some programs write a file as one chunk


def expanded(chunk: Chunk, path: Path) -> Chunk:
    """A chunk of a file that is not compressed, of no more than the bytes that it says.

    Raises RecordingError for one that nobody could have in memory, or expand.
    """
    if chunk.uncompressed_size > MAX_CHUNK:
        raise RecordingError(
            f"{path}: a chunk of {chunk.uncompressed_size} bytes; no more than {MAX_CHUNK} of a "
            "chunk are read"
        )
    expand = {"": _as_it_is, "zstd": _from_zstd, "lz4": _from_lz4}.get(chunk.compression)
    if expand is None:
        raise RecordingError(f"{path}: compressed by {chunk.compression[:40]!r}")
    data = expand(chunk.data, chunk.uncompressed_size)
    if len(data) != chunk.uncompressed_size:
        raise ValueError("a chunk is not as long as it says")
    return replace(chunk, compression="", data=data)


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
