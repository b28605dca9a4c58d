"""Looks at the signatures of one endpoint's packets, before anything in them is decoded."""

from __future__ import annotations

import time
from base64 import urlsafe_b64decode
from binascii import Error as NoBase64
from threading import Lock

import msgspec

from commlib._letter import open_letter
from commlib._packet import REPLY, Header, Packet, Signature
from commlib._replays import Replays, Sender
from commlib._sequence import LONGEST_ORIGIN
from commlib._signatures import Replayed, Unverified, same_name, signed_bytes
from commlib._wire import Refused
from commlib.signing import TrustedKeys

_MOST = 2**63  # of what has room in 8 bytes


class Verifier:
    """Takes the packets that are signed by a trusted key, each once. Safe from several threads.

    ``kind`` is that of ``_signatures``; replies have no window of their own, for each belongs to
    one call. What it has seen lasts as long as itself.
    """

    def __init__(self, trusted: TrustedKeys, kind: bytes, *, limit: int, is_call: bool) -> None:
        self._trusted = trusted
        self._kind = kind
        self._limit = limit
        self._is_call = is_call
        self._replays = Replays(trusted.window)
        self._lock = Lock()

    def open(self, packet: Packet, topic: str, id: str = "") -> Packet:
        """The packet with nothing in it but what is signed, and a header beside it.

        ``topic`` is where it came, ``id`` that of the call that a reply has to be for. Raises
        Unverified.
        """
        # Decoded is what was verified: two parsers of one payload may find different things in it.
        try:
            letter = open_letter(packet, self._limit, is_call=self._is_call, only_properties=True)
        except Refused as exc:
            raise Unverified(str(exc), exc.header) from exc
        header = letter.header
        sig = header.sig
        if sig is None:
            raise Unverified(f"it is not signed{_claim(header)}", header)
        self._check_claims(header, sig, topic, id)
        sender = Sender(sig.key, header.origin, sig.topic)
        data, properties = letter.plain()
        self._check_replay(header, sender)
        signed = signed_bytes(self._kind, header, sig, properties.content_type, data)
        if not self._trusted.verify(sig.key, _raw(sig.value), signed):
            raise Unverified(f"the signature of key {sig.key!r} is wrong", header)
        if self._kind != REPLY:
            with self._lock:
                is_new = self._replays.take(sender, header.seq, header.timestamp)
            if not is_new:  # the same one has come on another thread meanwhile
                raise Replayed(header)
        header = msgspec.structs.replace(header, properties=properties)
        return Packet(data, packet.topic, header)

    def _check_claims(self, header: Header, sig: Signature, topic: str, id: str) -> None:
        """What a packet says of itself; whether that is true, the signature tells later."""
        if sig.key not in self._trusted:
            raise Unverified(f"it is signed by {sig.key[:80]!r}, a key not trusted here", header)
        if sig.topic != same_name(topic) and not self._trusted.accepts(sig.topic):
            raise Unverified(
                f"it was signed for {sig.topic[:200]!r}: where a bridge gives messages another "
                "topic, name the first one in signed_for=",
                header,
            )
        lowest = -1 if self._kind == REPLY else 0
        if not (lowest <= header.seq < _MOST and 0 < header.timestamp < _MOST):
            raise Unverified("it has no number, or no timestamp", header)
        if self._kind == REPLY:
            if header.id != id or not id:
                raise Unverified("it is the reply to another call", header)
        elif not 0 < len(header.origin) <= LONGEST_ORIGIN:
            raise Unverified("it does not say who has sent it", header)
        self._check_age(header)

    def _check_age(self, header: Header) -> None:
        age = time.time() - header.timestamp / 1000
        if abs(age) > self._trusted.max_age:
            when = f"{age:.3f} s ago" if age > 0 else f"{-age:.3f} s in the future"
            raise Unverified(
                f"it was signed {when} by its sender's clock, and max_age is "
                f"{self._trusted.max_age:g} s",
                header,
            )

    def _check_replay(self, header: Header, sender: Sender) -> None:
        # Once more after the signature; here it spares the work for what is sent again and again.
        if self._kind == REPLY:
            return
        with self._lock:
            is_new = self._replays.is_new(sender, header.seq, header.timestamp)
        if not is_new:
            raise Replayed(header)


def _claim(header: Header) -> str:
    """What an unsigned reply says that went wrong, for those who look for the cause."""
    if header.error is None:
        return ""
    return f" (it says: {header.error.type[:80]}: {header.error.message[:200]})"


def _raw(value: str) -> bytes:
    """The signature that a text spells; empty for none."""
    try:
        return urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except (NoBase64, ValueError):
        return b""
