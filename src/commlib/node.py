"""A node, from plain Python; ``commlib.aio`` has the same for asyncio."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar, Unpack, overload

from commlib import aio
from commlib._face import Endpoint, Runnable, begin, stop
from commlib._params import BaseParameters
from commlib._portal import enter
from commlib._typing import Req, Resp, T
from commlib.aio._endpoint import FormOptions, Options, Params
from commlib.aio._hub import shared_hub
from commlib.aio.node import Decorators, NodeState
from commlib.aio.pubsub import PublisherOptions, SubscriberOptions
from commlib.aio.rpc import RPCTypes, ServiceMap, ServiceOptions
from commlib.endpoints import TransportType
from commlib.msg import RPCMessage
from commlib.pubsub import (
    MPublisher,
    PSubscriber,
    Publisher,
    Subscriber,
    WPublisher,
    WSubscriber,
)
from commlib.rpc import RPCClient, RPCServer, RPCService
from commlib.transports import resolve
from commlib.transports.base import StateHandler

__all__ = ["Node", "NodeState", "TransportType"]

C = TypeVar("C", bound=Callable[..., Any])
P = TypeVar("P", bound=Endpoint[Any])

log = logging.getLogger("commlib")


class Node(Runnable, Decorators):
    """A component whose ports share one connection to a broker.

    ``connection_params`` (or ``transport_connection_params``): parameters or a URL; they know
    their transport, and win over ``transport_type``. None of them: ``COMMLIB_URL`` of the
    environment, else Redis on localhost:6379. With ``share_connection`` all nodes of the process
    that ask for it, with equal parameters, have one connection together.
    ``on_state(connected, reason)`` is called on the event loop when the connection comes and goes;
    it must not block.

    ``envelope``, ``serializer`` and ``compression`` hold for all endpoints that do not say
    otherwise, ``workers_rpc`` for all services.

    Endpoints that are made while it runs start at once; publishers and clients can be used as
    soon as they are made.
    """

    def __init__(
        self,
        node_name: str = "",
        transport_type: TransportType | Params = None,
        connection_params: Params = None,
        *,
        transport_connection_params: Params = None,
        share_connection: bool = False,
        envelope: bool = True,
        workers_rpc: int | None = None,
        debug: bool = False,
        on_state: StateHandler | None = None,
        **form: Unpack[FormOptions],
    ) -> None:
        super().__init__()
        params = connection_params or transport_connection_params
        if isinstance(transport_type, BaseParameters | str):  # commlib-py 0.13 has them second
            params, transport_type = transport_type, None
        if params is None and transport_type is not None:
            params = resolve(None, transport_type.name.lower())
        params = resolve(params)
        self._core = aio.Node(
            node_name,
            params,
            hub=shared_hub(params, None) if share_connection else None,
            envelope=envelope,
            workers_rpc=workers_rpc,
            debug=debug,
            on_state=on_state,
            **form,
        )
        self._warn_about(transport_type)

    def _warn_about(self, transport_type: TransportType | None) -> None:
        scheme = self._core.hub.params.schemes[0]
        if transport_type is not None and transport_type.name.lower() != scheme:
            self.log.warning(
                "%s: the connection parameters are for %s, so transport_type=%s is not used",
                *(self.node_name, scheme, transport_type.name),
            )

    @property
    def node_name(self) -> str:
        return self._core.node_name

    @property
    def debug(self) -> bool:
        return self._core.debug

    @property
    def endpoints(self) -> list[Endpoint[Any]]:
        """The endpoints made so far, without those that were stopped one by one."""
        return [core.face for core in self._core.endpoints]

    @property
    def state(self) -> NodeState:
        """Where the node is in its life."""
        return self._core.state

    @property
    def connected(self) -> bool:
        """Whether the connection to the broker is there now."""
        return self._core.connected

    @property
    def health(self) -> bool:
        """Whether it runs, is connected, and the broker has confirmed every endpoint."""
        return self._core.health

    @property
    def log(self) -> logging.Logger:
        """The node's own logger, ``commlib.node.<name>``."""
        return self._core.log

    def run(self, wait: bool = True) -> None:
        """Start all endpoints; idempotent.

        With ``wait`` it returns when the broker has confirmed, or after ``connect_timeout`` with
        a warning, and goes on trying. Raises AuthError when the broker says no.
        """
        enter(self._core.hub).run(self._core.run, wait)

    def stop(self) -> None:
        """Stop all endpoints, send what waits (up to a second), leave; idempotent.

        No callback is called after it.
        """
        self._stopped.set()
        stop(self._core.hub, self._core.stop)

    def __exit__(self, *exc_info: object) -> None:
        self._stopped.set()
        stop(self._core.hub, self._core.__aexit__, *exc_info)

    def _adopt(self, endpoint: P) -> P:
        self._core.add(endpoint.core)
        if self.state is NodeState.RUNNING:
            begin(endpoint.core)
        return endpoint

    def create_publisher(
        self, topic: str, msg_type: type[T] | None = None, **options: Unpack[PublisherOptions]
    ) -> Publisher[T]:
        """A ``Publisher`` on this node's connection."""
        options = self._core.complete(options, "envelope")
        return self._adopt(Publisher(topic, msg_type, **options))

    def create_mpublisher(
        self, msg_type: type[T] | None = None, **options: Unpack[PublisherOptions]
    ) -> MPublisher[T]:
        """An ``MPublisher`` on this node's connection."""
        options = self._core.complete(options, "envelope")
        return self._adopt(MPublisher(msg_type, **options))

    def create_subscriber(
        self,
        topic: str,
        on_message: Callable[..., Any],
        msg_type: type[T] | None = None,
        **options: Unpack[SubscriberOptions],
    ) -> Subscriber[T]:
        """A ``Subscriber`` on this node's connection."""
        options = self._core.complete(options)
        return self._adopt(Subscriber(topic, on_message, msg_type, **options))

    def create_psubscriber(
        self,
        topic: str,
        on_message: Callable[..., Any],
        msg_type: type[T] | None = None,
        **options: Unpack[SubscriberOptions],
    ) -> PSubscriber[T]:
        """A ``PSubscriber`` on this node's connection."""
        options = self._core.complete(options)
        return self._adopt(PSubscriber(topic, on_message, msg_type, **options))

    def create_rpc(
        self,
        rpc_name: str,
        on_request: Callable[[Any], Any],
        msg_type: Any = None,
        **options: Unpack[ServiceOptions],
    ) -> RPCService:
        """An ``RPCService`` on this node's connection."""
        options = self._core.complete(options, "workers")
        return self._adopt(RPCService(rpc_name, on_request, msg_type, **options))

    def create_wpublisher(
        self,
        mpub: MPublisher[Any],
        topic: str,
        msg_type: type[T] | None = None,
        **options: Unpack[PublisherOptions],
    ) -> WPublisher[T]:
        """A ``WPublisher`` on the connection of ``mpub``."""
        options = self._core.complete(options, "envelope")
        return self._adopt(WPublisher(mpub, topic, msg_type, **options))

    def create_wsubscriber(self, **options: Unpack[SubscriberOptions]) -> WSubscriber:
        """A ``WSubscriber`` on this node's connection."""
        return self._adopt(WSubscriber(**self._core.complete(options)))

    def create_rpc_server(
        self,
        base_uri: str = "",
        svc_map: ServiceMap | None = None,
        **options: Unpack[ServiceOptions],
    ) -> RPCServer:
        """An ``RPCServer`` on this node's connection."""
        options = self._core.complete(options, "workers")
        return self._adopt(RPCServer(base_uri, svc_map, **options))

    @overload
    def create_rpc_client(
        self, rpc_name: str, msg_type: RPCTypes[Req, Resp], **options: Unpack[Options]
    ) -> RPCClient[Req, Resp]: ...

    @overload
    def create_rpc_client(
        self,
        rpc_name: str,
        msg_type: type[RPCMessage] | None = None,
        **options: Unpack[Options],
    ) -> RPCClient[Any, Any]: ...

    def create_rpc_client(
        self, rpc_name: str, msg_type: Any = None, **options: Unpack[Options]
    ) -> RPCClient[Any, Any]:
        """An ``RPCClient`` on this node's connection."""
        options = self._core.complete(options)
        return self._adopt(RPCClient(rpc_name, msg_type, **options))
