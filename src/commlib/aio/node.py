"""A node: a named component with ports, on one connection to one broker."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import IntEnum
from os import urandom
from typing import TYPE_CHECKING, Any, Unpack

from commlib._packet import now_ms
from commlib._params import BaseParameters, nearest
from commlib._stats import Stats
from commlib._topics import join
from commlib._turns import Turn, spared, turn_of_callback
from commlib._wire import Writer
from commlib.aio._control import NodeStartMessage, NodeStopMessage
from commlib.aio._endings import ended_by_signals
from commlib.aio._endpoint import (
    GRACE,
    Endpoint,
    FormOptions,
    Params,
    SecurityOptions,
    check_grace,
    check_keys,
    check_state_handler,
    text_of,
)
from commlib.aio._heartbeat import Heartbeat
from commlib.aio._hub import Hub, shared_hub
from commlib.aio._life import InContext
from commlib.aio._names import check_name
from commlib.aio._ports import OUTPUT_PORTS, E, Ports
from commlib.aio._rpc_service import RPCService
from commlib.aio.pubsub import Publisher
from commlib.exceptions import CommlibError, EndpointClosed
from commlib.transports import resolve
from commlib.transports.base import StateHandler, Transport

if TYPE_CHECKING:
    from commlib.aio._beacon import Beacon
    from commlib.logger import RemoteLogger
    from commlib.signing import SigningKey, TrustedKeys
    from commlib.tracing import Tracing

APPEARS_AFTER = 0.3  # s from its start until others are told of a node
APPEARS_AGAIN = 2.0  # s until that is tried again


class NodeState(IntEnum):
    """Where a node is in its life."""

    IDLE = 1
    RUNNING = 2
    EXITED = 3
    STOPPED = 4


class NodeOptions(FormOptions, SecurityOptions, total=False):
    """The options of nodes, beside ``FormOptions`` and ``SecurityOptions``.

    Those hold for all its endpoints, and the latter for its own topics and services as well.

    * ``envelope``: see ``PublisherOptions``; for all that the node publishes.
    * ``workers_rpc``: the ``workers`` of all its services.
    * ``grace`` (s): see ``Options``; for all its endpoints.
    * ``on_state(connected, reason)`` is called on the loop when the connection comes and goes.
    * ``heartbeats``, ``heartbeat_thread``: with either of them False there are no signs of life.
    * ``heartbeat_uri``: their topic; by default ``<namespace>.heartbeat``.
    * ``heartbeat_interval`` (s): the time between two of them; after three without one a node is
      to be taken for dead.
    * ``discovery``: tell others that it is there and what its ports are, and warn where they do not
      go together with those of others; see ``commlib.aio.discovery``.
    * ``tracing``: trace what goes through its endpoints; True, or how. None: as
      ``commlib.tracing.instrument`` says, else not.
    * ``has_start_rpc``, ``has_stop_rpc``, or ``ctrl_services`` for both: see
      ``create_start_service`` and ``create_stop_service``.
    """

    envelope: bool
    workers_rpc: int | None
    grace: float
    on_state: StateHandler | None
    heartbeats: bool
    heartbeat_thread: bool
    heartbeat_uri: str | None
    heartbeat_interval: float
    has_start_rpc: bool
    has_stop_rpc: bool
    ctrl_services: bool
    discovery: bool
    tracing: bool | Tracing | None


def check_options(kind: type, given: Iterable[str], options: Iterable[str]) -> None:
    """Raises TypeError for what is none of ``options``, which a kind of node takes as ``**``."""
    for name in given:
        if name not in options:
            *named, _ = inspect.signature(kind).parameters
            raise TypeError(
                f"Node has no option {name!r}; {nearest(name, [*named, *sorted(options)])}"
            )


class Node(Ports, InContext):
    """A component whose ports share one connection to a broker.

    ``connection_params``: parameters or a URL; None: ``COMMLIB_URL`` of the environment, else
    Redis on localhost:6379. With ``share_connection`` all nodes on this loop that ask for it, with
    equal parameters, have one connection together.

    The ``namespace``, under which its own topics and services are, is the name with ``_`` for
    ``-``, or ``thing.<device_id>.<name>``. While it runs it publishes signs of life, as a
    ``HeartbeatMessage``. With ``remote_logger`` what its ``log`` lets through is published too, on
    ``<namespace>.logs`` or ``remote_logger_uri``; see ``commlib.logger.RemoteLogger``.

    Endpoints that are made while it runs start at once, and live on the event loop where it does.
    Options: ``NodeOptions``.

    ``create_*`` raises ValueError for what is no name, or an option that this broker does not have,
    and TypeError for what is no such callback, or an unknown option. It waits for no broker: what
    that refuses is logged.
    """

    def __init__(
        self,
        node_name: str = "",
        connection_params: Params = None,
        *,
        hub: Hub | None = None,
        share_connection: bool = False,
        remote_logger: bool = False,
        remote_logger_uri: str = "",
        debug: bool = False,
        device_id: str | None = None,
        envelope: bool = True,
        workers_rpc: int | None = None,
        grace: float = GRACE,
        on_state: StateHandler | None = None,
        heartbeats: bool = True,
        heartbeat_thread: bool = True,
        heartbeat_uri: str | None = None,
        heartbeat_interval: float = 10.0,
        has_start_rpc: bool = False,
        has_stop_rpc: bool = False,
        ctrl_services: bool = False,
        discovery: bool = True,
        tracing: bool | Tracing | None = None,
        sign: SigningKey | None = None,
        verify: TrustedKeys | None = None,
        **form: Unpack[FormOptions],
    ) -> None:
        check_options(Node, form, FormOptions.__optional_keys__)
        Writer[Any](None, **form)  # a wrong one is refused here, not with the first endpoint
        check_keys(sign, verify)
        security: SecurityOptions = {"sign": sign, "verify": verify}
        if "://" in (node_name or ""):  # not shown: it may have a password
            raise ValueError("node_name is a name; a URL is given as connection_params=")
        self.node_name = node_name or f"node_{urandom(4).hex()}"
        own_name = self.node_name.replace("-", "_")
        self.namespace = own_name if device_id is None else join("thing", device_id, own_name)
        """What the names of its own topics and services begin with."""
        super().__init__(
            hub or self._make_hub(resolve(connection_params), share_connection, discovery),
            {
                **form,
                **security,
                "envelope": envelope,
                "grace": check_grace(grace),
                "workers": workers_rpc,
            },
        )
        check_name(self.namespace, self.hub, "node_name")
        self._set_tracing(tracing)
        self.debug = debug
        self.state = NodeState.IDLE
        if on_state is not None:
            check_state_handler(on_state, self.node_name)
        self._listeners: list[StateHandler] = [] if on_state is None else [on_state]
        self.log = logging.getLogger(f"commlib.node.{self.node_name}")
        if debug:
            self.log.setLevel(logging.DEBUG)
        self._stopping: asyncio.Event | None = None
        self._runs = self._stops = 0  # how often it was run, and stopped
        self._own: list[Endpoint] = []
        """What is no port, but a part of the node: it goes on while the ports are stopped."""
        self._turning = asyncio.Lock()
        self._leaving: asyncio.Future[None] | None = None
        """Set while it is being stopped; its ports are stopped then, and not done with."""
        self._has_discovery = discovery
        self._beacon: Beacon | None = None
        self._appears_on: Transport | None = None
        """The life of the connection in which others are told of it."""
        self._appearing: asyncio.TimerHandle | None = None
        self._remote_logger: RemoteLogger | None = None
        self._logs: Publisher[Any] | None = None
        if heartbeats and heartbeat_thread:
            self._make_heartbeat(heartbeat_uri, heartbeat_interval)
        self._make_control(has_start_rpc or ctrl_services, has_stop_rpc or ctrl_services)
        if remote_logger:
            self._log_remotely(remote_logger_uri)
        self.hub.users.add(self)  # last: one that was refused must not keep the connection open
        self._listen()

    def _make_hub(self, params: BaseParameters, share: bool, discovery: bool) -> Hub:
        if share:
            return shared_hub(params, asyncio.get_running_loop())
        return Hub(params, self.node_name, has_last_word=discovery)

    def _set_tracing(self, tracing: bool | Tracing | None) -> None:
        if tracing or (tracing is None and Ports.tracing is not None):
            from commlib.tracing import Tracing

            self._trace = Tracing.of(tracing or True).tracer(self.node_name)

    @property
    def _own_form(self) -> dict[str, Any]:
        return {name: self._defaults[name] for name in ("envelope", "sign")}

    def _make_heartbeat(self, topic: str | None, interval: float) -> None:
        topic = topic or join(self.namespace, "heartbeat")
        self._own.append(Heartbeat(topic, interval, self.hub, **self._own_form))

    def _make_control(self, has_start: bool, has_stop: bool) -> None:
        if has_start:
            self.new_start_service()
        if has_stop:
            self.new_stop_service()

    def _log_remotely(self, topic: str) -> None:
        from commlib.logger import RemoteLogger

        topic = topic or join(self.namespace, "logs")
        self._logs = Publisher(topic, hub=self.hub, **self._own_form)
        self._own.append(self._logs)
        handler = self._remote_logger = RemoteLogger(self.namespace, self._logs)
        self._listeners.append(lambda connected, reason: handler.flush())

    def _listen(self) -> None:
        for listener in self._listeners:
            self.hub.listeners.add(listener)

    @property
    def connected(self) -> bool:
        """Whether the connection to the broker is there now."""
        return self.hub.transport.connected

    def add(self, endpoint: E) -> E:
        super().add(endpoint)
        if self._is_stopped_from_afar:
            endpoint.set_aside()
        return endpoint

    async def wait_connected(self, timeout: float = 30) -> bool:
        """Whether the connection to the broker is there, or comes within ``timeout`` seconds.

        Raises AuthError when the broker says no, ConnectError where nothing is tried again, and
        EndpointClosed after ``stop()``.
        """
        is_stopped = self.state is NodeState.STOPPED and not self._is_stopped_from_afar
        if is_stopped or self.state is NodeState.EXITED:
            raise EndpointClosed(f"{self.node_name} was stopped; run() it again")
        return await self.hub.wait_connected(timeout)

    @property
    def health(self) -> bool:
        """Whether it runs, is connected, and the broker has confirmed every endpoint."""
        return (
            self.state is NodeState.RUNNING
            and self.connected
            and all(part.ready for part in (*self._own, *self.endpoints) if not part.stopped)
        )

    @property
    def stats(self) -> Stats:
        """The counters of its signs of life, control services and remote log together, as now.

        Those of the connection are among them; ports have counters of their own.
        """
        total = Stats().with_links(self.hub.link_stats)
        for part in self._own:
            total.add(part.own_stats)
        if self._remote_logger is not None:
            total.dropped += self._remote_logger.dropped
        return total

    @property
    def control_services(self) -> list[RPCService]:
        """The services by which it is started and stopped from afar; they are none of its ports."""
        return [part for part in self._own if isinstance(part, RPCService)]

    @property
    def running(self) -> bool:
        """Whether an endpoint that is made now has to begin at once."""
        return self.state is NodeState.RUNNING

    @property
    def present(self) -> list[Endpoint]:
        return super().present if self._leaving is None else [*self.endpoints]

    async def run(self, wait: bool = True) -> None:
        """Start all endpoints; idempotent.

        With ``wait`` it returns when the broker has confirmed, or after ``connect_timeout`` with
        a warning, and goes on trying. Raises AuthError when the broker says no, and ConnectError
        with ``reconnect=False``.
        """
        self.hub.check_loop()
        if not await self.may_begin(turn_of_callback()):
            return  # stopped meanwhile
        self._leaving = None  # in a forked child, that of its parent
        self.hub.users.add(self)
        self._listen()
        self.hub.start()
        if self._remote_logger is not None:
            self.log.addHandler(self._remote_logger)
        self.state = NodeState.RUNNING
        try:
            runs = self._begin_all((*self._own, *self.endpoints), wait)
            if wait:
                connecting = self.hub.spawn(self.hub.transport.connect())
                runs.append(self.hub.settle(self.node_name, connecting))
            await asyncio.gather(*runs)
        except Exception:
            if self.running and self._leaving is None:
                self.state = NodeState.IDLE
            raise
        if not self.running or self._leaving is not None:
            return  # somebody stops it, or has done so
        if self._has_discovery and self._appears_on is not self.hub.transport:
            # What is there of a former life has ended with it, or with the parent of a fork.
            self._appears_on, self._beacon = self.hub.transport, None
            # Not before its program has begun to work, nor if that is over by then.
            loop = asyncio.get_running_loop()
            self._appearing = loop.call_later(APPEARS_AFTER, self._appear, now_ms())

    async def may_begin(self, turn: Turn | None) -> bool:
        """Return when its former life has ended; False: it was stopped meanwhile."""
        self._runs += 1
        stops = self._stops
        with spared(turn):
            async with self._turning:
                pass  # what somebody has begun from afar is finished first
            await self.hub.reopen()
            while await self._until_left():
                await self.hub.reopen()
        return stops == self._stops

    def _appear(self, started: int, is_again: bool = False) -> None:
        self._appearing = None
        if self._appears_on is not self.hub.transport:
            return  # its connection was closed meanwhile
        try:
            from commlib.aio._beacon import beacon_for
        except (ImportError, OSError) as exc:  # no descriptor is left to read it with
            level = logging.DEBUG if is_again else logging.WARNING
            self.log.log(level, "%s: others are not told of it yet: %s", self.node_name, exc)
            loop = asyncio.get_running_loop()
            self._appearing = loop.call_later(APPEARS_AGAIN, self._appear, started, True)
            return
        self._beacon = beacon_for(self.hub)
        self._beacon.add(self, started)

    def _disappear(self) -> None:
        appearing, self._appearing = self._appearing, None
        beacon, self._beacon = self._beacon, None
        is_here = self._appears_on is self.hub.transport  # not so in a fork
        self._appears_on = None
        if appearing is not None and is_here:
            appearing.cancel()
        if beacon is not None and is_here and beacon.loop is asyncio.get_running_loop():
            beacon.remove(self)

    def _begin_all(self, parts: Sequence[Endpoint], wait: bool) -> list[Awaitable[None]]:
        """Begin with all of them; what is to be awaited.

        One wait for all: one for each costs as much again as to begin.
        """
        others: list[Awaitable[None]] = []
        begun: dict[asyncio.Future[Any], str] = {}
        for part in parts:
            part.stopped = False  # or it would be taken for one that was stopped alone
            if part.hub is self.hub and type(part).run is Endpoint.run:
                begun[part.begin(wait)] = part.name
            else:  # a bridge has another side as well
                others.append(part.run(wait))
        if wait:
            others.append(self.hub.settle_all(begun, quiet=True))
        return others

    async def run_forever(self) -> None:
        """Run until SIGINT, SIGTERM, ``stop()`` or cancellation, then stop.

        Signals are heard when it is called in the main thread. After the last node that runs for
        ever the program's handlers of them are there again, but not those that its loop has had.
        """
        self.hub.check_loop()
        loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        stops = self._stops
        stopping = loop.create_task(self._stopping.wait())
        running = loop.create_task(self.run())
        try:
            with ended_by_signals(self._stopping):
                # A signal while it still looks for its broker ends that search.
                await asyncio.wait([stopping, running], return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    running.result()
                await stopping
        finally:
            for task in (running, stopping):
                task.cancel()
            if stops == self._stops:
                await self.stop()
            else:  # somebody has, and perhaps it was run since: that is the last word
                await asyncio.wait([running])
                await self._until_left()

    async def stop(self) -> None:
        """Stop all endpoints, send what waits (up to a second), leave; idempotent.

        No callback is called after it.
        """
        self.hub.check_here()
        self._stops += 1
        self.hub.leave_loop()
        if self._stopping is not None:
            self._stopping.set()
        with spared(turn_of_callback()):
            await self._stop()

    async def _stop(self) -> None:
        runs = self._runs
        if await self._until_left() and (not self.alive or runs != self._runs):
            return  # who was quicker has done it, and perhaps it was run since
        if self.running:
            self._forget_stopped()  # or the next run would begin with them
        # Who gives up waiting leaves nothing half done.
        leaving = self._leaving = asyncio.get_running_loop().create_task(self._leave())
        leaving.add_done_callback(self._note_left)
        await self.hub.watch(leaving)

    def _note_left(self, leaving: asyncio.Task[None]) -> None:
        if leaving is self._leaving:
            self._leaving = None
            if self.state is NodeState.RUNNING:
                self.state = NodeState.STOPPED

    async def _until_left(self) -> bool:
        """Return when nobody is stopping it any more; whether somebody was."""
        has_waited, loop = False, asyncio.get_running_loop()
        # One of another loop is that of the parent of a fork, or the loop has ended too early.
        while (leaving := self._leaving) is not None and leaving.get_loop() is loop:
            if leaving.done():
                break
            has_waited = True
            await asyncio.wait([leaving])
        return has_waited

    async def _leave(self) -> None:
        self._disappear()
        self._keep_ports()
        # First the control services, so that nobody starts again what is being stopped.
        await asyncio.gather(*(part.stop() for part in self._own if part is not self._logs))
        await self._stop_ports()
        await self._stop_logging()
        self.hub.users.discard(self)
        if not self.hub.users:
            await self.hub.close()
        else:  # the others go on with the connection
            for listener in self._listeners:
                self.hub.listeners.discard(listener)
        self._turning = asyncio.Lock()  # the next life may be on another loop

    async def _stop_logging(self) -> None:
        """Stop the remote log: last, for callbacks that come to their end may have much to tell."""
        if self._remote_logger is None or self._logs is None:
            return
        self.log.removeHandler(self._remote_logger)
        self._remote_logger.flush()
        await self._logs.stop()
        self._remote_logger.drop_kept()

    async def __aexit__(self, *exc_info: object) -> None:
        await super().__aexit__(*exc_info)
        if not self.alive:  # else it was run since
            self.state = NodeState.EXITED

    # From afar.

    def create_start_service(self, uri: str = "") -> RPCService:
        """A service that starts the ports again which the other one has stopped.

        ``uri`` is its name, by default ``<namespace>.start``; the call is a ``NodeStartMessage``.
        """
        return self._begin_own(self.new_start_service, uri)

    def create_stop_service(self, uri: str = "") -> RPCService:
        """A service that stops the ports of this node, as ``stop()`` of each of them does.

        They leave the broker, and the state is STOPPED. The signs of life, the control services
        and ``run_forever()`` go on, so that the node can be started again. ``uri`` is the name, by
        default ``<namespace>.stop``; the call is a ``NodeStopMessage``.
        """
        return self._begin_own(self.new_stop_service, uri)

    def new_start_service(self, uri: str = "") -> RPCService:
        """As ``create_start_service``, yet to be run."""
        name = uri or join(self.namespace, "start")
        return self._new_control(name, self._on_start, NodeStartMessage)

    def new_stop_service(self, uri: str = "") -> RPCService:
        """As ``create_stop_service``, yet to be run."""
        name = uri or join(self.namespace, "stop")
        return self._new_control(name, self._on_stop, NodeStopMessage)

    def _new_control(self, name: str, on_request: Any, msg_type: Any) -> RPCService:
        sign, verify = self._defaults["sign"], self._defaults["verify"]
        service = RPCService(name, on_request, msg_type, hub=self.hub, sign=sign, verify=verify)
        self._own.append(service)
        return service

    @property
    def alive(self) -> bool:
        """Whether it was run and not stopped since, though its ports may be, from afar."""
        return self in self.hub.users

    @property
    def _is_stopped_from_afar(self) -> bool:
        return self.state is NodeState.STOPPED and self.alive

    def _begin_own(self, make: Callable[[str], RPCService], uri: str) -> RPCService:
        if self.alive:
            self.hub.check_here()
        part = make(uri)
        if self.alive:
            self.hub.tell_errors(self.hub.spawn(part.run()))
        return part

    async def _on_start(self, request: NodeStartMessage.Request) -> NodeStartMessage.Response:
        async with self._turning:
            if self.state is not NodeState.STOPPED:
                return self._refusal(NodeState.STOPPED)
            self.log.info("%s: started by a call", self.node_name)
            self.state = NodeState.RUNNING
            try:
                await asyncio.gather(*self._begin_all(self.endpoints, True))
            except CommlibError as exc:
                self.state = NodeState.STOPPED
                await self._stop_ports()
                return NodeStartMessage.Response(status=1, error=text_of(exc))
        return NodeStartMessage.Response()

    async def _on_stop(self, request: NodeStopMessage.Request) -> NodeStopMessage.Response:
        async with self._turning:
            if self.state is not NodeState.RUNNING:
                return self._refusal(NodeState.RUNNING)
            self.log.info("%s: stopped by a call", self.node_name)
            self._forget_stopped()  # or the next start would run them, too
            self.state = NodeState.STOPPED
            self._keep_ports()
            await self._stop_ports()
        return NodeStopMessage.Response()

    def _refusal(self, needed: NodeState) -> NodeStartMessage.Response:
        error = f"{self.node_name} is {self.state.name}, not {needed.name}"
        return NodeStartMessage.Response(status=1, error=error)

    def _keep_ports(self) -> None:
        """Leave to the broker what it keeps for ports that are to run again."""
        for port in self.endpoints:
            port.keep()

    async def _stop_ports(self) -> None:
        names = [name for kind in OUTPUT_PORTS.values() for name in kind]
        inputs: list[Endpoint] = []
        outputs: list[Endpoint] = []
        for port in self.endpoints:
            (outputs if type(port).__name__ in names else inputs).append(port)
        # In this order: callbacks that come to their end may still publish and call.
        try:
            await asyncio.gather(*(port.stop() for port in inputs))
        finally:
            await asyncio.gather(*(port.stop() for port in outputs))
