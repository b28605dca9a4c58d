"""Redis and Valkey.

Features: PubSub and patterns (channels), RPC and everything built on it (lists), authentication
with and without a user name, databases, TLS, unix sockets. Redis 5 to 8 and Valkey; nothing is
used that RESP2 does not have.

Connections, each opened on first need: commands, channels, requests to services (one for every
hundred of them), replies to callers. All are supervised on their own and restored when they break,
also on an empty server.

Parameters: see ``ConnectionParameters``. URLs::

    redis://user:password@host:6379/0?keepalive=5
    rediss://host                                    TLS, certificate and host name checked
    redis+unix:///tmp/redis.sock?db=1

What Redis cannot do: it has no message headers (the envelope carries them), no delivery
guarantees beyond at most once, and nobody is told when a channel has no subscriber. Its lists keep
what nobody reads: requests carry a deadline in the server's clock, and services drop what is older;
who called takes back what has had no reply by then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from commlib import events, pubsub, rpc
from commlib._packet import Packet
from commlib._params import Offline as Offline
from commlib._parts import LONG, Frame
from commlib._session import Link, Session
from commlib._topics import REDIS_WILDCARDS
from commlib._typing import Req, Resp, T
from commlib.exceptions import AuthError, CommlibError, ConnectionLost
from commlib.transports import ACTION_CLASSES, loaded_when_needed
from commlib.transports._confirmation import Ending
from commlib.transports._redis_answers import LazyReading
from commlib.transports._redis_channels import Channels
from commlib.transports._redis_link import (
    Asking,
    RedisLink,
    Replica,
    bulk,
    command,
    dial,
    expire,
    is_replica,
    push,
    take_out,
)
from commlib.transports._redis_params import ConnectionParameters as ConnectionParameters
from commlib.transports._redis_params import Credentials as Credentials
from commlib.transports._redis_params import TCPConnectionParameters as TCPConnectionParameters
from commlib.transports._redis_params import (
    UnixSocketConnectionParameters as UnixSocketConnectionParameters,
)
from commlib.transports._redis_replies import ReplyLists
from commlib.transports._redis_requests import RequestConsumer, RequestLists
from commlib.transports._sessions import FLUSH_SECONDS, SupervisedTransport
from commlib.transports.base import Address, Handler, ReplyHandler, Traits

if TYPE_CHECKING:
    from commlib.transports._redis_actions import ActionClient as ActionClient
    from commlib.transports._redis_actions import ActionService as ActionService

log = logging.getLogger("commlib.redis")

ORPHAN_SECONDS = 60  # a reply that nobody fetches is deleted by the server after that
REPLY_PREFIX = "rpc-"  # of the reply lists of every version of commlib
UNSETTLED_FLUSH_SECONDS = 0.1
MAX_PREFIXES = 10_000  # topics whose command prefix is kept
MAX_QUEUES = 100  # popped on one connection: each of its BLPOPs names all of them
LONGEST_TIME = 11  # digits of the server's time in s: enough for 3000 years


class _Inbox:
    """The reply lists of one transport, and the session they are popped on."""

    capacity = ReplyLists.capacity

    def __init__(self, lists: ReplyLists, session: Session, delete: Callable[..., None]) -> None:
        self.address = lists.address
        self.release = lists.release
        self.read = lists.read
        self.hand_on = lists.hand_on
        self._lists = lists
        self._session = session
        self._delete = delete

    async def close(self) -> None:
        await self._session.close()
        self._delete(self._lists.close())


class _Requests(NamedTuple):
    """The queues of some services, and the session they are popped on."""

    lists: RequestLists
    session: Session


class RedisTransport(SupervisedTransport[ConnectionParameters]):
    """The seven verbs on Redis."""

    traits = Traits(
        stores_unread=True, native_wildcards=REDIS_WILDCARDS, takes_parts=True, tells_time=True
    )

    def __init__(self, params: ConnectionParameters) -> None:
        super().__init__(params)
        # The broker's ms since 1970 less our monotonic clock: no step of our clock disturbs it.
        self._clock_offset = (time.time() - time.monotonic()) * 1000
        self._commands_link: RedisLink | None = None
        self._commands = self._sessions.add("commands", self._dial_commands, self._on_commands)
        self._outbox = self._make_outbox(self._commands)
        self._commands.on_failure = self._outbox.wake
        self._commands.on_cancelled = self._outbox.give_up
        self._channels = Channels(self._note_garbage, self._note_refused_name)
        self._channel_session = self._sessions.add(
            "channels", self._dial_channels, self._on_channels
        )
        self._requests: list[_Requests] = []
        self._replies = ReplyLists(
            params.keepalive, self._wake, self._delete, self._note_refused_name
        )
        self._reply_session = self._sessions.add("replies", self._dial_pops, self._on_replies)
        self._role_watch: asyncio.Task[None] | None = None
        self._is_replica_told = False
        self._place = params
        """Where it is, or was last."""
        self._publish_prefixes: dict[str, bytes] = {}

    # The verbs.

    async def connect(self) -> None:
        self._outbox.attend()
        await self._commands.ready()

    async def close(self) -> None:
        for requests in self._requests:
            if requests.session.was_linked:
                self._delete([requests.lists.popper.wake_list])
        request_sessions = (requests.session for requests in self._requests)
        for session in (self._channel_session, *request_sessions, self._reply_session):
            await session.close()
        if self._commands.link is not None or not (self._outbox.empty or self._commands.failed):
            # A server that was already waited for in vain is given no more time than it needs. What
            # is not confirmed by then is counted when the link goes.
            is_unsettled = any(requests.lists.unsettled for requests in self._requests)
            seconds = UNSETTLED_FLUSH_SECONDS if is_unsettled else FLUSH_SECONDS
            await self._flush_last(self._commands.link, seconds)
        await self._commands.close()
        self._outbox.close()

    def publish(self, topic: str, packet: Packet) -> bool:
        prefix = self._publish_prefixes.get(topic)
        if prefix is None:
            prefix = self._prefix(topic)
        payload = packet.payload
        if len(payload) >= LONG:
            return self._outbox.put(bulk(prefix, payload), topic)
        return self._outbox.put(b"%b%d\r\n%b\r\n" % (prefix, len(payload), payload), topic)

    def _prefix(self, topic: str) -> bytes:
        if len(self._publish_prefixes) >= MAX_PREFIXES:
            self._publish_prefixes.clear()
        frame = command("PUBLISH", topic, b"")
        prefix = self._publish_prefixes[topic] = frame.removesuffix(b"0\r\n\r\n")
        return prefix

    async def subscribe(self, topic: str, handler: Handler) -> Ending:
        channel = self._channels.add(topic, handler)
        try:
            await self._channel_session.ready()
            await channel.answer()
        except BaseException:  # cancellation, too
            self._channels.remove(channel, handler)
            raise
        return Ending(self._channels.remove, channel, handler)

    def send(self, to: str | Address, packet: Packet) -> bool:
        if not isinstance(to, str):
            return self._reply(to, packet, more=False)
        note: str = to
        if packet.correlation_id:
            note = asking = Asking(to)
            asking.token = packet.correlation_id
        return self._outbox.put(push(to, packet.payload), note, True)

    def hold(self, to: Address, packet: Packet) -> bool:
        return self._reply(to, packet, more=True)

    def let_go(self) -> None:
        self._outbox.let_go()

    def _reply(self, to: Address, packet: Packet, more: bool) -> bool:
        queue = to.reply_to
        frame = push(queue, packet.payload)
        if not queue.startswith(REPLY_PREFIX):
            # Whoever may call could name any key of ours, which would be gone in a minute.
            return self._outbox.put(frame, queue, True, more)
        # The caller may be gone: then nobody would ever delete the list.
        return self._outbox.put(frame + expire(queue, ORPHAN_SECONDS), (queue, None), True, more)

    def withdraw(self, to: str, packet: Packet) -> None:
        if self._commands_link is None:
            return  # one that was not sent will not be, see ``_revised``
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)  # nobody waits for the answer, and it is no message
        # Behind the request; where there is no room for it now, that is left there.
        self._outbox.put(take_out(to, packet.payload), done)

    async def consume(self, queue: str, handler: Handler, prefetch: int) -> RequestConsumer:
        await self._commands.ready()
        backlog = await self._backlog(queue)
        requests = self._requests_for(queue)
        consumer = requests.lists.add(queue, handler, prefetch, backlog)
        try:
            await requests.session.ready()
        except BaseException:  # cancellation, too: it would take requests for nobody
            await consumer.close()
            raise
        return consumer

    def _requests_for(self, queue: str) -> _Requests:
        """Where this queue is popped already, or there is room for it.

        What a request costs grows with the queues that are popped together, here and on the server.
        """
        roomy = None
        for requests in self._requests:
            if queue in requests.lists:
                return requests
            if roomy is None and len(requests.lists) < MAX_QUEUES:
                roomy = requests
        return roomy or self._more_requests()

    def _more_requests(self) -> _Requests:
        lists = RequestLists(
            self.params.keepalive, self._wake, self._put_back, self._note_refused_name
        )

        def on_link(link: Link | None) -> None:
            assert link is None or isinstance(link, RedisLink)
            lists.popper.attach(link)

        requests = _Requests(lists, self._sessions.add("requests", self._dial_pops, on_link))
        self._requests.append(requests)
        return requests

    async def _backlog(self, queue: str) -> int:
        """How many requests wait already."""
        try:
            waiting = await self._commands_link.ask("LLEN", queue) if self._commands_link else 0
        except CommlibError:
            waiting = None  # an ACL without LLEN: then all are taken for new
        return waiting if isinstance(waiting, int) else 0

    async def open_inbox(self, handler: ReplyHandler) -> _Inbox:
        self._replies.handler = handler
        await self._commands.ready()  # requests are written there
        await self._reply_session.ready()
        return _Inbox(self._replies, self._reply_session, self._delete)

    # Beside the verbs.

    async def room(self, packet: Packet) -> None:
        await self._outbox.room()

    async def flush(self) -> None:
        await self._commands.ready()
        link = self._commands.link
        if not isinstance(link, RedisLink):
            return
        link.on_asked()
        await self._outbox.confirm(command("PING"), link.closed)

    def clock(self) -> int:
        return int(time.monotonic() * 1000 + self._clock_offset)

    # The connections.

    async def _dial(self) -> RedisLink:
        place = self._sessions.params
        try:
            link = await dial(str(place), place)
        except Replica as exc:
            self._sessions.leave(place, exc)  # the other connections may be there still
            raise
        return link

    async def _dial_pops(self) -> RedisLink:
        link = await self._dial()
        link.allow_direct()  # and with that, threads to read
        return link

    async def _dial_commands(self) -> RedisLink:
        link = await self._dial()
        link.on_refused = self._note_refused
        link.on_room = self._outbox.on_room
        link.allow_direct()

        def probe() -> None:
            self._learn_clock(link)

        link.probe = probe
        if link.is_direct:
            LazyReading(link)
        try:
            await asyncio.wait([self._learn_clock(link)])
        except BaseException:  # stopped, or no answer in time: nobody else knows of this link
            await link.give_up()
            raise
        return link

    def _learn_clock(self, link: RedisLink) -> asyncio.Future[Any]:
        """Ask for the server's time; it serves as the sign of life as well."""
        asked = time.monotonic()

        def learn(answer: asyncio.Future[Any]) -> None:
            if answer.cancelled() or isinstance(answer.exception(), ConnectionLost):
                return  # what was learned before still holds
            server = None if answer.exception() is not None else _seconds(answer.result())
            if server is None:
                server = time.time()  # an ACL without TIME: our own clock has to do
            self._clock_offset = (server - (asked + time.monotonic()) / 2) * 1000

        answer = link.ask("TIME")
        answer.add_done_callback(learn)
        return answer

    def _on_commands(self, link: Link | None) -> None:
        assert link is None or isinstance(link, RedisLink)
        if link is None and self._commands_link is not None:
            self.stats.unconfirmed += self._commands_link.unconfirmed
        self._commands_link = link
        if link is not None:
            self._place = self._sessions.params
            self._outbox.revise(self._revised)
        self._outbox.set_link(link)
        if self._role_watch is not None:
            self._role_watch.cancel()
            self._role_watch = None
        if link is not None:
            if self.params.fallbacks and self.params.reconnect:
                watch = self._watch_role(link)
                self._role_watch = asyncio.get_running_loop().create_task(watch)
            for requests in self._requests:
                requests.lists.popper.refresh(anew=True)
            self._replies.popper.refresh(anew=True)

    def _revised(self, frame: Frame, note: object) -> Frame | None:
        """What has waited as it is to be written now: no request that nobody waits for any more."""
        is_stale = isinstance(note, Asking) and not self._replies.expects(note.token)
        return None if is_stale else frame

    async def _dial_channels(self) -> RedisLink:
        link = await self._dial()
        try:
            await self._channels.restore(link)
        except BaseException:  # stopped, or no answer in time: nobody else knows of this link
            await link.give_up()
            raise
        return link

    def _on_channels(self, link: Link | None) -> None:
        if link is None:
            self._channels.detach()

    def _on_replies(self, link: Link | None) -> None:
        assert link is None or isinstance(link, RedisLink)
        self._replies.popper.attach(link)

    def _write(self, *frames: bytes) -> bool:
        """Write commands whose answers are of no interest, if there is a connection now."""
        if self._commands_link is None:
            return False
        self._commands_link.write(frames, [None] * len(frames))
        return True

    def _wake(self, wake_list: bytes, count: int) -> bool:
        return self._write(
            command("RPUSH", wake_list, *([b""] * count)),
            command("EXPIRE", wake_list, ORPHAN_SECONDS),
        )

    def _delete(self, keys: Sequence[bytes]) -> None:
        self._write(command("DEL", *keys))

    def _put_back(self, key: bytes, payload: bytes, else_lost: bool) -> bool:
        done = self._write(command("LPUSH", key, payload))
        self.stats.unconfirmed += else_lost and not done
        return done

    def _note_refused(self, note: object, error: CommlibError) -> None:
        self._note_refused_name(error)
        self.on_refused(str(note), error)
        if isinstance(note, Asking):
            is_final = isinstance(error, AuthError)
            self._replies.refuse(note.token, error if is_final else ConnectionLost(str(error)))

    def _note_refused_name(self, error: CommlibError) -> None:
        self.stats.refused += 1
        if isinstance(error, Replica):
            self._note_replica()

    def _note_replica(self) -> None:
        place = self._place  # which may have been left already, for what came before this
        is_left = self._sessions.leave(place, Replica(f"{place} is a replica by now"))
        if not is_left and not self._is_replica_told:
            self._is_replica_told = True
            log.warning(
                "%s is a replica: it takes no calls, and what is published here is heard only here",
                self._name,
            )

    async def _watch_role(self, link: RedisLink) -> None:
        """Find out that another server is to be used; who only publishes is not told."""
        with suppress(ConnectionLost):
            role: bool | None = False
            while role is False:
                await asyncio.wait([link.closed], timeout=self.params.keepalive)
                role = await is_replica(link.ask("ROLE"))
            if role:
                self._note_replica()

    def _note_garbage(self, reply: Any) -> None:
        self.stats.garbage += 1


def _seconds(reply: Any) -> float | None:
    """What a server answers to TIME, in s since 1970; None for what is no such answer."""
    match reply:
        case [bytes() as seconds, bytes() as micros] if len(seconds) <= LONGEST_TIME >= len(micros):
            if seconds.isdigit() and micros.isdigit():
                return int(seconds) + int(micros) / 1e6
    return None


class Publisher(pubsub.Publisher[T]):
    """``commlib.pubsub.Publisher`` on Redis."""

    scheme = "redis"


class MPublisher(pubsub.MPublisher[T]):
    """``commlib.pubsub.MPublisher`` on Redis."""

    scheme = "redis"


class Subscriber(pubsub.Subscriber[T]):
    """``commlib.pubsub.Subscriber`` on Redis."""

    scheme = "redis"


class PSubscriber(pubsub.PSubscriber[T]):
    """``commlib.pubsub.PSubscriber`` on Redis."""

    scheme = "redis"


class WPublisher(pubsub.WPublisher[T]):
    """``commlib.pubsub.WPublisher`` on Redis."""

    scheme = "redis"


class WSubscriber(pubsub.WSubscriber):
    """``commlib.pubsub.WSubscriber`` on Redis."""

    scheme = "redis"


class RPCService(rpc.RPCService):
    """``commlib.rpc.RPCService`` on Redis."""

    scheme = "redis"


class RPCServer(rpc.RPCServer):
    """``commlib.rpc.RPCServer`` on Redis."""

    scheme = "redis"


class RPCClient(rpc.RPCClient[Req, Resp]):
    """``commlib.rpc.RPCClient`` on Redis."""

    scheme = "redis"


class EventEmitter(events.EventEmitter):
    """``commlib.events.EventEmitter`` on Redis."""

    scheme = "redis"


if not TYPE_CHECKING:
    __getattr__ = loaded_when_needed("commlib.transports._redis_actions", *ACTION_CLASSES)
