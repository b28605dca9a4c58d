"""Compressed payloads: zlib and zstd, told apart by their first bytes.

A publisher, client or service with ``compression=`` compresses its whole payload; every reader
takes it without being told. Both levels of ``max_payload`` hold: what is compressed may not be
larger than that, and neither may what it expands to.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from commlib.exceptions import MissingDriver, PayloadTooBig, SerializationError

__all__ = ["CompressionType", "beginning", "compressor", "expand"]

ZSTD_RATIO = 32_768  # four bytes may stand for a block of 128 KiB (RFC 8878, section 3.1.1.2)
MAX_WINDOW = 1 << 27  # bytes, as the zstd command has it by default
ZLIB_START, ZSTD_START = b"\x78", b"\x28\xb5\x2f\xfd"


class CompressionType(IntEnum):
    """Levels of zlib, by the names that commlib-py 0.13 has for them."""

    DEFAULT_COMPRESSION = -1
    NO_COMPRESSION = 0
    BEST_SPEED = 1
    BEST_COMPRESSION = 9


Compression = CompressionType | int | str | None
"""``None``, ``0`` or ``"none"``: as it is; ``"zlib"`` or a level of it, 1 to 9; ``"zstd"``."""


def compressor(compression: Compression) -> Callable[[bytes], bytes] | None:
    """The function that compresses a payload, None where it stays as it is.

    Raises ValueError for what is no compression, MissingDriver for zstd without the extra.
    """
    if compression in (None, 0, "none"):
        return None
    if compression == "zstd":
        return _zstd_compressor()
    level = -1 if compression == "zlib" else compression
    if not isinstance(level, int) or not -1 <= level <= 9:
        raise ValueError(
            f"compression={compression!r}: it is one of 'none', 'zlib', 'zstd', or a level of zlib "
            "from 1 to 9"
        )
    import zlib

    return lambda payload: zlib.compress(payload, level)


def _zstd_compressor() -> Callable[[bytes], bytes]:
    try:
        import zstandard
    except ImportError as exc:
        raise MissingDriver('zstandard is missing: pip install "commlib-py[zstd]"') from exc
    # One for each payload: they are not made for use by several threads at once.
    return lambda payload: zstandard.ZstdCompressor().compress(payload)


def expand(payload: bytes, limit: int) -> bytes:
    """The payload decompressed if it is zlib or zstd, else the same object.

    Raises PayloadTooBig for more than ``limit`` bytes, and SerializationError for zstd that is
    broken, or without the extra.
    """
    if payload[:1] == ZLIB_START:
        return _inflate(payload, limit)
    if payload[:4] == ZSTD_START:
        return _unzstd(payload, limit)
    return payload


def beginning(payload: bytes, size: int) -> bytes:
    """The first bytes of a payload, unpacked if it is zlib; no more of it is."""
    if payload[:1] == ZLIB_START:
        import zlib

        try:
            return zlib.decompressobj().decompress(payload, size)
        except zlib.error:
            pass  # text that begins with an x
    return payload[:size]


def _inflate(payload: bytes, limit: int) -> bytes:
    import zlib

    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(payload, limit + 1)
    except zlib.error:
        return payload  # text that begins with an x
    if len(plain) > limit:
        raise PayloadTooBig(len(plain), limit)
    return plain if stream.eof else payload


def _unzstd(payload: bytes, limit: int) -> bytes:
    try:
        import zstandard
    except ImportError as exc:
        text = 'a payload compressed with zstd: pip install "commlib-py[zstd]" to read it'
        raise SerializationError(text) from exc
    stream = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()
    plain = bytearray()
    step = max(64, limit // ZSTD_RATIO)  # so that no piece expands to much more than the limit
    try:
        for start in range(0, len(payload), step):
            plain += stream.decompress(payload[start : start + step])
            if len(plain) > limit:
                raise PayloadTooBig(len(plain), limit)
    except zstandard.ZstdError as exc:
        raise SerializationError(f"a broken zstd payload: {exc}") from exc
    if not stream.eof or stream.unused_data:
        raise SerializationError("a broken zstd payload: it is cut, or more follows")
    return bytes(plain)
