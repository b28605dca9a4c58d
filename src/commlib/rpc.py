"""Remote procedure calls, from plain Python; ``commlib.aio`` has the same for asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Unpack, overload

from commlib import aio
from commlib._face import Endpoint, params_anywhere
from commlib._packet import Packet
from commlib._portal import enter, home_of
from commlib._typing import Req, Resp
from commlib.aio._caller import Call, Caller, Expired
from commlib.aio._endpoint import Options, Params
from commlib.aio.rpc import RPCClientOptions, RPCTypes, ServiceMap, ServiceOptions
from commlib.exceptions import EndpointClosed
from commlib.msg import RPCMessage
from commlib.transports.base import CallOutcome

DECISION_SECONDS = 5.0  # for the loop to say how a call ended whose time is up; it takes µs


class RPCService(Endpoint[aio.RPCService]):
    """Answers requests, from ``run()`` to ``stop()``.

    ``on_request(request)`` returns the response; a plain function runs on worker threads, a
    coroutine function on the loop. What it raises, the caller gets as ``RPCRemoteError``.
    Options: ``commlib.aio.rpc.ServiceOptions``.
    """

    @params_anywhere
    def __init__(
        self,
        rpc_name: str,
        on_request: Callable[[Any], Any],
        msg_type: Any = None,
        conn_params: Params = None,
        **options: Unpack[ServiceOptions],
    ) -> None:
        params = self._params(conn_params, options)
        super().__init__(aio.RPCService(rpc_name, on_request, msg_type, params, **options))
        self.rpc_name = rpc_name


class RPCServer(Endpoint[aio.RPCServer]):
    """Many services on one connection, from ``run()`` to ``stop()``.

    ``svc_map`` has their names, each with ``(on_request, msg_type)``; ``base_uri`` stands before
    all of them. With ``rpc_name`` and ``on_request`` it is a server of that service. Options:
    ``commlib.aio.rpc.ServiceOptions``, for each of them.
    """

    @params_anywhere
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
        params = self._params(conn_params, options)
        core = aio.RPCServer(
            *(base_uri, svc_map, workers, params),
            rpc_name=rpc_name,
            on_request=on_request,
            msg_type=msg_type,
            max_age=max_age,
            max_rate=max_rate,
            **options,
        )
        super().__init__(core)

    def register_endpoint(
        self, uri: str, callback: Callable[[Any], Any], msg_type: Any = None
    ) -> None:
        """Serve one more name, at once if this runs.

        Returns when the broker has confirmed it, if it is there. Raises ValueError for a name that
        is taken, or is none, TypeError for what is no callback or message class, and, if this runs,
        AuthError where the user has no right to serve it; on Redis that is logged.
        """
        self._begin_part(self._core.new_service(uri, callback, msg_type))


class _Waiter:
    """Lets one thread wait for the outcome of one call."""

    __slots__ = ("_lock", "caller", "outcome")

    def __init__(self) -> None:
        self.caller: Caller | None = None
        self._lock = threading.Lock()
        self._lock.acquire()
        self.outcome: CallOutcome | None = None

    def finish(self, outcome: CallOutcome) -> None:
        """Let the thread go. On the loop, once."""
        self.outcome = outcome
        self._lock.release()
        if self.caller is not None:
            self.caller.book()

    def wait(self, timeout: float) -> bool:
        return self._lock.acquire(timeout=timeout)


class _Callback:
    """A callback of a future, for a worker."""

    def __init__(self, client: aio.Endpoint, work: Callable[[], object]) -> None:
        self.name = client.name
        self._client = client
        self._work = work

    def work(self) -> None:
        try:
            self._work()
        except BaseException as exc:  # SystemExit too: no callback ends a worker
            self._client.note_failure(exc)


class _CallFuture(concurrent.futures.Future[Resp]):
    """The future of one call; its callbacks run on worker threads, so they may block and call."""

    def __init__(self, core: aio.RPCClient[Any, Resp]) -> None:
        super().__init__()
        self._core = core
        self._call: Call | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[CallOutcome] | None = None
        """Of a call that may be sent again."""

    def add_done_callback(self, fn: Callable[[concurrent.futures.Future[Resp]], object]) -> None:
        core = self._core
        super().add_done_callback(
            lambda future: core.hub.workers.serve(_Callback(core, lambda: fn(future)))
        )

    def result(self, timeout: float | None = None) -> Resp:
        self._refuse_to_block("result()")
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._refuse_to_block("exception()")
        return super().exception(timeout)

    def _refuse_to_block(self, what: str) -> None:
        """The loop would wait for what only the loop can bring."""
        portal = None if self.done() else home_of(self._core.hub)
        if portal is not None:
            portal.refuse_on_loop(what)

    def cancel(self) -> bool:
        if not super().cancel():
            return False
        portal = enter(self._core.hub)
        if self._core.idempotent:
            portal.post(self._end_task)
        elif (call := self._call) is not None:
            error = EndpointClosed("the call was cancelled")
            portal.post(call.caller.give_up, call, error)
        return True

    def begin(self, msg: Any, timeout: float) -> None:
        """Send the request."""
        if self._core.idempotent:
            body = self._core.encode(msg, timeout)
            enter(self._core.hub).post(self._begin_task, body, timeout)
            return
        call = self._core.new_call(msg, timeout, self._finish)
        self._call = call
        expired = partial(self._core.timeout_error, timeout)
        enter(self._core.hub).post(self._begin, call, expired)

    def _begin(self, call: Call, expired: Expired) -> None:
        self._expiry = call.caller.begin_until(call, expired)
        if self.done():
            self._expiry.cancel()

    def _begin_task(self, body: Any, timeout: float) -> None:
        if self.cancelled():
            self.set_running_or_notify_cancel()
            return
        self._task = self._core.hub.spawn(self._core.repeat(body, timeout))
        self._task.add_done_callback(self._take_over)

    def _end_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _take_over(self, task: asyncio.Task[CallOutcome]) -> None:
        if task.cancelled():
            self._finish(EndpointClosed("the client was stopped before the reply came"))
        elif (error := task.exception()) is None:
            self._finish(task.result())
        elif self.set_running_or_notify_cancel():
            self.set_exception(error)

    def _finish(self, outcome: CallOutcome) -> None:
        if self._expiry is not None:
            self._expiry.cancel()  # or it would be kept for all of the timeout
        if not self.set_running_or_notify_cancel():
            # Cancelled; a reply may have been quicker than the word of it.
            self._core.hub.caller.late += isinstance(outcome, Packet)
            return
        try:
            self.set_result(self._core.response(outcome))
        except Exception as exc:  # a message class may raise anything when it is decoded
            self.set_exception(exc)


class RPCClient(Endpoint[aio.RPCClient[Req, Resp]], Generic[Req, Resp]):
    """Calls a service; usable as soon as it is made, from any number of threads.

    ``msg_type`` is a class with the nested classes ``Request`` and ``Response``; None: plain data
    both ways. ``conn_params``: parameters or a URL. Options: ``commlib.aio.rpc.RPCClientOptions``.
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

    @params_anywhere
    def __init__(
        self,
        rpc_name: str,
        msg_type: Any = None,
        conn_params: Params = None,
        **options: Unpack[RPCClientOptions],
    ) -> None:
        params = self._params(conn_params, options)
        super().__init__(aio.RPCClient(rpc_name, msg_type, params, **options))
        self.rpc_name = rpc_name
        self._started()

    def call(self, msg: Req, timeout: float = 30) -> Resp:
        """Send a request and wait for the response, at most ``timeout`` seconds.

        May be called in callbacks that are plain functions. Raises RPCRemoteError with what the
        service raised, RPCTimeout when nobody answered, SerializationError, ValueError for what is
        no time, AuthError, ConnectError with ``reconnect=False``, ConnectionLost where the offline
        policy says so, or the reply cannot come any more, EndpointClosed after ``stop()``, and
        BlockingCall on the event loop.
        """
        core, here = self._core, self._started()
        here.refuse_on_loop("call()")
        if core.idempotent:
            return core.response(here.run(core.repeat, core.encode(msg, timeout), timeout))
        waiter = _Waiter()
        call: Call | None = None
        try:
            call = core.new_call(msg, timeout, waiter.finish)
            caller = waiter.caller = call.caller
            deadline = time.monotonic() + timeout
            reply = caller.read(call, timeout) if caller.start(call) else None
            arrived = reply is not None or waiter.wait(max(0, deadline - time.monotonic()))
        except BaseException as exc:  # Ctrl-C: nobody waits for the reply any more
            if call is not None:
                error = EndpointClosed(f"interrupted: {exc!r}")
                here.post(call.caller.give_up, call, error)
            raise
        if not arrived:
            # The loop decides: a reply that has won the race is returned, not dropped.
            expired = core.timeout_error(timeout)
            here.post(caller.give_up, call, expired)
            if not waiter.wait(DECISION_SECONDS):
                raise expired
        outcome = reply or waiter.outcome
        assert outcome is not None, "finish() sets it before it lets us go"
        return core.response(outcome)

    def call_async(
        self,
        msg: Req,
        timeout: float = 30,
        on_response: Callable[[Resp], object] | None = None,
    ) -> concurrent.futures.Future[Resp]:
        """Send a request; the future brings the response, or what ``call`` would raise.

        ``on_response(response)`` and the future's callbacks run on worker threads. Raises
        SerializationError, ValueError for what is no time, and EndpointClosed after ``stop()``; all
        else the future brings.
        """
        self._started()
        future: _CallFuture[Resp] = _CallFuture(self._core)
        if on_response is not None:
            future.add_done_callback(lambda done: _pass_on(done, on_response))
        future.begin(msg, timeout)
        return future

    def wait_for_service(self, timeout: float = 30) -> bool:
        """Whether a service of this name is there, or comes within ``timeout`` seconds.

        Services of commlib-py before 1.0 do not answer this question: for them it stays False.
        Raises AuthError when the broker says no, ConnectError and ConnectionLost with
        ``reconnect=False``, EndpointClosed after ``stop()``, and BlockingCall on the event loop.
        """
        return self._started().run(self._core.wait_for_service, timeout)


def _pass_on(
    future: concurrent.futures.Future[Resp], on_response: Callable[[Resp], object]
) -> None:
    if not future.cancelled() and future.exception() is None:
        on_response(future.result())
