"""The methods that set things up, byte by byte as other codecs write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp import frame as pamqp_frame
from pamqp.header import ProtocolHeader
from pamqp.heartbeat import Heartbeat
from pika import frame as pika_frame
from pika import spec

from commlib.transports import _amqp_methods as methods
from commlib.transports._amqp_bytes import Malformed
from commlib.transports._amqp_methods import Closing, Tuning

names = st.text(
    st.characters(codec="utf8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=25
)
# Those that pamqp takes as names of queues and exchanges, too.
plain_names = st.text("ab.-_:@#/ 0", min_size=1, max_size=127)
channels = st.integers(0, 0xFFFF)
flags = st.booleans()


def by_pika(channel: int, method: Any) -> bytes:
    raw: bytes = pika_frame.Method(channel, method).marshal()
    return raw


def by_pamqp(channel: int, method: Any) -> bytes:
    return pamqp_frame.marshal(method, channel)


def same(ours: bytes, channel: int, pika: Any, pamqp: Any) -> None:
    """What we write is what both others write."""
    assert ours == by_pika(channel, pika)
    assert ours == by_pamqp(channel, pamqp)


# ---- what has no arguments ----


def test_the_first_bytes_and_the_heartbeat_are_those_of_others() -> None:
    assert pika_frame.ProtocolHeader().marshal() == methods.PROTOCOL
    assert ProtocolHeader(0, 9, 1).marshal() == methods.PROTOCOL
    assert pika_frame.Heartbeat().marshal() == methods.BEAT
    assert Heartbeat().marshal() == methods.BEAT


@pytest.mark.parametrize("channel", [0, 1, 6, 0xFFFF])
@pytest.mark.parametrize(
    ("kind", "pika", "pamqp"),
    [
        (methods.CLOSE_OK, spec.Connection.CloseOk(), commands.Connection.CloseOk()),
        (methods.CHANNEL_CLOSE_OK, spec.Channel.CloseOk(), commands.Channel.CloseOk()),
    ],
)
def test_a_method_without_arguments_is_that_of_others(
    channel: int, kind: bytes, pika: Any, pamqp: Any
) -> None:
    same(methods.method(channel, kind), channel, pika, pamqp)


@pytest.mark.parametrize(
    ("kind", "pika"),
    [
        (methods.START, spec.Connection.Start),
        (methods.START_OK, spec.Connection.StartOk),
        (methods.TUNE, spec.Connection.Tune),
        (methods.TUNE_OK, spec.Connection.TuneOk),
        (methods.OPEN, spec.Connection.Open),
        (methods.OPEN_OK, spec.Connection.OpenOk),
        (methods.CLOSE, spec.Connection.Close),
        (methods.CLOSE_OK, spec.Connection.CloseOk),
        (methods.BLOCKED, spec.Connection.Blocked),
        (methods.UNBLOCKED, spec.Connection.Unblocked),
        (methods.CHANNEL_OPEN, spec.Channel.Open),
        (methods.CHANNEL_OPEN_OK, spec.Channel.OpenOk),
        (methods.CHANNEL_FLOW, spec.Channel.Flow),
        (methods.CHANNEL_FLOW_OK, spec.Channel.FlowOk),
        (methods.CHANNEL_CLOSE, spec.Channel.Close),
        (methods.CHANNEL_CLOSE_OK, spec.Channel.CloseOk),
        (methods.EXCHANGE_DECLARE, spec.Exchange.Declare),
        (methods.QUEUE_DECLARE, spec.Queue.Declare),
        (methods.QUEUE_BIND, spec.Queue.Bind),
        (methods.QUEUE_UNBIND, spec.Queue.Unbind),
        (methods.QOS, spec.Basic.Qos),
        (methods.CONSUME, spec.Basic.Consume),
        (methods.CANCEL, spec.Basic.Cancel),
        (methods.PUBLISH, spec.Basic.Publish),
        (methods.RETURN, spec.Basic.Return),
        (methods.DELIVER, spec.Basic.Deliver),
        (methods.ACK, spec.Basic.Ack),
        (methods.NACK, spec.Basic.Nack),
        (methods.SELECT, spec.Confirm.Select),
    ],
)
def test_the_numbers_of_methods_are_those_of_others(kind: bytes, pika: Any) -> None:
    assert int.from_bytes(kind) == pika.INDEX


# ---- the connection ----


@given(names, names)
def test_logging_in_is_what_others_write(user: str, password: str) -> None:
    client = {"product": "commlib-py", "platform": "Python"}
    about: dict[str, Any] = {**client, "capabilities": dict(methods.CAPABILITIES)}
    response = f"\0{user}\0{password}"
    ours = methods.start_ok(methods.PLAIN, user, password, client)
    assert ours == by_pika(0, spec.Connection.StartOk(about, "PLAIN", response, "en_US"))
    # pamqp sorts what is in a table.
    _, _, found = pamqp_frame.unmarshal(ours)
    assert (found.mechanism, found.response, found.client_properties) == ("PLAIN", response, about)


def test_a_certificate_needs_no_password() -> None:
    about: dict[str, Any] = {"capabilities": dict(methods.CAPABILITIES)}
    ours = methods.start_ok(methods.EXTERNAL, "robot", "s3cret", {})
    assert b"s3cret" not in ours
    same(
        ours,
        0,
        spec.Connection.StartOk(about, "EXTERNAL", "", "en_US"),
        commands.Connection.StartOk(about, "EXTERNAL", "", "en_US"),
    )


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF), st.integers(0, 0xFFFF))
def test_the_bounds_are_what_others_write_and_are_read(
    channels: int, frame: int, heartbeat: int
) -> None:
    same(
        methods.tune_ok(Tuning(channels, frame, heartbeat)),
        0,
        spec.Connection.TuneOk(channels, frame, heartbeat),
        commands.Connection.TuneOk(channels, frame, heartbeat),
    )
    asked = by_pika(0, spec.Connection.Tune(channels, frame, heartbeat))
    assert methods.read_tune(asked[11:-1]) == Tuning(channels, frame, heartbeat)


@given(plain_names)
def test_opening_a_virtual_host_is_what_others_write(vhost: str) -> None:
    pika = spec.Connection.Open(vhost)
    same(methods.open_vhost(vhost), 0, pika, commands.Connection.Open(vhost))


def test_the_goodbye_is_what_others_write() -> None:
    same(
        methods.FAREWELL,
        0,
        spec.Connection.Close(200, "", 0, 0),
        commands.Connection.Close(200, "", 0, 0),
    )


@given(st.lists(st.text("ABC-123", min_size=1), max_size=4), st.integers(0, 255))
def test_what_the_broker_says_first_is_read(mechanisms: list[str], minor: int) -> None:
    about = {"product": "RabbitMQ", "capabilities": {"basic.nack": True}}
    said = spec.Connection.Start(0, minor, about, " ".join(mechanisms), "en_US")
    assert methods.read_mechanisms(by_pika(0, said)[11:-1]) == mechanisms


@given(st.integers(0, 0xFFFF), names, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_why_the_broker_closes_is_read(code: int, text: str, klass: int, method: int) -> None:
    for kind in (spec.Connection.Close, spec.Channel.Close):
        said = by_pika(3, kind(code, text, klass, method))[11:-1]
        assert methods.read_close(said) == Closing(
            code, text, klass.to_bytes(2) + method.to_bytes(2)
        )


# ---- channels, queues, consumers ----


@given(channels)
def test_opening_a_channel_is_what_others_write(channel: int) -> None:
    ours = methods.open_channel(channel)
    assert ours == by_pika(channel, spec.Channel.Open())
    assert pamqp_frame.unmarshal(ours)[1:2] == (channel,)


@given(channels, plain_names, st.sampled_from(["topic", "direct"]), flags, flags)
def test_declaring_an_exchange_is_what_others_write(
    channel: int, name: str, kind: str, passive: bool, durable: bool
) -> None:
    ours = methods.declare_exchange(
        channel, name, kind, passive * methods.PASSIVE | durable * methods.DURABLE
    )
    pika = spec.Exchange.Declare(
        exchange=name, type=kind, passive=passive, durable=durable, arguments={}
    )
    assert ours == by_pika(channel, pika)
    try:
        pamqp = commands.Exchange.Declare(
            exchange=name, exchange_type=kind, passive=passive, durable=durable
        )
    except ValueError:
        return  # it knows fewer names
    assert ours == by_pamqp(channel, pamqp)


@given(channels, plain_names | st.just(""), flags, flags, flags, flags)
def test_declaring_a_queue_is_what_others_write(
    channel: int, name: str, passive: bool, durable: bool, exclusive: bool, auto_delete: bool
) -> None:
    bits = passive * methods.PASSIVE | durable * methods.DURABLE
    bits |= exclusive * methods.EXCLUSIVE | auto_delete * methods.AUTO_DELETE
    ours = methods.declare_queue(channel, name, bits, {"x-overflow": "drop-head"})
    how: Any = {"passive": passive, "durable": durable, "exclusive": exclusive}
    how |= {"auto_delete": auto_delete, "arguments": {"x-overflow": "drop-head"}}
    assert ours == by_pika(channel, spec.Queue.Declare(queue=name, **how))
    try:
        pamqp = commands.Queue.Declare(queue=name, **how)
    except ValueError:
        return
    assert ours == by_pamqp(channel, pamqp)


@given(st.dictionaries(st.text("x-ab", min_size=1), st.integers(0, 2**40) | st.text("ab")))
def test_the_arguments_of_a_queue_are_read_by_others(arguments: dict[str, Any]) -> None:
    ours = methods.declare_queue(5, "q", 0, arguments)
    _, found = pika_frame.decode_frame(ours)
    assert found.method.arguments == arguments
    _, _, method = pamqp_frame.unmarshal(ours)
    assert method.arguments == arguments


@given(channels, plain_names)
def test_deleting_a_queue_is_what_others_write(channel: int, name: str) -> None:
    for ours, is_careful in (
        (methods.delete_queue(channel, name), True),
        (methods.delete_whole(channel, name), False),
    ):
        how: Any = {"queue": name, "if_unused": is_careful, "if_empty": is_careful}
        assert ours == by_pika(channel, spec.Queue.Delete(**how))
        if not set(name) & {"/", " "}:  # pamqp knows fewer names
            assert ours == by_pamqp(channel, commands.Queue.Delete(**how))


@given(channels, plain_names, plain_names, plain_names)
def test_binding_and_unbinding_are_what_others_write(
    channel: int, queue: str, exchange: str, key: str
) -> None:
    names: Any = {"queue": queue, "exchange": exchange, "routing_key": key, "arguments": {}}
    bound = methods.bind(channel, queue, exchange, key)
    unbound = methods.unbind(channel, queue, exchange, key)
    assert bound == by_pika(channel, spec.Queue.Bind(**names))
    assert unbound == by_pika(channel, spec.Queue.Unbind(**names))
    try:
        pair = commands.Queue.Bind(**names), commands.Queue.Unbind(**names)
    except ValueError:
        return
    assert (bound, unbound) == tuple(by_pamqp(channel, method) for method in pair)


@pytest.mark.parametrize(
    ("wanted", "written"), [(0, 0), (1, 1), (0xFFFF, 0xFFFF), (1 << 20, 0xFFFF)]
)
def test_a_bound_of_unacknowledged_messages_is_what_others_write(wanted: int, written: int) -> None:
    same(
        methods.qos(4, wanted),
        4,
        spec.Basic.Qos(prefetch_count=written),
        commands.Basic.Qos(prefetch_count=written),
    )


@given(channels, plain_names, plain_names, flags, flags)
def test_consuming_and_its_end_are_what_others_write(
    channel: int, queue: str, tag: str, no_ack: bool, alone: bool
) -> None:
    bits = no_ack * methods.NO_ACK | alone * methods.ALONE
    ours = methods.consume(channel, queue, tag, bits)
    what: Any = {"queue": queue, "consumer_tag": tag, "no_ack": no_ack, "exclusive": alone}
    what["arguments"] = {}
    assert ours == by_pika(channel, spec.Basic.Consume(**what))
    if not set(queue) & {"/", " "}:  # pamqp knows fewer names
        assert ours == by_pamqp(channel, commands.Basic.Consume(**what))
    same(
        methods.cancel(channel, tag),
        channel,
        spec.Basic.Cancel(consumer_tag=tag),
        commands.Basic.Cancel(consumer_tag=tag),
    )


@given(channels, st.integers(0, 2**63 - 1))
def test_an_acknowledgement_is_what_others_write(channel: int, tag: int) -> None:
    same(methods.ack(channel, tag), channel, spec.Basic.Ack(tag), commands.Basic.Ack(tag))
    same(
        methods.ack_all(channel, tag),
        channel,
        spec.Basic.Ack(tag, multiple=True),
        commands.Basic.Ack(tag, multiple=True),
    )


@given(channels, st.integers(0, 2**63 - 1))
def test_giving_a_message_back_is_what_others_write(channel: int, tag: int) -> None:
    same(
        methods.give_back(channel, tag),
        channel,
        spec.Basic.Nack(tag, requeue=True),
        commands.Basic.Nack(tag, requeue=True),
    )


def test_asking_for_confirmations_is_what_others_write() -> None:
    same(methods.select(6), 6, spec.Confirm.Select(), commands.Confirm.Select())


@pytest.mark.parametrize("write", [methods.open_vhost, lambda name: methods.cancel(1, name)])
def test_a_name_that_is_too_long_is_refused(write: Any) -> None:
    with pytest.raises(ValueError, match="room for 255"):
        write("x" * 256)


# ---- what makes no sense ----

READERS = [methods.read_mechanisms, methods.read_tune, methods.read_close]


@pytest.mark.parametrize("read", READERS)
@given(raw=st.binary(max_size=40))
def test_random_arguments_are_read_or_refused(read: Any, raw: bytes) -> None:
    try:
        read(raw)
    except Malformed:
        return


@pytest.mark.parametrize("read", READERS)
def test_no_arguments_at_all_are_refused(read: Any) -> None:
    with pytest.raises(Malformed):
        read(b"")
