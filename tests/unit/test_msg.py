"""Messages, as programs write and use them."""

import copy
import dataclasses
import itertools
import json
import math
import pickle
import subprocess
import sys
import time
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import msgspec
import pytest

from commlib import msg
from commlib._types import dec_hook
from commlib.exceptions import SerializationError
from commlib.msg import (
    ActionMessage,
    DataClass,
    DataField,
    DataFields,
    HeartbeatMessage,
    MessageHeader,
    Object,
    Primitives,
    PubSubMessage,
    RPCMessage,
    as_dict,
    as_tuple,
    is_dataclass,
    make_dataclass,
)

T = TypeVar("T")


class Point(Object):
    x: float = 0.0
    y: float = 0.0


class Sonar(PubSubMessage):
    distance: float = 0.001
    at: Point = Point(1.0)
    ranges: list[float] = []


class AddTwoInts(RPCMessage):
    @DataClass
    class Request(RPCMessage.Request):
        a: int = 0
        b: int = 0

    @DataClass
    class Response(RPCMessage.Response):
        c: int = 0


class Move(ActionMessage):
    class Goal(ActionMessage.Goal):
        target_cm: int

    class Result(ActionMessage.Result):
        dest_cm: int = 0

    class Feedback(ActionMessage.Feedback):
        current_cm: int = 0


class Reading(PubSubMessage, Generic[T]):
    value: T
    unit: str = ""


class Pair(NamedTuple):
    left: Any
    right: Any


_numbers = itertools.count()


@pytest.fixture
def module() -> Iterator[Callable[[str], Any]]:
    """Runs source code as a module of its own, whose classes find each other by name."""
    made = []

    def run(source: str) -> Any:
        name = f"made_by_test_msg_{next(_numbers)}"
        sys.modules[name] = made_module = types.ModuleType(name)
        made.append(name)
        exec(compile(source, name, "exec", dont_inherit=True), made_module.__dict__)
        return made_module

    yield run
    for name in made:
        del sys.modules[name]


# ---- making and using ----


def test_fields_are_given_by_position_by_name_or_not_at_all() -> None:
    assert Sonar() == Sonar(0.001, Point(1.0), [])
    assert Sonar(2.0, ranges=[1.0]).ranges == [1.0]
    assert Move.Goal(5).target_cm == 5
    with pytest.raises(TypeError, match="target_cm"):
        Move.Goal()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="nope"):
        Sonar(nope=1)  # type: ignore[call-arg]


def test_a_message_is_mutable_comparable_and_printable() -> None:
    point = Point(1.0)
    point.y += 2
    assert point == Point(1.0, 2.0)
    assert point not in (Point(), AddTwoInts.Request())
    assert str(point) == "Point(x=1.0, y=2.0)"
    with pytest.raises(AttributeError):
        point.z = 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda obj: pickle.loads(pickle.dumps(obj))]
)
@pytest.mark.parametrize("obj", [Sonar(2.0), AddTwoInts.Request(1, 2), MessageHeader(1, 2, "n")])
def test_a_message_is_copied_and_pickled(again: Callable[[Any], Any], obj: Any) -> None:
    twin = again(obj)
    assert twin == obj
    assert twin is not obj


def test_a_message_can_be_referred_to_weakly() -> None:
    point = Point()
    reference = weakref.ref(point)
    assert reference() is point
    del point
    assert reference() is None


def test_iterating_gives_the_values() -> None:
    distance, at, ranges = Sonar(2.0)
    assert (distance, at, ranges) == (2.0, (1.0, 0.0), [])


def test_subclasses_add_fields_over_several_levels() -> None:
    class Loud(Sonar):
        level: int = 3

    class Louder(Loud):
        distance: float = 5.0
        gain: float = 1.0

    assert tuple(Louder()) == (5.0, (1.0, 0.0), [], 3, 1.0)
    assert isinstance(Louder(), Sonar)


def test_a_class_without_fields_is_a_message() -> None:
    assert RPCMessage.Request() == RPCMessage.Request()
    assert ActionMessage.Feedback().as_dict() == {}


def test_a_generic_message_is_decoded_as_what_it_was_made_for() -> None:
    reading = msgspec.json.decode(b'{"value":{"x":1}}', type=Reading[Point])
    assert reading == Reading(Point(1.0))
    assert Reading[int](3).value == 3


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax is new in 3.12")
def test_a_generic_message_in_the_new_syntax_is_decoded_too(module: Any) -> None:
    made = module(
        "from commlib.msg import PubSubMessage\n"
        "class Reading[T](PubSubMessage):\n    value: T\n    last: T = None\n"
    )
    assert msgspec.json.decode(b'{"value":3}', type=made.Reading[int]) == made.Reading(3)


def test_options_of_msgspec_are_passed_on() -> None:
    class Fixed(PubSubMessage, frozen=True, kw_only=True, rename="camel"):  # type: ignore[misc]
        wheel_speed: float

    fixed = Fixed(wheel_speed=1.0)
    assert hash(fixed) == hash(Fixed(wheel_speed=1.0))
    assert msgspec.json.encode(fixed) == b'{"wheelSpeed":1.0}'


def test_methods_properties_and_class_variables_are_no_fields() -> None:
    class Wheel(Object):
        count: ClassVar[list[int]] = [4]
        seen = [1]
        radius: float = 0.5

        @property
        def girth(self) -> float:
            return 2 * math.pi * self.radius

    assert Wheel().as_dict() == {"radius": 0.5}
    assert (Wheel.count, Wheel.seen) == ([4], [1])
    assert Wheel(1.0).girth == 2 * math.pi


# ---- defaults ----

NESTED = {"a": [1], "b": {2: [3]}}

MUTABLE_DEFAULTS = [
    [],
    [1, 2],
    [[1], [2]],
    [Point()],
    {},
    {"a": 1},
    NESTED,
    set(),
    {1},
    bytearray(b"ab"),
    OrderedDict(),
    OrderedDict(b=1, a=[2]),
    defaultdict(list, a=[1]),
    deque([1, 2], maxlen=3),
    Point(1.0),
    Sonar(ranges=[1.0]),
    (1, [2]),
]


@pytest.mark.parametrize("default", MUTABLE_DEFAULTS, ids=repr)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_mutable_default_is_copied_for_each_message(default: Any, wrapped: bool) -> None:
    class Holder(PubSubMessage):
        held: Any = DataField(default=default) if wrapped else default

    one, other = Holder(), Holder()
    assert one.held == other.held == default
    assert type(one.held) is type(default)
    assert in_common(one.held, other.held) == in_common(one.held, default) == []


def in_common(one: Any, other: Any) -> list[Any]:
    """The mutable things that two objects have in common."""
    if type(one).__hash__ is not None and not isinstance(one, (tuple, msgspec.Struct)):
        return []
    if one is other:
        return [one]
    inside = zip(parts(one), parts(other), strict=True)
    return [thing for pair in inside for thing in in_common(*pair)]


def parts(obj: Any) -> list[Any]:
    if isinstance(obj, msgspec.Struct):
        return [getattr(obj, name) for name in obj.__struct_fields__]
    return list(obj.values()) if isinstance(obj, dict) else list(obj)


def test_a_default_stays_what_it_was_when_the_class_was_made() -> None:
    mine = [1]

    class Holder(PubSubMessage):
        held: list[int] = mine

    mine.append(2)
    assert Holder().held == [1]


def test_a_default_is_copied_when_decoding_too() -> None:
    one, other = (msgspec.json.decode(b"{}", type=Sonar) for _ in range(2))
    one.at.x, one.ranges[:] = 5.0, [1.0]
    assert other == Sonar()


def test_an_immutable_default_is_not_copied() -> None:
    place = (1.0, "a")

    class Holder(PubSubMessage):
        held: tuple[float, str] = place

    assert Holder().held is place


def test_a_data_field_has_a_default_or_a_factory_or_neither() -> None:
    class Holder(PubSubMessage):
        must: int = DataField()
        name: str = DataField(default="a")
        items: list[int] = DataField(default_factory=lambda: [1])

    assert Holder(3) == Holder(3, "a", [1])
    assert Holder(3).items is not Holder(3).items
    with pytest.raises(TypeError, match="must"):
        Holder()


def test_the_field_functions_of_dataclasses_and_msgspec_work_too() -> None:
    class Holder(PubSubMessage):
        must: int = dataclasses.field()
        items: list[int] = dataclasses.field(default_factory=list)
        name: str = dataclasses.field(default="a")
        short: list[int] = msgspec.field(name="s", default=[1])

    assert Holder(1) == Holder(1, [], "a", [1])
    assert msgspec.json.decode(b'{"must":1,"s":[2]}', type=Holder).short == [2]


def test_a_field_whose_default_is_none_may_be_none() -> None:
    class Holder(PubSubMessage):
        number: int = None  # type: ignore[assignment]
        point: "Point" = DataField(default=None)  # type: ignore[assignment]

    assert Holder() == Holder(None, None)  # type: ignore[arg-type]
    assert Holder.__annotations__["number"] == int | None
    data = b'{"number":null,"point":{"x":1}}'
    assert msgspec.json.decode(data, type=Holder) == Holder(point=Point(1.0))


FUTURE = """
from __future__ import annotations
import typing
from typing import ClassVar, Optional
from commlib.msg import DataField, Object, PubSubMessage

class Path(PubSubMessage):
    start: Point = None
    stops: list[Point] = None
    either: Optional[int] = None
    quoted: "Point" = DataField(default=None)
    next: Path = None
    kinds: ClassVar[list] = None
    more: typing.ClassVar[list] = [1]

class Point(Object):
    x: float = 0.0
"""


def test_a_field_may_be_none_where_annotations_are_strings(module: Any) -> None:
    made = module(FUTURE)
    path = msgspec.json.decode(
        b'{"start":{"x":1},"stops":[{}],"quoted":null,"next":{"start":null}}', type=made.Path
    )
    assert path == made.Path(made.Point(1.0), [made.Point()], next=made.Path())
    assert (made.Path.kinds, made.Path.more) == (None, [1])
    with pytest.raises(msgspec.ValidationError, match="either"):
        msgspec.json.decode(b'{"either":"x"}', type=made.Path)


def test_a_new_default_without_a_type_is_refused_where_it_would_hide_a_field() -> None:
    with pytest.raises(TypeError, match=r"Far.distance needs its type .* 'distance: <type> = ...'"):

        class Far(Sonar):
            distance = 5.0


# ---- to and from dicts ----


class Everything(PubSubMessage):
    point: Point = Point()
    points: list[Point] = [Point(1.0)]
    table: dict[str, Point] = {"a": Point(2.0)}
    pair: tuple[Point, int] = (Point(3.0), 1)
    named: Pair = Pair(Point(4.0), [5])
    ordered: OrderedDict[str, Any] = OrderedDict(b=Point(5.0), a=1)
    grouped: defaultdict[str, list[int]] = defaultdict(list, a=[1])
    tail: deque[Point] = deque([Point(6.0)], maxlen=2)
    some: set[int] = {1}
    raw: bytes = b"a"
    maybe: Point | None = None


def test_as_dict_goes_into_everything_and_keeps_the_containers() -> None:
    data = Everything().as_dict()
    assert data == {
        "point": {"x": 0.0, "y": 0.0},
        "points": [{"x": 1.0, "y": 0.0}],
        "table": {"a": {"x": 2.0, "y": 0.0}},
        "pair": ({"x": 3.0, "y": 0.0}, 1),
        "named": Pair({"x": 4.0, "y": 0.0}, [5]),
        "ordered": OrderedDict(b={"x": 5.0, "y": 0.0}, a=1),
        "grouped": {"a": [1]},
        "tail": deque([{"x": 6.0, "y": 0.0}]),
        "some": {1},
        "raw": b"a",
        "maybe": None,
    }
    assert type(data["named"]) is Pair
    assert data["grouped"].default_factory is list
    assert data["tail"].maxlen == 2


def test_as_dict_shares_nothing_with_the_message() -> None:
    message = Everything()
    data = as_dict(message)
    for value in (data["points"], data["grouped"]["a"], data["named"].right):
        value.append(7)
    data["some"].add(7)
    data["table"]["b"] = 7
    assert message == Everything()


def test_as_tuple_gives_the_values_with_messages_as_tuples() -> None:
    assert as_tuple(Sonar(ranges=[1.0])) == (0.001, (1.0, 0.0), [1.0])
    assert as_tuple(Everything())[1:4] == ([(1.0, 0.0)], {"a": (2.0, 0.0)}, ((3.0, 0.0), 1))


def test_from_dict_takes_back_what_as_dict_gave() -> None:
    message = Everything(named=Pair(1, [2]), ordered=OrderedDict(b=1, a=2), maybe=Point(9.0))
    twin = Everything()
    twin.from_dict(message.as_dict())
    assert twin == message
    assert [type(point) for point in (twin.point, twin.points[0], twin.maybe)] == [Point] * 3


def test_from_dict_changes_only_what_is_named_and_in_place() -> None:
    sonar = Sonar(2.0, ranges=[1.0])
    sonar.from_dict({"at": {"y": "5"}})
    assert sonar == Sonar(2.0, Point(0.0, 5.0), [1.0])
    sonar.from_dict({"at": Point(7.0)})
    assert sonar.at == Point(7.0)


def test_from_dict_reads_null_for_a_float_as_nan() -> None:
    sonar = Sonar()
    sonar.from_dict(json.loads('{"distance": null, "ranges": [1.0, null]}'))
    assert math.isnan(sonar.distance)
    assert math.isnan(sonar.ranges[1])


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        ({"distance": 1.0, "nope": 2}, AttributeError, "Sonar has no field 'nope', only distance"),
        ({"distance": 1.0, "as_dict": 2}, AttributeError, "Sonar has no field 'as_dict'"),
        ({"distance": 1.0, "at": 5}, SerializationError, "Sonar.at: Expected `object`, got `int`"),
        ({"distance": 1.0, "ranges": ["x"]}, SerializationError, r"Sonar.ranges: .* at `\$\[0\]`"),
    ],
)
def test_from_dict_refuses_what_does_not_fit_and_then_changes_nothing(
    data: Any, error: type[Exception], text: str
) -> None:
    sonar = Sonar()
    with pytest.raises(error, match=text):
        sonar.from_dict(data)
    assert sonar == Sonar()


def test_from_dict_tells_the_remedy_for_a_type_that_cannot_be_found(module: Any) -> None:
    made = module(
        "from __future__ import annotations\n"
        "from commlib.msg import Object\n"
        "def make():\n"
        "    class Inner(Object): pass\n"
        "    class Outer(Object):\n        inner: Inner = None\n"
        "    return Outer()\n"
    )
    with pytest.raises(NameError, match=r"Inner.* field of Outer.* outside of functions"):
        made.make().from_dict({"inner": {}})


# ---- messages and dataclasses alike ----


def test_the_decorator_changes_nothing_on_a_message_class() -> None:
    assert DataClass(Sonar) is Sonar
    assert DataClass(frozen=True, order=True)(Sonar) is Sonar


def test_the_decorator_makes_a_dataclass_of_a_class_of_ones_own() -> None:
    @DataClass
    class Own:
        x: int
        items: list[int] = DataField(default_factory=list)
        name: str = DataField(default="a")

    @DataClass(frozen=True)
    class Fixed:
        x: int = DataField()

    assert Own(1) == Own(1, [], "a")
    assert Own(1).items is not Own(1).items
    with pytest.raises(dataclasses.FrozenInstanceError):
        Fixed(1).x = 2  # type: ignore[misc]


def test_the_decorator_of_the_standard_library_does_a_message_no_harm() -> None:
    @dataclasses.dataclass
    class Nested(Object):
        c: int = 1

    @dataclasses.dataclass
    class Outer(PubSubMessage):
        a: int = 1
        b: Nested = Nested()  # noqa: RUF009 - which is what a message allows

    outer = Outer()
    assert (outer, str(outer.b.c)) == (Outer(1, Nested(1)), "1")
    outer.from_dict({"b": {"c": 3}})
    assert msgspec.json.decode(msgspec.json.encode(outer), type=Outer) == Outer(b=Nested(3))


@dataclasses.dataclass
class Plain:
    point: Point
    more: list[Any]
    count: ClassVar[int] = 3


def test_dataclasses_are_known_beside_messages() -> None:
    plain = Plain(Point(1.0), [Point(2.0)])
    assert as_dict(plain) == {"point": {"x": 1.0, "y": 0.0}, "more": [{"x": 2.0, "y": 0.0}]}
    assert as_tuple(Reading(plain)) == (((1.0, 0.0), [(2.0, 0.0)]), "")


@pytest.mark.parametrize(
    ("obj", "expected"),
    [(Sonar, True), (Sonar(), True), (Plain, True), (Plain(Point(), []), True), (3, False)],
)
def test_is_dataclass_knows_messages_and_dataclasses(obj: Any, expected: bool) -> None:
    assert is_dataclass(obj) is expected


@pytest.mark.parametrize("obj", [3, {}, Sonar, Plain])
def test_as_dict_and_as_tuple_want_an_instance(obj: Any) -> None:
    with pytest.raises(TypeError, match="a message or a dataclass instance is needed"):
        as_dict(obj)
    with pytest.raises(TypeError, match="a message or a dataclass instance is needed"):
        as_tuple(obj)


@pytest.mark.parametrize("obj", [Point, Point()])
def test_data_fields_tells_name_type_and_default(obj: Any) -> None:
    assert [(field.name, field.type, field.default) for field in DataFields(obj)] == [
        ("x", float, 0.0),
        ("y", float, 0.0),
    ]


def test_data_fields_knows_dataclasses_and_nothing_else() -> None:
    assert [field.name for field in DataFields(Plain)] == ["point", "more"]
    with pytest.raises(TypeError):
        DataFields(int)


@pytest.mark.parametrize(("bases", "is_message"), [((PubSubMessage,), True), ((), False)])
def test_make_dataclass_makes_a_message_of_a_message(
    bases: tuple[type, ...], is_message: bool
) -> None:
    made = make_dataclass(
        "Made",
        ["any", ("number", int, 3), ("items", list, DataField(default_factory=list))],
        bases=bases,
        namespace={"double": lambda self: self.number * 2},
    )
    assert made("a") == made("a", 3, [])
    assert made("a").double() == 6
    assert (made.__name__, made.__module__) == ("Made", __name__)
    assert issubclass(made, Object) is is_message
    assert dataclasses.is_dataclass(made) is not is_message


def test_make_dataclass_passes_its_options_on() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_dataclass("Fixed", ["x"], frozen=True)(1).x = 2


def test_the_primitives_are_the_five_of_json_and_bytes() -> None:
    assert Primitives == [str, int, float, bool, bytes]


# ---- the messages of the library ----


def test_a_header_and_a_heartbeat_tell_when_they_were_made() -> None:
    before = time.time_ns() // 1_000_000
    made = [MessageHeader().timestamp, HeartbeatMessage().ts]
    after = time.time_ns() // 1_000_000
    assert all(before <= stamp <= after for stamp in made)


def test_a_header_and_a_heartbeat_keep_the_time_that_they_are_given() -> None:
    header = MessageHeader(seq=1, timestamp=5, node_id="n", agent="a")
    assert tuple(header) == (1, 5, "n", "a")
    assert MessageHeader().agent == "commlib-py"
    assert msgspec.json.decode(b'{"ts":5}', type=HeartbeatMessage).ts == 5


def test_a_header_takes_attributes_that_are_not_sent() -> None:
    header = MessageHeader(timestamp=5)
    header.properties = {"a": 1}  # type: ignore[attr-defined]
    assert header.properties == {"a": 1}  # type: ignore[attr-defined]
    assert "properties" not in header.as_dict()


def test_a_received_message_is_typed_all_the_way_down() -> None:
    received = msgspec.json.decode(
        b'{"points":[{"x":1,"unknown":2}],"ordered":{"a":1},"maybe":{}}',
        type=Everything,
        dec_hook=dec_hook,
    )
    assert received.points == [Point(1.0)]
    assert type(received.ordered) is OrderedDict
    assert received.maybe == Point()


def test_all_that_the_module_exports_is_there() -> None:
    assert sorted(msg.__all__) == [name for name in msg.__all__ if hasattr(msg, name)]


def test_importing_messages_imports_nothing_heavy() -> None:
    heavy = {"asyncio", "socket", "threading", "logging", "dataclasses", "copy", "ssl", "json"}
    code = f"import sys, commlib.msg; print(sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")
