"""A node: a named component with ports, on one connection to one broker."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from enum import IntEnum
from os import urandom
from typing import Any, Self, TypeVar, Unpack, overload

from commlib._params import BaseParameters
from commlib._topics import check_pattern, check_topic
from commlib._typing import Req, Resp, T
from commlib.aio._endpoint import Endpoint, FormOptions, Options, Params
from commlib.aio._hub import Hub, shared_hub
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
    RPCClient,
    RPCServer,
    RPCService,
    RPCTypes,
    ServiceMap,
    ServiceOptions,
)
from commlib.msg import RPCMessage
from commlib.transports import resolve
from commlib.transports.base import StateHandler

C = TypeVar("C", bound=Callable[..., Any])
E = TypeVar("E", bound=Endpoint)


class NodeState(IntEnum):
    """Where a node is in its life."""

    IDLE = 1
    RUNNING = 2
    EXITED = 3
    STOPPED = 4


class Decorators:
    """Functions as ports, for both kinds of node."""

    create_psubscriber: Callable[..., Any]
    create_rpc: Callable[..., Any]

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


class Node(Decorators):
    """A component whose ports share one connection to a broker.

    ``connection_params``: parameters or a URL; None: ``COMMLIB_URL`` of the environment, else
    Redis on localhost:6379. With ``share_connection`` all nodes on this loop that ask for it, with
    equal parameters, have one connection together. ``on_state(connected, reason)`` is called on
    the loop when the connection comes and goes.

    ``envelope``, ``serializer`` and ``compression`` hold for all endpoints that do not say
    otherwise, ``workers_rpc`` for all services. Endpoints that are made while it runs start at
    once.
    """

    def __init__(
        self,
        node_name: str = "",
        connection_params: Params = None,
        *,
        hub: Hub | None = None,
        share_connection: bool = False,
        envelope: bool = True,
        workers_rpc: int | None = None,
        debug: bool = False,
        on_state: StateHandler | None = None,
        **form: Unpack[FormOptions],
    ) -> None:
        self.node_name = node_name or f"node_{urandom(4).hex()}"
        self.debug = debug
        self.state = NodeState.IDLE
        self.endpoints: list[Endpoint] = []
        self.hub = hub or self._make_hub(resolve(connection_params), share_connection)
        self.hub.users.add(self)
        self._on_state = on_state
        self._listen()
        self._defaults = {**form, "envelope": envelope, "workers": workers_rpc}
        self.log = logging.getLogger(f"commlib.node.{self.node_name}")
        if debug:
            self.log.setLevel(logging.DEBUG)
        self._stopping: asyncio.Event | None = None

    def _make_hub(self, params: BaseParameters, share: bool) -> Hub:
        if share:
            return shared_hub(params, asyncio.get_running_loop())
        return Hub(params, self.node_name)

    def _listen(self) -> None:
        if self._on_state is not None and self._on_state not in self.hub.listeners:
            self.hub.listeners.append(self._on_state)

    def complete(self, options: Any, *names: str) -> Any:
        """The options of an endpoint of this node, with its connection and what holds for all.

        ``names`` are those of the node's options that this kind of endpoint has beside the others.
        """
        options["hub"] = self.hub
        for name in ("serializer", "compression", *names):
            if name in self._defaults:
                options.setdefault(name, self._defaults[name])
        return options

    @property
    def connected(self) -> bool:
        """Whether the connection to the broker is there now."""
        return self.hub.transport.connected

    @property
    def health(self) -> bool:
        """Whether it runs, is connected, and the broker has confirmed every endpoint."""
        return (
            self.state is NodeState.RUNNING
            and self.connected
            and all(endpoint.ready for endpoint in self.endpoints if not endpoint.stopped)
        )

    def add(self, endpoint: E) -> E:
        """Take an endpoint that was made with this node's hub."""
        if self.state is NodeState.RUNNING:
            # Those that were stopped one by one are done with.
            self.endpoints = [known for known in self.endpoints if not known.stopped]
        self.endpoints.append(endpoint)
        return endpoint

    def _adopt(self, endpoint: E) -> E:
        self.add(endpoint)
        if self.state is NodeState.RUNNING:
            self.hub.tell_errors(self.hub.spawn(endpoint.run()))
        return endpoint

    async def run(self, wait: bool = True) -> None:
        """Start all endpoints; idempotent.

        With ``wait`` it returns when the broker has confirmed, or after ``connect_timeout`` with
        a warning, and goes on trying. Raises AuthError when the broker says no.
        """
        await self.hub.reopen()
        self.hub.users.add(self)
        self._listen()
        self.hub.start()
        self.state = NodeState.RUNNING
        runs = [endpoint.run(wait) for endpoint in self.endpoints]
        if wait:
            runs.append(
                self.hub.settle(self.node_name, self.hub.spawn(self.hub.transport.connect()))
            )
        try:
            await asyncio.gather(*runs)
        except Exception:
            self.state = NodeState.IDLE
            raise

    async def run_forever(self) -> None:
        """Run until SIGINT, SIGTERM, ``stop()`` or cancellation, then stop."""
        loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        # Only the main thread hears signals.
        is_main = threading.current_thread() is threading.main_thread()
        signals = (signal.SIGINT, signal.SIGTERM) if is_main else ()
        for number in signals:
            loop.add_signal_handler(number, self._stopping.set)
        stopping = loop.create_task(self._stopping.wait())
        running = loop.create_task(self.run())
        try:
            # A signal while it still looks for its broker ends that search.
            await asyncio.wait([stopping, running], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            await stopping
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
            for task in (running, stopping):
                task.cancel()
            await self.stop()

    async def stop(self) -> None:
        """Stop all endpoints, send what waits (up to a second), leave; idempotent.

        No callback is called after it.
        """
        if self._stopping is not None:
            self._stopping.set()
        await asyncio.gather(*(endpoint.stop() for endpoint in self.endpoints))
        self.hub.users.discard(self)
        if not self.hub.users:
            await self.hub.close()
        elif self._on_state is not None and self._on_state in self.hub.listeners:
            self.hub.listeners.remove(self._on_state)  # the others go on with the connection
        if self.state is NodeState.RUNNING:
            self.state = NodeState.STOPPED

    async def __aenter__(self) -> Self:
        try:
            await self.run()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()
        self.state = NodeState.EXITED

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

    def create_subscriber(
        self,
        topic: str,
        on_message: Callable[..., Any] | None = None,
        msg_type: type[T] | None = None,
        **options: Unpack[SubscriberOptions],
    ) -> Subscriber[T]:
        """A ``Subscriber`` on this node's connection."""
        return self._adopt(Subscriber(topic, on_message, msg_type, **self.complete(options)))

    def create_psubscriber(
        self,
        topic: str,
        on_message: Callable[..., Any] | None = None,
        msg_type: type[T] | None = None,
        **options: Unpack[SubscriberOptions],
    ) -> PSubscriber[T]:
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
        return self._adopt(RPCClient(rpc_name, msg_type, **self.complete(options)))
