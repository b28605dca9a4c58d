"""A node, from plain Python; ``commlib.aio`` has the same for asyncio."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from commlib import aio
from commlib._face import Endpoint, Runnable, begin, run_behind, stop
from commlib._params import BaseParameters
from commlib._portal import enter
from commlib._stats import Stats
from commlib._turns import turn_of_callback
from commlib._typing import FeedbackT, GoalT, OnMessage, Req, Resp, ResultT, T
from commlib.aio._control import NodeStartMessage, NodeStopMessage
from commlib.aio._endpoint import Params
from commlib.aio._hub import shared_hub
from commlib.aio._ports import Decorators
from commlib.aio.node import NodeOptions, NodeState, check_options
from commlib.aio.pubsub import PublisherOptions, SubscriberOptions
from commlib.aio.rpc import ClientOptions, RPCClientOptions, RPCTypes, ServiceMap, ServiceOptions
from commlib.events import EventEmitter
from commlib.exceptions import CommlibError
from commlib.msg import ActionMessage, RPCMessage
from commlib.pubsub import (
    MPublisher,
    PSubscriber,
    Publisher,
    Subscriber,
    WPublisher,
    WSubscriber,
)
from commlib.rpc import RPCClient, RPCServer, RPCService
from commlib.transports import first_given, loaded_when_needed, resolve

if TYPE_CHECKING:
    from commlib.action import ActionClient, ActionService
    from commlib.aio.action import ActionServiceOptions, ActionTypes
    from commlib.bridges import Bridge
    from commlib.endpoints import TransportType
else:
    __getattr__ = loaded_when_needed("commlib.endpoints", "TransportType")

__all__ = ["Node", "NodeStartMessage", "NodeState", "NodeStopMessage", "TransportType"]

P = TypeVar("P", bound=Endpoint[Any])


class Node(Runnable, Decorators):
    """A component whose ports share one connection to a broker; made to be subclassed, too.

    ``connection_params`` (or ``transport_connection_params``): parameters or a URL; they know
    their transport, and win over ``transport_type``. None of them: ``COMMLIB_URL`` of the
    environment, else Redis on localhost:6379. With ``share_connection`` all nodes of the process
    that ask for it, with equal parameters, have one connection together.

    The ``namespace``, under which its own topics and services are, is the name with ``_`` for
    ``-``, or ``thing.<device_id>.<name>``. While it runs it publishes signs of life, as a
    ``HeartbeatMessage``. With ``remote_logger`` what its ``log`` lets through is published too, on
    ``<namespace>.logs`` or ``remote_logger_uri``; see ``commlib.logger.RemoteLogger``.

    Endpoints that are made while it runs start at once; publishers and clients can be used as
    soon as they are made. Options: ``commlib.aio.node.NodeOptions``.

    ``create_*`` raises ValueError for what is no name, or an option that this broker does not have,
    TypeError for what is no such callback, or an unknown option, and, while the node runs,
    AuthError where the user has no right. In a callback on the event loop, and of services and
    actions on Redis, that is logged.
    """

    def __init__(
        self,
        node_name: str = "",
        transport_type: TransportType | Params = None,
        connection_params: Params = None,
        remote_logger: bool = False,
        remote_logger_uri: str = "",
        debug: bool = False,
        device_id: str | None = None,
        *,
        transport_connection_params: Params = None,
        share_connection: bool = False,
        **options: Unpack[NodeOptions],
    ) -> None:
        super().__init__()
        check_options(Node, options, NodeOptions.__optional_keys__)
        params = first_given(connection_params, transport_connection_params)
        if isinstance(transport_type, BaseParameters | Sequence):  # commlib-py 0.13 has them second
            params, transport_type = transport_type, None
        if transport_type is not None:
            from commlib.endpoints import transport_type_of

            transport_type = transport_type_of(transport_type)
        if params is None and transport_type is not None:
            params = resolve(None, transport_type.name.lower())
        params = resolve(params)
        self._core = aio.Node(
            node_name,
            params,
            hub=shared_hub(params, None) if share_connection else None,
            remote_logger=remote_logger,
            remote_logger_uri=remote_logger_uri,
            debug=debug,
            device_id=device_id,
            **options,
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
    def namespace(self) -> str:
        """What the names of its own topics and services begin with."""
        return self._core.namespace

    @property
    def debug(self) -> bool:
        return self._core.debug

    @property
    def endpoints(self) -> list[Endpoint[Any]]:
        """The endpoints made so far, without those that were stopped one by one."""
        return [core.face for core in self._core.present]

    @property
    def input_ports(self) -> dict[str, list[Any]]:
        """The endpoints that take something, by kind: subscriber, rpc_service, action_service."""
        return self._core.input_ports

    @property
    def output_ports(self) -> dict[str, list[Any]]:
        """The others, by kind: publisher, rpc_client, action_client, event_emitter."""
        return self._core.output_ports

    @property
    def ports(self) -> dict[str, dict[str, list[Any]]]:
        """All endpoints but bridges by direction, ``input`` or ``output``, and kind.

        A bridge of ``create_bridge`` is among the ``endpoints`` alone.
        """
        return self._core.ports

    @property
    def state(self) -> NodeState:
        """Where the node is in its life."""
        return self._core.state

    @property
    def connected(self) -> bool:
        """Whether the connection to the broker is there now."""
        return self._core.connected

    def wait_connected(self, timeout: float = 30) -> bool:
        """Whether the connection to the broker is there, or comes within ``timeout`` seconds.

        Raises AuthError when the broker says no, ConnectError where nothing is tried again,
        EndpointClosed after ``stop()``, and BlockingCall on the event loop.
        """
        return enter(self._core.hub).run(self._core.wait_connected, timeout)

    @property
    def health(self) -> bool:
        """Whether it runs, is connected, and the broker has confirmed every endpoint."""
        return self._core.health

    @property
    def stats(self) -> Stats:
        """The counters of its signs of life, control services and remote log together, as now.

        Those of the connection are among them; ports have counters of their own.
        """
        return self._core.stats

    @property
    def log(self) -> logging.Logger:
        """The node's own logger, ``commlib.node.<name>``."""
        return self._core.log

    def run(self, wait: bool = True) -> None:
        """Start all endpoints; idempotent.

        With ``wait`` it returns when the broker has confirmed, or after ``connect_timeout`` with
        a warning, and goes on trying. Raises AuthError when the broker says no, ConnectError with
        ``reconnect=False``, and BlockingCall on the event loop.
        """
        core = self._core
        enter(core.hub).run(run_behind, turn_of_callback(), core, core.run, wait)

    def stop(self) -> None:
        """Stop all endpoints, send what waits (up to a second), leave; idempotent.

        No callback is called after it. Raises BlockingCall on the event loop.
        """
        self._note_stop()
        stop(self._core.hub, self._core.stop)

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        if not self._core.alive:  # else it was run since
            self._core.state = NodeState.EXITED

    def create_start_service(self, uri: str = "") -> None:
        """A service that starts the ports again which the other one has stopped.

        ``uri`` is its name, by default ``<namespace>.start``; the call is a ``NodeStartMessage``.
        """
        self._begin_own(self._core.new_start_service(uri))

    def create_stop_service(self, uri: str = "") -> None:
        """A service that stops the ports of this node, as ``stop()`` of each of them does.

        They leave the broker, and the state is STOPPED. The signs of life, the control services
        and ``run_forever()`` go on, so that the node can be started again. ``uri`` is the name, by
        default ``<namespace>.stop``; the call is a ``NodeStopMessage``.
        """
        self._begin_own(self._core.new_stop_service(uri))

    def _begin_own(self, part: aio.Endpoint) -> None:
        if self._core.alive:
            begin(part)

    def _adopt(self, endpoint: P) -> P:
        self._core.add(endpoint.core)
        if self._core.running:
            try:
                begin(endpoint.core)
            except CommlibError:  # the broker says no: nobody gets it, so nobody would stop it
                stop(self._core.hub, endpoint.core.stop)
                self._core.endpoints.remove(endpoint.core)
                raise
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

    @overload
    def create_subscriber(
        self,
        topic: str,
        on_message: OnMessage[T],
        msg_type: type[T],
        **options: Unpack[SubscriberOptions],
    ) -> Subscriber[T]: ...

    @overload
    def create_subscriber(
        self,
        topic: str,
        on_message: Callable[..., Any],
        msg_type: None = None,
        **options: Unpack[SubscriberOptions],
    ) -> Subscriber[Any]: ...

    def create_subscriber(
        self,
        topic: str,
        on_message: Callable[..., Any],
        msg_type: Any = None,
        **options: Unpack[SubscriberOptions],
    ) -> Subscriber[Any]:
        """A ``Subscriber`` on this node's connection."""
        options = self._core.complete(options)
        return self._adopt(Subscriber(topic, on_message, msg_type, **options))

    @overload
    def create_psubscriber(
        self,
        topic: str,
        on_message: OnMessage[T],
        msg_type: type[T],
        **options: Unpack[SubscriberOptions],
    ) -> PSubscriber[T]: ...

    @overload
    def create_psubscriber(
        self,
        topic: str,
        on_message: Callable[..., Any],
        msg_type: None = None,
        **options: Unpack[SubscriberOptions],
    ) -> PSubscriber[Any]: ...

    def create_psubscriber(
        self,
        topic: str,
        on_message: Callable[..., Any],
        msg_type: Any = None,
        **options: Unpack[SubscriberOptions],
    ) -> PSubscriber[Any]:
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
        self,
        rpc_name: str,
        msg_type: type[RPCTypes[Req, Resp]],
        **options: Unpack[RPCClientOptions],
    ) -> RPCClient[Req, Resp]: ...

    @overload
    def create_rpc_client(
        self,
        rpc_name: str,
        msg_type: type[RPCMessage] | None = None,
        **options: Unpack[RPCClientOptions],
    ) -> RPCClient[Any, Any]: ...

    def create_rpc_client(
        self, rpc_name: str, msg_type: Any = None, **options: Unpack[RPCClientOptions]
    ) -> RPCClient[Any, Any]:
        """An ``RPCClient`` on this node's connection."""
        options = self._core.complete(options)
        return self._adopt(RPCClient(rpc_name, msg_type, **options))

    def create_event_emitter(
        self, name: str = "", **options: Unpack[PublisherOptions]
    ) -> EventEmitter:
        """An ``EventEmitter`` on this node's connection."""
        options = self._core.complete(options, "envelope")
        return self._adopt(EventEmitter(name, **options))

    def create_action(
        self,
        action_uri: str = "",
        msg_type: Any = None,
        on_goal: Callable[[Any], Any] | None = None,
        on_cancel: Callable[[Any], Any] | None = None,
        on_getresult: Callable[[Any], Any] | None = None,
        *,
        action_name: str = "",
        **options: Unpack[ActionServiceOptions],
    ) -> ActionService:
        """An ``ActionService`` on this node's connection."""
        from commlib.action import ActionService

        options = self._core.complete(options, "envelope")
        return self._adopt(
            ActionService(
                *(action_uri or action_name, msg_type, on_goal, on_cancel, on_getresult),
                **options,
            )
        )

    @overload
    def create_action_client(
        self,
        action_uri: str,
        msg_type: type[ActionTypes[GoalT, ResultT, FeedbackT]],
        on_feedback: Callable[[Any], Any] | None = None,
        on_result: Callable[[Any], Any] | None = None,
        on_goal_reached: Callable[[Any], Any] | None = None,
        **options: Unpack[ClientOptions],
    ) -> ActionClient[GoalT, ResultT, FeedbackT]: ...

    @overload
    def create_action_client(
        self,
        action_uri: str = "",
        msg_type: type[ActionMessage] | None = None,
        on_feedback: Callable[[Any], Any] | None = None,
        on_result: Callable[[Any], Any] | None = None,
        on_goal_reached: Callable[[Any], Any] | None = None,
        *,
        action_name: str = "",
        **options: Unpack[ClientOptions],
    ) -> ActionClient[Any, Any, Any]: ...

    def create_action_client(
        self,
        action_uri: str = "",
        msg_type: Any = None,
        on_feedback: Callable[[Any], Any] | None = None,
        on_result: Callable[[Any], Any] | None = None,
        on_goal_reached: Callable[[Any], Any] | None = None,
        *,
        action_name: str = "",
        **options: Unpack[ClientOptions],
    ) -> ActionClient[Any, Any, Any]:
        """An ``ActionClient`` on this node's connection."""
        from commlib.action import ActionClient

        options = self._core.complete(options)
        return self._adopt(
            ActionClient(
                *(action_uri or action_name, msg_type, on_feedback, on_result, on_goal_reached),
                **options,
            )
        )

    def create_bridge(
        self,
        kind: str,
        from_uri: str,
        to_uri: str,
        to_broker_params: Params = None,
        *,
        from_broker_params: Params = None,
        **options: Any,
    ) -> Bridge:
        """A bridge between this node's broker and another one.

        ``kind`` is ``topic``, ``pattern`` (there ``to_uri`` is the namespace), ``rpc`` or
        ``action``. With ``to_broker_params`` this node's broker is the source, with
        ``from_broker_params`` the sink. Options: those of the class in ``commlib.bridges``.

        On a running node it does not wait for the other broker; what comes from this one meanwhile
        is kept. ``run()`` of the bridge waits for both.

        Raises ValueError for another kind, for the parameters of both sides or of none, and where
        it would feed itself.
        """
        from commlib.aio._bridge import at_node
        from commlib.aio.bridges import of_kind
        from commlib.bridges import KINDS

        kind_of_bridge: Any = of_kind(kind, KINDS)
        options.update(at_node(self._core.hub, from_broker_params, to_broker_params))
        names = from_uri, to_uri
        bridge: Bridge = kind_of_bridge(
            None, *names, from_broker_params, to_broker_params, **options
        )
        return self._adopt(bridge)
