"""Which transport speaks to which broker. A transport and its driver are imported when needed.

A third party adds one by an entry point of the group ``commlib.transports``: its name is a URL
scheme, its value the module, which has a ``ConnectionParameters`` as those of ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from commlib._params import BaseParameters, nearest, together

MODULES = {
    "redis": "commlib.transports.redis",
    "rediss": "commlib.transports.redis",
    "redis+unix": "commlib.transports.redis",
    "valkey": "commlib.transports.redis",
    "valkeys": "commlib.transports.redis",
    "mqtt": "commlib.transports.mqtt",
    "mqtts": "commlib.transports.mqtt",
    "ws": "commlib.transports.mqtt",
    "wss": "commlib.transports.mqtt",
    "amqp": "commlib.transports.amqp",
    "amqps": "commlib.transports.amqp",
    "memory": "commlib.transports.memory",
}
"""The module of each URL scheme."""

DEFAULT_SCHEME = "redis"

ACTION_CLASSES = ("ActionClient", "ActionService")


def loaded_when_needed(module: str, *names: str) -> Callable[[str], Any]:
    """A ``__getattr__`` for a module that has these names from another one.

    For what takes a while to import and most programs have no need of, as actions.
    """

    def load(name: str) -> Any:
        if name in names:
            return getattr(import_module(module), name)
        raise AttributeError(f"there is no {name} here")

    return load


def module_for(scheme: str) -> ModuleType:
    """The transport for a URL scheme. Raises ValueError with the nearest one that there is."""
    if scheme in MODULES:
        return import_module(MODULES[scheme])
    from importlib.metadata import entry_points

    for entry in entry_points(group="commlib.transports", name=scheme):
        module: ModuleType = entry.load()
        return module
    raise ValueError(f"no transport for {scheme}://; {nearest(scheme, MODULES)}")


Params = BaseParameters | str | Sequence[BaseParameters | str] | None
"""What says where the broker is: parameters or a URL, or several of brokers that are alike."""


def first_given(one: Params, other: Params) -> Params:
    """Of two names of one option, the one that was used; an empty list is a mistake, not None."""
    return other if one is None or one == "" else one


def resolve(params: Params, scheme: str = "") -> BaseParameters:
    """Connection parameters from whatever the user gave.

    Of several brokers all but the first become its ``fallbacks``.

    ``scheme`` is that of a class bound to one transport, empty for those that take any. Raises
    ValueError for a URL that cannot be read, TypeError for parameters of another broker.
    """
    if params is None:
        return _from_environment(scheme)
    if isinstance(params, Sequence) and not isinstance(params, str):
        return together([resolve(each, scheme) for each in params])
    if isinstance(params, str):
        found, is_url, _ = params.partition("://")
        # Not repeated here: there may be a password in it, and before it.
        if not is_url or set(found) & set(":@/?#%"):
            raise ValueError(
                "that is no URL, which begins with a scheme, as redis://host or mqtt://host does"
            )
        params = module_for(found.lower()).ConnectionParameters.from_url(params)
    if not isinstance(params, BaseParameters):
        found = type(params).__name__  # a dict of them has a password
        raise TypeError(f"connection parameters or a URL were expected, not {found}")
    if scheme and scheme not in params.schemes:
        raise TypeError(
            f"these are parameters for {params.schemes[0]}://, but the endpoint is for "
            f"{scheme}://; take it from commlib.transports.{params.schemes[0]}"
        )
    return params


def _from_environment(scheme: str) -> BaseParameters:
    url = os.environ.get("COMMLIB_URL", "")
    module = module_for(scheme or DEFAULT_SCHEME)
    found = url.partition("://")[0].lower()
    if url and (not scheme or found in module.ConnectionParameters.schemes):
        try:
            return resolve(url, scheme)
        except ValueError as exc:
            raise ValueError(f"COMMLIB_URL: {exc}") from exc
    params: BaseParameters = module.ConnectionParameters()
    return params
