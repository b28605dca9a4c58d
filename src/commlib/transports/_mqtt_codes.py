"""What a broker's reason codes mean (MQTT 3.1.1, section 3.2.2.3; MQTT 5, section 2.4). Pure."""

from __future__ import annotations

from commlib.exceptions import AuthError, CommlibError

FAILURE = 0x80
"""From here on a code says no."""
TAKEN_OVER = 0x8E
PACKET_TOO_LARGE, RETAIN_NOT_SUPPORTED, QOS_NOT_SUPPORTED = 0x95, 0x9A, 0x9B
TEXTS = {
    0x01: "it does not speak this version of MQTT",
    0x02: "the client id is not allowed",
    0x03: "the service is unavailable",
    0x04: "wrong user name or password",
    0x05: "not authorized",
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "its implementation does not allow that",
    0x84: "it does not speak this version of MQTT",
    0x85: "the client id is not allowed",
    0x86: "wrong user name or password",
    0x87: "not authorized",
    0x88: "the server is unavailable",
    0x89: "the server is busy",
    0x8A: "this client is banned",
    0x8B: "the server is shutting down",
    0x8C: "bad authentication method",
    0x8D: "nothing was heard from us for too long",
    0x8E: "another client came with the same client id",
    0x8F: "the topic filter is not allowed",
    0x90: "the topic name is not allowed",
    0x93: "too many messages at once that wait for an acknowledgement",
    0x95: "the packet is too large",
    0x96: "too many messages in too short a time",
    0x97: "a quota was exceeded",
    0x98: "an administrator has ended it",
    0x99: "the payload is not in the form that it should have",
    0x9A: "it stores no messages (retain)",
    0x9B: "it does not deliver at this QoS",
    0x9C: "use another server",
    0x9D: "the server has moved",
    0x9E: "it has no shared subscriptions",
    0x9F: "too many connections in too short a time",
    0xA1: "it has no subscription identifiers",
    0xA2: "it has no wildcard subscriptions",
}
_AUTH = frozenset({0x04, 0x05, 0x86, 0x87, 0x8A, 0x8C})


def refusal(what: str, code: int, said: str, otherwise: type[CommlibError]) -> CommlibError:
    """The error for a reason code: AuthError where a person has to give rights.

    ``said`` is the broker's own text, if it sends one.
    """
    kind = AuthError if code in _AUTH else otherwise
    text = TEXTS.get(code, f"reason code {code:#04x}")
    return kind(f"{what}: the broker says: {text}" + (f" ({said})" if said else ""))
