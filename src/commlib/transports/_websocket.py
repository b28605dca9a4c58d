"""A websocket between asyncio and a link: to asyncio a protocol, to the link a transport.

So the link knows nothing of it, and one that has none pays nothing for it. What is written is
carried in binary messages, and what comes in them is a stream again (MQTT 5.0, section 6). The
frames are made and read by the package ``websockets``.

Source: RFC 6455.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidMessage, InvalidStatus, NegotiationError
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from commlib._dial import connect
from commlib.exceptions import AuthError, ConnectError
from commlib.transports._stream_link import READ_BYTES, StreamLink, read_buffer
from commlib.transports._websocket_fragments import Fragments

if TYPE_CHECKING:
    from commlib.transports._mqtt_params import ConnectionParameters

SUBPROTOCOL = Subprotocol("mqtt")
LONGEST_FRAME = 2 * READ_BYTES  # as `Fragments` hands them over
DATA = (Opcode.BINARY, Opcode.CONT)
CLOSED = (State.CLOSING, State.CLOSED)
_HEADERS = "; is it headers= that it wants?"
STATUS: dict[int, tuple[type[ConnectError], str]] = {
    401: (AuthError, _HEADERS),
    403: (AuthError, _HEADERS),
    404: (ConnectError, "; is the path right?"),
}
"""What an answer of HTTP means here."""
WRONG_PORT = "is it the right port, and is there TLS (wss://) on this side if it is on that one?"

# What it logs at the level DEBUG are frames, with passwords in them.
_log = logging.Logger("commlib.websocket", logging.ERROR)
_log.parent = logging.getLogger("commlib")

L = TypeVar("L", bound=StreamLink)


class WebSocket(asyncio.BufferedProtocol, asyncio.Transport, Generic[L]):
    """The websocket of a link, over a connection that has just been made."""

    def __init__(self, link: L, params: ConnectionParameters) -> None:
        loop = asyncio.get_running_loop()
        self.link = link
        self.opened: asyncio.Future[Exception | None] = loop.create_future()
        """Done when the broker has answered; with what is wrong, or None."""
        scheme = "wss" if params.ssl else "ws"
        place = re.sub(r"%[^\]]*", "", params.place)  # of no zone is the broker told (RFC 6874)
        self._protocol = ClientProtocol(
            parse_uri(f"{scheme}://{place}{params.path}"),
            subprotocols=[SUBPROTOCOL],
            max_size=(None, LONGEST_FRAME),
            logger=_log,
        )
        self._headers = params.headers
        self._fragments = Fragments()
        self._buffer = read_buffer(loop)
        self._transport: asyncio.Transport | None = None
        self._is_closed = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.link.connection_made(self)
        request = self._protocol.connect()
        request.headers.update(self._headers)
        self._protocol.send_request(request)
        self._send()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.is_closing():
            return
        data = bytes(self._buffer[:nbytes])
        if not self.opened.done():
            data = self._take_response(data)
        if self._protocol.state is State.OPEN:
            self._take_frames(self._fragments.of(data))

    def pause_writing(self) -> None:
        self.link.pause_writing()

    def resume_writing(self) -> None:
        self.link.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_result(self._lost(exc))
        self.link.connection_lost(exc)

    def _lost(self, exc: Exception | None) -> Exception:
        """Why there was no whole answer to the handshake."""
        if exc is not None and not isinstance(exc, ConnectionError):
            return exc  # of TLS
        self._protocol.receive_eof()  # of some answers that is the end
        return _refusal(self.link.name, self._protocol.handshake_exc, is_at_end=True)

    # What the link calls.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._protocol.send_binary(data)
        self._send()

    def can_write_eof(self) -> bool:
        return False  # a websocket is closed by a word

    def close(self) -> None:
        """Say goodbye; the broker closes the connection then."""
        if not self.is_closing():
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._send()
            self._is_closed = True

    def abort(self) -> None:
        assert self._transport is not None, "it was connected"
        self._transport.abort()

    def is_closing(self) -> bool:
        return (
            self._is_closed
            or self._protocol.state in CLOSED  # it takes nothing more, whatever the transport does
            or self._transport is None
            or self._transport.is_closing()
        )

    def get_write_buffer_size(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "websocket":
            return self
        return default if self._transport is None else self._transport.get_extra_info(name, default)

    # The websocket.

    def _take_response(self, data: bytes) -> bytes:
        """Read the answer to our request, line by line; what comes behind it is a frame."""
        protocol, at = self._protocol, 0
        while at < len(data) and protocol.state is State.CONNECTING:
            behind = data.find(b"\n", at) + 1 or len(data)
            protocol.receive_data(data[at:behind])
            at = behind
            if protocol.handshake_exc is not None:
                self.opened.set_result(_refusal(self.link.name, protocol.handshake_exc))
                return b""
        if protocol.state is State.OPEN:
            protocol.events_received()  # the response
            is_mqtt = protocol.subprotocol == SUBPROTOCOL
            failure = None if is_mqtt else NegotiationError(f"the subprotocol is not {SUBPROTOCOL}")
            self.opened.set_result(failure and _refusal(self.link.name, failure))
        return data[at:]

    def _take_frames(self, frames: bytes) -> None:
        protocol = self._protocol
        protocol.receive_data(frames)
        stream = []
        for frame in protocol.events_received():
            assert isinstance(frame, Frame), "there is but one response"
            if frame.opcode is Opcode.TEXT:  # MQTT 5.0, section 6
                protocol.fail(CloseCode.UNSUPPORTED_DATA, "MQTT is binary")
                break
            if frame.opcode in DATA:
                stream.append(frame.data)
        self._hand_over(memoryview(b"".join(stream)))
        self._send()
        if protocol.close_expected():
            protocol.receive_eof()  # it is as good as here, and then all is known
            self.link.abort(EOFError(f"the websocket was closed: {protocol.close_exc}"))

    def _hand_over(self, stream: memoryview) -> None:
        while stream:
            room = self.link.get_buffer(-1)
            taken = min(len(room), len(stream))
            room[:taken] = stream[:taken]
            self.link.buffer_updated(taken)
            stream = stream[taken:]

    def _send(self) -> None:
        assert self._transport is not None, "it was connected"
        for data in self._protocol.data_to_send():
            if data:  # nothing stands for the end, which comes with that of the connection
                self._transport.write(data)


def _refusal(name: str, failure: Exception | None, *, is_at_end: bool = False) -> ConnectError:
    """What has become of a handshake that has failed."""
    error: ConnectError
    if isinstance(failure, InvalidStatus):
        status, phrase = failure.response.status_code, failure.response.reason_phrase[:100]
        kind, hint = STATUS.get(status, (ConnectError, ""))
        error = kind(f"{name} refuses the websocket: HTTP {status} {phrase}{hint}")
    elif is_at_end:
        error = ConnectError(f"{name}: the broker has closed the connection at once; {WRONG_PORT}")
    elif isinstance(failure, InvalidMessage):
        error = ConnectError(f"{name} does not speak HTTP; {WRONG_PORT}")
    else:
        error = ConnectError(f"{name} does not speak MQTT over websockets: {failure}")
    error.__cause__ = failure
    return error


async def open_websocket(make: Callable[[], L], params: ConnectionParameters) -> L:
    """A link that is connected through a websocket.

    Raises AuthError where HTTP asks for one, ConnectError or OSError.
    """
    context, timeout = params.ssl_context(), params.connect_timeout
    websocket = await connect(
        lambda: WebSocket(make(), params), params.host, params.port, context, timeout
    )
    try:
        failure = await websocket.opened
        if failure is not None:
            raise failure
    except BaseException:
        await websocket.link.give_up()
        raise
    return websocket.link
