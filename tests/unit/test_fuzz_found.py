"""What fuzzing has found, told by what it meant; the inputs themselves are in ``fuzz/corpus``."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec
import pydantic
import pytest
from pika import spec

from amqp_wire import START, Wire, delivered, delivery_frames, said
from commlib._packet import PROPERTIES, Header, Packet
from commlib._wire import Reader, Refused, Writer
from commlib.exceptions import ConnectError, ConnectionLost
from commlib.transports import _amqp_methods as methods
from commlib.transports import redis
from commlib.transports._amqp_methods import SETUP, TOPICS
from commlib.transports._amqp_params import ConnectionParameters
from commlib.transports._redis_channels import Channels
from commlib.transports._redis_link import RedisLink, command
from commlib.transports._redis_pops import Popper
from commlib.transports._redis_replies import ReplyLists
from commlib.transports.redis import RedisTransport, _seconds
from played_socket import PlayedSocket

# ---- messages ----


class Inner(pydantic.BaseModel):
    real: float = 0.0
    reals: list[float] = []


class Model(pydantic.BaseModel):
    real: float
    maybe: float | None = None
    either: float | bool = 0.0
    text: str = ""
    inner: Inner = Inner()
    by_name: dict[str, Inner] = {}


NAN, INF = math.nan, math.inf
FORMS = [(None, False), (Header(5, PROPERTIES), True), (Header(5, PROPERTIES), False)]


@pytest.mark.parametrize(("header", "native"), FORMS)
def test_nan_in_a_pydantic_model_comes_back(header: Header | None, native: bool) -> None:
    inner = Inner(real=NAN, reals=[1.0, NAN])
    message = Model(real=NAN, inner=inner, by_name={"a": inner})
    found = Reader(Model).read(Writer(Model).pack(message, header, native)).data
    assert repr(found) == repr(message)


@pytest.mark.parametrize(
    "data",
    [
        {"real": None, "text": None},
        {"real": "far"},
        {"real": None, "text": 5},
        {"real": None, "either": None},
        {"real": None, "inner": None},
        None,
        [],
    ],
)
def test_what_else_is_wrong_with_a_pydantic_model_is_told(data: Any) -> None:
    payload = Packet(msgspec.json.encode(data))
    with pytest.raises(Refused, match="not a Model"):
        Reader(Model).read(payload)


@pytest.mark.parametrize("number", [INF, -INF])
@pytest.mark.parametrize(("header", "native"), FORMS)
def test_a_number_that_is_infinite_comes_back_by_itself(
    header: Header | None, native: bool, number: float
) -> None:
    assert Reader(float).read(Writer(float).pack(number, header, native)).data == number


# ---- Redis ----

Items = list[tuple[bytes, bytes]]


class Played:
    """A popper of one list on a link whose server is played, and what it has popped."""

    def __init__(self, depth: int = 1) -> None:
        self.items: Items = []
        self.depth = depth
        self.popper = Popper(
            *(15, lambda wake_list, count: True, lambda: ((b"q",), self.depth)),
            *(lambda name, item: self.items.append((name, item)), lambda error: None),
        )
        self.socket = PlayedSocket(RedisLink("robot"))
        self.popper.attach(self.socket.link)

    def commands(self) -> int:
        """How many were written since the last look."""
        found = b"".join(self.socket.written).count(b"*")
        self.socket.written.clear()
        return found


async def test_a_server_that_refuses_a_ping_is_served_all_the_same() -> None:
    """Redis does so while it cannot save (MISCONF), or a script runs (BUSY)."""
    played = Played(depth=0)  # all workers are busy, so nothing is popped
    played.socket.link.probe()
    assert played.commands() == 1
    played.depth = 1
    played.socket.comes(b"-MISCONF Redis is configured to save RDB snapshots\r\n")
    assert played.commands() == 1, "a BLPOP, now that there is a worker"
    played.socket.comes(b"*2\r\n$1\r\nq\r\n$2\r\n{}\r\n")
    assert played.items == [(b"q", b"{}")]
    assert not played.socket.is_cut


async def test_the_answer_to_a_ping_is_no_item_of_a_list_that_is_tried() -> None:
    played = Played()
    played.commands()
    played.socket.comes(b"-NOPERM no permissions\r\n")
    assert b"LPOP" in b"".join(played.socket.written), "which list it is about"
    played.commands()
    played.socket.link.probe()
    assert played.commands() == 0, "LPOP is answered at once, and is the sign of life"
    played.socket.comes(b"$-1\r\n")
    assert played.items == []


@pytest.mark.parametrize(
    "answer",
    [
        b"*0\r\n",
        b"*1\r\n$1\r\nq\r\n",
        b"*2\r\n*0\r\n$1\r\nx\r\n",
        b"*2\r\n$1\r\nq\r\n:1\r\n",
        b"*3\r\n$1\r\nq\r\n$1\r\nx\r\n$1\r\ny\r\n",
        b":1\r\n",
        b"+OK\r\n",
        b"*-1\r\n*-1\r\n",  # two answers to one question
        b"*4294967295\r\n",  # more than there is memory for
    ],
)
async def test_what_is_no_answer_to_a_blpop_ends_the_connection(answer: bytes) -> None:
    played = Played()
    played.popper._plan = lambda: ((), 0)  # nothing more is asked
    played.socket.comes(answer)
    reason = played.socket.link.closed.result()
    assert isinstance(reason, ConnectionLost)
    assert "robot does not speak RESP" in str(reason)
    assert played.items == []


@pytest.mark.parametrize(
    "answer",
    [
        b"*1\r\n$7\r\nmessage\r\n",
        b"*3\r\n$7\r\nmessage\r\n*0\r\n$1\r\nx\r\n",
        b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n:1\r\n",
        b"*4\r\n$8\r\npmessage\r\n$3\r\na.*\r\n*-1\r\n$1\r\nx\r\n",
        b"*3\r\n$8\r\npmessage\r\n$3\r\na.*\r\n$1\r\nx\r\n",
    ],
)
async def test_what_is_no_message_of_a_channel_ends_the_connection(answer: bytes) -> None:
    taken: list[Packet] = []
    channels = Channels(lambda reply: None, lambda error: None)
    channels.add("a", taken.append)
    channels.add("a.*", taken.append)
    socket = PlayedSocket(RedisLink("robot"))
    restored = asyncio.ensure_future(channels.restore(socket.link))
    await asyncio.sleep(0)
    socket.comes(answer)
    await restored
    assert "does not speak RESP" in str(socket.link.closed.result())
    assert taken == []


async def test_a_list_that_answers_with_nothing_is_passed_over() -> None:
    garbage: list[Any] = []
    channels = Channels(garbage.append, lambda error: None)
    socket = PlayedSocket(RedisLink("robot"))
    await channels.restore(socket.link)
    socket.comes(b"*0\r\n" + b"+PONG\r\n" + b"+what\r\n")
    assert garbage == [b"what"]
    assert not socket.is_cut


async def test_a_reply_on_a_list_whose_name_is_no_text_reaches_nobody() -> None:
    taken: list[str | None] = []
    lists = ReplyLists(15, lambda wake_list, count: True, lambda keys: None, lambda error: None)
    lists.handler = lambda token, reply: taken.append(token) is None
    lists.address("7")
    lists._take(b"\xff\xfe", b"{}")
    assert taken == [None]


@pytest.mark.parametrize(
    "answer",
    [None, 5, b"12", [], [b"1"], [b"1", b"2", b"3"], [b"1", b"x"], [b"9" * 400, b"0"], [1, 2]],
)
def test_a_time_that_is_none_is_not_taken_for_the_clock(answer: Any) -> None:
    assert _seconds(answer) is None


def test_the_time_of_a_server_is_in_seconds_and_millionths() -> None:
    assert _seconds([b"1700000000", b"250000"]) == 1_700_000_000.25


async def test_a_queue_of_no_known_length_is_taken_for_empty() -> None:
    transport = RedisTransport(redis.ConnectionParameters())
    socket = PlayedSocket(RedisLink("robot"))
    transport._commands_link = socket.link
    asked = asyncio.ensure_future(transport._backlog("q"))
    await asyncio.sleep(0)
    assert socket.written == [command("LLEN", "q")]
    socket.comes(b"+many\r\n")
    assert await asked == 0


# ---- AMQP ----


@pytest.mark.parametrize(
    "answer",
    [
        said(SETUP, spec.Basic.QosOk()),
        methods.method(SETUP, methods.QUEUE_DECLARE_OK),
        methods.method(SETUP, methods.QUEUE_DECLARE_OK, b"\x03amq"),
        methods.method(SETUP, methods.QUEUE_DECLARE_OK, b"\x01q\0\0\0"),
    ],
)
async def test_what_is_no_answer_to_the_question_ends_the_connection(answer: bytes) -> None:
    wire = Wire()
    wire.open(SETUP)
    asked = wire.link.channel(SETUP).ask(methods.declare_queue(SETUP, "q", 0, {}))
    wire.comes(answer)
    assert "robot does not speak AMQP" in str(wire.link.closed.result())
    with pytest.raises(ConnectionLost):
        await asked


async def test_a_pause_that_says_neither_yes_nor_no_ends_the_connection() -> None:
    wire = Wire()
    wire.open(TOPICS)
    wire.comes(methods.method(TOPICS, methods.CHANNEL_FLOW))
    assert "robot does not speak AMQP" in str(wire.link.closed.result())
    assert wire.written == []


async def test_a_broker_whose_frames_have_no_room_for_a_header_is_refused() -> None:
    wire = Wire()
    greeting = asyncio.ensure_future(wire.link.greet(ConnectionParameters()))
    for method in (START, spec.Connection.Tune(0, 100, 0)):
        await asyncio.sleep(0)
        wire.says(0, method)
    with pytest.raises(ConnectError, match=r"frames of 100 bytes .* 4096 at least"):
        await greeting


async def test_of_a_message_on_a_channel_that_is_not_open_nothing_is_kept() -> None:
    wire = Wire()
    wire.open(TOPICS)
    taken: list[bytes] = []
    wire.link.channel(TOPICS).on_arrival = lambda *arrival: taken.append(arrival[-1])
    for channel in (9, 10, 0xFFFF):
        method, header, body = delivery_frames(channel, b"x")
        for frame in (method, header, body):
            wire.comes(frame)
            assert wire.link._contents == {}
    wire.comes(delivered(TOPICS, b"y"))
    assert taken == [b"y"]


async def test_the_empty_parts_of_a_message_take_no_memory() -> None:
    wire = Wire()
    wire.open(TOPICS)
    taken: list[bytes] = []
    wire.link.channel(TOPICS).on_arrival = lambda *arrival: taken.append(arrival[-1])
    method, header, body = delivery_frames(TOPICS, b"x")
    nothing = b"\x03" + TOPICS.to_bytes(2) + bytes(4) + b"\xce"
    wire.comes(method + header + nothing * 1000)
    assert wire.link._contents[TOPICS].parts == []
    wire.comes(body)
    assert taken == [b"x"]
