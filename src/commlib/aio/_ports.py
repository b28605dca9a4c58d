"""The ports of a node: how they are made, and how they are listed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, Unpack, overload

from commlib._topics import check_pattern, check_topic
from commlib._typing import FeedbackT, GoalT, OnMessage, Req, Resp, ResultT, T
from commlib.aio._endpoint import Endpoint, Params, enough_after
from commlib.aio._hub import Hub
from commlib.aio.events import EventEmitter
from commlib.aio.pubsub import (
    MPublisher,
    PSubscriber,
    Publisher,
    PublisherOptions,
    Subscriber,
    SubscriberOptions,
    WPublisher,
    WSubscriber,
)
from commlib.aio.rpc import (
    ClientOptions,
    RPCClient,
    RPCClientOptions,
    RPCServer,
    RPCService,
    RPCTypes,
    ServiceMap,
    ServiceOptions,
)
from commlib.msg import ActionMessage, RPCMessage

if TYPE_CHECKING:
    from commlib.aio._bridge import Bridge
    from commlib.aio.action import (
        ActionClient,
        ActionService,
        ActionServiceOptions,
        ActionTypes,
    )
    from commlib.tracing import Tracing

C = TypeVar("C", bound=Callable[..., Any])
E = TypeVar("E", bound=Endpoint)

INPUT_PORTS = {
    "subscriber": ("Subscriber", "PSubscriber", "WSubscriber"),
    "rpc_service": ("RPCService", "RPCServer"),
    "action_service": ("ActionService",),
}
OUTPUT_PORTS = {
    "publisher": ("Publisher", "MPublisher", "WPublisher"),
    "rpc_client": ("RPCClient",),
    "action_client": ("ActionClient",),
    "event_emitter": ("EventEmitter",),
}
"""The kinds of ports, as released commlib-py calls them, and their classes.

By name: a node without actions does without that module.
"""


class Decorators:
    """Functions as ports, for both kinds of node."""

    create_psubscriber: Callable[..., Any]
    create_rpc: Callable[..., Any]
    create_action: Callable[..., Any]

    def subscribe(
        self, topic: str, msg_type: Any = None, **options: Unpack[SubscriberOptions]
    ) -> Callable[[C], C]:
        """Make a function the callback of a subscriber, with ``(msg)`` or ``(msg, topic)``."""
        check_pattern(topic)  # at once: the parentheses are easily forgotten

        def decorate(on_message: C) -> C:
            self.create_psubscriber(topic, on_message, msg_type, **options)
            return on_message

        return decorate

    def rpc(
        self, rpc_name: str, msg_type: Any = None, **options: Unpack[ServiceOptions]
    ) -> Callable[[C], C]:
        """Make a function the handler of a service."""
        check_topic(rpc_name, "rpc_name")

        def decorate(on_request: C) -> C:
            self.create_rpc(rpc_name, on_request, msg_type, **options)
            return on_request

        return decorate

    def action(
        self, action_uri: str, msg_type: Any = None, **options: Unpack[ActionServiceOptions]
    ) -> Callable[[C], C]:
        """Make a function the ``on_goal`` of an action."""
        check_topic(action_uri, "action_uri")

        def decorate(on_goal: C) -> C:
            self.create_action(action_uri, msg_type, on_goal, **options)
            return on_goal

        return decorate


class Ports(Decorators):
    """Makes endpoints on one connection, and keeps them.

    ``defaults`` are options that hold for all endpoints that do not say otherwise.
    """

    tracing: ClassVar[Tracing | None] = None
    """How nodes are traced that do not say otherwise; ``commlib.tracing.instrument`` sets it."""

    def __init__(self, hub: Hub, defaults: dict[str, Any]) -> None:
        self.hub = hub
        self.endpoints: list[Endpoint] = []
        """Those made so far; of those that were stopped one by one not all are forgotten yet."""
        self._enough = 0  # endpoints, at which it is worth while to forget the stopped ones
        self._defaults = defaults
        self._trace: Callable[[Endpoint], None] | None = None

    @property
    def running(self) -> bool:
        """Whether an endpoint that is made now has to begin at once."""
        raise NotImplementedError

    def complete(self, options: Any, *names: str) -> Any:
        """The options of an endpoint of this node, with its connection and what holds for all.

        ``names`` are those of the node's options that this kind of endpoint has beside the others.
        """
        options["hub"] = self.hub
        for name in ("serializer", "compression", "sign", "verify", "grace", *names):
            if name in self._defaults:
                options.setdefault(name, self._defaults[name])
        return options

    def add(self, endpoint: E) -> E:
        """Take an endpoint that was made with this node's hub."""
        if self._trace is not None:
            self._trace(endpoint)
        if self.running and len(self.endpoints) >= self._enough:
            self._forget_stopped()
        self.endpoints.append(endpoint)
        return endpoint

    def has(self, endpoint: object) -> bool:
        """Whether it is one of these, or a part of one. From any thread."""
        return any(
            endpoint is known or endpoint in getattr(known, "parts", ())
            for known in list(self.endpoints)
        )

    def _forget_stopped(self) -> None:
        """Those that were stopped one by one are done with."""
        self.endpoints = self.present
        self._enough = enough_after(len(self.endpoints))

    @property
    def present(self) -> list[Endpoint]:
        """All endpoints but those that were stopped one by one."""
        return [known for known in self.endpoints if not (self.running and known.stopped)]

    def _adopt(self, endpoint: E) -> E:
        if self.running:
            self.hub.check_here()
        self.add(endpoint)
        if self.running:
            self.hub.tell_errors(self.hub.spawn(_run_new(endpoint)))
        return endpoint

    @property
    def input_ports(self) -> dict[str, list[Any]]:
        """The endpoints that take something, by kind: subscriber, rpc_service, action_service."""
        return self._listed(INPUT_PORTS)

    @property
    def output_ports(self) -> dict[str, list[Any]]:
        """The others, by kind: publisher, rpc_client, action_client, event_emitter."""
        return self._listed(OUTPUT_PORTS)

    @property
    def ports(self) -> dict[str, dict[str, list[Any]]]:
        """All endpoints but bridges by direction, ``input`` or ``output``, and kind.

        A bridge of ``create_bridge`` is among the ``endpoints`` alone.
        """
        return {"input": self.input_ports, "output": self.output_ports}

    def _listed(self, kinds: dict[str, tuple[str, ...]]) -> dict[str, list[Any]]:
        return {
            kind: [known.face for known in self.present if type(known).__name__ in names]
            for kind, names in kinds.items()
        }

    def create_publisher(
        self, topic: str, msg_type: type[T] | None = None, **options: Unpack[PublisherOptions]
    ) -> Publisher[T]:
        """A ``Publisher`` on this node's connection."""
        return self._adopt(Publisher(topic, msg_type, **self.complete(options, "envelope")))

    def create_mpublisher(
        self, msg_type: type[T] | None = None, **options: Unpack[PublisherOptions]
    ) -> MPublisher[T]:
        """An ``MPublisher`` on this node's connection."""
        return self._adopt(MPublisher(msg_type, **self.complete(options, "envelope")))

    @overload
    def create_subscriber(
        self,
        topic: str,
        on_message: OnMessage[T] | None = None,
        *,
        msg_type: type[T],
        **options: Unpack[SubscriberOptions],
    ) -> Subscriber[T]: ...

    @overload
    def create_subscriber(
        self,
        topic: str,
        on_message: OnMessage[T] | None,
        msg_type: type[T],
        **options: Unpack[SubscriberOptions],
    ) -> Subscriber[T]: ...

    @overload
    def create_subscriber(
        self,
        topic: str,
        on_message: Callable[..., Any] | None = None,
        msg_type: None = None,
        **options: Unpack[SubscriberOptions],
    ) -> Subscriber[Any]: ...

    def create_subscriber(
        self,
        topic: str,
        on_message: Callable[..., Any] | None = None,
        msg_type: Any = None,
        **options: Unpack[SubscriberOptions],
    ) -> Subscriber[Any]:
        """A ``Subscriber`` on this node's connection."""
        return self._adopt(Subscriber(topic, on_message, msg_type, **self.complete(options)))

    @overload
    def create_psubscriber(
        self,
        topic: str,
        on_message: OnMessage[T] | None = None,
        *,
        msg_type: type[T],
        **options: Unpack[SubscriberOptions],
    ) -> PSubscriber[T]: ...

    @overload
    def create_psubscriber(
        self,
        topic: str,
        on_message: OnMessage[T] | None,
        msg_type: type[T],
        **options: Unpack[SubscriberOptions],
    ) -> PSubscriber[T]: ...

    @overload
    def create_psubscriber(
        self,
        topic: str,
        on_message: Callable[..., Any] | None = None,
        msg_type: None = None,
        **options: Unpack[SubscriberOptions],
    ) -> PSubscriber[Any]: ...

    def create_psubscriber(
        self,
        topic: str,
        on_message: Callable[..., Any] | None = None,
        msg_type: Any = None,
        **options: Unpack[SubscriberOptions],
    ) -> PSubscriber[Any]:
        """A ``PSubscriber`` on this node's connection."""
        return self._adopt(PSubscriber(topic, on_message, msg_type, **self.complete(options)))

    def create_rpc(
        self,
        rpc_name: str,
        on_request: Callable[[Any], Any],
        msg_type: Any = None,
        **options: Unpack[ServiceOptions],
    ) -> RPCService:
        """An ``RPCService`` on this node's connection."""
        return self._adopt(
            RPCService(rpc_name, on_request, msg_type, **self.complete(options, "workers"))
        )

    def create_wpublisher(
        self,
        mpub: MPublisher[Any],
        topic: str,
        msg_type: type[T] | None = None,
        **options: Unpack[PublisherOptions],
    ) -> WPublisher[T]:
        """A ``WPublisher`` on the connection of ``mpub``."""
        return self._adopt(WPublisher(mpub, topic, msg_type, **self.complete(options, "envelope")))

    def create_wsubscriber(self, **options: Unpack[SubscriberOptions]) -> WSubscriber:
        """A ``WSubscriber`` on this node's connection."""
        return self._adopt(WSubscriber(**self.complete(options)))

    def create_rpc_server(
        self,
        base_uri: str = "",
        svc_map: ServiceMap | None = None,
        **options: Unpack[ServiceOptions],
    ) -> RPCServer:
        """An ``RPCServer`` on this node's connection."""
        return self._adopt(RPCServer(base_uri, svc_map, **self.complete(options, "workers")))

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
        return self._adopt(RPCClient(rpc_name, msg_type, **self.complete(options)))

    def create_event_emitter(
        self, name: str = "", **options: Unpack[PublisherOptions]
    ) -> EventEmitter:
        """An ``EventEmitter`` on this node's connection."""
        return self._adopt(EventEmitter(name, **self.complete(options, "envelope")))

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
        from commlib.aio.action import ActionService

        return self._adopt(
            ActionService(
                *(action_uri or action_name, msg_type, on_goal, on_cancel, on_getresult),
                **self.complete(options, "envelope"),
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
        from commlib.aio.action import ActionClient

        return self._adopt(
            ActionClient(
                *(action_uri or action_name, msg_type, on_feedback, on_result, on_goal_reached),
                **self.complete(options),
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
        ``from_broker_params`` the sink. Options: those of the class in ``commlib.aio.bridges``.

        Raises ValueError for another kind, for the parameters of both sides or of none, and where
        it would feed itself.
        """
        from commlib.aio._bridge import at_node
        from commlib.aio.bridges import KINDS, of_kind

        kind_of_bridge: Any = of_kind(kind, KINDS)
        options.update(at_node(self.hub, from_broker_params, to_broker_params))
        names = from_uri, to_uri
        bridge: Bridge = kind_of_bridge(
            None, *names, from_broker_params, to_broker_params, **options
        )
        return self._adopt(bridge)


async def _run_new(endpoint: Endpoint) -> None:
    """Begin with an endpoint, unless the program has stopped it again meanwhile."""
    if not endpoint.stopped:
        await endpoint.run()
