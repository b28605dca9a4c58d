"""The queues of lasting subscriptions: what they are called, and what is wrong with them. Pure."""

from __future__ import annotations

from commlib.transports._amqp_bytes import LONGEST_SHORT
from commlib.transports._amqp_codes import Refusal, refused_argument

PARAMETERS = {
    "x-expires": "session_expiry",
    "x-queue-type": "queue_type",
    "x-single-active-consumer": "queue_type",
    "x-max-length": "queue_size",
    "x-overflow": "queue_size",
    "x-message-ttl": "message_ttl",
}
"""Which of ours an argument of a queue is made of."""


def queue_name(client_id: str, topic: str, number: int) -> str:
    """The queue of a client's subscription; ``number`` tells those with the same topic apart."""
    name = f"{client_id}:{topic}:{number}"
    if len(name.encode()) > LONGEST_SHORT:
        from hashlib import sha256  # hardly any topic is so long

        name = f"{client_id}:{sha256(topic.encode()).hexdigest()}:{number}"
    return name


def held(queue: str) -> str:
    """What to do about a queue that somebody else consumes."""
    return (
        f"the queue {queue!r} is consumed by another connection: end the other program with this "
        "client_id, or give this one another; if it is a broken connection of the same program, "
        "the broker gives it up after its heartbeat_timeout"
    )


def explained(refused: Refusal, queue: str) -> Refusal:
    """The same with what to do about it."""
    argument = refused_argument(refused)
    if not argument:
        return refused
    parameter = PARAMETERS.get(argument, argument)
    return Refusal(
        f"the queue {queue!r} was made with another {parameter}: keep to that, or delete the queue "
        f"with what is in it, rabbitmqctl delete_queue {queue!r} ({refused})",
        refused.code,
    )
