"""What the synchronous endpoints have in common: the core on the loop of the portal."""

from __future__ import annotations

import functools
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from commlib import aio
from commlib._params import BaseParameters
from commlib._portal import Portal, enter, get_heeding_signals, home_of, leave, take_in, unused
from commlib._stats import Stats
from commlib._turns import Turn, spared, turn_of_callback
from commlib.aio._endpoint import Options, Params
from commlib.aio._group import Group
from commlib.aio._hub import Hub
from commlib.exceptions import EndpointClosed
from commlib.transports import first_given, resolve

JOIN_SECONDS = 0.25  # for the workers to end; one whose callback blocks for ever never does

F = TypeVar("F", bound=Callable[..., None])
Core = TypeVar("Core", bound=aio.Endpoint)


def params_anywhere(init: F) -> F:
    """Take connection parameters at any place among the positional arguments.

    Released commlib-py has them first, later ones last.
    """

    @functools.wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        rest = [arg for arg in args if not isinstance(arg, BaseParameters)]
        for params in args:
            if isinstance(params, BaseParameters):
                kwargs["conn_params"] = params
        init(self, *rest, **kwargs)

    return wrapped  # type: ignore[return-value]


class _Flag:
    """An event that a signal handler may set as well.

    The handler may interrupt the thread anywhere, and a ``threading.Event`` has a lock that the
    thread may just be holding.
    """

    def __init__(self) -> None:
        self._set: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        self._set.put(None)

    def wait(self) -> None:
        get_heeding_signals(self._set)


class Runnable:
    """Something that runs until it is stopped."""

    def __init__(self) -> None:
        self._stopped: _Flag | None = None  # only who runs for ever waits for it

    def run(self, wait: bool = True) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def run_forever(self, sleep_rate: float | None = None) -> None:
        """Run until SIGINT, SIGTERM or ``stop()``, then stop.

        Signals are heard when it is called in the main thread. ``sleep_rate`` is accepted for the
        programs of commlib-py 0.6 and not needed: nothing polls here. Raises what ``run()`` raises.
        """
        stopped = self._stopped = _Flag()
        # A signal while it still looks for its broker ends that search.
        with suppress(KeyboardInterrupt), _Signals(signal.default_int_handler, signal.SIGTERM):
            self.run()
            with _Signals(lambda *_: stopped.set(), signal.SIGINT, signal.SIGTERM):
                stopped.wait()
        self.stop()

    def _note_stop(self) -> None:
        """Let ``run_forever`` go on to its end."""
        if (stopped := self._stopped) is not None:
            stopped.set()

    def __enter__(self) -> Self:
        try:
            self.run()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class _Signals:
    """While it lasts, signals are handled in this way; in the main thread, nowhere else."""

    def __init__(self, handler: Callable[[int, Any], Any], *numbers: signal.Signals) -> None:
        self._handler = handler
        self._numbers = numbers
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                self._previous[number] = signal.signal(number, self._handler)

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def stop(hub: Hub, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
    """Stop something on the portal; if that closes the hub, its threads have ended on return."""
    portal = home_of(hub)
    with suppress(EndpointClosed):  # another thread stops it as well, or the program ends
        if portal is None and hub.is_left_behind:
            portal = take_in(hub)
        if portal is not None:
            portal.run(_work_sparing, turn_of_callback(), work, *args)
    if portal is None:  # it was never used, or stopped before, and Ctrl-C came before the next line
        portal = unused()
        if portal is not None:
            leave(portal)
        return
    if hub.loop is not None:
        return  # an endpoint of a node, whose connection goes on
    leave(portal)
    deadline = time.monotonic() + JOIN_SECONDS
    for thread in hub.leaving:
        if thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))


async def _work_sparing(
    turn: Turn | None, work: Callable[..., Coroutine[Any, Any, None]], *args: Any
) -> None:
    """Do it; meanwhile nobody waits for the callback that has called."""
    with spared(turn):
        await work(*args)


async def run_behind(
    turn: Turn | None,
    core: aio.Endpoint | aio.Node,
    run: Callable[..., Coroutine[Any, Any, None]],
    *args: Any,
) -> None:
    """Run it when its former life has ended, and that does not wait for the callback that waits."""
    if await core.may_begin(turn):
        await run(*args)


def begin(core: aio.Endpoint) -> None:
    """Run an endpoint that joins others which run already; waits for the broker if it is there."""
    here = enter(core.hub)
    if threading.current_thread() is here.thread:
        # In a callback on the loop nobody can wait for the broker's yes.
        core.hub.tell_errors(core.hub.spawn(core.run()))
    else:
        here.run(run_behind, turn_of_callback(), core, core.run_beside)


class Endpoint(Runnable, Generic[Core]):
    """A synchronous endpoint; every method may be called from any thread."""

    scheme: ClassVar[str] = ""
    released_options: ClassVar[Mapping[str, tuple[object, ...]]] = {}
    """Options of released commlib-py that are taken without effect, and their possible values."""

    def __init__(self, core: Core) -> None:
        super().__init__()
        self._core = core
        core.face = self

    @property
    def core(self) -> Core:
        """The same endpoint for asyncio, for use on the event loop only."""
        return self._core

    @property
    def debug(self) -> bool:
        return self._core.debug

    @property
    def connected(self) -> bool:
        """Whether the connection to the broker is there now."""
        return self._core.connected

    def wait_connected(self, timeout: float = 30) -> bool:
        """Whether the connection to the broker is there, or comes within ``timeout`` seconds.

        Raises AuthError when the broker says no, ConnectError where nothing is tried again,
        EndpointClosed after ``stop()``, and BlockingCall on the event loop.
        """
        return self._started().run(self._core.wait_connected, timeout)

    @property
    def stats(self) -> Stats:
        """The counters, as they are now."""
        return self._core.stats

    def run(self, wait: bool = True) -> None:
        """Begin to work; idempotent.

        With ``wait`` it returns when the broker has confirmed, or after ``connect_timeout`` with
        a warning, and goes on trying. Raises AuthError when the broker says no, ConnectError with
        ``reconnect=False``, and BlockingCall on the event loop.
        """
        core = self._core
        enter(core.hub).run(run_behind, turn_of_callback(), core, core.run, wait)

    def stop(self) -> None:
        """Take nothing more, let callbacks finish within ``grace``, leave; idempotent.

        Raises BlockingCall on the event loop.
        """
        self._note_stop()
        stop(self._core.hub, self._core.stop)

    def _begin_part(self, part: aio.Endpoint) -> None:
        if isinstance(self._core, Group) and self._core.is_running:
            begin(part)

    def _started(self) -> Portal:
        """The portal, with the connection at least on its way. Raises EndpointClosed."""
        self._core.check_open()
        return enter(self._core.hub)

    def _params(self, conn_params: Params, options: Options) -> Params:
        """The parameters for the core: of this class's transport, or as given in a node."""
        given: dict[str, Any] = cast("dict[str, Any]", options)
        for name, values in self.released_options.items():
            value = given.pop(name, values[0])
            if value not in values:
                raise ValueError(f"{name}={value!r}: it can only be {values[0]!r} here")
        if options.get("hub") is not None:
            return conn_params
        params = first_given(conn_params, options.pop("connection_params", None))
        return resolve(params, self.scheme)
