"""Bridges for topics: what is published on one broker is published on the other."""

from __future__ import annotations

from typing import Any, Unpack

from commlib import _topics
from commlib._hops import is_loop
from commlib._letter import check_signed, open_letter, pass_on
from commlib._packet import Packet
from commlib._routes import Pairs, Route, checked_pairs, prefixed, samples, spelled
from commlib._store import Keep
from commlib._turns import is_for_program
from commlib._wire import Reader
from commlib.aio._bridge import Bridge, BridgeOptions, BridgeType
from commlib.aio._endpoint import GRACE, Params
from commlib.aio._outlet import RESUME_SECONDS, Outlet
from commlib.transports.base import Subscription

MAX_ROUTES = 10_000  # topics of a pattern whose way is kept


class TopicOptions(BridgeOptions, total=False):
    """The options of bridges for topics.

    * ``envelope``: what the sink gets where it has no message headers of its own. None: bare
      messages stay bare, all others are wrapped; True: all are wrapped, so that loops can be told;
      False: all are bare.
    * ``keep``: how much waits while the sink is away.
    * ``resume_after`` (s): how long it is held back, at most, when the sink is there again, so that
      subscribers which have lost the same broker are back as well.
    * ``outlet``: what sends to the sink where bridges share the order of their messages; who has
      made it starts and stops it, and ``keep`` and ``resume_after`` are its own.
    """

    envelope: bool | None
    keep: Keep
    resume_after: float
    outlet: Outlet | None


class _Topics(Bridge):
    """What bridges for topics have in common: from a packet of the source to one for the sink."""

    def __init__(
        self,
        btype: BridgeType,
        from_uri: str,
        to_uri: str,
        from_params: Params,
        to_params: Params,
        msg_type: Any,
        /,
        *,
        envelope: bool | None = None,
        keep: Keep = Keep(),  # noqa: B008 - it is frozen
        resume_after: float = RESUME_SECONDS,
        outlet: Outlet | None = None,
        **options: Unpack[BridgeOptions],
    ) -> None:
        super().__init__(btype, from_uri, to_uri, from_params, to_params, **options)
        self.msg_type = msg_type
        self._reader: Reader[Any] | None = None
        if msg_type is not None:
            self._reader = self._make_reader(msg_type)
        self._only_properties = self._reader is not None and self._reader.has_header_and_data
        self._envelope = envelope
        self._is_native = self.sink.transport.traits.native_headers
        self._source_limit = self.hub.params.max_payload
        self._limit = self.sink.params.max_payload
        self._is_plain = self._reader is None and not self._is_native and envelope is not False
        self._routes: dict[str, Route] = {}
        self._has_own_outlet = outlet is None
        self._outlet = outlet or Outlet(
            *(self.sink, self.name, keep, resume_after, self._stats, self._report)
        )
        self._subscription: Subscription | None = None

    def target(self, topic: str) -> str:
        """The topic at the sink for one at the source. Raises ValueError where there is none."""
        raise NotImplementedError

    def _route(self, topic: str) -> Route:
        if len(self._routes) >= MAX_ROUTES:
            self._routes.clear()
        target = _topics.check_topic(self.target(topic))
        source, sink = self._place(self.hub, topic), self._place(self.sink, target)
        route = Route(target, source, sink, source.encode(), source == sink)
        self._routes[topic] = route
        return route

    @property
    def ready(self) -> bool:
        return super().ready and self._subscription is not None and self._subscription.working

    async def _begin(self) -> None:
        if self._has_own_outlet:
            await self._outlet.stop(0)  # after a run that the source has refused
            self._outlet.start()
        self._subscription = await self.hub.transport.subscribe(self.from_uri, self._take)

    async def _end(self) -> None:
        if self._subscription is not None:
            await self._subscription.close()
        if self._has_own_outlet:
            await self._outlet.stop(GRACE)

    def _take(self, packet: Packet) -> None:
        """A message of the source. On the loop."""
        self._stats.received += 1
        try:
            self._pass_on(packet)
        except BaseException as exc:  # the transport has to go on
            if is_for_program(exc):
                raise
            self._report(packet, exc)

    def _pass_on(self, packet: Packet) -> None:
        route = self._routes.get(packet.topic) or self._route(packet.topic)
        passed = None
        if self._is_plain and packet.header is None and not route.is_loop:
            passed = pass_on(packet, route.hop, self._limit)
        if passed is None or len(packet.payload) > self._source_limit:
            passed = self._examine(packet, route)
        if passed is not None:
            self._outlet.put(route.topic, passed)

    def _examine(self, packet: Packet, route: Route) -> Packet | None:
        """The packet for the sink; None if it has been there. Raises Refused."""
        letter = open_letter(packet, self._source_limit, only_properties=self._only_properties)
        hops = letter.header.hops
        if route.is_loop or is_loop(hops, route.source, route.sink):
            self._stats.looped += 1
            return None
        if self._reader is not None:
            self._reader.read(packet)
        passed = letter.forward(
            (*hops, route.source),
            native=self._is_native,
            envelope=self._envelope,
            limit=self._limit,
            beside=self.sink.transport.traits.header_beside_bare,
        )
        return check_signed(letter, passed, self._limit)


class TopicBridge(_Topics):
    """What is published on a topic of one broker is published on a topic of the other.

    ``msg_type=None`` passes anything on; a signed message whose signature would not hold there is
    refused. Options: ``TopicOptions``. Raises ValueError for a topic that is bridged to itself.
    """

    def __init__(
        self,
        btype: BridgeType = None,
        from_uri: str = "",
        to_uri: str = "",
        from_broker_params: Params = None,
        to_broker_params: Params = None,
        msg_type: Any = None,
        **options: Unpack[TopicOptions],
    ) -> None:
        if _topics.is_pattern(from_uri):
            raise ValueError(f"{from_uri!r} is a pattern: a PTopicBridge takes it")
        _topics.check_topic(from_uri, "from_uri")
        _topics.check_topic(to_uri, "to_uri")
        super().__init__(
            *(btype, from_uri, to_uri, from_broker_params, to_broker_params, msg_type), **options
        )
        if self._route(from_uri).is_loop:
            raise ValueError(f"{self.name}: source and sink are the same topic of the same broker")

    def target(self, topic: str) -> str:
        return self.to_uri


class PTopicBridge(_Topics):
    """What is published on the topics of a pattern is published on the other broker.

    The topic there is ``<to_namespace>.<topic>``, in the notation of the namespace if it has more
    than one word, else of ``from_uri``; in this each pair ``(from, to)`` of ``uri_transform`` is
    replaced, in order. A broker that has a notation of its own gets it in that one. An empty
    namespace leaves the topic as it is. ``msg_type=None`` passes anything on. Options:
    ``TopicOptions``.

    Raises ValueError for a ``from_uri`` without ``*``, and for a pattern that would match what this
    bridge itself publishes on the same broker.
    """

    def __init__(
        self,
        btype: BridgeType = None,
        from_uri: str = "",
        to_namespace: str = "",
        from_broker_params: Params = None,
        to_broker_params: Params = None,
        msg_type: Any = None,
        uri_transform: Pairs = (),
        **options: Unpack[TopicOptions],
    ) -> None:
        if not _topics.is_pattern(_topics.check_pattern(from_uri)):
            raise ValueError(f"from_uri={from_uri!r} must hold '*'; a TopicBridge takes one topic")
        if to_namespace:
            _topics.check_topic(to_namespace, "to_namespace")
        self.to_namespace = to_namespace
        self.uri_transform = checked_pairs(uri_transform)
        super().__init__(
            *(btype, from_uri, f"{to_namespace}.*" if to_namespace else "*"),
            *(from_broker_params, to_broker_params, msg_type),
            **options,
        )
        source = self.hub.transport.traits
        self._separator = source.separator
        pattern = spelled(from_uri, source.separator)
        self._matches = _topics.matcher(pattern, source.native_wildcards) or (lambda topic: False)
        self._is_same_broker = self.hub.params.address == self.sink.params.address
        for topic in samples(from_uri):
            if self._feeds_itself(self.target(topic)):
                raise ValueError(
                    f"{self.name} would feed itself: it takes its own {self.target(topic)!r}, "
                    f"published for {topic!r}, from the same broker again"
                )

    def takes(self, topic: str) -> bool:
        """Whether it takes what is published on this topic, in either notation of its broker."""
        return self._matches(spelled(topic, self._separator))

    def _feeds_itself(self, target: str) -> bool:
        return self._is_same_broker and self.takes(target)

    def target(self, topic: str) -> str:
        separator = self.sink.transport.traits.separator
        # Where the sink wants slashes they stay: only so are the dots beside them kept.
        notation = "/" if separator == "/" and "/" in topic else ""
        target = prefixed(self.to_namespace, topic, notation)
        for old, new in self.uri_transform:
            target = target.replace(old, new)
        return spelled(target, separator)

    def _route(self, topic: str) -> Route:
        route = super()._route(topic)
        if self._feeds_itself(route.topic):
            route = self._routes[topic] = route._replace(is_loop=True)
        return route
