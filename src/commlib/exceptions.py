"""Every error that commlib raises, by situation and not by broker.

::

    CommlibError
    ├── ConnectError (ConnectionError)      the broker could not be reached
    │   └── AuthError                       it was reached and said no: credentials or rights
    │       └── CertificateError            TLS: one side does not trust the other's certificate
    ├── MissingDriver (ImportError)         an extra is not installed; the text names it
    ├── ConnectionLost (ConnectionError)    it was reached once and is away now
    ├── OutboxFull (TimeoutError)           no room in the outgoing queue within the timeout
    ├── SlowConsumer                        a callback is too slow; told to ``on_error``
    ├── SerializationError (ValueError)     a message that cannot be encoded or decoded
    │   ├── PayloadTooBig                   more bytes than ``max_payload``, or the broker takes
    │   └── SignatureError                  not signed by a key that is trusted, or replayed
    ├── RPCError
    │   ├── RPCTimeout (TimeoutError)       nobody answered in time
    │   │   └── ServiceNotFound             the broker says at once that nobody serves it
    │   └── RPCRemoteError                  the service answered with an error
    ├── GoalError
    │   ├── GoalRefused                     the service did not take the goal, and says why
    │   ├── GoalAborted                     what works on the goal raised, or gave up
    │   ├── GoalCanceled                    it was cancelled and has left no result
    │   ├── GoalTimeout (TimeoutError)      it has not ended in time; it goes on
    │   └── GoalLost                        nobody knows the goal any more, or answers for it
    ├── EndpointClosed (RuntimeError)       used after ``stop()``
    └── BlockingCall (RuntimeError)         a call that would block the event loop it needs

The names of released commlib-py stay, so that what they were written to catch is caught.
``RPCClientTimeoutError`` is ``RPCTimeout`` and ``RPCRequestError`` is ``SerializationError``. The
names that say who failed, or at which broker, are all ``CommlibError``, for the names above say
what happened: ``RPCClientError``, ``RPCServerError``, ``RPCServiceError``, ``PublisherError``,
``SubscriberError``, ``NodeError``, ``AMQPError``, ``MQTTError``, ``RedisError``.
"""

from __future__ import annotations


class CommlibError(Exception):
    """The root: catch this to catch all that commlib raises on purpose."""

    logged = False
    """Whether it stands in the log already."""


class ConnectError(CommlibError, ConnectionError):
    """The broker could not be reached; the cause is in ``__cause__``."""


class AuthError(ConnectError):
    """The broker refused the credentials, or the user has no right to do this.

    So it is with a virtual host (AMQP) or a database (Redis) that is not there.
    """


class CertificateError(AuthError):
    """TLS: the certificate of the broker does not verify, or the broker does not take ours.

    A broker whose certificate does not verify was sent nothing, credentials least of all.
    """


class MissingDriver(CommlibError, ImportError):
    """The package that speaks to this kind of broker is not installed."""


class ConnectionLost(CommlibError, ConnectionError):
    """The connection is away and the offline policy says not to wait for it.

    Or it has broken, and what was waited for cannot come any more.
    """


class OutboxFull(CommlibError, TimeoutError):
    """The outgoing queue had no room within the timeout; the message was not taken."""


class SlowConsumer(CommlibError):
    """A callback does not keep up and messages for it are dropped.

    Nothing raises it: ``on_error`` is told once for each such episode, and the log.
    """


class SerializationError(CommlibError, ValueError):
    """A message that cannot be encoded, or a payload that cannot be decoded."""


class PayloadTooBig(SerializationError):
    """A payload of ``size`` bytes where ``limit`` is the most that is allowed.

    ``by_broker``: it is the broker that takes no more, of the payload and what is sent with it.
    """

    def __init__(self, size: int, limit: int, by_broker: bool = False) -> None:
        super().__init__(
            f"a packet of {size} bytes is over the limit of {limit} that the broker has set; "
            "raise it in the configuration of the broker, or send less"
            if by_broker
            else f"a payload of {size} bytes is over the limit of {limit}; "
            "raise max_payload in the connection parameters of both sides, or send less"
        )
        self.size = size
        self.limit = limit
        self.by_broker = by_broker

    def __reduce__(self) -> tuple[type[PayloadTooBig], tuple[int, int, bool]]:
        return PayloadTooBig, (self.size, self.limit, self.by_broker)


class SignatureError(SerializationError):
    """A message without the signature of a trusted key, or one that was taken before."""


class RPCError(CommlibError):
    """A call that did not bring a response."""


class RPCTimeout(RPCError, TimeoutError):
    """Nobody answered in time; whether the request was handled is not known."""


class ServiceNotFound(RPCTimeout):
    """The broker has said that nobody serves this name; the request was not handled.

    Brokers that tell such a thing (AMQP) do so at once; elsewhere it is a plain RPCTimeout.
    """


class RPCRemoteError(RPCError):
    """The service answered with an error.

    ``type`` is the name of the error's class over there and ``message`` its text.
    """

    def __init__(self, type: str, message: str) -> None:
        super().__init__(f"{type}: {message}")
        self.type = type
        self.message = message

    def __reduce__(self) -> tuple[type[RPCRemoteError], tuple[str, str]]:
        return RPCRemoteError, (self.type, self.message)


class GoalError(CommlibError):
    """A goal that did not bring a result."""


class GoalRefused(GoalError):
    """The service did not take the goal; the text is its reason."""


class GoalAborted(GoalError):
    """The callback that works on the goal raised, or said that it has failed.

    ``type`` is the name of the error's class over there, empty if it raised none, and ``message``
    its text.
    """

    def __init__(self, type: str, message: str) -> None:
        super().__init__(f"{type}: {message}" if type else message)
        self.type = type
        self.message = message

    def __reduce__(self) -> tuple[type[GoalAborted], tuple[str, str]]:
        return GoalAborted, (self.type, self.message)


class GoalCanceled(GoalError):
    """The goal was cancelled, and what is left of it is no result of the client's class."""


class GoalTimeout(GoalError, TimeoutError):
    """The goal has not ended in time; it goes on, and can be waited for again, or cancelled."""


class GoalLost(GoalError):
    """How the goal ended cannot be known: its service answers no more, or has forgotten it."""


class EndpointClosed(CommlibError, RuntimeError):
    """The endpoint was stopped; ``run()`` it again or make a new one."""


class BlockingCall(CommlibError, RuntimeError):
    """A blocking call on the event loop that would have to answer it: it would never return."""


# ---- the names of released commlib-py ----
# Other names for the same classes, not subclasses: an ``except`` with the old name has to catch
# what is raised under the new one.

RPCClientTimeoutError = RPCTimeout
"""The name that commlib-py 0.6.3 has for it."""

RPCRequestError = SerializationError
"""A request that cannot be encoded, or is no such message; the name of 0.13."""

RPCClientError = CommlibError
"""All that a call may raise, RPCClientTimeoutError as well."""

RPCServerError = RPCServiceError = CommlibError
"""All that a service may raise; the second is the name of 0.13."""

PublisherError = CommlibError
"""All that a publisher may raise."""

SubscriberError = CommlibError
"""All that a subscriber may raise."""

NodeError = CommlibError
"""All that a node may raise."""

AMQPError = MQTTError = RedisError = CommlibError
"""All that may go wrong at a broker."""
