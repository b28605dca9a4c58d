"""Signed messages: a receiver takes only what a key that it trusts has signed, and only once.

For brokers that more people may write to than a robot should obey. Signatures are Ed25519
(RFC 8032), by the package ``cryptography``: ``pip install "commlib-py[signing]"``. ::

    key = SigningKey.generate("base-station")
    trusted = TrustedKeys({"base-station": key.public_key})

    station = Node("station", connection_params=url, sign=key)
    robot = Node("robot", connection_params=url, verify=trusted)

``sign=`` and ``verify=`` are options of every endpoint, and of nodes for all their endpoints.

What is promised to an endpoint with ``verify=``: what reaches its callback

* was signed by the private key that belongs to one of the trusted public keys, and neither the data
  nor its content type, the topic, the timestamp, the sender's origin and number, the error, or the
  id of the call have been changed since;
* was signed for the topic at which it came, or for one of ``signed_for``;
* was signed not more than ``max_age`` seconds ago, nor that far in the future, by the clocks of
  both machines: these have to agree so far. A message that a bridge, an outgoing queue or a
  broker (``retain``) keeps for longer is refused;
* has not reached it before, while the endpoint object lives: of each sender, topic and key it knows
  the newest ``window`` numbers, and takes none that is older. If there were more than 10 000 of
  them it forgets the one unheard for longest; what that one has sent is refused then by its
  timestamp. A new process knows nothing of the old one: in it, and in each of several services of
  one name, a message can be taken once more until it is ``max_age`` old.
  A reply is taken by the one call that it was made for, and by no other.

What is refused is counted in ``stats.refused``, logged once for each cause, and told to
``on_error`` as a ``SignatureError``; nothing of it is decoded but the header.

Not promised: that nobody reads along (that is what TLS is for, up to the broker), and that
everything comes: whoever rules the broker can hold messages back, and change what is not signed:
``hops``, ``deadline``, ``reply_to``, ``attempt`` and the trace context. A reply is to the request
that was made only if the service has ``verify=`` as well. Endpoints without ``verify=`` take signed
messages as any others.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from commlib._signatures import same_name
from commlib._topics import check_list, check_pattern, matcher
from commlib.exceptions import MissingDriver, SignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

__all__ = ["SignatureError", "SigningKey", "TrustedKeys"]

LONGEST_ID = 64  # characters of the id of a key: it travels with every message
LONGEST_WINDOW = 65_536  # numbers, a bit for each, and up to 10 000 senders
KEY_BYTES = 32
_PEM = b"-----BEGIN"


class SigningKey:
    """A private key, and the id by which those who trust it know it.

    ``private_key`` is one of ``cryptography``, or its 32 bytes. ``key_id`` travels with every
    message. Raises MissingDriver without the extra, and ValueError for what is no such key.
    """

    def __init__(self, key_id: str, private_key: bytes | Ed25519PrivateKey) -> None:
        self.key_id = _check_id(key_id)
        self._key = _private(private_key)
        self.sign = self._key.sign
        """The signature over bytes. From any thread."""

    @classmethod
    def generate(cls, key_id: str) -> Self:
        """A new key."""
        return cls(key_id, _ed25519().Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, key_id: str, path: str | os.PathLike[str], password: str | None = None) -> Self:
        """The key in a PEM file (PKCS #8), as ``save`` or ``openssl genpkey`` write it.

        Raises OSError, ValueError for what is in it otherwise, or a wrong password, and TypeError
        for a password that is no text.
        """
        _ed25519()
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        secret = None if password is None else _password(password)
        try:
            key: Any = load_pem_private_key(Path(path).read_bytes(), secret)
        except (TypeError, ValueError, UnsupportedAlgorithm) as exc:  # TypeError: the password
            raise ValueError(f"{path}: {exc}") from exc
        return cls(key_id, key)

    def save(self, path: str | os.PathLike[str], password: str | None = None) -> None:
        """Write the key to a new PEM file that only its owner may read.

        Raises FileExistsError where there is one, TypeError for a password that is no text.
        """
        from cryptography.hazmat.primitives import serialization as form

        seal: Any = form.NoEncryption()
        if password is not None:
            seal = form.BestAvailableEncryption(_password(password))
        pem = self._key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, seal)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as exc:
            raise FileExistsError(f"{path} is there already: load() it, or remove it") from exc
        with open(handle, "wb") as file:
            file.write(pem)

    @property
    def public_key(self) -> bytes:
        """The public key, 32 bytes: what others trust."""
        return self._key.public_key().public_bytes_raw()

    @property
    def public_pem(self) -> str:
        """The same as PEM (SubjectPublicKeyInfo)."""
        from cryptography.hazmat.primitives import serialization as form

        kinds = form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_key().public_bytes(*kinds).decode()

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id!r})"


class TrustedKeys:
    """The public keys whose messages are taken, by their ids, and how old these may be.

    ``keys`` are 32 bytes each, or PEM, or keys of ``cryptography``. ``max_age`` is in seconds, and
    ``math.inf`` for machines without a clock: then an old recording is taken by a new process.
    ``window`` is how far a message may be overtaken by others of its sender. ``signed_for`` are
    patterns of topics, or names of services, that a message may have been signed for beside the one
    at which it comes: give it to those that listen behind a bridge which gives messages other
    names, and to no others. A name with slashes counts as the same with dots.

    One of these may be given to any number of endpoints; each remembers for itself what it has
    taken. Raises MissingDriver without the extra, and ValueError for what is no key.
    """

    def __init__(
        self,
        keys: Mapping[str, bytes | str | Ed25519PublicKey],
        *,
        window: int = 1024,
        max_age: float = 30.0,
        signed_for: Iterable[str] = (),
    ) -> None:
        if not isinstance(window, int) or not 1 <= window <= LONGEST_WINDOW:
            raise ValueError(f"window={window!r}: it is a number from 1 to {LONGEST_WINDOW}")
        if not isinstance(max_age, int | float) or not max_age > 0:
            raise ValueError(f"max_age={max_age!r}: it is a time above 0, in seconds")
        self.window = window
        self.max_age = max_age
        if not isinstance(keys, Mapping):
            raise TypeError('keys: a dict from ids to public keys, {"base": key.public_key}')
        signed = check_list(signed_for, "signed_for")
        self._matchers = [matcher(same_name(check_pattern(topic))) for topic in signed]
        self._keys: dict[str, Ed25519PublicKey] = {}
        for key_id, key in keys.items():
            self.add(key_id, key)

    def add(self, key_id: str, key: bytes | str | Ed25519PublicKey) -> None:
        """Trust one more key, or another one of this id; from now on, at every endpoint.

        Raises ValueError for what is no id or no key, and MissingDriver without the extra.
        """
        try:
            self._keys[_check_id(key_id)] = _public(key)
        except ValueError as exc:
            raise ValueError(f"the key {key_id!r}: {exc}") from exc

    def remove(self, key_id: str) -> None:
        """Trust a key no more; from now on, at every endpoint. Raises KeyError."""
        del self._keys[key_id]

    def __contains__(self, key_id: object) -> bool:
        return key_id in self._keys

    def accepts(self, topic: str) -> bool:
        """Whether a message may have been signed for this topic, wherever it comes."""
        return any(matches is not None and matches(topic) for matches in self._matchers)

    def verify(self, key_id: str, signature: bytes, data: bytes) -> bool:
        """Whether it is the signature over these bytes by the key of this id."""
        from cryptography.exceptions import InvalidSignature

        key = self._keys.get(key_id)
        if key is None:
            return False
        try:
            key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def __repr__(self) -> str:
        return f"TrustedKeys({', '.join(map(repr, self._keys))})"


def _check_id(key_id: str) -> str:
    """Returns it. Raises ValueError for what is no id of a key."""
    if not isinstance(key_id, str) or not 0 < len(key_id) <= LONGEST_ID or not key_id.isprintable():
        raise ValueError(f"key_id={key_id!r}: 1 to {LONGEST_ID} characters that can be printed")
    return key_id


def _password(password: object) -> bytes:
    """The bytes of it. Raises TypeError for what is no text, and does not show it."""
    if not isinstance(password, str):
        kind = type(password).__qualname__
        raise TypeError(f"password= is a str, not {kind}; bytes become one by .decode()")
    return password.encode()


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as exc:
        raise MissingDriver('cryptography is missing: pip install "commlib-py[signing]"') from exc
    return ed25519


def _private(key: Any) -> Ed25519PrivateKey:
    ed25519 = _ed25519()
    if isinstance(key, bytes):
        _check_length(key, "private")
        key = ed25519.Ed25519PrivateKey.from_private_bytes(key)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ValueError(f"{type(key).__qualname__} is no private key of Ed25519")
    return key  # type: ignore[no-any-return] # cryptography is imported when it is needed


def _public(key: Any) -> Ed25519PublicKey:
    ed25519 = _ed25519()
    is_text = isinstance(key, str)
    if is_text:
        key = key.encode()
    if isinstance(key, bytes) and (is_text or key.lstrip().startswith(_PEM)):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            key = load_pem_public_key(key)
        except (UnsupportedAlgorithm, ValueError) as exc:
            text = "no PEM of a public key; it is the text itself, not the name of its file"
            raise ValueError(f"{text}: {exc}") from exc
    elif isinstance(key, bytes):
        _check_length(key, "public")
        key = ed25519.Ed25519PublicKey.from_public_bytes(key)
    if not isinstance(key, ed25519.Ed25519PublicKey):
        hint = "; its public_key is" if isinstance(key, SigningKey) else ""
        raise ValueError(f"{type(key).__qualname__} is no public key of Ed25519{hint}")
    return key  # type: ignore[no-any-return] # cryptography is imported when it is needed


def _check_length(key: bytes, what: str) -> None:
    if len(key) != KEY_BYTES:
        raise ValueError(f"{len(key)} bytes are no {what} key of Ed25519: it has {KEY_BYTES}")
