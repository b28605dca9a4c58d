"""What holds for any input, beside the properties in the tests of each module."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

import pytest
import zstandard
from fuzz import TARGETS, target
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from commlib._json import NOT_DECODABLE, parse, write_json
from commlib._packet import unix_ms
from commlib._routes import prefixed
from commlib._topics import (
    amqp_binding,
    check_pattern,
    check_topic,
    is_pattern,
    matcher,
    mqtt_filter,
    redis_glob,
)
from commlib.compression import beginning, compressor, expand
from commlib.exceptions import PayloadTooBig, SerializationError

RUNS = {name: target(name) for name in TARGETS}
LIMIT = 2000

# ---- brokers, and all else that is fuzzed ----


@pytest.mark.parametrize("name", RUNS)
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=120))
def test_every_target_survives_random_bytes(name: str, data: bytes) -> None:
    RUNS[name](data)


# ---- compression ----


@settings(deadline=None)
@given(st.binary(max_size=LIMIT), st.sampled_from(["zlib", 1, 9, "zstd"]))
def test_what_was_compressed_comes_back(payload: bytes, compression: Any) -> None:
    compress = compressor(compression)
    assert compress is not None
    assert expand(compress(payload), LIMIT) == payload
    if payload:
        with pytest.raises(PayloadTooBig):
            expand(compress(payload), len(payload) - 1)


@settings(deadline=None)
@given(st.sampled_from([b"", b"x", b"x\x9c", b"\x28\xb5\x2f\xfd"]), st.binary(max_size=200))
def test_arbitrary_bytes_are_expanded_refused_or_left_as_they_are(
    first: bytes, rest: bytes
) -> None:
    payload = first + rest
    try:
        found = expand(payload, LIMIT)
    except SerializationError:
        return
    assert found is payload or found == _decompressed(payload)


def _decompressed(payload: bytes) -> bytes:
    if payload.startswith(b"x"):
        return zlib.decompressobj().decompress(payload)
    return zstandard.ZstdDecompressor().decompressobj().decompress(payload)


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(1, 60), st.booleans())
def test_the_beginning_is_that_of_the_whole(payload: bytes, size: int, is_packed: bool) -> None:
    packed = zlib.compress(payload) if is_packed else payload
    assume(is_packed or not packed.startswith(b"x"))
    assert beginning(packed, size) == payload[:size]


# ---- JSON ----

numbers = st.integers(-(2**63), 2**63 - 1) | st.floats()
# A lone surrogate is no character: there is no UTF-8 for it.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
trees: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def without_nan(tree: Any) -> Any:
    """The tree as JSON can tell it: it has no NaN."""
    if isinstance(tree, dict):
        return {key: without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [without_nan(item) for item in tree]
    return None if isinstance(tree, float) and math.isnan(tree) else tree


@settings(deadline=None)
@given(trees)
def test_data_comes_back_from_json_with_its_infinities(tree: Any) -> None:
    assert parse(write_json(tree)) == without_nan(tree)


@settings(deadline=None)
@given(trees)
def test_the_json_of_others_is_read_with_nan_and_infinities(tree: Any) -> None:
    """As the module of Python writes it."""
    assert repr(parse(json.dumps(tree).encode())) == repr(tree)


@settings(deadline=None)
@given(st.binary(max_size=60) | texts.map(str.encode))
def test_arbitrary_bytes_are_parsed_or_refused_as_is_told(payload: bytes) -> None:
    try:
        tree = parse(payload)
    except NOT_DECODABLE:
        return
    assert parse(write_json(tree)) == without_nan(tree)


@settings(deadline=None)
@given(st.integers())
def test_a_timestamp_is_a_date_or_none(timestamp: int) -> None:
    found = unix_ms(timestamp)
    assert found is None or 10**12 <= found < 10**13


# ---- names ----

# Whatever a program or a peer may call a name.
anything = st.text(max_size=12) | st.text("ab*#+$?[\\./ \x00\ud800", max_size=10)


@settings(max_examples=300, deadline=None)
@given(anything)
def test_any_text_is_a_name_or_a_pattern_or_is_refused_with_a_reason(text: str) -> None:
    is_topic, is_good = _is_taken(check_topic, text), _is_taken(check_pattern, text)
    if is_topic and is_good:
        assert not is_pattern(text)
    if is_good:
        for spell in (redis_glob, mqtt_filter, amqp_binding):
            _is_taken(spell, text)


def _is_taken(look: Any, text: str) -> bool:
    try:
        return bool(look(text))
    except ValueError as exc:
        reason = str(exc)
    assert reason
    return False


words = st.text("ab$", min_size=1, max_size=2)


@settings(deadline=None)
@given(
    st.lists(st.just("*") | words, min_size=1, max_size=4),
    st.lists(words, min_size=4, max_size=6),
    *(st.sampled_from("./"), st.sampled_from(["", "/"]), st.sampled_from(["", "ns", "n.s", "n/s"])),
)
def test_a_pattern_in_a_namespace_matches_there_what_it_matches_outside(
    wanted: list[str], given: list[str], notation: str, separator: str, namespace: str
) -> None:
    words = [mine if mine != "*" else other for mine, other in zip(wanted, given, strict=False)]
    if wanted[-1] == "*":
        words += given[len(wanted) :]
    pattern, name = notation.join(wanted), notation.join(words)
    outside = matcher(pattern)
    assume(outside is not None and outside(name))
    assume(notation == "." or "/" in pattern)  # one word is in no notation
    inside = matcher(prefixed(namespace, pattern, separator))
    assert inside is not None
    assert inside(prefixed(namespace, name, separator))
