"""Bridges between brokers, from plain Python; ``commlib.aio.bridges`` has the same for asyncio."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import Any, TypeVar, Unpack

from commlib import _face
from commlib._bridge_stats import BridgeStats
from commlib._portal import enter
from commlib._routes import Pairs
from commlib._store import Keep
from commlib.aio import bridges
from commlib.aio._action_bridge import ActionOptions
from commlib.aio._bridge import BridgeType
from commlib.aio._endpoint import Params
from commlib.aio._rpc_bridge import RPCOptions
from commlib.aio._topic_bridge import TopicOptions

__all__ = [
    "ActionBridge",
    "Bridge",
    "Keep",
    "PTopicBridge",
    "RPCBridge",
    "RPCBridgeType",
    "TopicBridge",
    "TopicBridgeType",
]

F = TypeVar("F", bound=Callable[..., None])


class RPCBridgeType(IntEnum):
    """From which kind of broker to which; None will do, for the connection parameters tell."""

    REDIS_TO_AMQP = 1
    AMQP_TO_REDIS = 2
    AMQP_TO_AMQP = 3
    REDIS_TO_REDIS = 4
    MQTT_TO_REDIS = 5
    MQTT_TO_AMQP = 6
    MQTT_TO_MQTT = 7
    REDIS_TO_MQTT = 8
    AMQP_TO_MQTT = 9


class TopicBridgeType(IntEnum):
    """From which kind of broker to which; None will do, for the connection parameters tell."""

    REDIS_TO_AMQP = 1
    AMQP_TO_REDIS = 2
    AMQP_TO_AMQP = 3
    REDIS_TO_REDIS = 4
    MQTT_TO_REDIS = 5
    MQTT_TO_AMQP = 6
    MQTT_TO_MQTT = 7
    REDIS_TO_MQTT = 8
    AMQP_TO_MQTT = 9


def _type_may_be_missing(init: F) -> F:
    """Take ``from_uri`` first as well: commlib-py 0.13 has no bridge types."""

    @wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        if args and isinstance(args[0], str):
            args = (None, *args)
        init(self, *args, **kwargs)

    return wrapped  # type: ignore[return-value]


class Bridge(_face.Endpoint[bridges.Bridge]):
    """A port between two brokers; every method may be called from any thread."""

    @property
    def stats(self) -> BridgeStats:
        """The counters, as they are now."""
        return self._core.stats

    def run(self, wait: bool = True) -> None:
        """Begin to work; idempotent.

        With ``wait`` it returns when both brokers have confirmed, or after the ``connect_timeout``
        of one that has not with a warning, and goes on trying. Raises AuthError when one says no,
        ConnectError with ``reconnect=False``, and BlockingCall on the event loop.
        """
        enter(self._core.sink)
        super().run(wait)

    def stop(self) -> None:
        """Take nothing more, send what waits if the sink is there, leave; idempotent.

        What could not be sent is counted as dropped. Raises BlockingCall on the event loop.
        """
        self._note_stop()
        for hub in (self._core.hub, self._core.sink):
            _face.stop(hub, self._core.stop)


class TopicBridge(Bridge):
    """What is published on a topic of one broker is published on a topic of the other.

    ``msg_type=None`` passes anything on. Options: ``commlib.aio.options.TopicOptions``.
    Raises ValueError for a topic that is bridged to itself.
    """

    @_type_may_be_missing
    def __init__(
        self,
        btype: BridgeType = None,
        from_uri: str = "",
        to_uri: str = "",
        from_broker_params: Params = None,
        to_broker_params: Params = None,
        msg_type: Any = None,
        **options: Unpack[TopicOptions],
    ) -> None:
        super().__init__(
            bridges.TopicBridge(
                *(btype, from_uri, to_uri, from_broker_params, to_broker_params, msg_type),
                **options,
            )
        )


class PTopicBridge(Bridge):
    """What is published on the topics of a pattern is published on the other broker.

    The topic there is ``<to_namespace>.<topic>``; then each pair ``(from, to)`` of
    ``uri_transform`` is replaced, in order. Otherwise as ``commlib.aio.bridges.PTopicBridge``.
    Raises ValueError for a ``from_uri`` without ``*``, and where it would feed itself.
    """

    @_type_may_be_missing
    def __init__(
        self,
        btype: BridgeType = None,
        from_uri: str = "",
        to_namespace: str = "",
        from_broker_params: Params = None,
        to_broker_params: Params = None,
        msg_type: Any = None,
        uri_transform: Pairs = (),
        **options: Unpack[TopicOptions],
    ) -> None:
        super().__init__(
            bridges.PTopicBridge(
                *(btype, from_uri, to_namespace, from_broker_params, to_broker_params),
                *(msg_type, uri_transform),
                **options,
            )
        )


class RPCBridge(Bridge):
    """Serves ``from_uri`` on one broker by calling ``to_uri`` on the other.

    Callers get the response or the error of the service, or their own ``RPCTimeout``, as if there
    were no bridge. ``msg_type=None`` passes anything on. Options:
    ``commlib.aio.options.RPCOptions``. Raises ValueError for a service that is bridged to itself.
    """

    @_type_may_be_missing
    def __init__(
        self,
        btype: BridgeType = None,
        from_uri: str = "",
        to_uri: str = "",
        from_broker_params: Params = None,
        to_broker_params: Params = None,
        msg_type: Any = None,
        **options: Unpack[RPCOptions],
    ) -> None:
        super().__init__(
            bridges.RPCBridge(
                *(btype, from_uri, to_uri, from_broker_params, to_broker_params, msg_type),
                **options,
            )
        )


class ActionBridge(Bridge):
    """Clients of the action ``from_uri`` on one broker pursue goals of ``to_uri`` on the other.

    Options: ``commlib.aio.options.ActionOptions``. Raises ValueError for an action that is bridged
    to itself.
    """

    @_type_may_be_missing
    def __init__(
        self,
        btype: BridgeType = None,
        from_uri: str = "",
        to_uri: str = "",
        from_broker_params: Params = None,
        to_broker_params: Params = None,
        **options: Unpack[ActionOptions],
    ) -> None:
        super().__init__(
            bridges.ActionBridge(
                *(btype, from_uri, to_uri, from_broker_params, to_broker_params), **options
            )
        )


KINDS: dict[str, type[Bridge]] = {
    "topic": TopicBridge,
    "pattern": PTopicBridge,
    "rpc": RPCBridge,
    "action": ActionBridge,
}
