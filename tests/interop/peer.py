"""A program on a released commlib-py that does what lines of JSON tell it.

It runs in the environment of that release, on that and the standard library alone::

    python -I peer.py redis 127.0.0.1 6379

``{"id": 1, "do": "publish", "topic": "a.b", "data": {}}`` calls ``Peer.publish``. The answer is
``{"id": 1, "result": ...}`` or ``{"id": 1, "error": "..."}``; what an endpoint receives follows as
``{"id": 1, "received": {"type", "data", "topic"}}``, under the id of the command that made it. Each
command runs on a thread of its own. The end of the input is the end of the program.
"""

from __future__ import annotations

import builtins
import copy
import importlib
import json
import linecache
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from types import FrameType
from typing import Any, NamedTuple

# The release prints to the standard output: the answers go where nothing else does.
ANSWERS = os.fdopen(os.dup(1), "w", encoding="utf8")
os.dup2(2, 1)

msg = importlib.import_module("commlib.msg")


class Release(NamedTuple):
    """In what one release differs from the others, for those who program with it."""

    has_dataclasses: bool  # or else pydantic models
    to_dict: str  # the method that turns a message into a dict
    runs_senders: bool  # publishers and clients have to be run before they are used
    action_name: str  # the argument that names an action
    shares_workers: bool  # all services of a process handle their requests in one pool


RELEASES = {
    "0.6.3": Release(
        True, "as_dict", runs_senders=False, action_name="action_uri", shares_workers=False
    ),
    "0.13.2": Release(
        False, "model_dump", runs_senders=True, action_name="action_name", shares_workers=True
    ),
}
VERSION = version("commlib-py")
RELEASE = RELEASES[VERSION]

# ---- messages ----


def make_message(name: str, base: Any, fields: dict[str, tuple[Any, Any]]) -> Any:
    """A message class as this release wants it; each field has a type and a default."""
    body: dict[str, Any] = {
        "__module__": __name__,
        "__annotations__": {field: kind for field, (kind, _) in fields.items()},
    }
    for field, (_, default) in fields.items():
        if RELEASE.has_dataclasses:
            default = msg.DataField(default_factory=partial(copy.deepcopy, default))
        body[field] = default
    made = type(base)(name, (base,), body)
    return msg.DataClass(made) if RELEASE.has_dataclasses else made


Pose = make_message("Pose", msg.PubSubMessage, {"x": (float, 0.0), "y": (float, 0.0)})
# As in ``samples.Reading``, which ours uses.
FIELDS: dict[str, tuple[Any, Any]] = {
    "distance": (float, 0.0),
    "count": (int, 0),
    "label": (str, ""),
    "on": (bool, False),
    "ranges": (list[float], []),
    "pose": (Pose, Pose()),
    "path": (list[Pose], []),
    "tags": (dict[str, int], {}),
    "limit": (float | None, None),
}
Reading = make_message("Reading", msg.PubSubMessage, FIELDS)


class Echo(msg.RPCMessage):  # type: ignore[misc]
    """A call that brings back what it was given."""


# Pydantic would take them for fields, were they written into the class.
Echo.Request = make_message("Request", msg.RPCMessage.Request, FIELDS)
Echo.Response = make_message("Response", msg.RPCMessage.Response, FIELDS)


class Turn(msg.ActionMessage):  # type: ignore[misc]
    """An action that counts."""


# As in ``samples.Turn``, which ours uses.
Turn.Goal = make_message("Goal", msg.ActionMessage.Goal, {"count": (int, 0), "label": (str, "")})
Turn.Result = make_message("Result", msg.ActionMessage.Result, {"count": (int, 0)})
Turn.Feedback = make_message("Feedback", msg.ActionMessage.Feedback, {"count": (int, 0)})


def to_plain(message: Any) -> Any:
    to_dict = getattr(message, RELEASE.to_dict, None)
    return message if to_dict is None else to_dict()


def to_report(message: Any, topic: str | None = None) -> dict[str, Any]:
    return {"type": type(message).__name__, "data": to_plain(message), "topic": topic}


def echo(request: Any) -> Any:
    """What a service does: raise the exception that the label names, else give it all back."""
    fields = to_plain(request)
    error = getattr(builtins, fields.get("label", ""), None)
    if isinstance(error, type) and issubclass(error, Exception):
        raise error("as asked")
    return fields if request is fields else Echo.Response(**fields)


# ---- commands ----


class Peer:
    """The commands, by name."""

    def __init__(self, transport: str, host: str, port: int) -> None:
        self._transport = importlib.import_module(f"commlib.transports.{transport}")
        self._params = self._transport.ConnectionParameters(host=host, port=port)
        self._senders: dict[tuple[Any, ...], Any] = {}
        self._lock = threading.Lock()
        self._hold: Hold | None = None
        self._action_client: Any = None
        self._waits_to_consume = transport == "amqp"

    def _make(self, kind: str, msg_type: Any, compressed: bool, **options: Any) -> Any:
        if compressed:
            levels = importlib.import_module("commlib.compression").CompressionType
            options["compression"] = levels.DEFAULT_COMPRESSION
        options.update(conn_params=self._params, msg_type=msg_type)
        return getattr(self._transport, kind)(**options)

    def _make_sender(self, kind: str, msg_type: Any, compressed: bool, **options: Any) -> Any:
        sender = self._make(kind, msg_type, compressed, **options)
        if RELEASE.runs_senders:
            sender.run()
        return sender

    def _sender(self, kind: str, msg_type: Any, compressed: bool, **options: Any) -> Any:
        key = (kind, msg_type, compressed, *options.values())
        with self._lock:
            if key not in self._senders:
                self._senders[key] = self._make_sender(kind, msg_type, compressed, **options)
            return self._senders[key]

    # -- publish and subscribe --

    def publish(
        self,
        topic: str,
        data: Any,
        *,
        typed: bool = False,
        compressed: bool = False,
    ) -> None:
        """Publish a ``Reading``, or plain data."""
        publisher = self._sender("Publisher", Reading if typed else None, compressed, topic=topic)
        publisher.publish(Reading(**data) if typed else data)

    def publish_anywhere(self, topic: str, data: Any, *, typed: bool = False) -> None:
        """The same through an MPublisher."""
        publisher = self._sender("MPublisher", Reading if typed else None, False)
        publisher.publish(Reading(**data) if typed else data, topic)

    def subscribe(
        self,
        tell: Callable[..., None],
        topic: str,
        *,
        by_pattern: bool = False,
        typed: bool = False,
        compressed: bool = False,
    ) -> None:
        """Subscribe to a topic or pattern, and tell what comes."""
        subscriber = self._make(
            "PSubscriber" if by_pattern else "Subscriber",
            Reading if typed else None,
            compressed,
            topic=topic,
            on_message=tell,
        )
        subscriber.run()

    def send_event(self, **fields: Any) -> None:
        """Send an event with these fields."""
        event = importlib.import_module("commlib.events").Event(**fields)
        self._transport.EventEmitter(conn_params=self._params).send_event(event)

    def settle(self) -> None:
        """Return when all that was started can take what comes, or has ended.

        A release starts on a thread, asks the broker first, and only then notes what to do with the
        messages; on AMQP it has the broker's word for it when it begins to consume.
        """
        while any(map(self._is_starting, threading.enumerate())):
            time.sleep(0.001)

    def _is_starting(self, thread: threading.Thread) -> bool:
        frame = sys._current_frames().get(thread.ident or 0)
        here = self._transport.__file__
        inside = {
            inner.f_code.co_name
            for inner, _ in traceback.walk_stack(frame)
            if inner.f_code.co_filename == here
        }
        if not self._waits_to_consume:
            return "subscribe" in inside
        # A thread has its target until that returns.
        target = getattr(thread, "_target", None)
        return getattr(target, "__name__", "") == "run_forever" and "start_consuming" not in inside

    # -- calls --

    def serve(
        self,
        tell: Callable[..., None],
        name: str,
        *,
        typed: bool = False,
        compressed: bool = False,
        one_at_a_time: bool = False,
    ) -> None:
        """Serve a name with ``echo``, and tell each request."""

        def handle(request: Any) -> Any:
            tell(request)
            return echo(request)

        if one_at_a_time and RELEASE.shares_workers:
            # The first who asks for the pool decides how large it is.
            importlib.import_module("commlib.thread_pool").get_io_pool(max_workers=1)
        service = self._make(
            "RPCService", Echo if typed else None, compressed, rpc_name=name, on_request=handle
        )
        service.run()

    def call(
        self,
        name: str,
        data: Any,
        timeout: float,
        *,
        typed: bool = False,
        compressed: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """Call a service, all through one client, and give what the call returns.

        ``options`` are those that only some clients have.
        """
        kind = Echo if typed else None
        client = self._sender("RPCClient", kind, compressed, rpc_name=name, **options)
        return to_report(client.call(Echo.Request(**data) if typed else data, timeout))

    def call_all(self, name: str, requests: list[Any], clients: int, timeout: float) -> list[Any]:
        """Share these calls out among so many typed clients, which call at once; all that they
        return."""
        together = threading.Barrier(clients)

        def call(share: list[Any]) -> list[Any]:
            client = self._make_sender("RPCClient", Echo, False, rpc_name=name)
            together.wait(timeout)
            return [to_plain(client.call(Echo.Request(**data), timeout)) for data in share]

        with ThreadPoolExecutor(clients) as pool:
            shares = pool.map(call, [requests[first::clients] for first in range(clients)])
            return [response for share in shares for response in share]

    # -- actions --

    def serve_action(
        self, tell: Callable[..., None], name: str, *, typed: bool = False, moment: float = 0.0
    ) -> None:
        """Work on goals, and tell of each: count, with feedback, or until it is cancelled.

        ``moment`` (s) is what a step takes.
        """

        def on_goal(goal_h: Any) -> Any:
            tell(goal_h.data)
            goal = to_plain(goal_h.data)
            error = getattr(builtins, goal.get("label", ""), None)
            if error is not None:
                time.sleep(moment)
                raise error("as asked")
            for count in range(goal["count"]):
                time.sleep(moment)
                feedback = {"count": count}
                goal_h.send_feedback(Turn.Feedback(**feedback) if typed else feedback)
            if goal["label"] == "endless":
                goal_h.cancel_event.wait()
            result = {"count": goal["count"]}
            return Turn.Result(**result) if typed else result

        service = self._make_action("ActionService", typed, name, on_goal=on_goal)
        service.run()

    def make_action_client(
        self, tell: Callable[..., None], name: str, *, typed: bool = False
    ) -> None:
        """Make a client, and tell what each of its callbacks is told."""

        def teller(what: str) -> Callable[[Any], None]:
            return lambda message: tell(message, what)

        options = {what: teller(what) for what in ("on_feedback", "on_result", "on_goal_reached")}
        self._action_client = self._make_action("ActionClient", typed, name, **options)
        if RELEASE.runs_senders:
            self._action_client.run()

    def send_goal(self, goal: dict[str, Any], *, typed: bool = False) -> Any:
        """Send a goal by that client; the response."""
        return to_plain(self._action_client.send_goal(Turn.Goal(**goal) if typed else goal))

    def cancel_goal(self) -> Any:
        """Cancel the goal that was sent last."""
        return to_plain(self._action_client.cancel_goal())

    def get_result(self, timeout: float) -> Any:
        """The result of the goal that was sent last."""
        return to_report(self._action_client.get_result(wait=True, wait_max_sec=timeout))

    def _make_action(self, kind: str, typed: bool, name: str, **options: Any) -> Any:
        options[RELEASE.action_name] = name
        options.update(conn_params=self._params, msg_type=Turn if typed else None)
        return getattr(self._transport, kind)(**options)

    # -- races, made to happen --

    def hold(self, function: str, line: str) -> None:
        """Keep the next thread that comes to a line of a function from going on.

        ``line`` is a regular expression for how it begins. Holds threads that are started after
        this.
        """
        self._hold = Hold(function, line)
        threading.settrace(self._hold.trace)

    def until_held(self, timeout: float) -> bool:
        """Whether a thread has come there, or comes within so many seconds."""
        assert self._hold is not None, "hold comes first"
        return self._hold.came.wait(timeout)

    def let_go(self) -> None:
        """Let that thread go on."""
        assert self._hold is not None, "hold comes first"
        self._hold.may_go.set()


class Hold:
    """A trace function that stops the first thread that comes to a line."""

    def __init__(self, function: str, line: str) -> None:
        self._function = function
        self._line = line
        self._lock = threading.Lock()
        self.came, self.may_go = threading.Event(), threading.Event()

    def trace(self, frame: FrameType, event: str, arg: object) -> Any:
        """For ``threading.settrace``: watch the function, and no other."""
        return self._trace_line if frame.f_code.co_name == self._function else None

    def _trace_line(self, frame: FrameType, event: str, arg: object) -> Any:
        text = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event == "line" and re.match(self._line, text):
            with self._lock:
                is_first = not self.came.is_set()
                self.came.set()
            if is_first:
                self.may_go.wait()
        return self._trace_line


# ---- the conversation ----

_writing = threading.Lock()


def say(**answer: Any) -> None:
    with _writing:
        ANSWERS.write(json.dumps(answer) + "\n")
        ANSWERS.flush()


@contextmanager
def errors_told(id: int) -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        traceback.print_exc()
        say(id=id, error=repr(exc))


def obey(peer: Peer, id: int, do: str, options: dict[str, Any]) -> None:
    """Do one command, and answer."""

    def tell(message: Any, topic: str | None = None) -> None:
        say(id=id, received=to_report(message, topic))

    if do in ("subscribe", "serve", "serve_action", "make_action_client"):
        options["tell"] = tell
    with errors_told(id):
        say(id=id, result=getattr(peer, do)(**options))


def main(transport: str, host: str, port: str) -> None:
    peer = Peer(transport, host, int(port))
    say(id=0, result=VERSION)
    for line in sys.stdin:
        command = json.loads(line)
        args = (peer, command.pop("id"), command.pop("do"), command)
        threading.Thread(target=obey, args=args, daemon=True).start()
    # The release has threads that nobody can join.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
