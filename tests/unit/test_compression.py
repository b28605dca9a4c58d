"""Compressed payloads: which there are, and how a reader notices."""

from __future__ import annotations

import os
import sys
import zlib
from typing import Any

import pytest

from commlib.compression import CompressionType, compressor, expand
from commlib.exceptions import MissingDriver, PayloadTooBig, SerializationError

PLAIN = b'{"distance":2.0}' * 100


@pytest.mark.parametrize("compression", [None, 0, "none", CompressionType.NO_COMPRESSION])
def test_without_compression_nothing_is_done(compression: Any) -> None:
    assert compressor(compression) is None


@pytest.mark.parametrize("compression", ["zlib", "zstd", *range(1, 10), *CompressionType])
def test_what_was_compressed_is_noticed_and_expanded(compression: Any) -> None:
    if (compress := compressor(compression)) is not None:
        packed = compress(PLAIN)
        assert len(packed) < len(PLAIN) / 10
        assert expand(packed, len(PLAIN)) == PLAIN


@pytest.mark.parametrize("wrong", ["gzip", 10, -2, 1.5, "9"])
def test_what_is_no_compression_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="'zlib', 'zstd'"):
        compressor(wrong)


def test_zstd_without_the_extra_is_refused_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    compress = compressor("zstd")
    assert compress is not None
    packed = compress(PLAIN)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingDriver, match=r"commlib-py\[zstd\]"):
        compressor("zstd")
    with pytest.raises(SerializationError, match=r"commlib-py\[zstd\]"):
        expand(packed, len(PLAIN))


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_nothing_expands_beyond_the_limit(compression: str) -> None:
    compress = compressor(compression)
    assert compress is not None
    with pytest.raises(PayloadTooBig):
        expand(compress(PLAIN), len(PLAIN) - 1)


def test_a_zstd_payload_that_is_cut_or_goes_on_is_refused() -> None:
    compress = compressor("zstd")
    assert compress is not None
    packed = compress(os.urandom(10_000))
    for broken in (packed[:-1], packed[:5000], packed[:6], packed + b"more", packed + packed):
        with pytest.raises(SerializationError, match="a broken zstd payload"):
            expand(broken, 100_000)
    assert len(expand(packed, 100_000)) == 10_000


def test_what_is_not_compressed_is_the_same_object() -> None:
    for payload in (b"", b"{}", b"x is for text", b"\x78\x9c but no zlib", os.urandom(0)):
        assert expand(payload, 1000) is payload
    cut = zlib.compress(PLAIN)[:-3]
    assert expand(cut, 10_000) is cut
