"""What a log record about a message says beside its text, for handlers that keep fields apart."""

from __future__ import annotations


def about(topic: str, message_id: str = "", node: str = "") -> dict[str, str]:
    """The ``extra=`` of such a record; empty is what is not known.

    ``commlib_message_id`` is ``<origin>:<seq>``, by which the sender and a trace know it, too.
    """
    return {"commlib_node": node, "commlib_topic": topic, "commlib_message_id": message_id}
