"""What programs send: classes of fields, to subclass.

::

    class SonarMessage(PubSubMessage):
        distance: float = 0.001
        ranges: list[float] = []


    class AddTwoInts(RPCMessage):
        class Request(RPCMessage.Request):
            a: int = 0
            b: int = 0

        class Response(RPCMessage.Response):
            c: int = 0

A message is a ``msgspec.Struct``, so no decorator is needed; ``@DataClass`` on it is accepted and
changes nothing. Beyond what a Struct does, a default that could be changed (a list, a dict,
another message) is copied for each message, and a field whose default is None may be None.

``as_dict``, ``as_tuple``, ``is_dataclass``, ``make_dataclass`` and ``DataFields`` do what their
namesakes in the standard library's ``dataclasses`` do, for messages and for dataclasses.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import (
    Any,
    ClassVar,
    Optional,
    TypeVar,
    dataclass_transform,
    get_origin,
    overload,
)

import msgspec

from commlib._arrays import NDArray
from commlib._types import dec_hook, null_to_nan
from commlib.exceptions import SerializationError

if sys.version_info >= (3, 14):
    import annotationlib

__all__ = [
    "ActionMessage",
    "DataClass",
    "DataField",
    "DataFields",
    "HeartbeatMessage",
    "MessageHeader",
    "NDArray",
    "Object",
    "Primitives",
    "PubSubMessage",
    "RPCMessage",
    "as_dict",
    "as_tuple",
    "is_dataclass",
    "make_dataclass",
]

T = TypeVar("T")

Primitives: list[type] = [str, int, float, bool, bytes]


# ---- fields and their defaults ----

_make_field: Callable[..., Any] = msgspec.field  # whose overloads want to know what is given


@overload
def DataField(*, default: T) -> T: ...
@overload
def DataField(*, default_factory: Callable[[], T]) -> T: ...
@overload
def DataField() -> Any: ...
def DataField(*, default: Any = msgspec.NODEFAULT, default_factory: Any = msgspec.NODEFAULT) -> Any:
    """A field with a default, or with a function that makes the default of each message anew."""
    return _make_field(default=default, default_factory=default_factory)


_Field: type[Any] = type(_make_field())
_IMMUTABLE = frozenset({str, int, float, bool, bytes, type(None)})
# The two spellings that msgspec knows when annotations are strings.
_CLASS_VAR = ("ClassVar", "typing.ClassVar")


@dataclass_transform(field_specifiers=(DataField, msgspec.field))
class MessageMeta(msgspec.StructMeta):
    """The class of message classes: prepares the defaults in a class body for ``Struct``."""

    def __new__(
        mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /, **config: Any
    ) -> "MessageMeta":
        annotations = _annotations(namespace)
        _refuse_bare_defaults(name, bases, namespace.keys() - annotations.keys())
        fields = {
            key: _settled(namespace[key])
            for key, annotation in annotations.items()
            if key in namespace and not _is_class_var(annotation)
        }
        _allow_none(namespace, [key for key, field in fields.items() if field.default is None])
        return super().__new__(mcls, name, bases, namespace | fields, **config)

    def __setattr__(cls, name: str, value: Any) -> None:
        # The standard library's @dataclass would fail on this one name, which msgspec has set to
        # the same value; but for that it does a message no harm.
        if name != "__match_args__":
            super().__setattr__(name, value)


def _annotations(namespace: dict[str, Any]) -> dict[str, Any]:
    """The annotations of a class body; names that are not yet defined are no reason to fail."""
    if sys.version_info >= (3, 14) and "__annotations__" not in namespace:
        annotate = annotationlib.get_annotate_from_class_namespace(namespace)
        if annotate is None:
            return {}
        return annotationlib.call_annotate_function(annotate, annotationlib.Format.FORWARDREF)
    annotations: dict[str, Any] = namespace.get("__annotations__", {})
    return annotations


def _allow_none(namespace: dict[str, Any], keys: list[str]) -> None:
    """Makes ``T | None`` of the annotations of ``keys``."""
    if not keys:
        return
    if sys.version_info >= (3, 14) and "__annotations__" not in namespace:
        _allow_none_lazily(namespace, keys)
    else:
        annotations = namespace["__annotations__"]
        namespace["__annotations__"] = annotations | {
            key: _or_none(annotations[key]) for key in keys
        }


if sys.version_info >= (3, 14):

    def _allow_none_lazily(namespace: dict[str, Any], keys: list[str]) -> None:
        place = "__annotate__" if "__annotate__" in namespace else "__annotate_func__"
        annotate = namespace[place]

        def with_none(format: annotationlib.Format, /) -> dict[str, Any]:
            found = annotationlib.call_annotate_function(annotate, format)
            if format == annotationlib.Format.STRING:
                return found | {key: f"{found[key]} | None" for key in keys}
            return found | {key: _or_none(found[key]) for key in keys}

        namespace[place] = with_none


def _or_none(annotation: Any) -> Any:
    return Optional[annotation]  # noqa: UP045 - it may be a str, which has no `|`


def _is_class_var(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return annotation.partition("[")[0] in _CLASS_VAR
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def _refuse_bare_defaults(name: str, bases: tuple[type, ...], bare: set[str]) -> None:
    """A value without a type would hide the base's field: unreadable, unwritable, never sent."""
    for base in bases:
        for key in sorted(bare.intersection(getattr(base, "__struct_fields__", ()))):
            raise TypeError(
                f"{name}.{key} needs its type again to change the default that it has from "
                f"{base.__name__}: write '{key}: <type> = ...'"
            )


def _settled(default: Any) -> Any:
    """What msgspec is to be told for the default in a class body."""
    field = _field(default)
    if field.default is msgspec.NODEFAULT or not _is_mutable(field.default):
        return field
    return _make_field(default_factory=_copier(field.default), name=field.name)


def _field(default: Any) -> Any:
    if isinstance(default, _Field):
        return default
    dataclasses = sys.modules.get("dataclasses")
    if dataclasses is None or not isinstance(default, dataclasses.Field):
        return _make_field(default=default)
    given = {"default": default.default, "default_factory": default.default_factory}
    return _make_field(**{k: v for k, v in given.items() if v is not dataclasses.MISSING})


def _is_mutable(value: Any) -> bool:
    if isinstance(value, msgspec.Struct):
        return not value.__struct_config__.frozen
    if isinstance(value, tuple):
        return any(map(_is_mutable, value))
    return type(value).__hash__ is None


def _copier(value: Any) -> Callable[[], Any]:
    """A function that makes equal objects, none of which shares a thing with another."""
    if type(value) in (list, dict, set, bytearray) and not value:
        return type(value)
    import copy

    original = copy.deepcopy(value)  # the caller may go on changing its own
    parts = _parts(original)
    is_flat = parts is not None and not any(map(_is_mutable, parts))
    # The shallow copy is ten times as fast, and it is made for every message that lacks the field.
    return partial(copy.copy if is_flat else copy.deepcopy, original)


def _parts(value: Any) -> Iterable[Any] | None:
    if isinstance(value, msgspec.Struct):
        return [getattr(value, name) for name in value.__struct_fields__]
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, (list, set, deque, bytearray)) else None


# ---- messages ----


class Object(msgspec.Struct, metaclass=MessageMeta, weakref=True):
    """The root of all messages: a group of fields, and what can be put into a field of another.

    Iterating over one gives what ``as_tuple`` gives.
    """

    def __iter__(self) -> Iterator[Any]:
        return iter(as_tuple(self))

    def as_dict(self) -> dict[str, Any]:
        """The fields in a dict, messages inside them as dicts too; shares nothing with this one."""
        return as_dict(self)

    def from_dict(self, data_dict: Mapping[str, Any]) -> None:
        """Sets the fields named in ``data_dict`` and leaves the others as they are.

        Dicts become messages where the field's type says so, as on receiving. Raises
        AttributeError for a key that is no field and SerializationError, a ValueError, for a value
        of the wrong type; then no field has been changed.
        """
        loaders = _loaders(type(self))
        loaded = {}
        for key, value in data_dict.items():
            if key not in loaders:
                known = ", ".join(loaders) or "none"
                raise AttributeError(f"{type(self).__name__} has no field {key!r}, only {known}")
            try:
                loaded[key] = loaders[key](value)
            except msgspec.ValidationError as exc:
                raise SerializationError(f"{type(self).__name__}.{key}: {exc}") from exc
        for key, value in loaded.items():
            setattr(self, key, value)


class PubSubMessage(Object):
    """A message that is published to a topic."""


class RPCMessage:
    """The two messages of a remote procedure call; subclass both, inside a subclass of this."""

    class Request(Object):
        """What the client sends."""

    class Response(Object):
        """What the service answers."""


class ActionMessage:
    """The three messages of an action; subclass each, inside a subclass of this."""

    class Goal(Object):
        """What is to be done."""

    class Result(Object):
        """What came of it, sent once at the end."""

    class Feedback(Object):
        """How far it is, sent while it is being done."""


class MessageHeader(Object, dict=True):
    """Who sent what when. Takes attributes besides its fields; they are neither sent nor copied.

    ``timestamp`` is in ms since 1970; left at -1, it is the time at which the header was made.
    """

    seq: int = 0
    timestamp: int = -1
    node_id: str = ""
    agent: str = "commlib-py"

    def __post_init__(self) -> None:
        if self.timestamp == -1:
            self.timestamp = _now()


class HeartbeatMessage(PubSubMessage):
    """A sign of life. ``ts`` is in ms since 1970; left at -1, it is the time of its making."""

    ts: int = -1

    def __post_init__(self) -> None:
        if self.ts == -1:
            self.ts = _now()


def _now() -> int:
    return time.time_ns() // 1_000_000


@lru_cache(maxsize=256)
def _loaders(cls: type[msgspec.Struct]) -> dict[str, Callable[[Any], Any]]:
    try:
        return {field.name: _loader(field.type) for field in msgspec.structs.fields(cls)}
    except NameError as exc:
        raise NameError(
            f"{exc}: it is in the type of a field of {cls.__name__}. Where the module has "
            "'from __future__ import annotations', define both classes outside of functions"
        ) from exc


def _loader(type_: Any) -> Callable[[Any], Any]:
    fix = null_to_nan(type_)

    def load(value: Any) -> Any:
        value = value if fix is None else fix(value)
        return msgspec.convert(value, type_, strict=False, dec_hook=dec_hook)

    return load


# ---- messages and dataclasses alike ----


@overload
def DataClass(cls: type[T], /) -> type[T]: ...
@overload
def DataClass(**options: bool) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(field_specifiers=(DataField,))
def DataClass(cls: type[T] | None = None, /, **options: bool) -> Any:
    """Makes a dataclass of a class; a message class is returned as it is, options are ignored.

    The options are those of ``dataclasses.dataclass``.
    """
    if cls is None:
        return partial(DataClass, **options)
    if isinstance(cls, msgspec.StructMeta):
        return cls
    import dataclasses

    for name, value in list(vars(cls).items()):
        if isinstance(value, _Field):
            setattr(cls, name, _stdlib_field(value))
    return dataclasses.dataclass(**options)(cls)


def _stdlib_field(field: Any) -> Any:
    from dataclasses import field as stdlib_field

    given = {"default": field.default, "default_factory": field.default_factory}
    return stdlib_field(**{k: v for k, v in given.items() if v is not msgspec.NODEFAULT})


def make_dataclass(
    cls_name: str,
    fields: Iterable[str | tuple[str, Any] | tuple[str, Any, Any]],
    *,
    bases: tuple[type, ...] = (),
    namespace: Mapping[str, Any] | None = None,
    **options: bool,
) -> type[Any]:
    """Makes a class from names, or pairs of name and type, or triples with a default or DataField.

    With a message class among its ``bases`` it is a message class, else a dataclass.
    """
    import types

    specs: list[Any] = [(field, Any) if isinstance(field, str) else field for field in fields]
    body = {
        "__module__": sys._getframe(1).f_globals.get("__name__", __name__),
        **(namespace or {}),
        **{spec[0]: spec[2] for spec in specs if len(spec) == 3},
        "__annotations__": {spec[0]: spec[1] for spec in specs},
    }
    return DataClass(**options)(types.new_class(cls_name, bases, {}, lambda ns: ns.update(body)))


def is_dataclass(obj: object) -> bool:
    """Whether an object, or a class, is a message or a dataclass."""
    return _names(obj if isinstance(obj, type) else type(obj)) is not None


def DataFields(class_or_instance: Any) -> tuple[Any, ...]:
    """The fields of a message or a dataclass; each has a ``name``, ``type`` and ``default``.

    Raises TypeError for anything else.
    """
    cls: Any = class_or_instance
    if not isinstance(cls, type):
        cls = type(cls)
    if issubclass(cls, msgspec.Struct):
        return msgspec.structs.fields(cls)
    import dataclasses

    return dataclasses.fields(cls)


def as_dict(obj: Any) -> dict[str, Any]:
    """A message or dataclass as a dict, all those inside it too; shares nothing with ``obj``.

    Raises TypeError for anything else.
    """
    plain: dict[str, Any] = _plain(_instance(obj), dict)
    return plain


def as_tuple(obj: Any) -> tuple[Any, ...]:
    """The values of a message or dataclass, those inside it as tuples too; shares nothing with it.

    Raises TypeError for anything else.
    """
    plain: tuple[Any, ...] = _plain(_instance(obj), _values)
    return plain


def _values(items: list[tuple[str, Any]]) -> tuple[Any, ...]:
    return tuple(value for _, value in items)


def _instance(obj: Any) -> Any:
    if isinstance(obj, type) or not is_dataclass(obj):
        raise TypeError(f"a message or a dataclass instance is needed, not {obj!r}")
    return obj


def _names(cls: type) -> tuple[str, ...] | None:
    """The fields of a message or dataclass; None: it is neither."""
    if isinstance(cls, msgspec.StructMeta):
        return cls.__struct_fields__
    if not hasattr(cls, "__dataclass_fields__"):
        return None
    import dataclasses

    return tuple(field.name for field in dataclasses.fields(cls))


def _plain(value: Any, record: Callable[[list[tuple[str, Any]]], Any]) -> Any:
    """A deep copy in which each message and dataclass is what ``record`` makes of its items."""
    kind = type(value)
    if kind in _IMMUTABLE:
        return value
    if kind is memoryview:
        return bytes(value)
    if (names := _names(kind)) is not None:
        return record([(name, _plain(getattr(value, name), record)) for name in names])
    if isinstance(value, tuple):
        parts = [_plain(part, record) for part in value]
        return kind(*parts) if hasattr(kind, "_fields") else kind(parts)
    import copy

    if not isinstance(value, (list, deque, dict)):
        return copy.deepcopy(value)
    twin = copy.copy(value)  # of a subclass too, with all that it has besides its items
    if isinstance(twin, dict):
        twin.update([(key, _plain(part, record)) for key, part in twin.items()])
    else:
        twin.clear()
        twin.extend([_plain(part, record) for part in value])
    return twin
