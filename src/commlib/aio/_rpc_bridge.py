"""Bridges for calls: who calls on one broker is answered by a service on the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Unpack

from commlib import _topics
from commlib._hops import is_loop, place
from commlib._letter import Letter, check_signed, open_letter
from commlib._packet import PROPERTIES, Header, Packet, now_ms
from commlib._routes import spelled
from commlib._turns import callback_task, is_end_of_task
from commlib._wire import Reader, Refused
from commlib.aio._bridge import Bridge, BridgeOptions, BridgeType
from commlib.aio._caller import PASSING, Call
from commlib.aio._endpoint import Params
from commlib.aio._hub import Hub
from commlib.aio._rpc_service import CREDIBLE_MS, TASKS, RPCService, addressed, types_of
from commlib.exceptions import (
    AuthError,
    CommlibError,
    RPCTimeout,
    SerializationError,
)
from commlib.transports.base import Address


class RPCOptions(BridgeOptions, total=False):
    """The options of bridges for calls.

    * ``concurrency``: how many calls may be under way at once; more wait at the source.
    * ``timeout`` (s): how long an answer is waited for where the caller does not say how long it
      waits itself, as callers of commlib-py before 1.0 do not.
    * ``max_age`` (s): as that of a service.
    """

    concurrency: int
    timeout: float
    max_age: float


class RPCBridge(Bridge):
    """Serves ``from_uri`` on one broker by calling ``to_uri`` on the other.

    Callers get the response or the error of the service as if there were no bridge. They wait no
    longer than they would without it: the time that a caller has left bounds the call. If nobody
    answers in that time there is no reply, and the caller's own ``RPCTimeout`` ends the call.

    ``msg_type=None`` passes anything on. Options: ``RPCOptions``. Raises ValueError for a service
    that is bridged to itself.
    """

    def __init__(
        self,
        btype: BridgeType = None,
        from_uri: str = "",
        to_uri: str = "",
        from_broker_params: Params = None,
        to_broker_params: Params = None,
        msg_type: Any = None,
        *,
        concurrency: int = TASKS,
        timeout: float = 30.0,
        max_age: float = 60.0,
        **options: Unpack[BridgeOptions],
    ) -> None:
        _topics.check_topic(from_uri, "from_uri")
        _topics.check_topic(to_uri, "to_uri")
        if concurrency < 1:
            raise ValueError(f"concurrency={concurrency}: one call at least must be possible")
        if not timeout > 0:
            raise ValueError(f"timeout={timeout}: a call needs some time, in seconds")
        super().__init__(btype, from_uri, to_uri, from_broker_params, to_broker_params, **options)
        self.msg_type = msg_type
        self.may_be_heard_of = False
        """Whether callers hear of what they have set going, though its reply is lost."""
        self.before_reply: Callable[[], Awaitable[None]] | None = None
        """What has to be awaited before a reply is sent."""
        self.source_place = self._place(self.hub, from_uri)
        self.sink_place = self._place(self.sink, to_uri)
        if self.source_place == self.sink_place:
            raise ValueError(
                f"{self.name}: source and sink are the same service of the same broker"
            )
        self.timeout = timeout
        request, response = types_of(msg_type)
        self.request_reader = self._checker(request)
        self.response_reader = self._checker(response)
        self._desk = _Desk(self, workers=concurrency, max_age=max_age, on_error=self._on_error)

    def _checker(self, kind: Any) -> Reader[Any] | None:
        return None if kind is None else self._make_reader(kind, always_wrapped=True)

    def _place(self, hub: Hub, topic: str) -> str:
        # The lists of two databases of one Redis are different queues, though its topics are not.
        name = spelled(topic, hub.transport.traits.separator)
        return place(f"{hub.params.address} {hub.params}", name)

    @property
    def ready(self) -> bool:
        return super().ready and self._desk.ready

    async def _begin(self) -> None:
        self._desk.stats_of(self._stats)
        await self._desk.start()

    async def _join(self) -> None:
        # Shielded: the address is shared with all that call on this connection.
        await asyncio.shield(self.sink.caller.open())

    async def _end(self) -> None:
        await self._desk.stop()


class _Desk(RPCService):
    """Takes the requests at the source, has them answered at the sink."""

    _noun = "bridge"

    def __init__(self, bridge: RPCBridge, **options: Any) -> None:
        super().__init__(bridge.from_uri, self._relay, hub=bridge.hub, **options)
        self.log = bridge.log
        self._bridge = bridge
        self._limit = bridge.hub.params.max_payload

    def stats_of(self, stats: Any) -> None:
        """Count there."""
        self._stats = stats

    async def _handle_async(self, life: Any, packet: Packet) -> None:
        header, reply, task = Header(), None, callback_task.get()
        try:
            try:
                letter = open_letter(packet, self._limit, is_call=True)
                header = letter.header
                if not self._is_stale(header, packet):
                    reply = await self._relay(letter)
            except BaseException as exc:
                if is_end_of_task(exc, task):
                    if not self._bridge.may_be_heard_of:
                        self._answer_cancelled(packet, header, exc, task)
                    raise
                reply = self._failure(packet, header, exc)
            self._send(reply)
        finally:
            life.done(packet)

    async def _relay(self, letter: Letter) -> tuple[Address, Packet] | None:
        """Pass a request on; the reply, if there is one and somebody wants it."""
        bridge, header = self._bridge, letter.header
        if is_loop(header.hops, bridge.source_place, bridge.sink_place):
            bridge.own_stats.looped += 1
            return None
        if bridge.request_reader is not None:
            bridge.request_reader.read(letter.packet)
        timeout = self._time_left(letter.packet, header)
        end = asyncio.get_running_loop().time() + timeout
        call = self._new_call(letter, timeout)
        bridge.own_stats.forwarded += 1
        caller = bridge.sink.caller
        outcome = await caller.ask(call, lambda: RPCTimeout(f"no reply from {bridge.to_uri}"))
        if isinstance(outcome, RPCTimeout):
            bridge.own_stats.expired += 1
            return None
        if isinstance(outcome, CommlibError):
            if not self._is_last_word(outcome, header, call):
                self._report(letter.packet, outcome)
                return None
            raise outcome
        answer = self._open_answer(outcome)
        if not header.reply_to:
            return None
        if bridge.before_reply is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await bridge.before_reply()
        back = _passed_on(answer.header, Header())
        back.id = header.id
        back.error = answer.header.error
        native = self._is_native(letter.packet)
        reply = answer.pack(back, native=native, limit=self._limit)
        try:
            check_signed(answer, reply, self._limit, is_call=True)
        except Refused as exc:
            raise self._refused(exc) from exc
        return addressed(reply, letter.packet, header)

    def _open_answer(self, packet: Packet) -> Letter:
        bridge = self._bridge
        try:
            answer = open_letter(packet, bridge.sink.params.max_payload, is_call=True)
            if bridge.response_reader is not None and answer.header.error is None:
                bridge.response_reader.read(packet)
        except Refused as exc:
            raise self._refused(exc) from exc
        return answer

    def _refused(self, error: Refused) -> SerializationError:
        """An answer that was refused, counted."""
        self._bridge.own_stats.refused += 1
        # As another class: the header in that one is of the answer, not of the request.
        return SerializationError(f"the answer of {self._bridge.to_uri}: {error}")

    def _time_left(self, packet: Packet, header: Header) -> float:
        """For how many seconds the caller waits."""
        if header.deadline:
            left = (header.deadline - self.hub.transport.clock()) / 1000
            if 0 < left < CREDIBLE_MS / 1000:
                return left
        return packet.ttl or self._bridge.timeout

    def _is_last_word(self, error: CommlibError, header: Header, call: Call) -> bool:
        """Whether the trouble that the bridge has with the sink ends the call of its caller.

        Else who calls asks again by itself, or perhaps hears of what it has set going.
        """
        is_passing = isinstance(error, PASSING) and not isinstance(error, AuthError)
        is_followed_up = header.attempt or (call.sent and self._bridge.may_be_heard_of)
        return not (is_passing and is_followed_up)

    def _new_call(self, letter: Letter, timeout: float) -> Call:
        bridge = self._bridge
        call = bridge.sink.caller.new_call()
        call.id = letter.header.id
        call.fill(bridge.to_uri, _Stamp(letter, bridge), None, timeout)
        return call


class _Stamp:
    """Makes the packet of a call out of a letter, where others have a ``Writer`` for a message."""

    properties = PROPERTIES

    def __init__(self, letter: Letter, bridge: RPCBridge) -> None:
        self._letter = letter
        self._bridge = bridge

    def wrap(self, body: Any, header: Header, native: bool) -> Packet:
        """The packet with the new return address and deadline, and the rest as it came."""
        asked = self._letter.header
        header = _passed_on(asked, header)
        header.id = asked.id
        header.hops = (*asked.hops, self._bridge.source_place)
        limit = self._bridge.sink.params.max_payload
        packet = self._letter.pack(header, native=native, limit=limit)
        return check_signed(self._letter, packet, limit, is_call=True)


def _passed_on(old: Header, new: Header) -> Header:
    """The new header, with what the old one says of the message itself."""
    new.timestamp = old.timestamp or now_ms()
    if old.origin:
        new.origin, new.seq = old.origin, old.seq
    new.traceparent, new.tracestate = old.traceparent, old.tracestate
    new.attempt, new.sig = old.attempt, old.sig
    return new
