"""What nodes tell of the messages of a topic. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from commlib._discovery import EndpointInfo, NodeInfo
from commlib._schemas import Schema, schema_of
from commlib.aio._action import StatusNews, part_name
from commlib.recording._counts import About
from commlib.recording._schema import viewable


def find_about(about: About, nodes: Iterable[NodeInfo]) -> About:
    """What is told of this topic; by its publishers rather than by its subscribers."""
    found = about
    for node in nodes:
        for endpoint in node.endpoints:
            told = _told(about, node, endpoint)
            if told is not None:
                if told.schema is not None and endpoint.direction == "out":
                    return told
                found = told if found.schema is None else found
    return found


def _told(about: About, node: NodeInfo, endpoint: EndpointInfo) -> About | None:
    """What an endpoint says of such messages; None if it is of others."""
    if about.kind != "topic":
        if endpoint.name != about.name or endpoint.kind not in ("service", "client"):
            return None
        schema = node.schema(endpoint, about.kind)
        return About(about.name, about.kind, endpoint.type, schema)
    if endpoint.name == about.name and endpoint.kind in ("publisher", "subscriber"):
        schema = node.schema(endpoint, "message")
        return About(about.name, "topic", endpoint.type, schema, endpoint.qos)
    if endpoint.kind in ("action", "action_client"):
        if about.name == part_name(endpoint.name, "status"):
            return About(about.name, "topic", "StatusNews", schema_of(StatusNews))
        if about.name == part_name(endpoint.name, "feedback"):
            schema = _feedback_schema(node.schema(endpoint, "feedback"))
            return About(about.name, "topic", f"{endpoint.type}.Feedback", schema)
    return None


def _feedback_schema(feedback: Schema | None) -> Schema:
    fields = {"goal_id": {"type": "string"}, "feedback_data": viewable(feedback)}
    return {"type": "object", "properties": fields}
