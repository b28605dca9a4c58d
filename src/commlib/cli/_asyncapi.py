"""The AsyncAPI 3.0 document of what nodes tell of themselves. Pure.

https://www.asyncapi.com/docs/reference/specification/v3.0.0. Topics are channels, and what is
published and read there are operations; calls are operations with a reply, and an action is its
three calls and two topics. The operations are those of all nodes together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from commlib._discovery import EndpointInfo, NodeInfo
from commlib._packet import Header
from commlib._params import BaseParameters, NetworkParameters
from commlib._schemas import Schema, resolved, schema_of
from commlib._topics import split, to_mqtt
from commlib.aio._action import (
    CancelGoal,
    FeedbackNews,
    GetResult,
    SendGoal,
    StatusNews,
    part_name,
)
from commlib.cli._asyncapi_schemas import Register, Schemas
from commlib.transports.base import Traits

Json = dict[str, Any]

ACTION_CALLS: tuple[tuple[str, Any, str, str], ...] = (
    ("send_goal", SendGoal, "goal_data", ""),
    ("cancel_goal", CancelGoal, "", ""),
    ("get_result", GetResult, "", "result"),
)
"""The calls of an action, with the fields of request and response that hold its own messages."""
PROTOCOLS = {"mqtts": "secure-mqtt"}
"""By scheme, where AsyncAPI has another name for it."""
ENVELOPED = (
    "A message is an envelope of JSON with header and data. Who sets serializer=, compression= or "
    "envelope=False writes another form, which no node tells of."
)
NATIVE = (
    "The payload is the data, as JSON, and its header is carried by the protocol. Who sets "
    "serializer= or compression= writes another form, which no node tells of."
)


def document(
    nodes: Iterable[NodeInfo],
    params: BaseParameters,
    traits: Traits,
    *,
    title: str = "",
    version: str = "1.0.0",
) -> Json:
    """The document. No password is in it, nor are the ids and processes of nodes."""
    paper = _Paper(traits, params.schemes[:1] == ("mqtt",))
    for node in sorted(nodes, key=lambda node: (node.name, node.started)):
        for port in sorted(node.endpoints, key=lambda port: (port.kind, port.name)):
            paper.add(node, port)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": title or f"What runs on {params}",
            "version": version,
            "description": NATIVE if traits.native_headers else ENVELOPED,
        },
        "defaultContentType": "application/json",
        "servers": _servers(params),
        "channels": paper.channels.entries,
        "operations": paper.operations.entries,
        "components": {
            "messages": paper.messages.entries,
            "schemas": paper.schemas.entries,
        },
    }


def _servers(params: BaseParameters) -> Json:
    each: Sequence[BaseParameters] = [params]
    if isinstance(params, NetworkParameters):
        each = params.each_place()
    return {f"broker{number or ''}": _server(place) for number, place in enumerate(each)}


def _server(params: BaseParameters) -> Json:
    parts = urlsplit(str(params))  # which has neither user name nor password
    server = {
        "host": parts.netloc or "localhost",
        "protocol": PROTOCOLS.get(parts.scheme, parts.scheme),
    }
    if parts.path:
        server["pathname"] = parts.path
    if isinstance(params, NetworkParameters) and any(params.credentials):
        return {**server, "security": [{"type": "userPassword"}]}
    return server


class _Paper:
    """What is written so far; what several nodes have in common is written once."""

    def __init__(self, traits: Traits, is_mqtt: bool) -> None:
        self.channels = Register()
        self.operations = Register()
        self.messages = Register()
        self.schemas = Schemas()
        self._traits = traits
        self._is_mqtt = is_mqtt
        self._header = self.schemas.ref(schema_of(Header), "Header")

    def add(self, node: NodeInfo, port: EndpointInfo) -> None:
        """Write down what a port does."""
        what = port.type or "Data"
        if port.kind in ("publisher", "subscriber"):
            operation = self._topic(
                node, port.kind == "publisher", port.name, what, self._data(node, port, "message")
            )
            if self._is_mqtt and (port.qos or port.retain):
                operation["bindings"] = {"mqtt": {"qos": port.qos, "retain": port.retain}}
        elif port.kind in ("service", "client"):
            both = self._data(node, port, "request"), self._data(node, port, "response")
            self._call(node, port, port.name, what, both)
        else:
            self._action(node, port, what)

    def _data(self, node: NodeInfo, port: EndpointInfo, part: str) -> Schema:
        suffix = "" if part == "message" else part.capitalize()
        return self.schemas.ref(node.schema(port, part), f"{port.type or 'Data'}{suffix}")

    # ---- patterns ----

    def _topic(self, node: NodeInfo, sends: bool, name: str, what: str, data: Schema) -> Json:
        channel = self._channel(name)
        operation = self._operation("send" if sends else "receive", channel, node)
        self._put(operation, channel, self._message(what, data))
        return operation

    def _call(
        self, node: NodeInfo, port: EndpointInfo, name: str, what: str, both: tuple[Schema, Schema]
    ) -> None:
        channel, answers = self._channel(name), self._reply_channel(name)
        operation = self._operation("serve" if port.direction == "in" else "call", channel, node)
        where = "header#" if self._traits.native_headers else "payload#/header"
        reply = operation.setdefault(
            "reply",
            {
                "address": {"location": f"$message.{where}/reply_to"},
                "channel": {"$ref": f"#/channels/{answers}"},
                "messages": [],
            },
        )
        self._put(operation, channel, self._message(f"{what}Request", both[0]))
        self._put(reply, answers, self._message(f"{what}Response", both[1]))

    def _action(self, node: NodeInfo, port: EndpointInfo, what: str) -> None:
        holds = {part: self._data(node, port, part) for part in ("goal", "result", "feedback")}
        for part, kind, asked, answered in ACTION_CALLS:
            each = f"{what}{kind.__name__}"
            both = (
                self._with_field(f"{each}Request", kind.Request, asked, holds["goal"]),
                self._with_field(f"{each}Response", kind.Response, answered, holds["result"]),
            )
            self._call(node, port, part_name(port.name, part), each, both)
        status = self.schemas.ref(schema_of(StatusNews), "StatusNews")
        news = f"{what}FeedbackNews"
        feedback = self._with_field(news, FeedbackNews, "feedback_data", holds["feedback"])
        serves = port.kind == "action"
        self._topic(node, serves, part_name(port.name, "status"), "StatusNews", status)
        self._topic(node, serves, part_name(port.name, "feedback"), news, feedback)

    def _with_field(self, name: str, kind: type, field: str, inner: Schema) -> Schema:
        """A message of actions in whose ``field`` is one of the program's own."""
        schema = schema_of(kind) or {}
        flat = {**resolved(schema, schema), "title": name}
        if field:
            flat["properties"] = {**flat["properties"], field: inner}
        return self.schemas.add(name, flat)

    # ---- what they consist of ----

    def _channel(self, name: str) -> str:
        """The name of the channel of a topic, a pattern or a service."""
        if name == "*":  # of a publisher that has no topic of its own, or who reads them all
            return self.channels.take(name, "any", {"address": None, "messages": {}})
        return self.channels.take(name, name, self._addressed(name))

    def _reply_channel(self, name: str) -> str:
        channel: Json = {"address": None, "title": f"Replies of {name}", "messages": {}}
        return self.channels.take(["reply", name], f"{name}.reply", channel)

    def _addressed(self, name: str) -> Json:
        words, parameters = split(name), {}
        for index, word in enumerate(words):
            if word == "*":
                words[index] = f"{{word{index + 1}}}"
                many = "One word or more." if index == len(words) - 1 else "One word."
                parameters[f"word{index + 1}"] = {"description": many}
        address = ("/" if "/" in name else ".").join(words)
        if self._traits.separator == "/":
            address = to_mqtt(address)
        channel: Json = {"address": address, "title": name, "messages": {}}
        return {**channel, "parameters": parameters} if parameters else channel

    def _operation(self, verb: str, channel: str, node: NodeInfo) -> Json:
        """What nodes do with a channel; this node is one of them."""
        action = "receive" if verb in ("receive", "serve") else "send"
        new = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": [],
            "x-nodes": [],
        }
        name = self.operations.take([verb, channel], f"{verb}.{channel}", new)
        operation: Json = self.operations.entries[name]
        if node.name not in operation["x-nodes"]:
            operation["x-nodes"].append(node.name)
        return operation

    def _message(self, name: str, data: Schema) -> str:
        """The name of a message that carries this data."""
        message: Json = {"name": name, "contentType": "application/json"}
        if self._traits.native_headers:
            message |= {"headers": self._header, "payload": data}
        else:
            message["payload"] = {
                "type": "object",
                "required": ["header", "data"],
                "properties": {"header": self._header, "data": data},
            }
        return self.messages.take(data, name, message)

    def _put(self, owner: Json, channel: str, message: str) -> None:
        """Let a message go through a channel, in an operation or a reply."""
        messages = self.channels.entries[channel]["messages"]
        messages[message] = {"$ref": f"#/components/messages/{message}"}
        ref = {"$ref": f"#/channels/{channel}/messages/{message}"}
        if ref not in owner["messages"]:
            owner["messages"].append(ref)
