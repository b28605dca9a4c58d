"""Services: requests are answered, each once, while somebody waits for that."""

from __future__ import annotations

import sys
from asyncio import CancelledError, Task
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar, Unpack

from commlib._forms import own_reader
from commlib._lanes import Bounds, Lane, is_async
from commlib._packet import (
    PROPERTIES,
    REPLY,
    REQUEST,
    Envelope,
    Fault,
    Header,
    Packet,
    now_ms,
    unix_ms,
)
from commlib._rate import rate_limit
from commlib._records import about
from commlib._request_lane import HoldingLane, RequestLane
from commlib._turns import callback_task, is_cancelled_alone, is_end_of_task
from commlib._wire import Reader, Refused, Writer, pack
from commlib.aio._answers import Answer, Answers, Known
from commlib.aio._endpoint import (
    MAX_TEXT,
    Input,
    Options,
    Params,
    check_callback,
    text_of,
)
from commlib.aio._names import check_name
from commlib.compression import ZLIB_START, beginning
from commlib.exceptions import (
    AuthError,
    CommlibError,
    ConnectionLost,
    EndpointClosed,
    PayloadTooBig,
)
from commlib.transports.base import (
    Address,
    Consumer,
    HoldingTransport,
    ReadingConsumer,
    Subscription,
)

Req_co = TypeVar("Req_co", covariant=True)
Resp_co = TypeVar("Resp_co", covariant=True)

THREADS, TASKS = 4, 64  # requests that one service handles at once: plain functions, coroutines
UNBOUNDED = Bounds(sys.maxsize, sys.maxsize)  # of a service's lane: its prefetch is the bound
CREDIBLE_MS = 86_400_000  # a deadline missed by more than a day: somebody's clock was set
LONGEST_PRESENCE = 100  # bytes of a name that are told; not every broker has room for more
PRESENCE = "$presence"  # the first word of the topics on which services say that they are there


class RPCTypes(Protocol[Req_co, Resp_co]):
    """What has the nested message classes ``Request`` and ``Response``."""

    # Classes are functions that make messages: in that form mypy finds them, as pyright does.

    def Request(self, *args: Any, **kwargs: Any) -> Req_co: ...

    def Response(self, *args: Any, **kwargs: Any) -> Resp_co: ...


def addressed(reply: Packet, request: Packet, header: Header) -> tuple[Address, Packet]:
    """A reply, and where it goes."""
    return Address(request.reply_to or header.reply_to, request.correlation_id, request), reply


def types_of(msg_type: Any) -> tuple[Any, Any]:
    """The classes of request and response, None each for plain data."""
    if msg_type is None:
        return None, None
    try:
        return msg_type.Request, msg_type.Response
    except AttributeError as exc:
        raise TypeError(
            f"{msg_type!r} is no RPC message: it needs the nested classes Request and Response"
        ) from exc


def presence_topic(rpc_name: str) -> str:
    """Where one asks whether somebody serves this name; no pattern that begins with * sees it."""
    # A character that is a wildcard of some broker would make a pattern of it.
    plain = "".join(c if c.isalnum() or c in "._-/" else f"%{ord(c):x}" for c in rpc_name)
    if len(plain.encode()) > LONGEST_PRESENCE:
        from hashlib import blake2s  # hardly any program has such names

        plain = blake2s(plain.encode()).hexdigest() + "/" * ("/" in plain)
    return f"{PRESENCE}{'/' if '/' in rpc_name else '.'}{plain}"


def check_workers(workers: int | None) -> int | None:
    """Returns it. Raises ValueError for what is no number of workers."""
    if workers is not None and not (isinstance(workers, int) and workers >= 1):
        raise ValueError(f"workers={workers!r}: at least one request must be handled at a time")
    return workers


def check_age(max_age: float) -> float:
    """Returns it. Raises ValueError for what is no age."""
    if not isinstance(max_age, int | float) or not max_age >= 0:
        raise ValueError(f"max_age={max_age!r}: it is a time in seconds")
    return max_age


class ServiceOptions(Options, total=False):
    """The options of services.

    * ``workers``: how many requests are handled at once; by default 4 for a plain function, which
      is given them one by one while it is quick, and 64 for a coroutine function.
    * ``max_age`` (s): requests that waited longer than that when the service started are dropped.
    * ``max_rate``: requests a second that are handled, on average and in one burst; those beyond
      are refused, and who asks gets RPCRemoteError, ``TooManyMessages``. None: no such bound.
    """

    workers: int | None
    max_age: float
    max_rate: float | None


class Reply:
    """A response with an error beside it, for handlers of ours whose callers look at both."""

    __slots__ = ("data", "error")

    def __init__(self, data: Any, error: Fault | None) -> None:
        self.data = data
        self.error = error


class _Life:
    """One life of a service, from start to stop.

    It tells the consumer that brought a request when that is worked off. From any thread.
    """

    def __init__(self) -> None:
        self.lane: HoldingLane | None = None
        """Who calls the function and sends replies, where that is not left to the service."""
        self._consumer: Consumer | None = None
        self._early: deque[Packet] = deque()

    def belongs_to(self, consumer: Consumer) -> None:
        self._consumer = consumer
        with suppress(IndexError):  # until there are none: two threads may be at this
            while True:
                consumer.done(self._early.popleft())

    def done(self, packet: Packet) -> None:
        """The next request may come."""
        consumer = self._consumer
        if consumer is not None:
            consumer.done(packet)
            return
        self._early.append(packet)
        if self._consumer is not None:  # it has come in this moment
            self.belongs_to(self._consumer)


class RPCService(Input):
    """Answers requests.

    ``on_request(request)`` returns the response; a plain function runs on worker threads, a
    coroutine function on the loop. What it raises, the caller gets as ``RPCRemoteError``.
    Several services of one name share the work where the broker can do that.
    Options: ``ServiceOptions``.
    """

    _noun = "service"
    """What callers are told that it is."""

    def __init__(
        self,
        rpc_name: str,
        on_request: Callable[[Any], Any],
        msg_type: Any = None,
        conn_params: Params = None,
        *,
        workers: int | None = None,
        max_age: float = 60.0,
        max_rate: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        check_callback(on_request, f"{rpc_name}: on_request", 1)
        super().__init__(rpc_name, conn_params, **options)
        self.rpc_name = check_name(rpc_name, self.hub, "rpc_name")
        self.msg_type = msg_type
        self.on_request = on_request
        request, response = types_of(msg_type)
        self._reader: Reader[Any] = self._make_reader(request, always_wrapped=True)
        self._writer: Writer[Any] = self._make_writer(response)
        self._verifier = self._make_verifier(REQUEST, is_call=True)
        self._workers = check_workers(workers) or (TASKS if is_async(on_request) else THREADS)
        self._max_age = check_age(max_age)
        self._answers = Answers()
        self._rate = rate_limit(max_rate)
        self._oldest = 0
        self._lane: Lane | None = None
        self._consumer: Consumer | None = None
        self._presence: Subscription | None = None

    async def _begin(self) -> None:
        transport = self.hub.transport
        # A request may still be handled when the next life has begun.
        life = _Life()
        workers, concurrency = self.hub.workers, self._workers
        handle = partial(self._handle, life)
        if is_async(self.on_request):
            self._lane = self._make_lane(
                self.on_request,
                partial(self._handle_async, life),
                bounds=UNBOUNDED,
                concurrency=concurrency,
            )
        elif isinstance(transport, HoldingTransport):
            self._lane = life.lane = HoldingLane(
                *(transport, workers, self.name, handle, self._stats, self._report),
                concurrency=concurrency,
            )
        else:
            self._lane = RequestLane(
                *(workers, self.name, handle, self._stats, self._report), concurrency=concurrency
            )
        await transport.connect()
        self._oldest = transport.clock() - int(self._max_age * 1000)
        self._consumer = await transport.consume(self.rpc_name, self._lane.put, self._workers)
        life.belongs_to(self._consumer)
        if isinstance(self._consumer, ReadingConsumer) and isinstance(self._lane, HoldingLane):
            self._lane.read_from(self._consumer)
        try:
            topic = presence_topic(self.rpc_name)
            self._presence = await transport.subscribe(topic, self._say_present)
        except AuthError as exc:
            # It serves all the same; only wait_for_service() will not see it.
            self.log.warning("%s: clients cannot wait for this service: %s", self.name, exc)

    @property
    def ready(self) -> bool:
        return super().ready and self._consumer is not None and self._consumer.working

    async def _end(self) -> None:
        if self._presence is not None:
            await self._presence.close()
        if self._consumer is not None:
            await self._consumer.close()
        if self._lane is not None:
            for packet in await self._lane.close(self._given.grace):
                self._refuse(packet)

    def _refuse(self, packet: Packet) -> None:
        """Tell a caller whose request was taken from the broker, and will not be handled."""
        assert self._consumer is not None, "it has brought the packet"
        try:
            header = self._read(packet).header
        except Exception as exc:  # a message class may raise anything when it is decoded
            self._report(packet, exc)
        else:
            self._answer_stopped(packet, header, "before it had come to")
        finally:
            self._consumer.done(packet)

    def _answer_cancelled(
        self, packet: Packet, header: Header, error: BaseException, task: Task[Any] | None
    ) -> None:
        """Tell a caller that what worked on a request was cancelled."""
        if is_cancelled_alone(error, task):
            text = "the callback was cancelled while it worked on this request"
            self._answer_closed(packet, header, text)
        elif isinstance(error, CancelledError):
            self._answer_stopped(packet, header, "while it worked on")

    def _answer_stopped(self, packet: Packet, header: Header, when: str) -> None:
        """Tell a caller that nothing comes of a request, unless another service may answer."""
        if self.hub.transport.traits.competing:
            text = f"the {self._noun} was stopped {when} this request"
            self._answer_closed(packet, header, text)

    def _answer_closed(self, packet: Packet, header: Header, text: str) -> None:
        """Tell a caller why nothing comes of a request; not one who asks again by itself."""
        if not header.attempt:
            error = Refused(text, header, EndpointClosed.__name__)
            self._send(self._answer(packet, header, error))

    def _handle(self, life: _Life, packet: Packet) -> None:
        """One request, from the bytes to the reply. On a worker thread."""
        header, reply, is_wanted = Header(), None, False
        lane = life.lane
        try:
            try:
                envelope = self._read(packet)
                header = envelope.header
                is_wanted = self._is_wanted(header, packet)
                if is_wanted:
                    call = self._call
                    response = call(envelope) if lane is None else lane.call(call, envelope)
                    reply = self._reply(packet, header, response)
            except BaseException as exc:
                reply = self._failure(packet, header, exc)
            self._send(reply, lane)
        finally:
            if is_wanted:
                self._note_answer(header, reply)
            if self.hub.loop is not None:  # else it was stopped before this callback has ended
                life.done(packet)

    async def _handle_async(self, life: _Life, packet: Packet) -> None:
        """The same for a coroutine function. On the loop."""
        header, reply, is_wanted, task = Header(), None, False, callback_task.get()
        try:
            try:
                envelope = self._read(packet)
                header = envelope.header
                is_wanted = self._is_wanted(header, packet)
                if is_wanted:
                    reply = self._reply(packet, header, await self._call(envelope))
            except BaseException as exc:
                if is_end_of_task(exc, task):
                    self._answer_cancelled(packet, header, exc, task)
                    raise
                reply = self._failure(packet, header, exc)
            self._send(reply)
        finally:
            if is_wanted:
                self._note_answer(header, reply)
            life.done(packet)

    def _call(self, request: Envelope) -> Any:
        """What the handler makes of a request; to be awaited if it is a coroutine function."""
        return self.on_request(request.data)

    def _is_wanted(self, header: Header, packet: Packet) -> bool:
        """Whether this request is to be handled: somebody waits, and it was not handled before.

        One that came before is answered, now or when it is handled.
        """
        if self._is_stale(header, packet):
            return False
        if header.attempt and header.id:
            found = self._answers.begin(packet, header)
            if found is not Known.NEW:
                self._answer_again(found, header)
                return False
        if self._rate is not None:
            try:
                self._rate.check(header)
            except Refused:
                self._note_answer(header, None)
                raise
        return True

    def _answer_again(self, found: Known | Answer, header: Header) -> None:
        """A request has come before."""
        self._stats.repeated += 1
        if found is Known.FORGOTTEN:
            text = "it was handled before, and its reply is not kept any more"
            raise Refused(text, header, "AlreadyHandled")
        if isinstance(found, tuple):
            address, reply = found
            self._send((address, self._signed_now(reply)))

    def _signed_now(self, reply: Packet) -> Packet:
        """A reply that may have been kept for long: who checks signatures looks at their age."""
        if self._given.sign is None:
            return reply
        from commlib._signatures import signed_anew

        return signed_anew(reply, self._given.sign, REPLY, self.rpc_name)

    def _read(self, packet: Packet) -> Envelope:
        """The request in a packet. Raises Refused."""
        if self._verifier is not None:
            packet = self._verifier.open(packet, self.rpc_name)
        return self._reader.read(packet)

    def _note_answer(self, header: Header, reply: tuple[Address, Packet] | None) -> None:
        """A request that may be repeated was handled."""
        if header.attempt and header.id:
            for answer in self._answers.end(header.id, reply[1] if reply else None):
                self._send(answer)

    def _is_stale(self, header: Header, packet: Packet) -> bool:
        """Whether nobody waits any more, by the deadline, or without one by the age.

        Raises Refused for a request that somebody else may have handled.
        """
        if packet.redelivered and not header.attempt:
            raise Refused(
                "the service that had this request has lost its connection; it may have handled it",
                *(header, ConnectionLost.__name__),
            )
        if header.deadline:
            stale = 0 < self.hub.transport.clock() - header.deadline < CREDIBLE_MS
        elif packet.waited and packet.ttl is None:  # else the broker has looked at that
            # A released client, whose clock may be anything: only what it says credibly counts.
            sent = unix_ms(header.timestamp)
            stale = sent is not None and sent < self._oldest
        else:
            return False
        self._stats.expired += stale
        return stale

    def _reply(
        self, packet: Packet, request: Header, response: Any
    ) -> tuple[Address, Packet] | None:
        if not request.reply_to:
            return None
        writer = self._writer
        if not request.id and own_reader(self._given.serializer) is None:
            writer = self._writer_for_released(packet, types_of(self.msg_type)[1])
        header = Header(now_ms(), writer.properties, id=request.id)
        if response.__class__ is Reply:
            header.error, response = response.error, response.data
        data = {} if response is None and self.msg_type is None else response
        reply = self._pack(writer, data, header, self._is_native(packet))
        return addressed(reply, packet, request)

    def _pack(
        self, writer: Writer[Any], data: Any, header: Header, native: bool, sign: bool = True
    ) -> Packet:
        """As ``writer.pack``, with a signature if there shall be one."""
        # Without an id, as released clients are answered, it would do for any call.
        signing = self._make_signing(writer, REPLY) if sign and header.id else None
        if signing is None:
            return writer.pack(data, header, native)
        return signing.pack(data, header, native, self.rpc_name)

    def _is_native(self, request: Packet) -> bool:
        """Whether the header of a reply goes beside it: it is put where that of the request was."""
        return self.hub.transport.traits.native_headers and request.header is not None

    def _writer_for_released(self, request: Packet, kind: Any) -> Writer[Any]:
        """Released clients, whose requests have no id, read only what they write themselves."""
        is_packed = request.payload[:1] == ZLIB_START and beginning(request.payload, 1) == b"{"
        compression = "zlib" if is_packed else None
        return Writer(kind, limit=self.hub.params.max_payload, compression=compression)

    def _failure(
        self, packet: Packet, header: Header, error: BaseException
    ) -> tuple[Address, Packet] | None:
        """Count and log an error, and the reply that tells the caller, if there is one."""
        self._report(packet, error)
        return self._answer(packet, header, error)

    def _answer(
        self, packet: Packet, header: Header, error: BaseException
    ) -> tuple[Address, Packet] | None:
        is_verified = True
        if isinstance(error, Refused):
            header, is_verified = error.header, error.is_verified
            if error.is_replay:
                return None  # who called gets the answer to what came first
        if not header.reply_to:
            return None
        name = error.name if isinstance(error, Refused) else type(error).__name__
        fault = Fault(name[:MAX_TEXT], text_of(error))
        answer = Header(now_ms(), PROPERTIES, id=header.id, error=fault)
        native = self._is_native(packet)
        try:
            writer = self._writer_for_released(packet, None)
            # Not signed for an id that nobody has vouched for: it may be that of another's call.
            reply = self._pack(writer, {}, answer, native, sign=is_verified)
        except PayloadTooBig:
            fault.message = ""
            reply = self._pack(Writer[Any](None), {}, answer, native, sign=is_verified)
        return addressed(reply, packet, header)

    def _send(self, reply: tuple[Address, Packet] | None, lane: HoldingLane | None = None) -> None:
        """Send a reply if there is one, now or when there is room. From any thread.

        It goes by way of the ``lane``, if there is one for the connection that is used now.
        """
        if reply is None or self.hub.loop is None:
            return
        transport = self.hub.transport
        try:
            sender = lane if lane is not None and lane.transport is transport else transport
            if sender.send(*reply):
                self._stats.sent += 1
            else:
                self.hub.loop.call_soon_threadsafe(self._send_later, reply)
        except PayloadTooBig as exc:
            self._report_unsent(exc)
            self._send_error_instead(reply, exc)
        except CommlibError as exc:
            self._report_unsent(exc)

    def _send_error_instead(self, reply: tuple[Address, Packet], error: PayloadTooBig) -> None:
        """Tell a caller that the broker does not take the reply."""
        address, packet = reply
        try:
            told = self._make_reader(None, always_wrapped=True).read(packet).header
        except Refused as exc:  # more than may be received, as its plain bytes
            told = exc.header
        request = Header(id=told.id, reply_to=address.reply_to)
        refused = Refused(str(error), request, PayloadTooBig.__name__)
        refused.is_verified = told.sig is not None
        instead = self._answer(packet, request, refused)
        # If not, it was an error that the broker does not take, either.
        if instead is not None and len(instead[1].payload) < len(packet.payload):
            self._send((address, instead[1]))

    def _report_unsent(self, error: CommlibError) -> None:
        """A reply does not reach who called: as ``_report``, but it is not the callback's error."""
        self._stats.errors += 1
        if self._is_news((f"unsent {type(error).__name__}", 0)):
            self.log.error(
                "%s: a reply cannot be sent: %s (further ones like this are only counted)",
                *(self.name, error),
                extra=about(self.name, node=self.hub.node_of(self)),
            )
        self._tell_error(error, self.name)

    def _send_later(self, reply: tuple[Address, Packet]) -> None:
        self.hub.spawn(self._send_when_room(reply))

    async def _send_when_room(self, reply: tuple[Address, Packet]) -> None:
        await self.hub.transport.room(reply[1])
        self._send(reply)

    def _say_present(self, question: Packet) -> None:
        """Somebody asks on the presence topic whether this service is there. On the loop."""
        try:
            limit = self.hub.params.max_payload
            header = Reader(None, always_wrapped=True, limit=limit).read(question).header
            # Nowhere else: what we may publish, who asks perhaps may not.
            if header.reply_to.startswith(f"{PRESENCE}."):
                native = self.hub.transport.traits.native_headers
                answer = pack({}, Header(now_ms(), PROPERTIES, id=header.id), native)
                self.hub.transport.publish(header.reply_to, answer)
        except (CommlibError, ValueError) as exc:  # it may ask for an answer to no valid name
            self._report(question, exc)
