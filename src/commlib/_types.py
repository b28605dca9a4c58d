"""What msgspec does not know by itself: the hooks for further types, and NaN in JSON. Pure.

msgspec encodes and decodes messages, dataclasses, TypedDicts, NamedTuples, attrs classes and the
builtin types. ``enc_hook`` and ``dec_hook`` add what programs put into messages besides:
``OrderedDict`` and its like, subclasses of ``str`` or ``int``, paths, pydantic models and numpy's
arrays. None of those libraries is ever imported here.

JSON has no NaN and no infinities: msgspec writes them as ``null`` and then refuses ``null`` for a
``float``. ``null_to_nan`` makes the function that puts them back.
"""

import os
import sys
from collections import defaultdict, deque
from collections.abc import Callable
from functools import lru_cache, partial
from inspect import signature
from typing import Any, TypeAlias, cast, get_args, get_origin

import msgspec
from msgspec import inspect

Fix: TypeAlias = Callable[[Any], Any]

_NAN = float("nan")


# ---- types beyond msgspec's ----

# The plain value of a subclass's instance, whatever the subclass's own `__str__` or `__int__` say.
_BUILTIN_OF: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, bytes.__bytes__),
    (deque, list),
    (os.PathLike, os.fspath),
)
# What a type of the program's own is decoded as before it is made, the first that fits.
_DECODED_AS: tuple[tuple[type, type], ...] = (
    (dict, dict),
    (list, list),
    (deque, list),
    (set, set),
    (frozenset, frozenset),
    (tuple, tuple),
    (str, str),
    (os.PathLike, str),
    (int, int),
    (float, float),
    (bytes, bytes),
)
_TYPE_ARGUMENTS = {dict: 2, list: 1, set: 1, frozenset: 1}
_DEFAULT_FACTORIES = (int, float, str, bool, list, dict, set)


def enc_hook(obj: Any) -> Any:
    """The data that stands for an object which msgspec cannot encode.

    Raises TypeError for an object that has no such form.
    """
    kind = type(obj)
    for base, builtin in _BUILTIN_OF:
        if isinstance(obj, base):
            return builtin(obj)
    if hasattr(kind, "model_dump"):
        return obj.model_dump(mode="json")
    if hasattr(kind, "tolist"):
        return obj.tolist()
    raise TypeError(
        f"an instance of {_name(kind)} cannot be sent: turn it into a str, number, bytes, list or "
        "dict, or make its class a message or a dataclass"
    )


def dec_hook(type_: Any, obj: Any) -> Any:
    """Makes a ``type_`` which msgspec does not know from decoded data.

    Raises TypeError when the type cannot be made from data, ValueError when the data does not fit;
    msgspec reports both as a ``ValidationError`` that tells where in the message it happened.
    """
    cls: Any = get_origin(type_) or type_
    if cls is type_ and isinstance(obj, cls):
        return obj
    if (validate := validator_of(cls)) is not None:
        return validate(obj)
    if cls.__module__.partition(".")[0] == "numpy":
        return _numpy(cls, type_, obj)
    if (plain := _decoded_as(cls, type_)) is not None:
        return _make(cls, type_, _convert(plain, obj))
    if isinstance(obj, cls):  # an abstract type, such as Iterable[int], is content with a list
        return obj
    raise _nothing_for(cls)


def validator_of(cls: Any) -> Callable[[Any], Any] | None:
    """What makes a pydantic model of decoded data; None for any other class.

    Fields are written by their own names, and taken by those or by their aliases. Before pydantic
    2.11 only a model with ``populate_by_name=True`` takes a field that has an alias by its name.
    """
    validate = getattr(cls, "model_validate", None)
    if validate is None:
        return None
    try:
        return _by_name(validate)
    except (TypeError, ValueError):  # no function of pydantic's
        return cast("Callable[[Any], Any]", validate)


@lru_cache(maxsize=1024)
def _by_name(validate: Callable[..., Any]) -> Callable[[Any], Any]:
    can = "by_name" in signature(validate).parameters
    return partial(validate, by_name=True) if can else validate


def check_kind(kind: Any) -> None:
    """Raises TypeError for a message or the name of a class, where the class was meant."""
    if isinstance(kind, str):
        raise TypeError(f"{kind!r} is a str: give the class of the messages itself, not its name")
    cls = type(kind)
    is_message = hasattr(cls, "__struct_fields__") or hasattr(cls, "__dataclass_fields__")
    if is_message and not isinstance(kind, type):
        raise TypeError(f"{kind!r} is a message: give its class, {cls.__qualname__}")


def check_decodable(type_: Any) -> None:
    """Raises TypeError for a type with a part that no data can be decoded into."""
    _check_parts(inspect.type_info(type_), set())


def _check_parts(info: inspect.Type, seen: set[int]) -> None:
    info = _bare(info)
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, inspect.CustomType) and not _can_be_made(info.cls):
        raise _nothing_for(info.cls)
    for part in info.types if isinstance(info, inspect.UnionType) else _parts(info):
        _check_parts(part, seen)


def _can_be_made(cls: Any) -> bool:
    if hasattr(cls, "model_validate") or cls.__module__.partition(".")[0] == "numpy":
        return True
    try:
        isinstance(None, cls)
    except TypeError:  # a Protocol that is not runtime_checkable
        return False
    # An abstract type is content with data as it comes; a Protocol cannot be asked.
    is_abstract = getattr(cls, "_is_protocol", False) or any(
        issubclass(kind, cls) for kind in (dict, list, str, float, bool)
    )
    return is_abstract or _decoded_as(cls, cls) is not None


def _nothing_for(cls: Any) -> TypeError:
    return TypeError(
        f"nothing can be decoded into {_name(cls)}: use a message, a dataclass, a TypedDict, "
        "a plain type such as dict or list[float], or Any for the data as it comes"
    )


def _name(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}".removeprefix("builtins.")


@lru_cache(maxsize=256)
def _decoded_as(cls: Any, type_: Any) -> Any:
    """The builtin type that a ``cls`` is made from, with the arguments of ``type_``, or None."""
    plain: Any = next((plain for base, plain in _DECODED_AS if issubclass(cls, base)), None)
    args = get_args(type_)
    return plain[args] if args and len(args) == _TYPE_ARGUMENTS.get(plain) else plain


@lru_cache(maxsize=256)
def _null_to_nan_of(plain: Any) -> Fix | None:
    return null_to_nan(plain)


def _convert(plain: Any, obj: Any) -> Any:
    # msgspec describes OrderedDict[str, float] without its arguments, so `null_to_nan` of the
    # whole message has not seen this float.
    fix = _null_to_nan_of(plain)
    data = list(obj) if isinstance(obj, deque) else obj
    data = data if fix is None else fix(data)
    return msgspec.convert(data, plain, strict=False, dec_hook=dec_hook)


def _make(cls: Any, type_: Any, plain: Any) -> Any:
    if not issubclass(cls, defaultdict):
        return cls(plain)
    value_type = (get_args(type_) or (None, None))[-1]
    factory = get_origin(value_type) or value_type
    return cls(factory if factory in _DEFAULT_FACTORIES else None, plain)


def _numpy(cls: Any, type_: Any, obj: Any) -> Any:
    if cls.__name__ != "ndarray":
        return cls(obj)
    numpy: Any = sys.modules["numpy"]
    dtype = next(
        (get_args(arg)[0] for arg in get_args(type_) if get_origin(arg) is numpy.dtype), None
    )
    array = numpy.asarray(obj, dtype=dtype if isinstance(dtype, type) else None)
    # A null, which is what JSON makes of NaN, would leave an array of objects.
    return array.astype(float) if array.dtype == object else array


# ---- NaN in JSON ----

_RECORDS = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType)


def null_to_nan(type_: Any) -> Fix | None:
    """A function that puts NaN where a ``type_`` written as JSON holds ``null`` for a float.

    It takes the data as decoded without a type (dicts, lists, str, numbers, None) and returns it
    with None replaced wherever the type says ``float`` and not ``float | None``. What it is given
    is not changed, and data of another shape passes as it is. In a union of several messages
    nothing is replaced. None: the type holds no such float, there is nothing to do.

    Raises what msgspec raises for a type that it cannot describe (NameError, TypeError).
    """
    return _fix(inspect.type_info(type_), {})


def null_to_nan_in(data: Any, error: Any) -> Any:
    """The same for what a pydantic model has refused: NaN where ``error`` says float, not null.

    Raises the error if anything else is wrong. What is given is not changed.
    """
    from copy import deepcopy  # hardly any program has such models

    data = deepcopy(data)
    for wrong in error.errors(include_url=False, include_context=False):
        *path, last = wrong["loc"] or (None,)
        place = data
        try:
            for step in path:
                place = place[step]
            if wrong["type"] != "float_type" or place[last] is not None:
                raise error
            place[last] = _NAN
        except (KeyError, IndexError, TypeError):  # a path through a union is none of the data's
            raise error from None
    return data


def _fix(info: inspect.Type, made: dict[int, Fix]) -> Fix | None:
    info = _bare(info)
    if id(info) in made:
        return made[id(info)]
    if not _holds_float(info, set()):
        return None
    if isinstance(info, inspect.FloatType):
        return _fix_float
    if isinstance(info, inspect.CollectionType):
        return _fix_items(info.item_type, made)
    if isinstance(info, inspect.DictType):
        return _fix_values(info.value_type, made)
    if isinstance(info, inspect.UnionType):
        return _fix_union(info, made)
    return _fix_fields(info, made) if _is_object(info) else _fix_positions(info, made)


def _bare(info: inspect.Type) -> inspect.Type:
    """A type without the wrapper that a description in ``Annotated`` makes."""
    return info.type if isinstance(info, inspect.Metadata) else info


def _holds_float(info: inspect.Type, seen: set[int]) -> bool:
    info = _bare(info)
    if isinstance(info, inspect.FloatType):
        return True
    if id(info) in seen:
        return False
    seen.add(id(info))
    return any(_holds_float(part, seen) for part in _parts(info))


def _parts(info: inspect.Type) -> list[inspect.Type]:
    """The types inside a type, without those in whose place None means None."""
    if isinstance(info, inspect.CollectionType):
        return [info.item_type]
    if isinstance(info, inspect.DictType):
        return [info.value_type]
    if isinstance(info, inspect.TupleType):
        return list(info.item_types)
    if isinstance(info, (*_RECORDS, inspect.NamedTupleType)):
        return [field.type for field in info.fields]
    if isinstance(info, inspect.UnionType):
        return _members(info)
    return []


def _members(info: inspect.UnionType) -> list[inspect.Type]:
    members = [_bare(member) for member in info.types]
    if any(isinstance(member, inspect.NoneType) for member in members):
        members = [member for member in members if not isinstance(member, inspect.FloatType)]
    if sum(isinstance(member, _RECORDS) for member in members) > 1:
        members = [member for member in members if not isinstance(member, _RECORDS)]
    return members


def _is_object(info: inspect.Type) -> bool:
    """Whether JSON writes the type as an object."""
    if isinstance(info, inspect.StructType):
        return not info.array_like
    return isinstance(info, (inspect.DictType, *_RECORDS))


def _fix_float(data: Any) -> Any:
    return _NAN if data is None else data


def _fix_items(item_type: inspect.Type, made: dict[int, Fix]) -> Fix:
    if isinstance(_bare(item_type), inspect.FloatType):
        return _fix_floats
    fix = _fix(item_type, made)
    assert fix is not None, "an array without a float inside has no fix"
    return lambda data: [fix(item) for item in data] if isinstance(data, list) else data


def _fix_floats(data: Any) -> Any:
    # A call for each of the thousand ranges of a laser scan would take five times as long.
    if isinstance(data, list):
        return [_NAN if item is None else item for item in data]
    return data


def _fix_values(value_type: inspect.Type, made: dict[int, Fix]) -> Fix:
    fix = _fix(value_type, made)
    assert fix is not None, "a dict without a float inside has no fix"

    def fix_values(data: Any) -> Any:
        if isinstance(data, dict):
            return {key: fix(value) for key, value in data.items()}
        return data

    return fix_values


def _fix_fields(info: Any, made: dict[int, Fix]) -> Fix:
    fixes: dict[str, Fix] = {}

    def fix_fields(data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return data | {key: fix(data[key]) for key, fix in fixes.items() if key in data}

    made[id(info)] = fix_fields  # before its fields, which may be of this very type
    for field in info.fields:
        if (fix := _fix(field.type, made)) is not None:
            fixes[field.encode_name] = fix
    return fix_fields


def _fix_positions(info: Any, made: dict[int, Fix]) -> Fix:
    fixes: list[tuple[int, Fix]] = []

    def fix_positions(data: Any) -> Any:
        if not isinstance(data, list):
            return data
        fixed = data.copy()
        for index, fix in fixes:
            if index < len(data):
                fixed[index] = fix(data[index])
        return fixed

    made[id(info)] = fix_positions
    first = 1 if getattr(info, "tag", None) is not None else 0  # the tag stands before the fields
    for index, part in enumerate(_parts(info), start=first):
        if (fix := _fix(part, made)) is not None:
            fixes.append((index, fix))
    return fix_positions


def _fix_union(info: inspect.UnionType, made: dict[int, Fix]) -> Fix:
    """msgspec allows one type written as an object and one written as an array in a union."""
    of_object: Fix = _unchanged
    of_array: Fix = _unchanged
    of_none: Fix = _unchanged
    for member in _members(info):
        fix = _fix(member, made)
        if fix is None:
            continue
        if isinstance(member, inspect.FloatType):
            of_none = fix
        elif _is_object(member):
            of_object = fix
        else:
            of_array = fix

    def fix_union(data: Any) -> Any:
        if isinstance(data, dict):
            return of_object(data)
        if isinstance(data, list):
            return of_array(data)
        return of_none(data)

    return fix_union


def _unchanged(data: Any) -> Any:
    return data
