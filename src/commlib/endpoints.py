"""The kinds of endpoints and transports by name, as the programs of commlib-py 0.6 ask for them."""

from __future__ import annotations

from enum import IntEnum
from importlib import import_module
from typing import Any


class EndpointType(IntEnum):
    """A kind of endpoint; the name is that of its class."""

    RPCService = 1
    RPCClient = 2
    Publisher = 3
    Subscriber = 4
    ActionService = 5
    ActionClient = 6
    MPublisher = 7
    PSubscriber = 8
    EventEmitter = 9
    RPCServer = 10


class TransportType(IntEnum):
    """A kind of broker; the name is that of its module in ``commlib.transports``."""

    AMQP = 1
    REDIS = 2
    MQTT = 3
    KAFKA = 4  # there is no transport for it in this version; programs of commlib-py name it
    MEMORY = 5


def transport_type_of(value: Any) -> TransportType:
    """The kind of broker, which may be told by its number. Raises ValueError for what is none."""
    try:
        return TransportType(value)
    except ValueError:
        raise ValueError(_none_of(value, TransportType)) from None


def _none_of(value: object, kind: type[IntEnum]) -> str:
    return f"{value!r} is none of {', '.join(f'{kind.__name__}.{each.name}' for each in kind)}"


def endpoint_factory(etype: EndpointType, etransport: TransportType) -> Any:
    """The class of this kind of endpoint, bound to this transport.

    Raises ValueError for what is none of the two enums, or not there in this version.
    """
    for value, kind in ((etype, EndpointType), (etransport, TransportType)):
        if not isinstance(value, kind):
            raise ValueError(_none_of(value, kind))
    try:
        module = import_module(f"commlib.transports.{etransport.name.lower()}")
    except ModuleNotFoundError as exc:
        text = f"this version has no transport for {etransport.name}"
        raise ValueError(f"{text}; did you mean TransportType.REDIS?") from exc
    try:
        return getattr(module, etype.name)
    except AttributeError as exc:
        raise ValueError(f"this version has no {etype.name} for {etransport.name}") from exc
