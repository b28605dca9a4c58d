"""Schemas of message classes: what they say, when they are the same, and when two do not fit."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
from typing import Annotated, Any, Literal, Optional, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commlib._schemas import MAX_CONFLICTS, conflicts, fingerprint, schema_of
from commlib.msg import NDArray, Object, PubSubMessage

# ---- what is written and read ----


class Reading(PubSubMessage):
    value: float = 0.0
    unit: str = ""


class Needed(PubSubMessage):
    value: float


class Counted(PubSubMessage):
    value: int = 0


class Named(PubSubMessage):
    value: str = ""


class Switched(PubSubMessage):
    value: bool = False


class Maybe(PubSubMessage):
    value: float | None = None


class Either(PubSubMessage):
    value: int | str = 0


class Many(PubSubMessage):
    value: list[float] = []


class Words(PubSubMessage):
    value: list[str] = []


class Fixed(PubSubMessage):
    value: tuple[float, float] = (0.0, 0.0)


class Table(PubSubMessage):
    value: dict[str, float] = {}


class Inner(Object):
    x: float = 0.0


class OtherInner(Object):
    x: str = ""


class Nested(PubSubMessage):
    value: Inner = Inner()


class NestedOtherwise(PubSubMessage):
    value: OtherInner = OtherInner()


class MaybeNested(PubSubMessage):
    value: Optional[Inner] = None  # noqa: UP045 - as older programs write it


class Path(PubSubMessage):
    value: list[Inner] = []


class PathOtherwise(PubSubMessage):
    value: list[OtherInner] = []


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Coloured(PubSubMessage):
    value: Colour = Colour.RED


class Levelled(PubSubMessage):
    value: Level = Level.LOW


class Chosen(PubSubMessage):
    value: Literal["red", "blue"] = "red"


class Cat(msgspec.Struct, tag="cat"):
    value: float = 0.0


class Dog(msgspec.Struct, tag="dog"):
    value: str = ""


class Pet(PubSubMessage):
    value: Cat | Dog = Cat()


class Raw(PubSubMessage):
    value: bytes = b""


class Array(PubSubMessage):
    value: NDArray = NDArray()


class When(PubSubMessage):
    value: datetime.datetime = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Took(PubSubMessage):
    value: datetime.timedelta = datetime.timedelta()


class Price(PubSubMessage):
    value: decimal.Decimal = decimal.Decimal(0)


class Strict(PubSubMessage, forbid_unknown_fields=True):
    value: float = 0.0


class Unlike(PubSubMessage):
    other: float = 0.0


class InOrder(msgspec.Struct, array_like=True):
    value: float = 0.0


class Own:
    """A class of the program's own."""


class Anything(PubSubMessage):
    value: Any = None


@dataclasses.dataclass
class Plain:
    value: float
    unit: str = ""


class Typed(TypedDict):
    value: float


class Loose(TypedDict, total=False):
    value: float


class Model(pydantic.BaseModel):
    value: float
    unit: str = ""


class Validated(pydantic.BaseModel):
    value: Annotated[float, pydantic.BeforeValidator(float)]


class Aliased(pydantic.BaseModel):
    value: float = pydantic.Field(alias="Value")


class Collecting(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")


class Tree(PubSubMessage):
    name: str = ""
    children: list[Tree] = []


class Wood(PubSubMessage):
    name: int = 0
    children: list[Wood] = []


KINDS = [
    *(Reading, Needed, Counted, Named, Switched, Maybe, Either, Many, Words, Fixed, Table, Nested),
    *(NestedOtherwise, MaybeNested, Path, PathOtherwise, Coloured, Levelled, Chosen, Cat, Dog),
    *(Pet, Raw, Array, When, Took, Price, Strict, Unlike, InOrder, Own, Anything, Plain, Typed),
    *(Loose, Model, Validated, Aliased, Collecting, Tree, Wood, None, Any, bytes, NDArray, str),
    *(float, list[float], dict[str, int], Cat | Dog, Reading | None),
]


def told(writer: Any, reader: Any) -> list[str]:
    return conflicts(schema_of(writer), schema_of(reader))


# ---- no false alarm ----


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_class_fits_itself(kind: Any) -> None:
    assert told(kind, kind) == []


FITTING = [
    (Reading, Needed),  # the reader knows fewer fields
    (Reading, Typed),
    (Reading, Plain),
    (Reading, Model),
    (Model, Reading),
    (Plain, Model),
    (Needed, Loose),
    (Counted, Reading),  # an int is a float
    (Maybe, Reading),  # null is NaN
    (Reading, Maybe),
    (Either, Named),  # one of them can be read
    (Counted, Either),
    (Fixed, Many),
    (Many, Fixed),
    (Nested, MaybeNested),
    (MaybeNested, Nested),
    (Nested, Table),
    (Table, Nested),
    (Coloured, Chosen),
    (Coloured, Named),
    (Named, Coloured),
    (Levelled, Counted),
    (Levelled, Reading),
    (Cat, Cat | Dog),
    (Pet, Nested),
    (Needed, Cat),  # without its tag
    (Raw, Named),
    (Raw, Many),
    (Named, Raw),
    (Reading, Took),
    (Price, Reading),
    (Reading, Price),
    (When, Named),
    (Strict, Reading),
    (Anything, Reading),
    (Reading, Anything),
    (Named, Validated),  # a function of the program's own reads it
    (Named, Aliased),
    (Aliased, Needed),
    (Collecting, Needed),
    (Unlike, Collecting),
    (None, Reading),
    (Reading, None),
    (bytes, Reading),  # bytes may hold whatever there is
    (Reading, bytes),
    (NDArray, list[float]),
    (Own, Reading),
    (list[float], InOrder),
    (Reading | None, Reading),
]


@pytest.mark.parametrize(("writer", "reader"), FITTING, ids=str)
def test_what_can_be_read_is_no_conflict(writer: Any, reader: Any) -> None:
    assert told(writer, reader) == []


# ---- what does not fit ----


CONFLICTS = [
    (Named, Reading, ["value is sent as string and read as number"]),
    (Reading, Named, ["value is sent as number and read as string"]),
    (Reading, Counted, ["value is sent as number and read as integer"]),
    (Switched, Counted, ["value is sent as boolean and read as integer"]),
    (Words, Many, ["value[] is sent as string and read as number"]),
    (Many, Reading, ["value is sent as array and read as number"]),
    (Either, Many, ["value is sent as integer or string and read as array"]),
    (NestedOtherwise, Nested, ["value.x is sent as string and read as number"]),
    (NestedOtherwise, MaybeNested, ["value.x is sent as string and read as number"]),
    (PathOtherwise, Path, ["value[].x is sent as string and read as number"]),
    (Unlike, Needed, ["value is needed, and not sent"]),
    (Unlike, Model, ["value is needed, and not sent"]),
    (Unlike, Reading, ["no field that is sent is read"]),
    (Plain, Strict, []),
    (Levelled, Named, ["value is sent as integer and read as string"]),
    (Reading, InOrder, ["the message is sent as object and read as array"]),
    (Reading, float, ["the message is sent as object and read as number"]),
    (Dog, Cat, ["value is sent as string and read as number"]),
    (Tree, Wood, ["name is sent as string and read as integer"]),
    (Named | None, Reading, ["value is sent as string and read as number"]),
]


@pytest.mark.parametrize(("writer", "reader", "expected"), CONFLICTS, ids=str)
def test_what_cannot_be_read_is_told_with_the_field(
    writer: Any, reader: Any, expected: list[str]
) -> None:
    assert told(writer, reader) == expected


def test_a_reader_that_allows_no_other_fields_is_heeded() -> None:
    class More(msgspec.Struct):
        value: float
        more: float

    assert told(More, Strict) == ["more is sent, and the reader allows no such field"]


def test_of_many_conflicts_some_are_told() -> None:
    writer = msgspec.defstruct("Writer", [(f"f{index}", str) for index in range(50)])
    reader = msgspec.defstruct("Reader", [(f"f{index}", int) for index in range(50)])
    assert len(told(writer, reader)) == MAX_CONFLICTS


# ---- the same, or not ----


def test_names_of_classes_and_prose_and_order_are_nothing_to_a_fingerprint() -> None:
    class Spoken(PubSubMessage):
        """Said otherwise."""

        unit: str = "m"
        value: float = 1.0

    mark = fingerprint(schema_of(Spoken))
    assert mark == fingerprint(schema_of(Reading))
    assert len(mark) == len(f"{int(mark, 16):08x}")


def test_fields_and_their_types_are_something_to_a_fingerprint() -> None:
    kinds = [Reading, Needed, Counted, Named, Maybe, Nested, NestedOtherwise, Tree, Wood, Cat, Dog]
    assert len({fingerprint(schema_of(kind)) for kind in kinds}) == len(kinds)


def test_what_has_no_schema_has_no_fingerprint() -> None:
    for kind in (None, Any, bytes, NDArray):
        assert schema_of(kind) is None
    assert fingerprint(None) == ""


def test_what_cannot_be_a_key_has_no_schema() -> None:
    assert schema_of(Annotated[int, []]) is None


def test_messages_in_messages_many_times_over_are_looked_at_once() -> None:
    kind: Any = int
    for depth in range(40):  # two to the power of 40, if each were looked at where it is
        kind = msgspec.defstruct(f"D{depth}", [("left", kind), ("right", kind)])
    schema = schema_of(kind)
    assert fingerprint(schema) != ""
    assert conflicts(schema, schema_of(kind)) == []


def test_a_schema_too_large_to_be_told_is_none() -> None:
    fields = [(f"a_rather_long_name_of_a_field_{index}", int) for index in range(2000)]
    assert schema_of(msgspec.defstruct("Huge", fields)) is None


# ---- strangers ----

KEYS = ["$ref", "$defs", "anyOf", "oneOf", "type", "enum", "const", "properties", "required"]
NAMES = st.sampled_from([*KEYS, "items", "additionalProperties", "a", "b", "#/$defs/a"])
VALUES = st.sampled_from(
    [*(None, True, 0, 1.5, "object", "array", "string", "#/$defs/a", "#/$defs/b", "a", {}, [])]
)
SCHEMAS = st.dictionaries(
    NAMES,
    st.recursive(
        VALUES,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
        max_leaves=20,
    ),
    max_size=5,
)


@settings(max_examples=200, deadline=None)
@given(writer=SCHEMAS, reader=SCHEMAS)
def test_schemas_that_make_no_sense_harm_nobody(writer: Any, reader: Any) -> None:
    assert len(conflicts(writer, reader)) <= MAX_CONFLICTS
    assert fingerprint(writer)


def test_schemas_without_end_are_compared_in_a_moment() -> None:
    every = [{"$ref": f"#/$defs/d{index}"} for index in range(30)]
    part = {"type": "object", "properties": {**dict(enumerate(every)), "value": every[0]}}
    both = {"anyOf": every}
    wild = {
        "$ref": "#/$defs/d0",
        "$defs": {f"d{i}": both if i % 2 else part for i in range(30)},
    }
    chain = {
        "$ref": "#/$defs/d0",
        "$defs": {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}]} for i in range(5000)},
    }
    for writer in (wild, chain):
        for reader in (wild, chain, schema_of(Nested)):
            assert conflicts(writer, reader) == []
