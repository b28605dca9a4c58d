"""The header of a bare message as user properties."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from commlib._packet import PROPERTIES, Fault, Header, Properties
from commlib.transports._mqtt_headers import MARK, read_pairs, write_pairs

texts = st.text(st.characters(codec="utf8"), max_size=20)
headers = st.builds(
    Header,
    timestamp=st.integers(0, 2**53),
    properties=st.just(PROPERTIES) | st.builds(Properties, texts, texts),
    origin=texts,
    seq=st.integers(-1, 2**40),
    id=texts,
    error=st.none() | st.builds(Fault, texts, texts),
    traceparent=texts,
    hops=st.lists(texts, max_size=4).map(tuple),
)


@given(headers)
def test_a_header_comes_back_as_it_was(header: Header) -> None:
    pairs = write_pairs(header)
    found = read_pairs([("of", "somebody else"), *pairs])
    assert found is not None
    if header.properties == PROPERTIES:
        found.properties = PROPERTIES  # JSON is not told: everybody expects it
    assert found == header


def test_only_what_is_set_is_written() -> None:
    header = Header(timestamp=5, properties=PROPERTIES, origin="ab", seq=0)
    assert write_pairs(header) == [MARK, ("timestamp", "5"), ("origin", "ab"), ("seq", "0")]


def test_the_properties_of_others_are_no_header() -> None:
    assert read_pairs([("traceparent", "00-1-2-01"), ("timestamp", "5")]) is None


def test_a_value_of_a_wrong_kind_is_absent() -> None:
    found = read_pairs([MARK, ("seq", "many"), ("hops", "[["), ("error", "5"), ("origin", "ab")])
    assert found == Header(origin="ab")
