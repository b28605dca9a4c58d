"""The hooks for types that msgspec does not know, and NaN on its way through JSON."""

import copy
import dataclasses
import json
import math
import pathlib
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple, NewType, Optional, Protocol, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commlib._types import check_decodable, dec_hook, enc_hook, null_to_nan

NAN = float("nan")


def encode(obj: Any) -> Any:
    return json.loads(msgspec.json.encode(obj, enc_hook=enc_hook))


def decode(data: Any, type_: Any) -> Any:
    return msgspec.json.decode(json.dumps(data), type=type_, dec_hook=dec_hook)


def is_same(one: Any, other: Any) -> bool:
    """Equality in which NaN equals itself, and types count."""
    return repr(one) == repr(other)


# ---- types beyond msgspec's ----


class Name(str):
    def __str__(self) -> str:
        return "not what is sent"


class Count(int):
    pass


class Celsius(float):
    pass


class Blob(bytes):
    pass


class Path(list[float]):
    pass


class Pair(tuple[int, ...]):
    pass


class Point(msgspec.Struct):
    x: float = 0.0


ROUND_TRIPS = [
    (OrderedDict, OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    (OrderedDict[str, Point], OrderedDict(a=Point(1.0)), {"a": {"x": 1.0}}),
    (Counter[str], Counter(a=2), {"a": 2}),
    (deque, deque([1, "a"]), [1, "a"]),
    (deque[Point], deque([Point(1.0)]), [{"x": 1.0}]),
    (Path, Path([1.5]), [1.5]),
    (Pair, Pair((1, 2)), [1, 2]),
    (Name, Name("a"), "a"),
    (Count, Count(3), 3),
    (Celsius, Celsius(1.5), 1.5),
    (Blob, Blob(b"a"), "YQ=="),
    (pathlib.PurePosixPath, pathlib.PurePosixPath("/a/b"), "/a/b"),
]


@pytest.mark.parametrize(("type_", "obj", "data"), ROUND_TRIPS)
def test_a_type_of_the_programs_own_travels_as_a_plain_one_and_back(
    type_: Any, obj: Any, data: Any
) -> None:
    assert encode(obj) == data
    back = decode(data, type_)
    assert back == obj
    assert type(back) is type(obj)


@pytest.mark.parametrize(
    ("type_", "factory"),
    [
        (defaultdict[str, int], int),
        (defaultdict[str, list[Point]], list),
        (defaultdict[str, Point], None),
        (defaultdict, None),
    ],
)
def test_a_defaultdict_gets_its_factory_back_where_its_type_tells_it(
    type_: Any, factory: Any
) -> None:
    back = decode({}, type_)
    assert type(back) is defaultdict
    assert back.default_factory is factory


def test_an_ordered_dict_in_a_message_is_decoded_into_one() -> None:
    class Event(msgspec.Struct):
        payload: OrderedDict[str, Any]

    assert type(decode({"payload": {"a": 1}}, Event).payload) is OrderedDict


@pytest.mark.parametrize("obj", [OrderedDict(a=Point(1.0)), OrderedDict(a={"x": 1.0})])
def test_what_already_is_of_the_type_is_taken_and_converted_inside(obj: Any) -> None:
    back = msgspec.convert(obj, OrderedDict[str, Point], dec_hook=dec_hook)
    assert back == OrderedDict(a=Point(1.0))


def test_a_deque_of_the_type_is_taken_as_it_is() -> None:
    tail = deque([1, 2], maxlen=2)
    assert msgspec.convert(tail, deque, dec_hook=dec_hook) is tail
    assert msgspec.convert(tail, deque[int], dec_hook=dec_hook) == tail


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        (OrderedDict, [1]),
        (OrderedDict[str, int], {"a": "x"}),
        (deque, "abc"),
        (Path, "abc"),
        (Name, 5),
        (Count, "many"),
        (pathlib.PurePosixPath, 5),
    ],
)
def test_data_of_another_shape_is_refused(type_: Any, data: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match="Expected"):
        decode(data, type_)


def test_a_number_in_a_string_is_a_number_there_too() -> None:
    assert decode({"a": "-3"}, OrderedDict[str, int]) == OrderedDict(a=-3)


def test_an_abstract_type_is_content_with_what_json_has() -> None:
    assert decode([1, 2], Iterable[int]) == [1, 2]


class Robot:
    pass


@pytest.mark.parametrize("obj", [Robot(), 1j, range(3), Robot])
def test_what_has_no_form_as_data_is_refused_with_its_type_and_the_remedy(obj: Any) -> None:
    name = type(obj).__qualname__
    with pytest.raises(TypeError, match=rf"{name} cannot be sent: .* make its class a message"):
        encode({"a": obj})


@pytest.mark.parametrize("type_", [Robot, complex, range])
def test_what_cannot_be_made_from_data_is_refused_with_its_type_and_the_remedy(type_: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match=rf"{type_.__qualname__}: use a message"):
        decode([1], type_)


class Asked(Protocol):
    """Nobody can tell whether an object is one."""

    distance: float


def test_a_protocol_that_cannot_be_asked_is_refused_where_it_is_given() -> None:
    with pytest.raises(TypeError, match="Asked: use a message"):
        check_decodable(Asked)


class Array:
    """As the arrays and scalars of numpy, torch and the standard library look to a stranger."""

    def tolist(self) -> list[float]:
        return [1.0, 2.0]


class Model:
    """As a pydantic model looks to a stranger."""

    def __init__(self, a: int) -> None:
        self.a = a

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        return {"a": self.a, "mode": mode}

    @classmethod
    def model_validate(cls, data: Any) -> "Model":
        return cls(data["a"])


def test_arrays_and_models_are_known_by_their_looks() -> None:
    assert encode({"array": Array(), "model": Model(3)}) == {
        "array": [1.0, 2.0],
        "model": {"a": 3, "mode": "json"},
    }
    assert decode({"a": 3}, Model).a == 3


def test_a_pydantic_model_travels_and_comes_back() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Pose", x=(float, ...), path=(pathlib.PurePosixPath, ...))
    pose = model(x=1.5, path="/a")
    assert encode(pose) == {"x": 1.5, "path": "/a"}
    assert decode({"x": 1.5, "path": "/a"}, model) == pose
    with pytest.raises(msgspec.ValidationError, match="Field required"):
        decode({"x": 1.5}, model)


def test_the_fields_of_a_pydantic_model_travel_by_their_names_whatever_their_aliases() -> None:
    pydantic = pytest.importorskip("pydantic")
    field = pydantic.Field
    inner = pydantic.create_model("Inner", value=(int, field(alias="Value")))
    outer = pydantic.create_model(
        "Outer",
        inner=(inner, field(alias="Inner")),
        read=(int, field(default=1, validation_alias="Read")),
        written=(int, field(default=1, serialization_alias="Written")),
    )
    sent = outer(Inner=inner(Value=4), Read=5, written=6)
    names = {"inner": {"value": 4}, "read": 5, "written": 6}
    assert encode(sent) == names
    assert decode(names, outer) == sent
    assert decode([names], list[outer]) == [sent]  # type: ignore[valid-type]
    assert decode({"Inner": {"Value": 4}, "Read": 5, "written": 6}, outer) == sent


def test_numpy_travels_as_numbers_and_comes_back_as_numpy() -> None:
    numpy = pytest.importorskip("numpy")
    assert encode(numpy.arange(3.0)) == [0.0, 1.0, 2.0]
    assert encode([numpy.float64(1.5), numpy.float32(1.5), numpy.int64(3), numpy.bool_(True)]) == [
        1.5,
        1.5,
        3,
        True,
    ]
    assert decode(1.5, numpy.float64) == 1.5
    ranges = decode([1, None], numpy.ndarray)
    assert ranges.dtype == float
    assert is_same(ranges.tolist(), [1.0, NAN])
    assert decode([1, 2], numpy.ndarray[Any, numpy.dtype[numpy.int16]]).dtype == numpy.int16
    with pytest.raises(msgspec.ValidationError):
        decode({"a": 1}, numpy.ndarray)


def test_importing_the_hooks_imports_neither_pydantic_nor_numpy() -> None:
    code = "import sys, commlib._types; print({'pydantic', 'numpy', 'attr'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("set()", "")


# ---- NaN in JSON ----


class Tag(msgspec.Struct, tag="t", array_like=True):
    a: int
    b: float


class Renamed(msgspec.Struct, rename="camel"):
    wheel_speed: float = 0.0
    own: float = msgspec.field(name="mine", default=0.0)


class Typed(TypedDict, total=False):
    a: float
    b: float | None


class Named(NamedTuple):
    a: int
    b: float = 0.0


@dataclasses.dataclass
class Data:
    a: float
    b: int = 0


class Cat(msgspec.Struct, tag=True):
    a: float


class Dog(msgspec.Struct, tag=True):
    a: float


Metres = NewType("Metres", float)

REPLACED = [
    (float, None, NAN),
    (Metres, None, NAN),
    (Annotated[float, msgspec.Meta(description="m")], None, NAN),
    (list[Annotated[float, msgspec.Meta(title="m")]] | int, [None], [NAN]),
    (Annotated[float, msgspec.Meta(title="m")] | None, None, None),
    (int | float, None, NAN),
    (float | str, None, NAN),
    (list[float], [1.0, None], [1.0, NAN]),
    (tuple[float, ...], [None], [NAN]),
    (set[float], [None, 1.0], [NAN, 1.0]),
    (frozenset[float], [None], [NAN]),
    (Iterable[float] | None, None, None),
    (tuple[int, float], [None, None], [None, NAN]),
    (dict[str, float], {"a": None}, {"a": NAN}),
    (dict[str, list[float]], {"a": [None]}, {"a": [NAN]}),
    (list[float] | None, [None], [NAN]),
    (list[float] | None, None, None),
    (list[float | None] | dict[str, float], [None], [None]),
    (list[float | None] | dict[str, float], {"a": None}, {"a": NAN}),
    (list[float] | dict[str, int] | float, [None], [NAN]),
    (list[float] | dict[str, int] | float, {"a": None}, {"a": None}),
    (list[float] | dict[str, int] | float, None, NAN),
    (Point | None, {"x": None, "y": None}, {"x": NAN, "y": None}),
    (Point | None, None, None),
    (Point, {}, {}),
    (Tag, ["t", None, None], ["t", None, NAN]),
    (Tag, ["t"], ["t"]),
    (Renamed, {"wheelSpeed": None, "mine": None}, {"wheelSpeed": NAN, "mine": NAN}),
    (Renamed, {"wheel_speed": None, "own": None}, {"wheel_speed": None, "own": None}),
    (Typed, {"a": None, "b": None}, {"a": NAN, "b": None}),
    (Named, [None, None], [None, NAN]),
    (Named, {"b": None}, {"b": None}),
    (Data, {"a": None, "b": None}, {"a": NAN, "b": None}),
    (
        list[Cat | Dog | float],
        [{"type": "Cat", "a": None}, None],
        [{"type": "Cat", "a": None}, NAN],
    ),
]


@pytest.mark.parametrize(("type_", "data", "expected"), REPLACED)
def test_null_is_nan_exactly_where_the_type_says_float(
    type_: Any, data: Any, expected: Any
) -> None:
    fix = null_to_nan(type_)
    assert is_same(data if fix is None else fix(data), expected)


@pytest.mark.parametrize(
    "type_",
    [
        int,
        str,
        Any,
        dict,
        list[int],
        float | None,
        list[float | None],
        Cat | Dog,
        OrderedDict[str, int],
        msgspec.Raw,
    ],
)
def test_a_type_without_a_plain_float_needs_nothing_done(type_: Any) -> None:
    assert null_to_nan(type_) is None


def test_an_attrs_class_is_seen_into() -> None:
    attrs = pytest.importorskip("attrs")
    fix = null_to_nan(attrs.make_class("Pose", {"x": attrs.field(type=float)}))
    assert fix is not None
    assert is_same(fix({"x": None}), {"x": NAN})


class Tree(msgspec.Struct):
    value: float | None = None
    height: float = 0.0
    branches: list["Tree"] = []


class Left(msgspec.Struct):
    right: Optional["Right"] = None


class Right(msgspec.Struct):
    left: Left | None = None
    x: float = 0.0


class Chain(msgspec.Struct):
    name: str = ""
    next: Optional["Chain"] = None


def test_a_type_that_holds_itself_is_followed_as_deep_as_the_data_goes() -> None:
    fix = null_to_nan(Tree)
    assert fix is not None
    leaf = {"value": None, "height": None}
    grown = fix({"height": None, "branches": [leaf, {"branches": [leaf]}]})
    done = {"value": None, "height": NAN}
    assert is_same(grown, {"height": NAN, "branches": [done, {"branches": [done]}]})


def test_types_that_hold_each_other_are_followed_too() -> None:
    fix = null_to_nan(Left)
    assert fix is not None
    data = {"right": {"x": None, "left": {"right": {"x": None}}}}
    assert is_same(fix(data), {"right": {"x": NAN, "left": {"right": {"x": NAN}}}})
    assert null_to_nan(Chain) is None


def test_a_float_in_a_container_that_msgspec_does_not_see_into_is_nan_too() -> None:
    class Event(msgspec.Struct):
        payload: OrderedDict[str, list[float]]
        last: deque[float]

    event = decode({"payload": {"a": [None]}, "last": [None, 1.0]}, Event)
    assert math.isnan(event.payload["a"][0])
    assert math.isnan(event.last[0])


class Scan(msgspec.Struct):
    angle: float
    ranges: list[float]
    sides: tuple[int, float]
    named: dict[str, float]
    centre: Point
    typed: Typed
    pair: Named
    data: Data | None
    label: float | str
    limit: float | None


finite = st.floats(allow_nan=False, allow_infinity=False)
scans = st.builds(
    Scan,
    angle=st.floats(),
    ranges=st.lists(st.floats()),
    sides=st.tuples(st.integers(-9, 9), st.floats()),
    named=st.dictionaries(st.text(max_size=3), st.floats(), max_size=3),
    centre=st.builds(Point, x=st.floats()),
    typed=st.fixed_dictionaries({"a": st.floats(), "b": st.none() | finite}),
    pair=st.builds(Named, a=st.just(1), b=st.floats()),
    data=st.none() | st.builds(Data, a=st.floats(), b=st.just(2)),
    label=st.floats() | st.text(max_size=3),
    limit=st.none() | finite,
)
fix_scan = null_to_nan(Scan)


def without_infinities(data: Any) -> Any:
    """What is left of the data after JSON, which has one null for all that is not finite."""
    if isinstance(data, float):
        return data if math.isfinite(data) else NAN
    if isinstance(data, dict):
        return {key: without_infinities(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [without_infinities(value) for value in data]
    return data


@given(scans)
def test_a_scan_full_of_nan_and_infinities_survives_json(scan: Scan) -> None:
    assert fix_scan is not None
    data = msgspec.json.decode(msgspec.json.encode(scan))
    before = copy.deepcopy(data)
    fixed = fix_scan(data)
    assert data == before, "the input is not changed"
    back = msgspec.convert(fixed, Scan)
    assert is_same(
        without_infinities(msgspec.to_builtins(back)),
        without_infinities(msgspec.to_builtins(scan)),
    )


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["angle", "ranges", "centre", "x", "pair", "data", "a"]),
            inner,
            max_size=4,
        )
    ),
)


def nan_to_null(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: nan_to_null(value) for key, value in data.items()}
    if isinstance(data, list):
        return [nan_to_null(value) for value in data]
    return None if isinstance(data, float) and math.isnan(data) else data


@given(anything)
def test_data_of_any_shape_passes_with_nothing_but_nulls_replaced(data: Any) -> None:
    assert fix_scan is not None
    assert is_same(nan_to_null(fix_scan(data)), data)
