"""What is counted: the way of a message through this library, at one end of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal[
    "encode", "decode", "publish", "receive", "call", "serve", "send goals", "reach goals", "bridge"
]
Face = Literal["plain", "aio"]

ON_BROKERS = ("redis", "mqtt", "amqp")
EVERYWHERE = (*ON_BROKERS, "memory")


@dataclass(frozen=True)
class Path:
    """One thing to do, so many times a lap, in bursts.

    ``face``: plain Python, or asyncio on one loop, without threads. ``quiet`` is how long a broker
    must have said nothing (s) before what it said is handed over: longer than whoever answers at
    the other end takes.
    """

    name: str
    role: Role
    text: str
    count: int
    burst: int = 1
    quiet: float = 0.02
    face: Face = "plain"
    inline: bool = False
    uvloop: bool = False
    brokers: tuple[str, ...] = EVERYWHERE


PATHS = (
    Path(
        "encode",
        "encode",
        "a message is made bytes: in an envelope (Redis, MQTT) or beside its header (AMQP, memory)",
        2000,
    ),
    Path("decode", "decode", "the same bytes are made a message", 2000),
    Path("publish", "publish", "`publish()`, in bursts of 100", 1000, 100),
    Path(
        "publish, aio",
        "publish",
        "`await publish()` on a loop of asyncio, in bursts of 100",
        *(1000, 100),
        face="aio",
    ),
    Path(
        "publish, uvloop",
        "publish",
        "`publish()` with uvloop, in bursts of 100",
        *(1000, 100),
        uvloop=True,
        brokers=ON_BROKERS,
    ),
    Path(
        "receive",
        "receive",
        "a plain function is called, on a worker thread; messages come in bursts of 100",
        *(1000, 100),
    ),
    Path(
        "receive, inline",
        "receive",
        "a plain function is called on the loop; bursts of 100",
        *(1000, 100),
        inline=True,
    ),
    Path(
        "receive, aio",
        "receive",
        "a coroutine function is called, on a loop of asyncio; bursts of 100",
        *(1000, 100),
        face="aio",
    ),
    Path(
        "receive, uvloop",
        "receive",
        "as receive, with uvloop",
        *(1000, 100),
        uvloop=True,
        brokers=ON_BROKERS,
    ),
    Path("call", "call", "`call()`, one after another", 100, quiet=0.005),
    Path("call, aio", "call", "`await call()`, one after another", 100, quiet=0.005, face="aio"),
    Path(
        "serve",
        "serve",
        "a request is answered by a plain function, on a worker thread",
        100,
        quiet=0.005,
        brokers=ON_BROKERS,
    ),
    Path(
        "serve, aio",
        "serve",
        "a request is answered by a coroutine function",
        100,
        quiet=0.005,
        face="aio",
        brokers=ON_BROKERS,
    ),
    Path(
        "send a goal",
        "send goals",
        "a goal is sent and its result waited for",
        30,
        quiet=0.015,
    ),
    Path(
        "reach a goal",
        "reach goals",
        "a goal is reached at once, by a plain function",
        30,
        quiet=0.015,
        brokers=ON_BROKERS,
    ),
    Path(
        "bridge",
        "bridge",
        "a message is passed on to another topic of the same broker; bursts of 100",
        *(500, 100),
    ),
)
"""In the memory of one process nobody is at the other end: what that costs is in the count."""
