"""What of all that comes by a pattern is a message of the class that is wanted."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, TypedDict

import attrs
import msgspec
import pydantic
import pytest

from commlib._packet import PROPERTIES, Header, Packet
from commlib._selective import SelectiveReader
from commlib._wire import Reader, Refused, Writer
from commlib.msg import PubSubMessage
from commlib.serializer import MessagePackSerializer
from messages import DataclassSonar, PydanticSonar, Sonar, SonarDict

HEADER = Header(1_700_000_000_000, PROPERTIES, "ab", 7)
FORMS: dict[str, dict[str, Any]] = {
    "JSON": {},
    "compressed": {"compression": "zlib"},
    "MessagePack": {"serializer": MessagePackSerializer},
}


class Message(PubSubMessage):
    distance: float = 0.0
    label: str = ""


@dataclass
class Data:
    distance: float = 0.0
    label: str = ""


@attrs.define
class Attrs:
    distance: float = 0.0
    label: str = ""


class Point(PubSubMessage):
    x: float = 0.0
    y: float = 0.0


class Model(pydantic.BaseModel):
    distance: float = pydantic.Field(0.0, alias="d")


class Sparse(PubSubMessage, omit_defaults=True):
    distance: float = 0.0


class Keys(TypedDict, total=False):
    distance: float
    label: str


class Stamp(PubSubMessage):
    timestamp: int = 0
    seq: int = 0


def packet(data: Any, form: str, *, native: bool = False) -> Packet:
    return Writer(None, **FORMS[form]).pack(data, HEADER, native)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [Message, Data, Attrs, Keys])
def test_what_has_none_of_the_fields_is_another_message(kind: Any, form: str, native: bool) -> None:
    reader: SelectiveReader[Any] = SelectiveReader(kind)
    for good in ({"distance": 1}, {"label": "a"}, {"new": 2, "distance": 1}, {}):
        assert reader.read(packet(good, form, native=native)).header.origin == "ab"
    with pytest.raises(Refused, match="no field of a"):
        reader.read(packet({"ts": 1}, form, native=native))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["data", "header", "content_type", "timestamp"])
def test_what_envelopes_hold_as_well_is_looked_for_in_the_message(name: str, form: str) -> None:
    kind = msgspec.defstruct("Image", [("col", int, 0), (name, str, "")])
    reader = SelectiveReader(kind)
    assert reader.read(packet({name: "x", "new": 1}, form)).data == kind(**{name: "x"})
    with pytest.raises(Refused, match="no field of a Image"):
        reader.read(packet({"temperature": 1}, form))


@pytest.mark.parametrize("form", FORMS)
def test_a_short_name_is_not_found_in_what_may_hold_anything(form: str) -> None:
    blob = random.Random(7).randbytes(200_000)
    reader = SelectiveReader(Point)
    assert reader.read(packet({"x": 1, "blob": blob}, form)).data == Point(1)
    with pytest.raises(Refused, match="no field of a Point"):
        reader.read(packet({"blob": blob}, form))


@pytest.mark.parametrize("form", FORMS)
def test_a_message_whose_defaults_were_left_out_is_one(form: str) -> None:
    assert SelectiveReader(Stamp).read(packet({}, form)).data == Stamp()


@pytest.mark.parametrize("form", FORMS)
def test_the_fields_of_a_header_are_none_of_the_message(form: str) -> None:
    reader = SelectiveReader(Stamp)
    assert reader.read(packet({"seq": 4}, form)).data == Stamp(seq=4)
    with pytest.raises(Refused, match="it has distance, and no field of a Stamp"):
        reader.read(packet({"distance": 1.5}, form))


@pytest.mark.parametrize("kind", [Message, Data, Attrs, Keys])
def test_it_is_needed_where_each_field_has_a_default(kind: Any) -> None:
    assert Reader(kind).takes_anything


@pytest.mark.parametrize(
    "kind", [Sonar, DataclassSonar, PydanticSonar, SonarDict, Model, Sparse, None, dict, int]
)
def test_it_is_not_needed_where_a_field_has_to_be_there_or_may_well_be_missing(kind: Any) -> None:
    assert not Reader(kind).takes_anything


def test_to_find_that_out_no_message_is_made() -> None:
    made = []

    class Counted(PubSubMessage):
        number: int = msgspec.field(default_factory=lambda: made.append(1) or 0)

    assert Reader(Counted).takes_anything
    assert made == []


def test_what_is_no_message_at_all_is_refused_as_ever() -> None:
    for payload in (b"", b"{", b"\xc1", b'"Sonar"', b"[1]"):
        with pytest.raises(Refused):
            SelectiveReader(Message).read(Packet(payload))
