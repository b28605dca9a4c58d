"""Publish and subscribe, from plain Python; ``commlib.aio`` has the same for asyncio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Unpack, overload

from commlib import aio
from commlib._face import Endpoint, params_anywhere
from commlib._lanes import Bounds as Bounds
from commlib._topics import check_topic
from commlib._typing import OnMessage, T
from commlib.aio._endpoint import Params
from commlib.aio.pubsub import PublisherOptions, Sender, SubscriberOptions, check_mpub


class _Sender(Endpoint[Sender[T]], Generic[T]):
    """What publishers have in common."""

    def _publish(self, msg: T, topic: str) -> None:
        core = self._core
        if core.stopped or core.hub.loop is None:
            self._started()
        packet = core.pack(msg, topic)
        if not core.post(packet, topic):
            self._started().run(core.post_when_room, packet, topic)


class Publisher(_Sender[T]):
    """Publishes messages of one type on one topic; usable as soon as it is made.

    With ``offline="raise"`` that is once it is connected: ``wait_connected()``. ``msg_type=None``
    takes whatever can be written as JSON. ``conn_params``: parameters or a URL. Options:
    ``commlib.aio.pubsub.PublisherOptions``.
    """

    @params_anywhere
    def __init__(
        self,
        topic: str,
        msg_type: type[T] | None = None,
        conn_params: Params = None,
        **options: Unpack[PublisherOptions],
    ) -> None:
        super().__init__(
            aio.Publisher(topic, msg_type, self._params(conn_params, options), **options)
        )
        self.topic = topic
        self._started()

    def publish(self, msg: T) -> None:
        """Send a message to every live subscriber of the topic; from any thread.

        Appends to the outgoing queue and returns; while that is full it waits, at most the
        ``timeout`` of ``Offline``, by default 10 s. Order is kept for each thread.

        Raises SerializationError, PayloadTooBig, OutboxFull, ConnectionLost where the offline
        policy says so, AuthError when the broker refuses the credentials, ConnectError or
        ConnectionLost with ``reconnect=False``, EndpointClosed after ``stop()``, also if that comes
        while it waits, and BlockingCall where it would wait on the event loop.
        """
        self._publish(msg, self.topic)


class MPublisher(_Sender[T]):
    """Publishes messages of one type on any topic; otherwise as ``Publisher``."""

    @params_anywhere
    def __init__(
        self,
        msg_type: type[T] | None = None,
        conn_params: Params = None,
        **options: Unpack[PublisherOptions],
    ) -> None:
        params = self._params(conn_params, options)
        super().__init__(aio.MPublisher(msg_type, params, **options))
        self._started()

    def publish(self, msg: T, topic: str) -> None:
        """Send a message to every live subscriber of this topic; as ``Publisher.publish``.

        Raises also ValueError for a pattern and what else is no name, TypeError for what is no str.
        """
        self._publish(msg, check_topic(topic))


class WPublisher(_Sender[T]):
    """A ``Publisher`` on the connection of an ``MPublisher``; it ends with that.

    Raises TypeError for an ``mpub`` that is no MPublisher.
    """

    def __init__(
        self,
        mpub: MPublisher[Any],
        topic: str,
        msg_type: type[T] | None = None,
        **options: Unpack[PublisherOptions],
    ) -> None:
        check_mpub(mpub, MPublisher)
        core = mpub.core
        assert isinstance(core, aio.MPublisher), "that of an MPublisher is one"
        super().__init__(aio.WPublisher(core, topic, msg_type, **options))
        self.topic = topic

    def publish(self, msg: T) -> None:
        """Send a message to every live subscriber of the topic; as ``Publisher.publish``."""
        self._publish(msg, self.topic)


def _check_given(topic: str, callback: object, name: str = "on_message") -> None:
    if callback is None:  # what a function returns that is called here instead of later
        raise TypeError(f"{topic}: {name}=None cannot be called; give the function itself")


class Subscriber(Endpoint[aio.Subscriber[T]], Generic[T]):
    """Receives the messages of a topic or pattern, in order, from ``run()`` to ``stop()``.

    ``on_message(msg)`` is called, or ``(msg, topic)`` if it requires two arguments: a plain
    function on a worker thread, a coroutine function on the loop. ``msg_type=None`` gives plain
    decoded data. Options: ``commlib.aio.pubsub.SubscriberOptions``.
    """

    @overload
    def __init__(
        self,
        topic: str,
        on_message: OnMessage[T],
        msg_type: type[T],
        conn_params: Params = None,
        **options: Unpack[SubscriberOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: Subscriber[Any],
        topic: str,
        on_message: Callable[..., Any],
        msg_type: None = None,
        conn_params: Params = None,
        **options: Unpack[SubscriberOptions],
    ) -> None: ...

    @params_anywhere
    def __init__(
        self,
        topic: str,
        on_message: Callable[..., Any],
        msg_type: Any = None,
        conn_params: Params = None,
        **options: Unpack[SubscriberOptions],
    ) -> None:
        params = self._params(conn_params, options)
        _check_given(topic, on_message)
        super().__init__(aio.Subscriber(topic, on_message, msg_type, params, **options))
        self.topic = topic


class PSubscriber(Endpoint[aio.PSubscriber[T]], Generic[T]):
    """Receives messages together with their topics; otherwise as ``Subscriber``.

    ``on_message(msg, topic)`` is called, or ``(msg)`` if it cannot take two arguments.
    """

    @overload
    def __init__(
        self,
        topic: str,
        on_message: OnMessage[T],
        msg_type: type[T],
        conn_params: Params = None,
        **options: Unpack[SubscriberOptions],
    ) -> None: ...

    @overload
    def __init__(
        self: PSubscriber[Any],
        topic: str,
        on_message: Callable[..., Any],
        msg_type: None = None,
        conn_params: Params = None,
        **options: Unpack[SubscriberOptions],
    ) -> None: ...

    @params_anywhere
    def __init__(
        self,
        topic: str,
        on_message: Callable[..., Any],
        msg_type: Any = None,
        conn_params: Params = None,
        **options: Unpack[SubscriberOptions],
    ) -> None:
        params = self._params(conn_params, options)
        _check_given(topic, on_message)
        super().__init__(aio.PSubscriber(topic, on_message, msg_type, params, **options))
        self.topic = topic


class WSubscriber(Endpoint[aio.WSubscriber]):
    """Receives many topics or patterns, each with a callback of its own, on one connection.

    Options: ``commlib.aio.pubsub.SubscriberOptions``, for all of them.
    """

    def __init__(self, conn_params: Params = None, **options: Unpack[SubscriberOptions]) -> None:
        super().__init__(aio.WSubscriber(self._params(conn_params, options), **options))

    def subscribe(
        self, topic: str, callback: Callable[..., Any], msg_type: type[T] | None = None
    ) -> None:
        """Receive one more topic or pattern, at once if this runs; ``callback`` as ``on_message``.

        Returns when the broker has confirmed it, if it is there. Raises ValueError for what is no
        topic or pattern, TypeError for what is no such callback, and, if this runs, AuthError where
        the user has no right to it.
        """
        _check_given(topic, callback, "callback")
        self._begin_part(self._core.new_subscriber(topic, callback, msg_type))
