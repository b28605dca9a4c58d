"""MQTT over websockets: any cut of the stream, web servers that say no, and ways that break."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from websockets.frames import Frame, Opcode

from brokers import MosquittoServer, NatsServer, PlainPeer
from collected import DEADLINE, Collected, eventually, met
from commlib import aio
from commlib.exceptions import AuthError, CertificateError, ConnectError, MissingDriver
from commlib.node import Node
from commlib.transports._mqtt_link import MqttLink
from commlib.transports._websocket import WebSocket, open_websocket
from commlib.transports.mqtt import ConnectionParameters, Offline, Will
from fake_peer import FakePeer
from mqtt.websocket_front import WebSocketFront

MakeMosquitto = Callable[..., MosquittoServer]
LOOPS = pytest.mark.parametrize(
    "make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
PAYLOADS = [b"", b"x", b"y" * 130, bytes(range(256)) * 2, b"z"]


@pytest.fixture
def topic() -> str:
    return f"web_{os.urandom(4).hex()}"


async def sent_and_heard(node: aio.Node, topic: str, payloads: list[bytes]) -> list[bytes]:
    """What comes back of what is published."""
    heard: list[bytes] = []
    async with asyncio.timeout(DEADLINE):
        subscriber = node.create_subscriber(topic, msg_type=bytes)
        await node.run()
        publisher = node.create_publisher(topic, bytes)
        for payload in payloads:
            await publisher.publish(payload)
        async for payload in subscriber:
            heard.append(payload)
            if len(heard) == len(payloads):
                return heard
    raise AssertionError("there is always a next one")


# ---- the stream ----


@pytest.mark.parametrize("ping", [False, True], ids=["", "ping"])
@pytest.mark.parametrize(
    ("frame", "fragment", "piece"),
    [(0, 0, 0), (1, 0, 0), (7, 3, 0), (0, 1, 0), (0, 0, 1), (5, 2, 1), (1000, 0, 999)],
)
async def test_packets_come_whole_however_the_broker_frames_them(
    mqtt_server: MosquittoServer, topic: str, frame: int, fragment: int, piece: int, ping: bool
) -> None:
    async with WebSocketFront(mqtt_server.port) as front:
        front.frame, front.fragment, front.piece, front.ping = frame, fragment, piece, ping
        async with aio.Node("n", front.url, heartbeats=False) as node:
            assert await sent_and_heard(node, topic, PAYLOADS) == PAYLOADS
            await met(lambda: bool(front.pongs) is ping)
        assert set(front.pongs) <= {b"ping"}


@LOOPS
def test_a_megabyte_comes_whole(
    mqtt_server: MosquittoServer,
    topic: str,
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    payloads = [os.urandom(1_000_000), b"small", os.urandom(70_000)] * 3

    async def run() -> None:
        async with WebSocketFront(mqtt_server.port) as front:
            async with aio.Node("n", front.url, heartbeats=False) as node:
                assert await sent_and_heard(node, topic, payloads) == payloads

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(run())


async def test_a_message_over_the_limit_is_refused_and_the_connection_goes_on(
    nats_websockets_server: NatsServer, topic: str
) -> None:
    url = nats_websockets_server.url
    async with (
        aio.Node("n", f"{url}&max_payload=1000", heartbeats=False) as node,
        aio.Node("peer", url, heartbeats=False) as peer,
        asyncio.timeout(DEADLINE),
    ):
        subscriber = node.create_subscriber(topic, msg_type=bytes)
        await node.run()
        publisher = peer.create_publisher(topic, bytes)
        await publisher.publish(bytes(1_000_000))
        await publisher.publish(b"next")
        assert await anext(subscriber) == b"next"
        assert (subscriber.stats.refused, subscriber.stats.reconnects) == (1, 0)


async def test_a_peer_that_has_never_heard_of_websockets_is_heard(
    mqtt_server: MosquittoServer, topic: str
) -> None:
    plain = PlainPeer(mqtt_server.url)
    async with WebSocketFront(mqtt_server.port) as front:
        async with aio.Node("n", front.url, heartbeats=False) as node:
            subscriber = node.create_subscriber(topic)
            await node.run()
            await asyncio.to_thread(plain.publish, topic, '{"n": 1}')
            async with asyncio.timeout(DEADLINE):
                assert await anext(subscriber) == {"n": 1}


async def test_a_publisher_waits_for_a_broker_that_does_not_read(topic: str) -> None:
    stopped = asyncio.Event()

    async def read_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        await stopped.wait()
        writer.close()

    deaf = await asyncio.start_server(read_nothing, "127.0.0.1", limit=1000)
    async with deaf, WebSocketFront(deaf.sockets[0].getsockname()[1]) as front:
        params = ConnectionParameters("127.0.0.1", front.port, transport="websockets")
        link = await open_websocket(lambda: MqttLink("robot", 5, 1000), params)
        rooms: list[bool] = []
        link.on_room = rooms.append
        while not rooms:
            link.write([bytes(100_000)], [])
            await asyncio.sleep(0)
        assert rooms == [False]
        assert link.unsent_bytes > 0
        stopped.set()
        await met(lambda: link.closed.done())
        await link.give_up()
    assert link.unsent_bytes == 0


async def test_only_the_loop_writes(mqtt_websockets_server: MosquittoServer, topic: str) -> None:
    async with aio.Node("n", mqtt_websockets_server.url, heartbeats=False) as node:
        link = node.hub.transport._link  # type: ignore[attr-defined]
        assert not await asyncio.to_thread(link.write_now, b"\xc0\x00", None, True)


def test_the_synchronous_face_publishes_and_calls(
    mqtt_websockets_server: MosquittoServer, topic: str
) -> None:
    seen = Collected()
    with Node("n", connection_params=mqtt_websockets_server.url) as node:
        node.create_subscriber(topic, seen)
        publisher = node.create_publisher(topic)
        for number in range(5000):
            publisher.publish(number)
        assert seen.wait(5000) == list(range(5000))
        node.create_rpc(f"{topic}.double", lambda n: n * 2)
        assert node.create_rpc_client(f"{topic}.double").call(4, timeout=DEADLINE) == 8


# ---- the handshake ----


async def test_path_headers_and_subprotocol_are_told_and_no_password(
    mqtt_server: MosquittoServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with WebSocketFront(mqtt_server.port) as front:
        params = ConnectionParameters(
            "127.0.0.1",
            front.port,
            username="robot",
            password="s3cret",
            transport="websockets",
            path="/way/to?token=t0ken",
            headers={"Authorization": "Bearer t1ket", "X-Robot": "7"},
        )
        async with aio.Node("n", params, heartbeats=False) as node:
            assert node.connected
        request = front.requests[0]
    assert request.path == "/way/to?token=t0ken"
    assert request.headers["Authorization"] == "Bearer t1ket"
    assert request.headers["X-Robot"] == "7"
    assert request.headers["Sec-WebSocket-Protocol"] == "mqtt"
    assert "Sec-WebSocket-Extensions" not in request.headers, "such as compression"
    assert request.headers["Host"] == f"127.0.0.1:{front.port}"
    for secret in ("s3cret", "t0ken", "t1ket"):
        assert secret not in caplog.text + repr(params) + str(params) + params.address


async def test_the_zone_of_an_address_is_not_for_the_server() -> None:
    written: list[bytes] = []

    class Way(asyncio.Transport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            written.append(bytes(data))

    class Quiet:
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            pass

    link: Any = Quiet()
    WebSocket(
        link, ConnectionParameters("fe80::1%eth0", 80, transport="websockets")
    ).connection_made(Way())
    assert b"\r\nHost: [fe80::1]\r\n" in b"".join(written)


class WebServer(FakePeer):
    """Answers a request with what the test says; ``KEY`` in it is what a client waits for."""

    scheme = "ws"

    def __init__(self, answer: bytes, *, closes: bool = True) -> None:
        super().__init__()
        self._answer = answer
        self._closes = closes

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connects += 1
        request = await reader.readuntil(b"\r\n\r\n")
        key = request.lower().partition(b"sec-websocket-key: ")[2].partition(b"\r\n")[0]
        at = request.lower().index(key)
        # RFC 6455, section 4.2.2.
        raw = request[at : at + len(key)] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(raw).digest())
        await self._send(writer, self._answer.replace(b"KEY", accept))
        if not self._closes:
            await reader.read()


def http(status: str, *headers: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, "", body]
    return "\r\n".join(lines).encode()


UPGRADE = ("Upgrade: websocket", "Connection: Upgrade")
ACCEPTED = (*UPGRADE, "Sec-WebSocket-Accept: KEY")
PLAIN = http("200 OK", "Content-Length: 5", body="hello")
REFUSALS = {
    "401": (http("401 Unauthorized", "Content-Length: 0"), "HTTP 401 Unauthorized; .* headers="),
    "403": (http("403 Forbidden", body="no"), "HTTP 403 Forbidden; .* headers="),
    "404": (http("404 Not Found", body="where?"), "/mqtt .* HTTP 404 .*; is the path right?"),
    "a page": (PLAIN, "HTTP 200 OK"),
    "a redirection": (http("301 Moved", "Location: /x", "Content-Length: 0"), "HTTP 301 Moved"),
    "no words": (http("503 ", "Content-Length: 0"), "HTTP 503"),
    "no HTTP": (b"220 mail.example ESMTP\r\n", "does not speak HTTP; is it the right port"),
    "noise": (os.urandom(200) + b"\n", "does not speak HTTP"),
    "nothing": (b"", "closed the connection at once; is it the right port"),
    "half of a line": (b"HTTP/1.1 101 Swi", "closed the connection at once"),
    "half of an answer": (b"HTTP/1.1 101 OK\r\nUpgrade: web", "closed the connection at once"),
    "no upgrade": (http("101 OK"), "does not speak MQTT over websockets: missing Connection"),
    "a wrong key": (http("101 OK", *UPGRADE, "Sec-WebSocket-Accept: x"), "Sec-WebSocket-Accept"),
    "no subprotocol": (http("101 OK", *ACCEPTED), "the subprotocol is not mqtt"),
    "another subprotocol": (
        http("101 OK", *ACCEPTED, "Sec-WebSocket-Protocol: chat"),
        "unsupported subprotocol: chat",
    ),
    "compression": (
        http("101 OK", *ACCEPTED, "Sec-WebSocket-Extensions: permessage-deflate"),
        "no extensions supported",
    ),
    "headers without an end": (b"HTTP/1.1 101 OK\r\n" + b"X: y\r\n" * 500, "does not speak HTTP"),
}


@pytest.mark.parametrize("fragments", [1, 1 << 20], ids=["byte by byte", "at once"])
@pytest.mark.parametrize(("answer", "text"), REFUSALS.values(), ids=REFUSALS)
async def test_a_server_that_says_no_is_told_of_and_tried_again(
    answer: bytes, text: str, fragments: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with WebServer(answer) as server:
        server.fragments = fragments
        node = aio.Node("n", server.url, heartbeats=False)
        asks_for_a_person = "headers=" in text
        async with asyncio.timeout(DEADLINE):
            if asks_for_a_person:
                with pytest.raises(AuthError, match=text):
                    await node.run()
            else:
                running = asyncio.create_task(node.run())
                await met(lambda: server.connects >= 2)
                running.cancel()
                await asyncio.wait([running])
        assert not node.connected
        await node.stop()
    (warning,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "Traceback" not in caplog.text
    with pytest.raises(ConnectError, match=text):
        raise ConnectError(warning.getMessage())


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 OK\r\nUpgr"], ids=["nothing", "half"])
async def test_one_that_does_not_answer_is_given_up_in_time(
    answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with WebServer(answer, closes=False) as server:
        node = aio.Node("n", server.hasty_url, heartbeats=False)
        async with asyncio.timeout(DEADLINE):
            await node.run()
        await met(lambda: "no answer within 0.2 s" in caplog.text)
        await node.stop()


async def test_one_that_answers_and_then_says_nothing_is_given_up_in_time() -> None:
    answer = http("101 OK", *ACCEPTED, "Sec-WebSocket-Protocol: mqtt")
    async with WebServer(answer, closes=False) as server:
        node = aio.Node("n", server.hasty_url, heartbeats=False)
        async with asyncio.timeout(DEADLINE):
            await node.run()
            await met(lambda: server.connects >= 2)
        assert not node.connected
        await node.stop()


async def test_a_port_of_plain_mqtt_is_told_from_one_of_websockets(
    mqtt_server: MosquittoServer, caplog: pytest.LogCaptureFixture
) -> None:
    node = aio.Node("n", f"ws://127.0.0.1:{mqtt_server.port}", heartbeats=False)
    await node.run(wait=False)
    await met(lambda: "is it the right port" in caplog.text)
    await node.stop()


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets", None)
    with pytest.raises(MissingDriver, match=r'pip install "commlib-py\[websockets\]"'):
        Node("n", connection_params="ws://127.0.0.1")
    Node("n", connection_params="mqtt://127.0.0.1").stop()


# ---- the end ----

BAD = {
    "a text": (Frame(Opcode.TEXT, b"hello"), "MQTT is binary", 1003),
    "a part of a text": (Frame(Opcode.TEXT, b"hel", fin=False), "MQTT is binary", 1003),
    "a reserved bit": (Frame(Opcode.BINARY, b"x", rsv1=True), "reserved bits", 1002),
    "a continuation of nothing": (Frame(Opcode.CONT, b"x"), "unexpected continuation", 1002),
    "a long ping": (Frame(Opcode.PING, bytes(126)), "control frame too long", 1002),
}


@pytest.mark.parametrize(("frame", "text", "code"), BAD.values(), ids=BAD)
async def test_what_is_no_frame_of_mqtt_ends_the_connection(
    mqtt_server: MosquittoServer,
    frame: Frame,
    text: str,
    code: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Frame, "check", lambda frame: None)
    sent = frame.serialize(mask=False)
    monkeypatch.undo()
    async with WebSocketFront(mqtt_server.port) as front:
        async with aio.Node("n", front.url, heartbeats=False) as node:
            front.write(sent)
            await met(lambda: text in caplog.text)
            await met(lambda: node.connected)
            await met(lambda: code in front.closes)


async def test_a_frame_without_an_end_is_as_bad_as_what_is_in_it(
    mqtt_server: MosquittoServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with WebSocketFront(mqtt_server.port) as front:
        async with aio.Node("n", front.url, heartbeats=False) as node:
            front.write(b"\x82\x7f" + (1 << 62).to_bytes(8) + bytes(1000))
            await met(lambda: "does not speak MQTT" in caplog.text)
            await met(lambda: node.connected)


async def test_why_a_broker_leaves_is_told(
    mqtt_server: MosquittoServer, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with WebSocketFront(mqtt_server.port) as front:
        async with aio.Node("n", front.url, heartbeats=False) as node:
            front.close_with(1012, "back in a moment")
            await met(lambda: "back in a moment" in caplog.text)
            await met(lambda: node.connected)
            assert await sent_and_heard(node, topic, PAYLOADS) == PAYLOADS


@pytest.mark.parametrize(
    ("last", "text"),
    [
        (Frame(Opcode.CLOSE, (1012).to_bytes(2) + b"back in a moment"), "back in a moment"),
        (Frame(Opcode.TEXT, b"hello"), "MQTT is binary"),
    ],
    ids=["a close", "a text"],
)
async def test_what_came_together_with_the_end_is_handed_over(
    mqtt_server: MosquittoServer,
    topic: str,
    last: Frame,
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with WebSocketFront(mqtt_server.port) as front:
        url = f"{front.url}?protocol=MQTTv311"
        async with aio.Node("n", url, heartbeats=False) as node, asyncio.timeout(DEADLINE):
            subscriber = node.create_subscriber(topic, msg_type=bytes)
            await node.run()
            # To be acknowledged, each of them, and nothing is sent behind a close.
            packets = [
                b"\x32%c\0%c%b\0%cx%c"
                % (*(2 + len(topic) + 2 + 2, len(topic), topic.encode(), number, number),)
                for number in (1, 2, 3)
            ]
            frames = [Frame(Opcode.BINARY, packet) for packet in packets] + [last]
            front.write(b"".join(frame.serialize(mask=False) for frame in frames))
            assert [await anext(subscriber) for _ in packets] == [b"x\1", b"x\2", b"x\3"]
            await met(lambda: text in caplog.text)
            await met(lambda: node.connected)
    assert "Fatal error" not in caplog.text


@LOOPS
def test_we_take_leave_so_that_the_will_is_not_published(
    mqtt_server: MosquittoServer, topic: str, make_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    plain = PlainPeer(mqtt_server.url)
    heard = plain.subscribe(topic)

    async def run() -> None:
        async with WebSocketFront(mqtt_server.port) as front:
            params = ConnectionParameters.from_url(front.url)
            params.will = Will(topic, "dead")
            async with aio.Node("n", params, heartbeats=False):
                pass
            await met(lambda: front.closes == [1000])

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(run())
    plain.publish(topic, "end")
    assert heard.first.payload == b"end"
    plain.close()


@pytest.mark.parametrize("ends", [MosquittoServer.kill, MosquittoServer.stop])
def test_a_broker_that_is_started_again_is_found(
    make_mosquitto: MakeMosquitto, topic: str, ends: Callable[[MosquittoServer], None]
) -> None:
    server, seen = make_mosquitto(websockets=True), Collected()
    params = ConnectionParameters.from_url(server.url)
    params.offline = Offline(max_age=60)
    with Node("n", connection_params=params, heartbeats=False) as node:
        node.create_subscriber(topic, seen)
        publisher = node.create_publisher(topic)
        publisher.publish(1)
        assert seen.first == 1
        ends(server)
        eventually(lambda: not node.connected)
        publisher.publish(2)
        server.start()
        assert seen.wait(2) == [1, 2]


FORKING = """
import os, sys
from commlib.node import Node
url, topic = sys.argv[1:]
node = Node("parent", connection_params=url, heartbeats=False)
publisher = node.create_publisher(topic)
node.run()
publisher.publish("parent 1")
child = os.fork()
if not child:
    publisher.publish("child")
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
publisher.publish("parent 2")
assert publisher.stats.reconnects == 0
node.stop()
"""


def test_a_forked_child_has_a_websocket_of_its_own_and_leaves_that_of_its_parent_alone(
    mqtt_websockets_server: MosquittoServer, topic: str
) -> None:
    url, seen = mqtt_websockets_server.url, Collected()
    with Node("n", connection_params=url, heartbeats=False) as node:
        node.create_subscriber(topic, seen)
        command = [sys.executable, "-W", "error", "-c", FORKING, url, topic]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
        assert (done.returncode, done.stderr) == (0, "")
        assert seen.wait(3) == ["parent 1", "child", "parent 2"]


# ---- TLS ----


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def serving(authority: trustme.CA, *protocols: str) -> ssl.SSLContext:
    """What a server shows, and the protocols that it knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.set_alpn_protocols(list(protocols))
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The authority is one of those of the system."""
    authority.cert_pem.write_to_path(tmp_path / "system.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))


async def test_wss_is_a_websocket_within_tls(
    mqtt_server: MosquittoServer, authority: trustme.CA, trusted: None, topic: str
) -> None:
    payloads = [*PAYLOADS, os.urandom(1_000_000)]
    async with WebSocketFront(mqtt_server.port, ssl=serving(authority)) as front:
        assert front.url.startswith("wss://")
        async with aio.Node("n", front.url, heartbeats=False) as node:
            assert await sent_and_heard(node, topic, payloads) == payloads


async def test_a_certificate_that_does_not_verify_is_refused_before_a_word_is_said(
    mqtt_server: MosquittoServer, authority: trustme.CA
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    async with WebSocketFront(mqtt_server.port, ssl=serving(authority)) as front:
        node = aio.Node("n", front.url, heartbeats=False)
        with pytest.raises(CertificateError, match="certificate verify failed"):
            await node.run()
        await node.stop()
        assert front.requests == []


@pytest.mark.parametrize("scheme", ["mqtts", "wss"])
async def test_a_port_that_many_share_is_told_what_is_spoken(
    mqtt_server: MosquittoServer, authority: trustme.CA, trusted: None, scheme: str, topic: str
) -> None:
    served = serving(authority, "http/1.1", "x-amzn-mqtt-ca", "mqtt")
    async with WebSocketFront(mqtt_server.port, ssl=served) as front:
        front.is_plain = scheme == "mqtts"
        url = f"{scheme}://127.0.0.1:{front.port}?alpn=x-amzn-mqtt-ca"
        async with aio.Node("n", url, heartbeats=False) as node:
            assert await sent_and_heard(node, topic, PAYLOADS) == PAYLOADS
        assert set(front.alpn) == {"x-amzn-mqtt-ca"}


async def test_without_a_word_nothing_is_offered_and_a_context_of_ones_own_says_its_own(
    mqtt_server: MosquittoServer, authority: trustme.CA
) -> None:
    context = trusting(authority)
    async with WebSocketFront(mqtt_server.port, ssl=serving(authority, "mqtt")) as front:
        params = ConnectionParameters("127.0.0.1", front.port, ssl=context, transport="websockets")
        async with aio.Node("n", params, heartbeats=False):
            pass
        context.set_alpn_protocols(["mqtt"])
        async with aio.Node("n", params, heartbeats=False):
            pass
        assert front.alpn == [None, "mqtt"]
