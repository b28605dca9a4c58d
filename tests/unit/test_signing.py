"""Signed messages: keys, what a signature covers, and what is refused."""

from __future__ import annotations

import builtins
import json
import math
import stat
import subprocess
import sys
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from commlib import aio, signing
from commlib._letter import check_signed, open_letter
from commlib._packet import (
    MAX_PAYLOAD,
    MESSAGE,
    PROPERTIES,
    REPLY,
    REQUEST,
    Fault,
    Header,
    Packet,
    Properties,
    Signature,
    now_ms,
)
from commlib._signatures import Signing, Unverified, signed_bytes
from commlib._verifier import Verifier
from commlib._wire import Reader, Refused, Writer
from commlib.exceptions import MissingDriver, SerializationError, SignatureError
from commlib.msg import PubSubMessage
from commlib.serializer import (
    BytesSerializer,
    JSONSerializer,
    MessagePackSerializer,
    Serializer,
    TextSerializer,
)
from commlib.signing import SigningKey, TrustedKeys
from commlib.transports._amqp_properties import PropertyReader, PropertyWriter
from commlib.transports._mqtt_headers import read_pairs, write_pairs
from commlib.transports.base import LinkStats
from messages import Pose, Sonar

KEY = SigningKey("robot-1", bytes(range(32)))
TOPIC = "robot.arm"
FAR = Sonar(-1.5, -3, "σ", [1.0], Pose(1.0), [Pose()], {"a": -1}, b"\xff\x00", None)


class Own(Serializer):
    CONTENT_TYPE = "application/x-own"

    @staticmethod
    def serialize(data: Any) -> bytes:
        return b"own:" + json.dumps(data).encode()

    @staticmethod
    def deserialize(data: str | bytes) -> Any:
        assert isinstance(data, bytes)
        return json.loads(data.removeprefix(b"own:"))


class OwnText(Own):
    CONTENT_TYPE = "text/x-own"

    @staticmethod
    def serialize(data: Any) -> Any:
        return "own: \u2028" + json.dumps(data)

    @staticmethod
    def deserialize(data: str | bytes) -> Any:
        text = data if isinstance(data, str) else data.decode()
        return json.loads(text.removeprefix("own: \u2028"))


def indented(data: Any) -> str:
    return "\n" + json.dumps(data, indent=2, ensure_ascii=False) + "\n"


class HeaderAndData(PubSubMessage):
    """A message with the fields of an envelope, as those of ROS have them."""

    header: dict[str, int]
    data: list[int]


def header_of(seq: int = 0, *, age: float = 0.0, **fields: Any) -> Header:
    return Header(now_ms() - int(age * 1000), PROPERTIES, "abcdefgh", seq, **fields)


def signed(
    data: Any = None,
    header: Header | None = None,
    *,
    native: bool = True,
    key: SigningKey = KEY,
    kind: bytes = MESSAGE,
    topic: str = TOPIC,
    **form: Any,
) -> Packet:
    """A signed message."""
    writer = Writer[Any](None, **form)
    header = header or header_of()
    header.properties = writer.properties
    return Signing(writer, key, kind).pack(
        {"a": 1} if data is None else data, header, native, topic
    )


def verifier(kind: bytes = MESSAGE, **options: Any) -> Verifier:
    """One that trusts ``KEY``."""
    trusted = TrustedKeys({KEY.key_id: KEY.public_key}, **options)
    return Verifier(trusted, kind, limit=MAX_PAYLOAD, is_call=kind != MESSAGE)


def opened(packet: Packet, topic: str = TOPIC, **options: Any) -> Any:
    """The data of a message as plain data, if it is verified."""
    return Reader[Any](None).read(verifier(**options).open(packet, topic)).data


# ---- keys ----


def test_a_key_signs_what_its_public_key_verifies() -> None:
    trusted = TrustedKeys({"a": KEY.public_key})

    assert trusted.verify("a", KEY.sign(b"text"), b"text")
    assert not trusted.verify("a", KEY.sign(b"text"), b"other")
    assert not trusted.verify("b", KEY.sign(b"text"), b"text")


def test_signatures_are_those_of_rfc_8032() -> None:
    # Section 7.1, test 2.
    secret = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
    key = SigningKey("rfc", bytes.fromhex(secret))

    assert key.public_key.hex() == (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    )
    assert key.sign(b"\x72").hex().startswith("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8f")


def test_no_two_generated_keys_are_the_same() -> None:
    assert SigningKey.generate("a").public_key != SigningKey.generate("a").public_key


@pytest.mark.parametrize("password", [None, "secret"])
def test_a_key_is_read_from_the_file_it_was_saved_to(tmp_path: Path, password: str | None) -> None:
    path = tmp_path / "key.pem"

    KEY.save(path, password)

    assert SigningKey.load("x", path, password).public_key == KEY.public_key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        KEY.save(path)


@pytest.mark.parametrize(("saved", "given"), [("secret", None), ("secret", "x"), (None, "x")])
def test_a_file_is_not_read_with_a_wrong_password(
    tmp_path: Path, saved: str | None, given: str | None
) -> None:
    KEY.save(tmp_path / "key.pem", saved)

    with pytest.raises(ValueError):
        SigningKey.load("x", tmp_path / "key.pem", given)


def test_a_password_that_is_no_text_is_refused_and_not_shown(tmp_path: Path) -> None:
    path, wrong = tmp_path / "key.pem", b"secret"
    save: Any = KEY.save
    load: Any = SigningKey.load

    with pytest.raises(TypeError, match=r"a str, not bytes.*\.decode") as saving:
        save(path, password=wrong)
    assert not path.exists()
    KEY.save(path, "secret")
    with pytest.raises(TypeError, match=r"a str, not bytes.*\.decode") as loading:
        load("x", path, password=wrong)

    assert "secret" not in f"{saving.value} {loading.value}"


def test_public_keys_are_taken_in_every_form() -> None:
    public = ed25519.Ed25519PublicKey.from_public_bytes(KEY.public_key)
    forms = (KEY.public_key, KEY.public_pem, KEY.public_pem.encode(), public)

    for form in forms:
        assert TrustedKeys({"a": form}).verify("a", KEY.sign(b"x"), b"x")


def test_a_private_key_of_cryptography_is_taken() -> None:
    private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))

    assert SigningKey("a", private).public_key == KEY.public_key


def x25519_pem() -> str:
    public = x25519.X25519PrivateKey.generate().public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize(
    "key", [b"", b"x" * 31, b"x" * 33, "x" * 32, "-----BEGIN", 7, x25519_pem()]
)
def test_what_is_no_public_key_is_refused(key: Any) -> None:
    with pytest.raises(ValueError):
        TrustedKeys({"a": key})


@pytest.mark.parametrize("key", [b"", b"x" * 31, 7, x25519.X25519PrivateKey.generate()])
def test_what_is_no_private_key_is_refused(key: Any) -> None:
    with pytest.raises(ValueError):
        SigningKey("a", key)


@pytest.mark.parametrize("key_id", ["", "x" * 65, "a\nb", 7, None])
def test_what_is_no_id_is_refused(key_id: Any) -> None:
    with pytest.raises(ValueError):
        SigningKey(key_id, bytes(32))
    with pytest.raises(ValueError):
        TrustedKeys({key_id: KEY.public_key})


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"window": 0}, ValueError),
        ({"window": 65_537}, ValueError),
        ({"window": 1.5}, ValueError),
        ({"max_age": 0}, ValueError),
        ({"max_age": math.nan}, ValueError),
        ({"max_age": "30"}, ValueError),
        ({"signed_for": "a.b"}, TypeError),
        ({"signed_for": ["a.b*"]}, ValueError),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        TrustedKeys({}, **options)


def test_a_private_key_is_not_shown() -> None:
    assert repr(KEY) == "SigningKey('robot-1')"
    assert repr(TrustedKeys({"a": KEY.public_key})) == "TrustedKeys('a')"


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *args: Any, _import: Callable[..., Any] = builtins.__import__) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return _import(name, *args)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for make in (
        lambda: SigningKey("a", bytes(32)),
        lambda: SigningKey.generate("a"),
        lambda: SigningKey.load("a", "nowhere"),
        lambda: TrustedKeys({"a": bytes(32)}),
    ):
        with pytest.raises(MissingDriver, match=r'pip install "commlib-py\[signing\]"'):
            make()


def test_importing_the_module_does_not_import_the_package() -> None:
    program = (
        "import sys; from commlib import aio, signing; aio.Publisher('a', conn_params='memory://');"
        "assert 'cryptography' not in sys.modules; signing.SigningKey.generate('a');"
        "assert 'cryptography' in sys.modules"
    )

    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


# ---- what is signed ----


def test_what_is_signed_is_spelled_as_the_documentation_says() -> None:
    header = Header(2, PROPERTIES, "orig", 1, id="id", error=Fault("E", "σ"))

    found = signed_bytes(REPLY, header, Signature("key", "a.b", "x"), "text/plain", b"data")

    assert found == (
        b"commlib-sig-1r"
        b"\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\2\1"
        b"\0\0\0\3key\0\0\0\3a.b\0\0\0\4orig\0\0\0\x0atext/plain\0\0\0\2id"
        b"\0\0\0\1E\0\0\0\2\xcf\x83data"
    )


texts = st.text(max_size=4)
parts = st.tuples(
    st.sampled_from([MESSAGE, REQUEST, REPLY]),
    st.integers(-1, 3),
    st.integers(1, 3),
    st.none() | st.tuples(texts, texts),
    st.lists(texts, min_size=5, max_size=5),
    st.binary(max_size=4),
)


def spelled(part: Any) -> bytes:
    kind, seq, timestamp, error, (key, topic, origin, content_type, id), data = part
    fault = None if error is None else Fault(*error)
    header = Header(timestamp, PROPERTIES, origin, seq, id=id, error=fault)
    return signed_bytes(kind, header, Signature(key, topic), content_type, data)


@given(parts, parts)
@settings(deadline=None)
def test_nothing_that_differs_is_spelled_alike(one: Any, other: Any) -> None:
    assert (spelled(one) == spelled(other)) == (one == other)


def change(packet: Packet, **fields: Any) -> Packet:
    """The same packet with another header."""
    header = msgspec.structs.replace(packet.header, **fields)
    return Packet(packet.payload, packet.topic, header)


def change_signature(packet: Packet, **fields: Any) -> Packet:
    assert packet.header is not None
    return change(packet, sig=msgspec.structs.replace(packet.header.sig, **fields))


def flipped(text: str) -> str:
    value = bytearray(urlsafe_b64decode(text + "=="))
    value[10] ^= 1
    return urlsafe_b64encode(value).decode()


TAMPERED: dict[str, Callable[[Packet], Packet]] = {
    "data": lambda p: Packet(b'{"a":2}', p.topic, p.header),
    "spelling of the data": lambda p: Packet(b'{"a": 1}', p.topic, p.header),
    "content type": lambda p: change(p, properties=Properties("text/plain", "utf8")),
    "timestamp": lambda p: change(p, timestamp=p.header.timestamp + 1),
    "number": lambda p: change(p, seq=p.header.seq + 1),
    "origin": lambda p: change(p, origin="ABCDEFGH"),
    "id": lambda p: change(p, id="x"),
    "error": lambda p: change(p, error=Fault()),
    "key": lambda p: change_signature(p, key="robot-2"),
    "topic": lambda p: change_signature(p, topic="robot.leg"),
    "signature": lambda p: change_signature(p, value=flipped(p.header.sig.value)),
    "no signature": lambda p: change_signature(p, value=""),
    "half a signature": lambda p: change_signature(p, value=p.header.sig.value[:40]),
    "a signature in no base64": lambda p: change_signature(p, value="é" * 86),
}


@pytest.mark.parametrize("tampering", TAMPERED)
def test_whatever_was_changed_is_noticed(tampering: str) -> None:
    keys = {"robot-1": KEY.public_key, "robot-2": SigningKey.generate("x").public_key}
    trusted = TrustedKeys(keys, signed_for=["robot.*"])
    check = Verifier(trusted, MESSAGE, limit=MAX_PAYLOAD, is_call=False)
    packet = signed()

    with pytest.raises(Unverified, match="the signature of key"):
        check.open(TAMPERED[tampering](packet), TOPIC)
    check.open(packet, TOPIC)


@pytest.mark.parametrize("kind", [REQUEST, REPLY])
def test_a_message_does_not_pass_for_a_call(kind: bytes) -> None:
    packet = signed(header=header_of(id="1"))

    with pytest.raises(Unverified, match="wrong"):
        verifier(kind).open(packet, TOPIC, "1")


def test_what_is_not_signed_may_change_on_the_way() -> None:
    packet = signed()

    changed = change(packet, hops=("a", "b"), deadline=7, reply_to="x", traceparent="y")

    assert opened(changed) == {"a": 1}


def test_a_name_with_slashes_is_the_same_as_with_dots() -> None:
    assert opened(signed(topic="a/b.c"), "a.b.c") == {"a": 1}


# ---- what is refused ----


def test_what_is_not_signed_is_refused() -> None:
    packet = Writer[Any](None).pack({"a": 1}, header_of(), True)

    with pytest.raises(Unverified, match="it is not signed"):
        opened(packet)
    with pytest.raises(Unverified, match="it is not signed"):
        opened(Packet(b'{"a":1}'))


@pytest.mark.parametrize("payload", [b"", b"\xff", b"{", b"\x28\xb5\x2f\xfdx", b"x" * 100])
def test_garbage_is_refused(payload: bytes) -> None:
    with pytest.raises(Unverified):
        opened(Packet(payload))
    with pytest.raises(Unverified):
        verifier(REQUEST).open(Packet(payload), TOPIC)


def test_what_is_too_big_is_refused() -> None:
    trusted = TrustedKeys({KEY.key_id: KEY.public_key})
    small = Verifier(trusted, MESSAGE, limit=100, is_call=False)
    for form in ({}, {"compression": "zlib"}):
        with pytest.raises(Unverified, match="max_payload"):
            small.open(signed("x" * 101, **form), TOPIC)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(Unverified, match="'other', a key not trusted here"):
        opened(signed(key=SigningKey.generate("other")))


def test_another_key_of_the_same_id_is_refused() -> None:
    with pytest.raises(Unverified, match="the signature of key 'robot-1' is wrong"):
        opened(signed(key=SigningKey.generate(KEY.key_id)))


def test_keys_may_come_and_go() -> None:
    trusted = TrustedKeys({})
    check = Verifier(trusted, MESSAGE, limit=MAX_PAYLOAD, is_call=False)
    packet = signed()
    with pytest.raises(Unverified):
        check.open(packet, TOPIC)

    trusted.add(KEY.key_id, KEY.public_key)
    check.open(packet, TOPIC)

    trusted.remove(KEY.key_id)
    with pytest.raises(Unverified):
        check.open(signed(header=header_of(1)), TOPIC)


def test_a_message_for_another_topic_is_refused() -> None:
    with pytest.raises(Unverified, match=r"it was signed for 'robot\.arm'.*signed_for="):
        opened(signed(), "robot.leg")


@pytest.mark.parametrize("pattern", ["robot.arm", "robot/*", "*.arm", "*"])
def test_topics_that_a_bridge_renames_are_named(pattern: str) -> None:
    assert opened(signed(), "far.arm", signed_for=["x", pattern]) == {"a": 1}


@pytest.mark.parametrize("pattern", ["robot.leg", "far.*", "robot.*.arm"])
def test_other_topics_are_refused_all_the_same(pattern: str) -> None:
    with pytest.raises(Unverified, match="it was signed for"):
        opened(signed(), "far.arm", signed_for=[pattern])


@pytest.mark.parametrize("age", [3600, 31, -31, -3600])
def test_what_is_too_old_or_from_the_future_is_refused(age: float) -> None:
    with pytest.raises(Unverified, match=r"it was signed .* and max_age is 30 s"):
        opened(signed(header=header_of(age=age)))


@pytest.mark.parametrize("age", [0, 10, -10])
def test_clocks_may_differ_a_little(age: float) -> None:
    assert opened(signed(header=header_of(age=age))) == {"a": 1}


def test_without_a_clock_any_age_is_taken() -> None:
    header = Header(1, PROPERTIES, "abcdefgh", 0)

    assert opened(signed(header=header), max_age=math.inf) == {"a": 1}


@pytest.mark.parametrize(
    "fields",
    [
        {"seq": -1},
        {"seq": 2**63},
        {"timestamp": 0},
        {"timestamp": -1},
        {"timestamp": 2**63},
        {"origin": ""},
        {"origin": "x" * 65},
    ],
)
def test_what_cannot_be_told_from_a_replay_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Unverified):
        opened(change(signed(), **fields), max_age=math.inf)


# ---- replays ----


def test_a_message_is_taken_once() -> None:
    check = verifier()
    packet = signed()
    check.open(packet, TOPIC)

    with pytest.raises(Unverified, match="number 0 of abcdefgh was taken before") as refused:
        check.open(packet, TOPIC)
    assert refused.value.is_replay


def test_messages_may_overtake_each_other_as_far_as_the_window_reaches() -> None:
    check = verifier(window=4)
    for seq in (3, 1, 2, 9, 6, 7):
        check.open(signed(header=header_of(seq)), TOPIC)

    for seq in (1, 5, 6):
        with pytest.raises(Unverified, match="taken before"):
            check.open(signed(header=header_of(seq)), TOPIC)


def test_what_was_refused_can_still_be_taken() -> None:
    check = verifier()
    packet = signed()
    with pytest.raises(Unverified):
        check.open(TAMPERED["data"](packet), TOPIC)

    check.open(packet, TOPIC)


def test_a_number_far_ahead_that_nobody_has_signed_hurts_nobody() -> None:
    check = verifier()
    with pytest.raises(Unverified):
        check.open(change(signed(), seq=2**62), TOPIC)

    check.open(signed(), TOPIC)


def test_two_topics_that_a_bridge_makes_one_have_numbers_of_their_own() -> None:
    check = verifier(signed_for=["robot.*"])

    for topic in ("robot.arm", "robot.leg"):
        check.open(signed(topic=topic), "far")
    with pytest.raises(Unverified, match="taken before"):
        check.open(signed(topic="robot.leg"), "far")


def test_after_a_restart_what_is_older_than_max_age_is_refused() -> None:
    recorded = signed(header=header_of(age=31))

    with pytest.raises(Unverified, match="max_age"):
        verifier().open(recorded, TOPIC)


def test_of_many_threads_one_takes_a_message() -> None:
    check, packet = verifier(), signed()
    outcomes: list[bool] = []
    start = threading.Barrier(8)

    def take() -> None:
        start.wait(10)
        try:
            check.open(packet, TOPIC)
        except Unverified:
            outcomes.append(False)
        else:
            outcomes.append(True)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(outcomes) == [False] * 7 + [True]


# ---- replies ----


def reply(id: str = "call-1", **fields: Any) -> Packet:
    header = Header(now_ms(), PROPERTIES, id=id, **fields)
    return signed({"sum": 3}, header, kind=REPLY)


def test_a_reply_is_for_one_call() -> None:
    check = verifier(REPLY)

    assert check.open(reply(), TOPIC, "call-1").payload == b'{"sum":3}'
    for packet, id in (
        (reply("call-2"), "call-1"),
        (change(reply("call-2"), id="call-1"), "call-1"),
        (reply(""), ""),
        (reply(), ""),
    ):
        with pytest.raises(Unverified):
            check.open(packet, TOPIC, id)


def test_an_error_is_not_made_of_a_response_nor_the_other_way_round() -> None:
    check = verifier(REPLY)

    with pytest.raises(Unverified, match="wrong"):
        check.open(change(reply(), error=Fault("E", "")), TOPIC, "call-1")
    with pytest.raises(Unverified, match="wrong"):
        check.open(change(reply(error=Fault("E", "")), error=None), TOPIC, "call-1")


def test_an_unsigned_error_is_told_as_what_it_claims_to_be() -> None:
    header = Header(now_ms(), PROPERTIES, id="call-1", error=Fault("ValueError", "no"))
    packet = Writer[Any](None).pack({}, header, True)

    with pytest.raises(Unverified, match=r"not signed \(it says: ValueError: no\)"):
        verifier(REPLY).open(packet, TOPIC, "call-1")


# ---- forms ----

SERIALIZERS = [
    *(None, JSONSerializer, MessagePackSerializer, BytesSerializer, TextSerializer, Own, OwnText),
    JSONSerializer(loads=json.loads, dumps=json.dumps),
    JSONSerializer(loads=json.loads, dumps=indented),
]
COMPRESSIONS = [None, "zlib", "zstd"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("native", [True, False])
def test_a_signature_holds_in_every_form(native: bool, serializer: Any, compression: Any) -> None:
    packet = signed(FAR, native=native, serializer=serializer, compression=compression)

    verified = verifier().open(packet, TOPIC)

    assert Reader(Sonar, serializer=serializer).read(verified).data == FAR


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(
    ("data", "kind", "serializer"),
    [
        ('a "text" \u2028 σ', str, TextSerializer),
        (b"\x00\xff\x82\xa6header", bytes, BytesSerializer),
        (b'{"header":{},"data":1}', bytes, BytesSerializer),
        (b"\x00\xff", bytes, None),
        ("12", str, None),
        (HeaderAndData({"seq": 1}, [2]), HeaderAndData, None),
        (HeaderAndData({"seq": 1}, [2]), HeaderAndData, MessagePackSerializer),
        ([1.5, None], None, MessagePackSerializer),
        ([1.5, math.inf, -math.inf], list[float], None),
    ],
)
def test_what_is_no_object_is_read_as_what_it_was(
    native: bool, data: Any, kind: Any, serializer: Any
) -> None:
    packet = signed(data, native=native, serializer=serializer)

    verified = verifier().open(packet, TOPIC)

    assert Reader(kind, serializer=serializer).read(verified).data == data


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("native", [True, False])
def test_a_signature_holds_behind_bridges(native: bool, serializer: Any, compression: Any) -> None:
    packet = signed(FAR, native=native, serializer=serializer, compression=compression)

    for is_native in (not native, native, native, not native):
        letter = open_letter(packet, MAX_PAYLOAD)
        packet = letter.forward(("hop",), native=is_native, envelope=None, limit=MAX_PAYLOAD)
        check_signed(letter, packet, MAX_PAYLOAD)

    verified = verifier().open(packet, TOPIC)
    assert Reader(Sonar, serializer=serializer).read(verified).data == FAR


def test_a_bridge_does_not_drop_a_signature() -> None:
    letter = open_letter(signed(native=False), MAX_PAYLOAD)
    bare = letter.forward((), native=False, envelope=False, limit=MAX_PAYLOAD)

    with pytest.raises(Refused, match="its signature would not hold there"):
        check_signed(letter, bare, MAX_PAYLOAD)


def test_a_bridge_does_not_write_anew_what_is_signed() -> None:
    # No strict JSON, though its header says so: an envelope would hold it in another spelling.
    packet = signed()
    letter = open_letter(Packet(b"[NaN]", "", packet.header), MAX_PAYLOAD)
    wrapped = letter.forward((), native=False, envelope=None, limit=MAX_PAYLOAD)

    with pytest.raises(Refused, match="its signature would not hold there"):
        check_signed(letter, wrapped, MAX_PAYLOAD)


def test_what_a_bridge_could_not_pass_on_is_not_signed() -> None:
    lenient = JSONSerializer(loads=json.loads, dumps=json.dumps)

    with pytest.raises(SerializationError, match="no strict JSON"):
        signed([math.inf], serializer=lenient)


def test_two_members_of_one_name_do_not_fool_anybody() -> None:
    payload = signed(native=False).payload
    start = payload.index(b'"data"')
    twice = payload[:start] + b'"data":{"a":2},' + payload[start:]
    other = payload[:-1] + b',"data":{"a":2}}'
    first_wins = JSONSerializer(
        loads=lambda raw: json.loads(raw, object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    )

    # Read is what was verified, whichever the program's own parser would have found.
    verified = verifier().open(Packet(twice), TOPIC)
    for serializer in (None, first_wins):
        assert Reader[Any](None, serializer=serializer).read(verified).data == {"a": 1}
    with pytest.raises(Unverified, match="wrong"):
        verifier().open(Packet(other), TOPIC)


def test_a_header_of_a_wrong_kind_is_no_signature() -> None:
    payload = signed(native=False).payload
    tree = msgspec.json.decode(payload)
    for sig in ("x", 7, [], {"key": 7}, {"key": "robot-1"}, {}, None):
        tree["header"]["sig"] = sig
        with pytest.raises(Unverified):
            opened(Packet(msgspec.json.encode(tree)))


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_nothing_random_is_verified_and_nothing_breaks(payload: bytes) -> None:
    with pytest.raises(Unverified):
        opened(Packet(payload))


def test_a_signature_travels_beside_the_data_on_amqp_and_mqtt() -> None:
    header = signed().header
    assert header is not None

    raw = PropertyWriter().write(header, "", None, False)
    beside = PropertyReader(LinkStats()).read(raw).header
    pairs = read_pairs(write_pairs(header))

    assert beside == header
    assert pairs is not None
    assert pairs.sig == header.sig


# ---- endpoints ----


@pytest.mark.parametrize("option", ["sign", "verify"])
@pytest.mark.parametrize("kind", [aio.Publisher, aio.RPCClient, aio.EventEmitter])
def test_what_is_no_key_is_refused_at_once(kind: Any, option: str) -> None:
    with pytest.raises(TypeError, match=f"{option}='x'"):
        kind("a", conn_params="memory://", **{option: "x"})
    with pytest.raises(TypeError, match=f"{option}='x'"):
        aio.Node("a", connection_params="memory://", **{option: "x"})


def test_a_publisher_does_not_sign_what_cannot_be_verified() -> None:
    with pytest.raises(ValueError, match="sequence=False"):
        aio.Publisher("a", conn_params="memory://", sign=KEY, sequence=False)
    with pytest.raises(ValueError, match="envelope=False"):
        aio.Publisher("a", conn_params="redis://", sign=KEY, envelope=False)


def test_a_signed_topic_that_was_forgotten_begins_no_number_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("commlib._sequence.MAX_TOPICS", 2)
    publisher = aio.MPublisher(conn_params="memory://", sign=KEY)
    check = verifier()

    for topic in "aaabcabcacb" * 3:
        check.open(publisher.pack(1, topic), topic)


def test_a_client_takes_no_reply_to_another_call_however_it_is_written() -> None:
    trusted = TrustedKeys({KEY.key_id: KEY.public_key})
    client: Any = aio.RPCClient(TOPIC, conn_params="memory://", verify=trusted)
    for form in ({"native": False, "compression": "zlib"}, {"native": False}, {}):
        header = Header(now_ms(), PROPERTIES, id="call-2")
        packet = signed({"sum": 3}, header, kind=REPLY, **form)

        packet.correlation_id = "call-1"
        with pytest.raises(SignatureError, match="it is the reply to another call"):
            client.response(packet)
        packet.correlation_id = "call-2"
        assert client.response(packet) == {"sum": 3}


def test_the_errors_are_what_callers_expect() -> None:
    assert issubclass(SignatureError, SerializationError)
    assert signing.SignatureError is SignatureError
    assert not issubclass(SignatureError, Refused)
    assert type(Unverified("text", Header()).public("x")) is SignatureError
