"""The return address of a hub: sends calls, brings replies back to whom they belong."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

from commlib._calls import Calls
from commlib._courtesy import Courtesy
from commlib._packet import Header, Packer, Packet, now_ms, reply_id
from commlib._sequence import Sequence, new_origin
from commlib.exceptions import (
    CommlibError,
    ConnectError,
    ConnectionLost,
    EndpointClosed,
    OutboxFull,
)
from commlib.transports.base import (
    Address,
    CallOutcome,
    Inbox,
    NotServedYet,
    ReadingInbox,
    Transport,
    WithdrawingTransport,
)

Finish = Callable[[CallOutcome], None]
"""Takes the outcome of a call, exactly once; on the loop."""
Expired = Callable[[], CommlibError]
"""Makes the outcome of a call whose time is up."""

PASSING = (ConnectError, ConnectionLost, EndpointClosed, OutboxFull)
"""What befalls a call because of the connection, but for AuthError: it tells of no service."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0  # s before what has reached nobody is sent again
MAX_BOOKED = 16  # addresses kept ready for threads, at most a sixteenth of what the inbox has


def tell_nobody(outcome: CallOutcome) -> None:
    """For a call that has ended, or whose outcome nobody has asked for yet."""


class Call:
    """One call on its way, or an address that is booked for one to come.

    ``timeout`` in seconds tells the service how long somebody waits; ``drop`` ends the call then.
    """

    __slots__ = (
        *("address", "attempt", "body", "caller", "finish", "id", "name"),
        *("packet", "returned_at", "sent", "timeout", "token", "writer"),
    )

    def __init__(self, caller: Caller, token: str) -> None:
        self.caller = caller
        self.token = token
        self.id = ""
        """The id that the reply echoes, if that is not the token."""
        self.attempt = 0
        """How often a call that may be repeated was sent, this time included."""
        self.address: Address | None = None
        self.packet: Packet | None = None
        self.sent = False
        """Whether a reply may come."""
        self.returned_at = 0.0
        """When it came back first because it had reached nobody, in the loop's time."""
        self.finish: Finish = tell_nobody

    def fill(
        self,
        name: str,
        writer: Packer,
        body: Any,
        timeout: float,
        finish: Finish = tell_nobody,
    ) -> None:
        """Say what is called, with a message that ``writer`` has encoded, and who is told."""
        self.name = name
        self.writer = writer
        self.body = body
        self.timeout = timeout
        self.finish = finish

    def end(self, outcome: CallOutcome) -> None:
        """Tell the outcome, if that has not been done before. On the loop."""
        finish, self.finish = self.finish, tell_nobody
        finish(outcome)


_NEAR = 300  # bytes of a reply in an envelope within which its id stands


def _closed() -> EndpointClosed:
    return EndpointClosed("the client was stopped before the reply came")


class Caller:
    """The pending calls of all clients of one hub, on one inbox.

    Methods are for the loop, but for ``new_call``, ``start`` and ``read``.
    """

    def __init__(self, transport: Transport) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.courtesy: Courtesy | None = None
        """Of that loop, if it has a thread to itself."""
        self.origin = new_origin()
        self.late = 0
        """Replies that came after their call had ended."""
        self._transport = transport
        self._withdrawing = transport if isinstance(transport, WithdrawingTransport) else None
        self._tokens = count()
        self._sequence = Sequence(self.origin)
        self._booked: deque[Call] = deque()
        self._calls: Calls[Call] = Calls(0, self._booked)
        self._inbox: Inbox | None = None
        self._reading: ReadingInbox | None = None
        self._opening: asyncio.Task[None] | None = None
        self._bookable = 0
        self._unsent: deque[Call] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._closed = False
        self._next_pending = False

    def open(self) -> asyncio.Task[None]:
        """Open the inbox, in the background; idempotent."""
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open())
            # Its error has gone to the calls: it is seen, even if nobody awaits this task.
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._opening

    async def _open(self) -> None:
        try:
            inbox = self._inbox = await self._transport.open_inbox(self._take)
        except CommlibError as exc:
            for call in self._calls.clear():
                call.end(exc)
            raise
        finally:
            if self._inbox is None:
                self._opening = None  # the next call tries again
        self._reading = inbox if isinstance(inbox, ReadingInbox) else None
        self._calls.capacity = inbox.capacity
        self._bookable = min(MAX_BOOKED, inbox.capacity // 16)
        self._send_next()

    async def close(self) -> None:
        """End all calls with EndpointClosed and give the addresses back; final."""
        self._closed = True
        for task in (self._opening, self._sending):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        self._booked.clear()
        for call in self._calls.clear():
            call.end(_closed())
        if self._inbox is not None:
            await self._inbox.close()

    def begin(self, call: Call) -> None:
        """Send a call, now or when an address is free."""
        if self._closed:
            call.end(_closed())
            return
        if self._inbox is None:
            self.open()
        # One with a booked address is under way already.
        if call.address is not None or self._calls.add(call.token, call, call.name):
            self._send(call)

    def new_call(self) -> Call:
        """A call to be filled, with a booked address if there is one. From any thread."""
        try:
            call = self._booked.popleft()
        except IndexError:
            return self._make()
        self._calls.begin(call.token, call)
        return call

    def _make(self) -> Call:
        return Call(self, f"{self.origin}-{next(self._tokens):x}")

    def book(self) -> None:
        """A thread has its reply: keep an address ready, so that it can call without the loop."""
        if self.courtesy is not None:
            self.courtesy.note()
        if len(self._booked) >= self._bookable or self._calls.full:
            return  # those that wait for an address come first
        assert self._inbox is not None, "before it is open nothing is bookable"
        call = self._make()
        call.address = self._inbox.address(call.token)
        self._booked.append(call)

    def start(self, call: Call) -> bool:
        """Send a filled call. From any thread; raises what the offline policy says.

        False: that is left to the loop.
        """
        loop = self.loop
        if self._closed or loop is None:
            raise _closed()
        if call.address is None:
            loop.call_soon_threadsafe(self.begin, call)
            return False
        call.packet = self._pack(call, call.address)
        if not self._hand_over(call, call.packet):
            loop.call_soon_threadsafe(self._send_later, call)
            return False
        return True

    def read(self, call: Call, seconds: float) -> Packet | None:
        """Read the reply to a call that this thread has sent, if no other one is under way.

        None: its ``finish`` will be told how it ends, or time is up. From any thread but the
        loop's.
        """
        reading, loop = self._reading, self.loop
        if reading is None or loop is None or len(self._calls) != 1:
            return None
        packet = reading.read(call.token, seconds)
        if packet is None:
            return None
        is_reply = self._is_reply(call.token, packet)
        if is_reply:  # booked before the call has ended: the place is never free in between
            following = self._make()
            following.address = reading.hand_on(call.token, following.token)
            if following.address is not None:
                self._booked.append(following)
        if not is_reply or self._calls.take(call.token) is None:
            self.late += 1  # as for ``_take``; or the loop has ended the call meanwhile
            return None
        packet.correlation_id = call.id or call.token
        if self._calls.lines:
            loop.call_soon_threadsafe(self._send_next)
        return packet

    def begin_until(self, call: Call, expired: Expired) -> asyncio.TimerHandle:
        """Send a call and end it with ``expired`` after its timeout; cancel the handle then."""
        loop = asyncio.get_running_loop()
        handle = loop.call_later(call.timeout, self._expire, call, expired)
        self.begin(call)
        return handle

    def _expire(self, call: Call, expired: Expired) -> None:
        self.give_up(call, expired())

    async def ask(self, call: Call, expired: Expired) -> CallOutcome:
        """Send a call whose ``finish`` is not set, and wait for its outcome.

        It is ``expired`` after the call's timeout. Cancelling ends the call.
        """
        future: asyncio.Future[CallOutcome] = asyncio.get_running_loop().create_future()

        def finish(outcome: CallOutcome) -> None:
            if not future.done():
                future.set_result(outcome)
            else:  # cancelled; a reply may have been quicker than the word of it
                self.late += isinstance(outcome, Packet)

        call.finish = finish
        expiry = self.begin_until(call, expired)
        try:
            return await future
        except asyncio.CancelledError:
            self.drop(call.token, _closed())
            raise
        finally:
            expiry.cancel()

    def drop(self, token: str, outcome: CommlibError) -> None:
        """End a call that nobody waits for any more, if its reply has not ended it."""
        call = self._forget(token)
        if call is not None:
            call.end(outcome)
            self._send_next()

    def _forget(self, token: str) -> Call | None:
        """Take a call that has not ended out of the books, and free the address that it has."""
        call, was_under_way = self._calls.drop(token)
        if call is not None and was_under_way and self._inbox is not None:
            self._inbox.release(token, unused=not call.sent)
            if self._withdrawing is not None and call.sent and call.packet is not None:
                self._withdrawing.withdraw(call.name, call.packet)
        return call

    def give_up(self, call: Call, outcome: CommlibError) -> None:
        """End a call this way if it has not ended yet, wherever it is."""
        self.drop(call.token, outcome)
        call.end(outcome)  # it was not under way when the client was stopped

    def _take(self, token: str | None, packet: CallOutcome) -> bool:
        if isinstance(packet, CommlibError):
            if isinstance(packet, NotServedYet):
                self._keep_returned(token)
            elif token is not None:
                self._end_sent(token, packet)
            return True
        if token is not None and (
            # As nearly always, and found out without decoding anything. No string in JSON can say
            # so, for quotes are escaped there.
            (
                packet.header is None
                and packet.payload.find(b'"id":"%b"' % token.encode(), 0, _NEAR) > 0
            )
            or self._is_reply(token, packet)
        ):
            packet.correlation_id = token  # whose it is, whatever it says itself
            self._end_sent(token, packet)
            return True
        # Too late, or a second answer to the call that had this address before.
        self.late += 1
        return False

    def _end_sent(self, token: str, outcome: CallOutcome) -> None:
        call = self._calls.take(token)
        if call is not None:
            if call.id and isinstance(outcome, Packet):
                outcome.correlation_id = call.id
            call.end(outcome)
            if self._calls.lines:
                self._send_next()

    def _is_reply(self, token: str, packet: Packet) -> bool:
        echoed = reply_id(packet)
        if echoed in (token, ""):
            return True
        call = self._calls.get(token)
        return call is not None and call.id == echoed

    def _send_next(self) -> None:
        self._next_pending = False
        while (call := self._calls.next()) is not None:
            self._send(call)

    def _send(self, call: Call) -> None:
        assert self._inbox is not None, "calls are not under way before the inbox is open"
        try:
            if call.address is None:
                call.address = self._inbox.address(call.token)
            if call.packet is None:
                call.packet = self._pack(call, call.address)
            if self._unsent or not self._hand_over(call, call.packet):
                self._send_later(call)
        except CommlibError as exc:
            # Not `drop`, which would send the next one from in here, and that the next.
            self._end_unsent(call, exc)
            self._send_next_soon()

    def _keep_returned(self, token: str | None) -> None:
        """A request has reached nobody: send it again after as long as it is known, or a second."""
        call = self._calls.get(token) if token is not None else None
        if call is not None:
            loop = asyncio.get_running_loop()
            call.returned_at = call.returned_at or loop.time()
            pause = min(max(FIRST_PAUSE, loop.time() - call.returned_at), LONGEST_PAUSE)
            loop.call_later(pause, self._send_returned, call)

    def _send_returned(self, call: Call) -> None:
        """Send a request that has reached nobody once more, if its reply is wanted still."""
        if self._calls.get(call.token) is call and not self._closed:
            assert call.packet is not None, "it was sent"
            past = asyncio.get_running_loop().time() - call.returned_at
            call.packet.ttl = max(0.001, call.timeout - past)
            call.address = None  # the inbox has taken it back
            self._send(call)

    def _end_unsent(self, call: Call, outcome: CommlibError) -> None:
        self._forget(call.token)
        call.end(outcome)

    def _send_next_soon(self) -> None:
        if not self._next_pending:
            self._next_pending = True
            asyncio.get_running_loop().call_soon(self._send_next)

    def _hand_over(self, call: Call, packet: Packet) -> bool:
        call.sent = True  # before it is: its reply may be quick
        try:
            call.sent = self._transport.send(call.name, packet)
        except CommlibError:
            call.sent = False
            raise
        return call.sent

    def _pack(self, call: Call, address: Address) -> Packet:
        traits = self._transport.traits
        writer = call.writer
        header = Header(now_ms(), writer.properties, *self._sequence.next(call.name))
        header.reply_to = address.reply_to
        header.id = call.id or call.token
        header.attempt = call.attempt
        if traits.stores_unread:
            header.deadline = self._transport.clock() + int(call.timeout * 1000)
        packet = writer.wrap(call.body, header, traits.native_headers)
        packet.ttl = call.timeout
        packet.correlation_id = address.correlation_id
        return packet

    def _send_later(self, call: Call) -> None:
        """The outbox is full: keep the order, go on when there is room."""
        self._unsent.append(call)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send_unsent())

    async def _send_unsent(self) -> None:
        while self._unsent:
            waiting = self._unsent[0].packet
            assert waiting is not None, "it was packed before it was put here"
            await self._transport.room(waiting)
            while self._unsent:
                call = self._unsent[0]
                assert call.packet is not None, "it was packed before it was put here"
                try:
                    wanted = call.token in self._calls
                    if wanted and not self._hand_over(call, call.packet):
                        break
                except CommlibError as exc:
                    self.drop(call.token, exc)
                self._unsent.popleft()
