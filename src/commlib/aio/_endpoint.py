"""What all endpoints have in common: a hub, counters, a beginning and an end."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from commlib._forms import AnySerializer
from commlib._lanes import Bounds, Lane, is_async, make_lane
from commlib._packet import Packet, peek
from commlib._params import nearest
from commlib._records import about
from commlib._stats import Stats
from commlib._turns import is_for_program
from commlib._wire import Reader, Refused, Writer
from commlib.aio._hub import Hub
from commlib.aio._life import Living
from commlib.compression import Compression
from commlib.exceptions import SlowConsumer
from commlib.transports import Params as Params
from commlib.transports import first_given, resolve
from commlib.transports.base import StateHandler

if TYPE_CHECKING:
    from commlib._signatures import Signing
    from commlib._verifier import Verifier
    from commlib.signing import SigningKey, TrustedKeys

GRACE = 0.5  # s that stop() leaves a callback to finish
MAX_TEXT = 65_536  # characters of an error's text that are logged, or sent to a caller
MAX_ID = 64  # characters of a message's origin that are logged
MAX_REPORTS = 100  # different errors of one endpoint that are logged
ON_ERROR = ("on_error", 0)  # the report that ``on_error`` itself has failed

ErrorHandler = Callable[[Any, str], Any]
"""Told of an error that could not be raised, and the topic; on the thread where it happened.

The error may be any ``BaseException``; who expects an ``Exception`` may say so, too.
"""


class FormOptions(TypedDict, total=False):
    """How messages are written; what is read is told by what was written.

    * ``serializer``: see ``commlib.serializer``; by default JSON.
    * ``compression``: ``"zlib"``, a level of it from 1 to 9, or ``"zstd"``; by default none.
    """

    serializer: AnySerializer | None
    compression: Compression


class SecurityOptions(TypedDict, total=False):
    """Whose messages they are; see ``commlib.signing``.

    * ``sign``: the key with which all is signed that is sent.
    * ``verify``: the keys, one of which must have signed all that is received.
    """

    sign: SigningKey | None
    verify: TrustedKeys | None


class Options(FormOptions, SecurityOptions, total=False):
    """What every endpoint can be told, beside ``FormOptions`` and ``SecurityOptions``.

    * ``connection_params``: another name of ``conn_params``.
    * ``on_error(error, topic)`` is told of what could not be raised.
    * ``on_state(connected, reason)`` is called on the loop when the connection comes and goes.
    * ``debug``: log when endpoints of this kind begin and stop, and what else is of that level.
    * ``grace`` (s): how long ``stop()`` lets callbacks finish, and work off what waits for them; by
      default half a second.
    * ``hub``: the connection of a node; ``create_*`` of a node set it.
    """

    connection_params: Params
    debug: bool
    grace: float
    on_error: ErrorHandler | None
    on_state: StateHandler | None
    hub: Hub | None


class _Given(NamedTuple):
    """What an endpoint was told and needs at times."""

    serializer: AnySerializer | None
    compression: Compression
    sign: SigningKey | None
    verify: TrustedKeys | None
    grace: float


class Endpoint(Living):
    """A port of a node, or one that stands alone and has a connection of its own.

    ``conn_params``: connection parameters or a URL; None: ``COMMLIB_URL`` of the environment,
    else the broker's usual place.

    It lives on the event loop where it was first used until it is stopped; what is awaited of it on
    another one meanwhile raises RuntimeError.
    """

    def __init__(
        self,
        name: str,
        conn_params: Params = None,
        /,
        *,
        connection_params: Params = None,
        hub: Hub | None = None,
        serializer: AnySerializer | None = None,
        compression: Compression = None,
        sign: SigningKey | None = None,
        verify: TrustedKeys | None = None,
        on_error: ErrorHandler | None = None,
        on_state: StateHandler | None = None,
        debug: bool = False,
        grace: float = GRACE,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise TypeError(no_option(type(self), Endpoint, next(iter(unknown))))
        if on_error is not None:
            if not callable(on_error) or is_async(on_error):
                raise TypeError(f"on_error={on_error!r}: it is a plain function of (error, topic)")
            check_callback(on_error, f"{name}: on_error", 2)
        if on_state is not None:
            check_state_handler(on_state, name)
        given = first_given(conn_params, connection_params)
        if hub is not None and given is not None and resolve(given).address != hub.params.address:
            raise TypeError(
                f"{name}: an endpoint of a node is at the broker of the node, {hub.params}; for "
                f"another broker make it by its class, or another node"
            )
        self.face: Any = self
        """What the user holds: this, or its synchronous face."""
        self.debug = debug
        super().__init__(name, hub or Hub(resolve(given), name), hub is None, on_state)
        check_keys(sign, verify)
        self._given = _Given(serializer, compression, sign, verify, check_grace(grace))
        self.log = logging.getLogger(f"commlib.{type(self).__name__.lower()}")
        if debug:
            self.log.setLevel(logging.DEBUG)
        self._stats = Stats()
        self._on_error = on_error

    def _make_writer(self, kind: Any) -> Writer[Any]:
        return Writer(
            kind,
            limit=self.hub.params.max_payload,
            serializer=self._given.serializer,
            compression=self._given.compression,
        )

    def _make_reader(
        self, kind: Any, *, always_wrapped: bool = False, make: type[Reader[Any]] = Reader
    ) -> Reader[Any]:
        return make(
            kind,
            always_wrapped=always_wrapped,
            limit=self.hub.params.max_payload,
            serializer=self._given.serializer,
        )

    def _make_signing(self, writer: Writer[Any], kind: bytes) -> Signing[Any] | None:
        """What signs the messages of a writer, None where that is not asked for."""
        if self._given.sign is None:
            return None
        from commlib._signatures import Signing  # as all of it: hardly any program needs it

        return Signing(writer, self._given.sign, kind)

    def _make_verifier(self, kind: bytes, *, is_call: bool = False) -> Verifier | None:
        """What looks at signatures, None where that is not asked for."""
        if self._given.verify is None:
            return None
        from commlib._verifier import Verifier

        limit = self.hub.params.max_payload
        return Verifier(self._given.verify, kind, limit=limit, is_call=is_call)

    @property
    def serializer(self) -> AnySerializer | None:
        """How its messages are written, None for JSON."""
        return self._given.serializer

    @property
    def own_stats(self) -> Stats:
        """The counters of this endpoint alone, without those of its connection."""
        return self._stats

    @property
    def stats(self) -> Stats:
        """The counters, as they are now."""
        return self._stats.with_links(self.hub.link_stats)

    def _report(self, packet: Packet, error: BaseException, whose: str = "") -> None:
        """An error that nobody can be raised to: count it, log it once, tell ``on_error``."""
        if isinstance(error, Refused):
            self._stats.refused += 1
        else:
            self._stats.errors += 1
        traceback = None if isinstance(error, Refused) else error
        if self._is_news((whose + type(error).__name__, _line_of(error))):
            what = "refused a message" if traceback is None else "the callback failed"
            topic, (origin, seq) = packet.topic or self.name, _message_id(packet)
            self.log.error(
                "%s: %s%s: %s (further ones like this are only counted)",
                *(topic, what, origin and f" (message {origin}/{seq})", text_of(error)),
                exc_info=traceback,
                extra=about(topic, origin and f"{origin}:{seq}", self.hub.node_of(self)),
            )
        self._tell_error(error, packet.topic or self.name)

    def note_failure(self, error: BaseException, topic: str = "", whose: str = "") -> None:
        """The same of a callback, one of several, that no message has called. From any thread."""
        self._report(Packet(b"", topic), error, whose)

    def _is_news(self, report: tuple[str, int]) -> bool:
        """Whether this is not logged yet, and shall be. From any thread."""
        # Two workers may meet the same error: `setdefault` is one step, and there is no lock that a
        # fork might leave taken. Most endpoints never have anything to report.
        reported: dict[tuple[str, int], object] = vars(self).setdefault("_reported", {})
        if len(reported) >= MAX_REPORTS and report != ON_ERROR:
            return False
        mark = object()
        return reported.setdefault(report, mark) is mark

    def _tell_error(self, error: BaseException, topic: str) -> None:
        if self._on_error is not None:
            try:
                self._on_error(error, topic)
            except BaseException as exc:  # the worker, or the loop, has to go on
                if is_for_program(exc):
                    raise
                level = logging.ERROR if self._is_news(ON_ERROR) else logging.DEBUG
                self.log.log(
                    level,
                    "%s: on_error itself failed",
                    self.name,
                    exc_info=exc,
                    extra=about(topic, node=self.hub.node_of(self)),
                )


class Input(Endpoint):
    """An endpoint that a callback hangs on."""

    def _make_lane(
        self,
        callback: Any,
        handle: Callable[[Packet], Any],
        *,
        inline: bool = False,
        bounds: Bounds | None = None,
        concurrency: int = 1,
    ) -> Lane:
        return make_lane(
            self.hub.workers,
            callback,
            inline,
            self.name,
            handle,
            self._stats,
            self._report,
            bounds=bounds,
            concurrency=concurrency,
            on_slow=self._note_slow,
        )

    def _note_slow(self) -> None:
        self._tell_error(SlowConsumer(f"{self.name}: the callback is too slow"), self.name)


def no_option(kind: type, root: type, name: str) -> str:
    """The error for an option that this kind of endpoint does not have; ``root`` has the others."""
    known = {
        option
        for each in kind.__mro__
        if issubclass(each, root)
        for option, parameter in inspect.signature(each.__init__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
        or (each is kind and parameter.kind is parameter.POSITIONAL_OR_KEYWORD)
    }
    hint = nearest(name, sorted(known - {"self", "hub"}))
    return f"{kind.__name__} has no option {name!r}; {hint}"


def enough_after(count: int) -> int:
    """How many endpoints there are to be before the stopped ones among them are looked for again.

    Twice as many and some: to look at all whenever one is added would cost the square of their
    number.
    """
    return 2 * count + 8


def check_grace(grace: float) -> float:
    """Returns it. Raises ValueError for what is no time to wait."""
    if not (isinstance(grace, int | float) and 0 <= grace < TIMEOUT_MAX):
        raise ValueError(f"grace={grace!r}: it is a time in seconds")
    return grace


def check_keys(sign: object, verify: object) -> None:
    """Raises TypeError for what does not sign, or cannot be trusted."""
    if sign is None and verify is None:
        return
    from commlib.signing import SigningKey, TrustedKeys

    if not isinstance(sign, SigningKey | None):
        raise TypeError(f"sign={sign!r}: it is a SigningKey of commlib.signing")
    if not isinstance(verify, TrustedKeys | None):
        raise TypeError(f"verify={verify!r}: it is a TrustedKeys of commlib.signing")


def text_of(error: BaseException) -> str:
    """What an error says, fit to be logged and sent."""
    try:
        text = str(error)[:MAX_TEXT]
    except BaseException as exc:
        if is_for_program(exc):
            raise
        text = f"its text could not be made: {type(exc).__name__}"
    return text.encode("utf8", "replace").decode()  # a file's name need not be UTF-8


def _line_of(error: BaseException) -> int:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_lineno if trace is not None else 0


def _message_id(packet: Packet) -> tuple[str, int]:
    """Whose message it is, and which of those, for the log; empty if the packet does not tell."""
    header = packet.header or peek(packet.payload)
    if header is None or not header.origin:
        return "", -1
    return header.origin[:MAX_ID], header.seq


if sys.version_info >= (3, 14):
    import annotationlib

    # The names in annotations may be known to type checkers alone.
    _signature = partial(inspect.signature, annotation_format=annotationlib.Format.FORWARDREF)
else:
    _signature = inspect.signature


def check_callback(callback: object, what: str, *counts: int) -> None:
    """Raises TypeError for what cannot be called with any of these numbers of arguments."""
    if not callable(callback):
        raise TypeError(f"{what}={callback!r} cannot be called")
    if "__signature__" in getattr(callback, "__dict__", ()):
        return  # what it says of itself may be that of what it wraps
    try:
        # Not that of what is wrapped: the wrapper may add arguments, or take some away.
        signature = _signature(callback, follow_wrapped=False)
    except (TypeError, ValueError):  # a builtin without a signature: take it as it comes
        return
    for count in counts:
        with suppress(TypeError):
            signature.bind(*[None] * count)
            return
    name = getattr(callback, "__qualname__", type(callback).__qualname__)
    numbers = " or ".join(map(str, counts))
    noun = "argument" if numbers == "1" else "arguments"
    raise TypeError(f"{what} is called with {numbers} {noun}: {name}{signature} takes others")


def check_state_handler(on_state: object, name: str) -> None:
    """Raises TypeError for what cannot be told of the connection. ``name`` is whose it is."""
    if is_async(on_state):
        raise TypeError(f"on_state={on_state!r}: it is a plain function of (connected, reason)")
    check_callback(on_state, f"{name}: on_state", 2)


def arity(callback: Any) -> tuple[int, float]:
    """How many positional arguments a callback requires, and how many it takes."""
    try:
        parameters = _signature(callback).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature: take it as it comes
        return 1, 1
    required, most = 0, 0.0
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            most = float("inf")
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            most += 1
            required += parameter.default is parameter.empty
    return required, most
