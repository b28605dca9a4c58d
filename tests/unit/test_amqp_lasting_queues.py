"""The names of the queues of lasting subscriptions, and what is wrong with them."""

from __future__ import annotations

from commlib.transports._amqp_codes import Refusal
from commlib.transports._amqp_lasting_queues import explained, queue_name


def test_a_queue_is_named_by_client_and_topic() -> None:
    assert queue_name("robot-1", "arm.*", 1) == "robot-1:arm.*:1"
    assert queue_name("robot-1", "house/größe", 2) == "robot-1:house/größe:2"


def test_what_is_too_long_for_a_name_is_told_apart_all_the_same() -> None:
    topics = [f"{'ü' * 120}.{number}" for number in range(3)]
    names = [queue_name("r" * 100, topic, 12) for topic in topics]
    assert len(set(names)) == 3
    assert all(len(name.encode()) <= 255 for name in names)
    assert names == [queue_name("r" * 100, topic, 12) for topic in topics], "in the next life, too"


def test_what_is_refused_for_another_reason_is_not_explained_away() -> None:
    refused = Refusal("PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue 'q'", 406)
    assert explained(refused, "q") is refused


def test_an_argument_that_is_none_of_ours_is_told_by_its_own_name() -> None:
    refused = Refusal("PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in", 406)
    text = str(explained(refused, "q"))
    assert text.startswith("the queue 'q' was made with another durable: keep to that")
    assert "rabbitmqctl delete_queue 'q'" in text
