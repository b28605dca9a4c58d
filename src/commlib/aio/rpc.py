"""Remote procedure calls."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from os import urandom
from threading import TIMEOUT_MAX
from typing import Any, Generic, Unpack, overload

from commlib._packet import (
    PROPERTIES,
    REPLY,
    REQUEST,
    Envelope,
    Header,
    Packer,
    Packet,
    now_ms,
)
from commlib._rate import rate_limit
from commlib._stats import Stats
from commlib._typing import Req, Resp
from commlib._wire import Reader, Refused, Writer, pack
from commlib.aio._caller import Call, Finish, tell_nobody
from commlib.aio._endpoint import Endpoint, Options, Params
from commlib.aio._group import Group
from commlib.aio._names import check_name
from commlib.aio._rpc_service import (
    PRESENCE,
    check_age,
    check_workers,
    presence_topic,
    types_of,
)
from commlib.aio._rpc_service import RPCService as RPCService
from commlib.aio._rpc_service import RPCTypes as RPCTypes
from commlib.aio._rpc_service import ServiceOptions as ServiceOptions
from commlib.exceptions import CommlibError, ConnectionLost, RPCRemoteError, RPCTimeout
from commlib.msg import RPCMessage
from commlib.transports.base import CallOutcome, Transport

ASK_SECONDS = 0.25  # between two questions whether a service is there


ServiceMap = Mapping[str, "tuple[Callable[[Any], Any], Any] | Callable[[Any], Any]"]
"""From the name of a service to its handler and message class, or to the handler alone."""


class RPCServer(Group):
    """Many services on one connection.

    ``svc_map`` has their names, each with ``(on_request, msg_type)``; ``base_uri`` stands before
    all of them. With ``rpc_name`` and ``on_request`` it is a server of that service. Options:
    ``ServiceOptions``, for each of them.
    """

    def __init__(
        self,
        base_uri: str = "",
        svc_map: ServiceMap | None = None,
        workers: int | None = None,
        conn_params: Params = None,
        *,
        rpc_name: str = "",
        on_request: Callable[[Any], Any] | None = None,
        msg_type: Any = None,
        max_age: float = 60.0,
        max_rate: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(base_uri or rpc_name or "rpcserver", conn_params, **options)
        self.base_uri = base_uri
        self.services: dict[str, RPCService] = {}
        """By the names that they were registered with."""
        self._workers = check_workers(workers)
        self._max_age = check_age(max_age)
        rate_limit(max_rate)  # a wrong one is refused here
        self._max_rate = max_rate
        if bool(rpc_name) != (on_request is not None):
            raise ValueError("rpc_name and on_request belong together; many services: svc_map")
        for uri, service in (svc_map or {}).items():
            callback, types = service if isinstance(service, tuple) else (service, None)
            self.new_service(uri, callback, types)
        if on_request is not None:
            self.new_service(rpc_name, on_request, msg_type)

    def new_service(
        self, uri: str, callback: Callable[[Any], Any], msg_type: Any = None
    ) -> RPCService:
        """One more service, yet to be run. Raises ValueError for a name that is taken."""
        if uri in self.services and not self.services[uri].stopped:
            raise ValueError(f"{uri} is served already; stop() that service first")
        name = f"{self.base_uri}{'/' if '/' in self.base_uri else '.'}{uri}"
        service = RPCService(
            name if self.base_uri else uri,
            callback,
            msg_type,
            workers=self._workers,
            max_age=self._max_age,
            max_rate=self._max_rate,
            **self.part_options,
        )
        self.services[uri] = service
        return self.add(service)

    async def register_endpoint(
        self, uri: str, callback: Callable[[Any], Any], msg_type: Any = None
    ) -> RPCService:
        """Serve one more name, at once if this runs; what it returns can be stopped alone.

        Returns when the broker has confirmed it, if it is there. Raises ValueError for a name that
        is taken, or is none, TypeError for what is no callback or message class, and, if this runs,
        AuthError where the user has no right to serve it; on Redis that is logged.
        """
        self.hub.check_here()
        return await self.join(self.new_service(uri, callback, msg_type))


class ClientOptions(Options, total=False):
    """The options of clients.

    ``envelope``: put requests into an envelope even where the broker carries headers beside the
    data (AMQP): services of commlib-py 0.13 want that, and no others.
    """

    envelope: bool


class RPCClientOptions(ClientOptions, total=False):
    """The options of ``RPCClient``, beside those of all clients.

    ``idempotent``: handling a request twice does no harm. Then a call that has no reply yet is sent
    again until its timeout: after one, two, four and then every eight seconds, and soon where it is
    known that no reply will come, whatever the offline policy says. A service of ours handles it
    once all the same, as long as it lives and for a minute after that (or 10 000 such calls), and
    answers each time. Another one of its name may handle it again.
    """

    idempotent: bool


def check_timeout(timeout: float) -> None:
    """Raises ValueError for what is no time that a call may take."""
    try:
        is_time = 0 < timeout <= TIMEOUT_MAX
    except TypeError:  # None, or text
        is_time = False
    if not is_time:
        raise ValueError(
            f"timeout={timeout!r}: a call needs some time, in seconds, and no more than "
            f"{TIMEOUT_MAX:.0f}"
        )


class _Enveloped:
    """Writes as another writer does, for such services."""

    def __init__(self, writer: Writer[Any]) -> None:
        self.properties = writer.properties
        self._writer = writer

    def wrap(self, body: Any, header: Header, native: bool) -> Packet:
        packet = self._writer.wrap(body, header, False)
        packet.reply_to = header.reply_to if native else ""
        return packet


class RPCClient(Endpoint, Generic[Req, Resp]):
    """Calls a service.

    ``msg_type`` is a class with the nested classes ``Request`` and ``Response``; None: plain data
    both ways. Any number of calls may be under way at once. Options: ``RPCClientOptions``.
    """

    @overload
    def __init__(
        self,
        rpc_name: str,
        msg_type: type[RPCTypes[Req, Resp]],
        conn_params: Params = None,
        **options: Unpack[RPCClientOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: RPCClient[Any, Any],
        rpc_name: str,
        msg_type: type[RPCMessage] | None = None,
        conn_params: Params = None,
        **options: Unpack[RPCClientOptions],
    ) -> None: ...

    def __init__(
        self,
        rpc_name: str,
        msg_type: Any = None,
        conn_params: Params = None,
        *,
        envelope: bool = False,
        idempotent: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(rpc_name, conn_params, **options)
        self.idempotent = idempotent
        self.rpc_name = check_name(rpc_name, self.hub, "rpc_name")
        self.msg_type = msg_type
        request, response = types_of(msg_type)
        self._writer: Writer[Any] = self._make_writer(request)
        self._packer: Packer = _Enveloped(self._writer) if envelope else self._writer
        self._reader: Reader[Any] = self._make_reader(response, always_wrapped=True)
        self._verifier = self._make_verifier(REPLY, is_call=True)
        signing = self._make_signing(self._writer, REQUEST)
        if signing is not None:
            self._packer = signing.for_name(self.rpc_name, self._packer)

    @property
    def stats(self) -> Stats:
        return dataclasses.replace(super().stats, late=self.hub.caller.late)

    async def _begin(self) -> None:
        # Shielded: the address is shared with the other clients of the node.
        await asyncio.shield(self.hub.caller.open())

    def new_call(self, msg: Req, timeout: float, finish: Finish = tell_nobody) -> Call:
        """A call, ready for ``hub.caller``. Raises SerializationError. From any thread."""
        return self._call_with(self.encode(msg, timeout), timeout, finish)

    def encode(self, msg: Req, timeout: float) -> Any:
        """A request as it goes into an envelope. Raises SerializationError. From any thread."""
        check_timeout(timeout)
        return self._writer.encode(msg)

    def _call_with(self, body: Any, timeout: float, finish: Finish = tell_nobody) -> Call:
        call = self.hub.caller.new_call()
        call.fill(self.rpc_name, self._packer, body, timeout, finish)
        self._stats.sent += 1
        return call

    def response(self, outcome: CallOutcome) -> Resp:
        """The response that an outcome brings, or the error. From any thread."""
        envelope = self.envelope(outcome)
        if envelope.header.error is not None:
            raise RPCRemoteError(envelope.header.error.type, envelope.header.error.message)
        response: Resp = envelope.data
        return response

    def envelope(self, outcome: CallOutcome) -> Envelope:
        """The same with its header, which may hold an error; then there may be no data."""
        if isinstance(outcome, CommlibError):
            raise outcome
        try:
            if self._verifier is not None:
                outcome = self._verifier.open(outcome, self.rpc_name, outcome.correlation_id)
            envelope = self._reader.read(outcome)
        except Refused as exc:
            if exc.header.error is None or not exc.is_verified:
                self._stats.refused += 1
                # Not Refused: in a callback that would pass for one of what it was called with.
                raise exc.public(f"the reply of {self.rpc_name}") from exc
            envelope = Envelope(exc.header, None)
        self._stats.received += 1
        return envelope

    def timeout_error(self, timeout: float) -> RPCTimeout:
        """What a call ends with that nobody answered."""
        trouble = self.hub.trouble
        text = f"no reply from {self.rpc_name} within {timeout:g} s"
        return RPCTimeout(f"{text}; {trouble}" if trouble else text)

    async def call(self, msg: Req, timeout: float = 30) -> Resp:
        """Send a request and wait for the response, at most ``timeout`` seconds.

        Raises RPCRemoteError with what the service raised, RPCTimeout when nobody answered,
        SerializationError, ValueError for what is no time, AuthError, ConnectError with
        ``reconnect=False``, ConnectionLost where the offline policy says so, or the reply cannot
        come any more, and EndpointClosed after ``stop()``. Cancelling ends the call; its reply then
        reaches nobody.
        """
        return self.response(await self.exchange(msg, timeout))

    async def exchange(
        self, msg: Req, timeout: float, on_token: Callable[[str], object] | None = None
    ) -> CallOutcome:
        """How a call ends, otherwise as ``call``.

        ``on_token`` is told the call's id before anything is sent.
        """
        self.check_open()
        self.hub.start()
        if self.idempotent:
            return await self.repeat(self.encode(msg, timeout), timeout)
        call = self.new_call(msg, timeout)
        if on_token is not None:
            on_token(call.token)
        return await call.caller.ask(call, partial(self.timeout_error, timeout))

    async def repeat(self, body: Any, timeout: float) -> CallOutcome:
        """How a call ends that may be sent again: the first answer to any of its attempts.

        ``body`` is the request as ``encode`` has made it. Raises EndpointClosed after ``stop()``.
        """
        from commlib.aio._repeat import repeat

        def attempt(left: float) -> Call:
            self.check_open()
            return self._call_with(body, left)

        self.hub.start()
        return await repeat(attempt, timeout, partial(self.timeout_error, timeout))

    async def wait_for_service(self, timeout: float = 30) -> bool:
        """Whether a service of this name is there, or comes within ``timeout`` seconds.

        Services of commlib-py before 1.0 do not answer this question: for them it stays False.
        Raises AuthError when the broker says no, ConnectError and ConnectionLost with
        ``reconnect=False``, and EndpointClosed after ``stop()``.
        """
        self.check_open()
        self.hub.start()
        transport = self.hub.transport
        present = asyncio.Event()
        answers = f"{PRESENCE}.{urandom(12).hex()}"
        question = Header(now_ms(), PROPERTIES, reply_to=answers)
        packet = pack({}, question, transport.traits.native_headers)
        try:
            async with asyncio.timeout(timeout):
                subscription = await transport.subscribe(answers, lambda answer: present.set())
                try:
                    await self._ask_until(present, packet, transport)
                finally:
                    await subscription.close()
        except TimeoutError:
            return False
        return True

    async def _ask_until(
        self, present: asyncio.Event, packet: Packet, transport: Transport
    ) -> None:
        """Ask whether the service is there, again and again, until that is known."""
        while not present.is_set():
            try:
                transport.publish(presence_topic(self.rpc_name), packet)
            except ConnectionLost:
                if not self.hub.params.reconnect:
                    raise
                # It is asked again, and the broker may be back then.
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_SECONDS):
                    await present.wait()
