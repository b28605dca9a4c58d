"""What is public: it is listed, there, documented, and the same on every broker."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module, resources
from types import FunctionType, ModuleType
from typing import Any

import pytest

import commlib
from commlib import _face, action, aio, events, pubsub, rpc
from commlib._params import BaseParameters
from commlib.transports import ACTION_CLASSES, MODULES, base


def module_names() -> list[str]:
    """All modules of the package, the private ones too."""
    found = pkgutil.walk_packages(commlib.__path__, "commlib.")
    return ["commlib", *(module.name for module in found)]


def is_public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split("."))


PUBLIC = [name for name in module_names() if is_public(name)]
# The command line is for people, not for programs.
IMPORTABLE = [name for name in PUBLIC if not name.startswith("commlib.cli")]


def names_in(module: ModuleType) -> dict[str, Any]:
    """All that a module has, and loads when it is needed."""
    late = {name: getattr(module, name) for name in ACTION_CLASSES if hasattr(module, name)}
    return {**vars(module), **late}


def own(module: ModuleType) -> dict[str, Any]:
    """The public classes and functions that are defined in a module."""
    return {
        name: value
        for name, value in vars(module).items()
        if is_public(name)
        and isinstance(value, type | FunctionType)
        and value.__module__ == module.__name__
    }


# ---- lists of names ----


@pytest.mark.parametrize("name", [n for n in PUBLIC if hasattr(import_module(n), "__all__")])
def test_what_a_module_lists_is_there_once_and_in_order(name: str) -> None:
    module = import_module(name)
    for listed in module.__all__:
        assert hasattr(module, listed), listed
    assert len(set(module.__all__)) == len(module.__all__)
    assert list(module.__all__) == sorted(module.__all__, key=_as_ruff_sorts)


def _as_ruff_sorts(name: str) -> tuple[int, str]:
    """Constants, classes, then the rest."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


@pytest.mark.parametrize("name", [n for n in IMPORTABLE if hasattr(import_module(n), "__all__")])
def test_what_a_module_defines_for_the_public_is_listed(name: str) -> None:
    module = import_module(name)
    for_users = {name for name, value in own(module).items() if not is_metaclass(value)}
    assert for_users <= set(module.__all__)


def is_metaclass(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, type)


def test_the_package_of_asyncio_lists_all_that_it_brings_together() -> None:
    brought = {
        name
        for name, value in names_in(aio).items()
        if isinstance(value, type) and issubclass(value, aio.Endpoint | aio.Node)
    }
    assert brought == set(aio.__all__)


# ---- documentation ----


@pytest.mark.parametrize("name", module_names())
def test_every_module_says_what_it_is_for(name: str) -> None:
    if name != "commlib":
        assert import_module(name).__doc__, name


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_class_and_function_is_documented(name: str) -> None:
    for found, value in own(import_module(name)).items():
        assert value.__doc__, found
        # That of a dataclass without one is its signature.
        assert not value.__doc__.startswith(f"{found}("), found


@pytest.mark.parametrize("name", IMPORTABLE)
def test_every_public_method_is_documented_here_or_where_it_is_promised(name: str) -> None:
    undocumented = []
    for found, value in own(import_module(name)).items():
        if isinstance(value, type):
            undocumented += [f"{found}.{method}" for method in _undocumented_methods(value)]
    assert undocumented == []


PROMISES = (
    *(base.Transport, base.Subscription, base.Consumer, base.Inbox),
    *(base.LastingTransport, base.LastingSubscription, base.HoldingTransport),
    base.BlockableTransport,
    base.WithdrawingTransport,
)


def _undocumented_methods(kind: type) -> list[str]:
    return [
        name
        for name, value in vars(kind).items()
        if is_public(name)
        and isinstance(value, FunctionType | classmethod | staticmethod | property)
        and not inspect.getdoc(getattr(kind, name))
        and not any(hasattr(promise, name) for promise in PROMISES)
        and not _is_obvious(value)
    ]


def _is_obvious(value: Any) -> bool:
    """A property whose name and type say it all."""
    return isinstance(value, property) and value.fget is not None


# ---- the same everywhere ----


TRANSPORTS = sorted(set(MODULES.values()))
PATTERNS = (action, events, pubsub, rpc)


def endpoints_of(module: ModuleType) -> dict[str, type]:
    return {
        name: value
        for name, value in names_in(module).items()
        if isinstance(value, type) and issubclass(value, _face.Endpoint) and is_public(name)
    }


def general_endpoints() -> dict[str, type]:
    """Those of all patterns, bound to no transport."""
    found = {name: kind for pattern in PATTERNS for name, kind in endpoints_of(pattern).items()}
    del found["Endpoint"]
    return found


def test_every_transport_has_the_same_endpoints() -> None:
    for name in TRANSPORTS:
        assert set(endpoints_of(import_module(name))) == set(general_endpoints())


@pytest.mark.parametrize("name", TRANSPORTS)
def test_the_endpoints_of_a_transport_are_declarations_and_nothing_else(name: str) -> None:
    module = import_module(name)
    scheme = name.rpartition(".")[2]
    for found, value in endpoints_of(module).items():
        late = name.replace(f".{scheme}", f"._{scheme}_actions")
        place = late if found in ACTION_CLASSES else name
        assert value.__module__ == place, "it is made here, so that it can be found here"
        assert value.__bases__[0] is general_endpoints()[found]
        assert value.scheme == scheme
        own_names = {own for own in vars(value) if not own.startswith("__")}
        assert own_names <= {"scheme", "released_options"}, "logic belongs into the pattern"
        assert value.__doc__


@pytest.mark.parametrize("name", TRANSPORTS)
def test_every_transport_has_its_parameters_and_the_offline_policy(name: str) -> None:
    module = import_module(name)
    assert issubclass(module.ConnectionParameters, BaseParameters)
    assert module.ConnectionParameters.schemes
    assert module.ConnectionParameters.make_transport.__doc__
    assert module.Offline().policy == "buffer"


def test_every_endpoint_exists_for_asyncio_as_well() -> None:
    for name, value in general_endpoints().items():
        twin = getattr(aio, name)
        methods = {n for n, v in vars(value).items() if isinstance(v, FunctionType)}
        for method in methods - {"__init__", "call_async"}:
            if is_public(method):
                assert inspect.iscoroutinefunction(getattr(twin, method)), f"{name}.{method}"


# ---- the package ----


def test_the_package_says_that_it_has_types_and_which_version_it_is() -> None:
    assert resources.files("commlib").joinpath("py.typed").is_file()
    assert commlib.__version__
