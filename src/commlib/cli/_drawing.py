"""Who talks to whom, as boxes and arrows, and how the languages of drawings spell them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct

from commlib._discovery import NodeInfo
from commlib._topics import is_pattern
from commlib.cli._topic_ports import ANY, key, told_matcher
from commlib.transports.base import Traits

Shape = Literal["node", "topic", "pattern", "service", "action"]
SHAPES: dict[str, Shape] = {
    "publisher": "topic",
    "subscriber": "topic",
    "service": "service",
    "client": "service",
    "action": "action",
    "action_client": "action",
}


class Box(Struct, frozen=True):
    """A node, or what nodes talk through. ``id`` is letters and digits."""

    id: str
    shape: Shape
    label: str


class Arrow(Struct, frozen=True):
    """From one box to another, as messages, requests and goals go.

    ``matches``: from a topic to a pattern that takes it; nothing but the names tells so.
    """

    start: str
    end: str
    matches: bool = False


class Drawing(Struct):
    """Boxes and the arrows between them, each once."""

    boxes: list[Box]
    arrows: list[Arrow]


class _Pencil:
    """Draws each thing once, however often it is named."""

    def __init__(self, traits: Traits) -> None:
        self._traits = traits
        self.boxes: dict[tuple[Shape, str], Box] = {}
        self.arrows: dict[Arrow, None] = {}

    def box(self, shape: Shape, mark: str, label: str) -> str:
        """The id of a box, which is there once for each ``mark``."""
        found = self.boxes.get((shape, mark))
        if found is None:
            found = self.boxes[shape, mark] = Box(f"{shape}{len(self.boxes)}", shape, label)
        return found.id

    def arrow(self, start: str, end: str, matches: bool = False) -> None:
        self.arrows[Arrow(start, end, matches)] = None

    def place(self, kind: str, name: str) -> str:
        """The box of what a port is for."""
        shape = SHAPES[kind]
        if kind == "publisher" and name == ANY:
            return self.box("pattern", "publisher of any topic", "any topic")
        if kind == "subscriber" and self._is_pattern(name):
            shape = "pattern"
        return self.box(shape, key(name, self._traits), name)

    def join_patterns(self) -> None:
        """Let each pattern take the topics that it matches."""
        topics = [box for box in self.boxes.values() if box.shape == "topic"]
        for box in self.boxes.values():
            if box.shape == "pattern" and self._is_pattern(box.label):
                takes = told_matcher(box.label, self._traits)
                for topic in topics:
                    if takes(topic.label):
                        self.arrow(topic.id, box.id, matches=True)

    def _is_pattern(self, name: str) -> bool:
        return is_pattern(name, self._traits.native_wildcards)


def draw(nodes: Iterable[NodeInfo], traits: Traits) -> Drawing:
    """What nodes tell of themselves as a drawing, with names as a broker of this kind has them."""
    nodes = list(nodes)
    names = [node.name for node in nodes]
    pencil = _Pencil(traits)
    for node in nodes:
        label = node.name if names.count(node.name) == 1 else f"{node.label}, id {node.id}"
        here = pencil.box("node", node.id, label)
        for port in sorted(node.endpoints, key=lambda port: (port.kind, port.name)):
            there = pencil.place(port.kind, port.name)
            start, end = (there, here) if port.direction == "in" else (here, there)
            pencil.arrow(start, end)
    pencil.join_patterns()
    return Drawing(list(pencil.boxes.values()), list(pencil.arrows))


# ---- DOT ----

_DOT_SHAPES: dict[Shape, str] = {
    "node": "shape=box, style=filled, fillcolor=lightblue",
    "topic": "shape=ellipse",
    "pattern": "shape=ellipse, style=dashed",
    "service": "shape=hexagon",
    "action": "shape=box, peripheries=2",
}


def as_dot(drawing: Drawing) -> str:
    """The drawing for Graphviz (https://graphviz.org/doc/info/lang.html)."""
    return "\n".join(_dot_lines(drawing)) + "\n"


def _dot_lines(drawing: Drawing) -> Iterator[str]:
    yield "digraph commlib {"
    yield "    rankdir=LR;"
    for box in drawing.boxes:
        yield f'    {box.id} [label="{_in_dot(box.label)}", {_DOT_SHAPES[box.shape]}];'
    for arrow in drawing.arrows:
        yield f"    {arrow.start} -> {arrow.end}{' [style=dashed]' if arrow.matches else ''};"
    yield "}"


def _in_dot(text: str) -> str:
    # In a label \N is the name of the box, \l a line to the left, and &lt; an entity of HTML.
    text = _printable(text).replace("&", "&amp;")
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _printable(text: str) -> str:
    """Names are what strangers send."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


# ---- Mermaid ----

_MERMAID_SHAPES: dict[Shape, tuple[str, str]] = {
    "node": ("[", "]"),
    "topic": ("([", "])"),
    "pattern": ("([", "])"),
    "service": ("{{", "}}"),
    "action": ("[[", "]]"),
}
_PLAIN_IN_MERMAID = frozenset(" .,:/_-*+()@$")


def as_mermaid(drawing: Drawing) -> str:
    """The drawing as a flowchart of Mermaid (https://mermaid.js.org/syntax/flowchart.html)."""
    return "\n".join(_mermaid_lines(drawing)) + "\n"


def _mermaid_lines(drawing: Drawing) -> Iterator[str]:
    yield "flowchart LR"
    for box in drawing.boxes:
        left, right = _MERMAID_SHAPES[box.shape]
        yield f'    {box.id}{left}"{_in_mermaid(box.label)}"{right}'
    for arrow in drawing.arrows:
        yield f"    {arrow.start} {'-.->' if arrow.matches else '-->'} {arrow.end}"
    for shape, style in (("node", "fill:#add8e6,color:#000"), ("pattern", "stroke-dasharray:4")):
        ids = ",".join(box.id for box in drawing.boxes if box.shape == shape)
        if ids:
            yield f"    classDef {shape}Style {style}"
            yield f"    class {ids} {shape}Style"


def _in_mermaid(text: str) -> str:
    """A character that means something to Mermaid, or to HTML, is written by its number."""
    return "".join(
        char if char.isalnum() or char in _PLAIN_IN_MERMAID else f"#{ord(char)};"
        for char in _printable(text)
    )
