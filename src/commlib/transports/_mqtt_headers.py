"""The header of a bare message as MQTT 5 user properties, one for each key. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from commlib._packet import PROPERTIES, Header, read_header

MARK = ("agent", "commlib")
"""Whose header it is; a name that released commlib-py has for it."""
_TREES = frozenset({"properties", "error", "hops", "sig"})  # keys whose value is more than a text


def write_pairs(header: Header) -> list[tuple[str, str]]:
    """The keys that a header has, each with its value as text."""
    tree = msgspec.to_builtins(header)
    if header.properties == PROPERTIES:
        del tree["properties"]  # JSON, as everybody expects
    return [MARK] + [
        (name, msgspec.json.encode(value).decode() if name in _TREES else str(value))
        for name, value in tree.items()
    ]


def read_pairs(pairs: list[tuple[str, str]]) -> Header | None:
    """The header that user properties spell; None if they are those of somebody else.

    Others use names such as ``timestamp`` and ``traceparent``, too.
    """
    if MARK not in pairs:
        return None
    tree: dict[str, Any] = {}
    for name, value in pairs:
        if name in _KEYS:
            tree[name] = _read_tree(value) if name in _TREES else value
    return read_header(tree)


def _read_tree(value: str) -> Any:
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, RecursionError):
        return None  # as a key of a wrong type: absent


_KEYS = frozenset(Header.__struct_fields__)
