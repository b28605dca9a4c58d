"""What a broker means when it closes a channel or the connection. Pure.

Source: AMQP 0-9-1, section 1.2 of the reference (reply codes).
"""

from __future__ import annotations

from commlib.exceptions import AuthError, CommlibError
from commlib.transports._amqp_methods import Closing

ACCESS_REFUSED, NOT_FOUND, RESOURCE_LOCKED, PRECONDITION_FAILED = 403, 404, 405, 406
NOT_ALLOWED = 530
_AUTH = frozenset({ACCESS_REFUSED, NOT_ALLOWED})


class Refusal(CommlibError):
    """The broker has closed a channel; ``code`` is its reason."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def refusal(what: str, closing: Closing) -> Refusal | AuthError:
    """The error for a channel that was closed: an AuthError where a person has to give rights."""
    text = f"{what}: the broker says: {_text(closing)}"
    if "in exclusive use" in closing.text:  # RabbitMQ has the code of a missing right for this
        return Refusal(text, RESOURCE_LOCKED)
    return AuthError(text) if closing.code in _AUTH else Refusal(text, closing.code)


def loss(what: str, closing: Closing, otherwise: type[CommlibError]) -> CommlibError:
    """The error for a connection that was closed.

    RabbitMQ has the code of a missing right for a limit on connections, too, of which one is free
    again soon: perhaps it is held by what is left of our own former one.
    """
    is_full = "connection limit" in closing.text
    kind = AuthError if closing.code in _AUTH and not is_full else otherwise
    return kind(f"{what}: the broker says: {_text(closing)}")


def _text(closing: Closing) -> str:
    # RabbitMQ begins with the name of the code.
    return closing.text or f"reply code {closing.code}"


def refused_topic(error: Exception) -> str:
    """The topic that a refusal of RabbitMQ's is about; empty if it does not name one."""
    return _between(str(error), "access to topic '", "' in exchange")


def refused_exchange(error: Exception) -> str:
    """The exchange that a refusal of RabbitMQ's is about; empty if it does not name one."""
    return _between(str(error), "exchange '", "' in vhost")


def refused_argument(error: Exception) -> str:
    """The argument of a queue that is there with another value; empty if it is not about that."""
    return _between(str(error), "inequivalent arg '", "' for queue")


def _between(text: str, before: str, behind: str) -> str:
    return text.partition(before)[2].partition(behind)[0]
