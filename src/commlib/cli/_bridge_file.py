"""The file of `commlib bridge`: brokers by name, and the bridges between them.

Every mistake in it is found before anything runs, and told with its place and what was probably
meant. URLs may hold passwords: they are never part of an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from commlib._params import BaseParameters, nearest
from commlib._routes import samples
from commlib.aio._bridge import Bridge
from commlib.aio._hub import Hub
from commlib.aio.bridges import ActionBridge, Keep, PTopicBridge, RPCBridge, TopicBridge
from commlib.transports import resolve

VARIABLE = re.compile(r"\$\{(\w+)\}")
KEEP = ("max_messages", "max_bytes", "max_age")
TOPIC_OPTIONS = ("envelope", *KEEP, "resume_after")
OPTIONS = {
    "topic": TOPIC_OPTIONS,
    "pattern": (*TOPIC_OPTIONS, "transform"),
    "rpc": ("concurrency", "timeout", "max_age"),
    "action": ("concurrency", "timeout", *KEEP),
}
KINDS: dict[str, tuple[type, ...]] = {
    "envelope": (bool,),
    "max_messages": (int,),
    "max_bytes": (int,),
    "max_age": (int, float),
    "resume_after": (int, float),
    "concurrency": (int,),
    "timeout": (int, float),
}
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class BadFile(Exception):
    """What is wrong with a file, a line for each."""


@dataclass(frozen=True)
class Rule:
    """One bridge of a file. Two that are equal do the same."""

    type: str
    source: BaseParameters = field(hash=False)
    sink: BaseParameters = field(hash=False)
    from_uri: str
    to_uri: str
    options: tuple[tuple[str, Any], ...] = field(hash=False)
    name: str = field(compare=False)

    def make(self, hub: Hub, sink_hub: Hub) -> Bridge:
        """The bridge. Raises ValueError or TypeError for what cannot be one."""
        options: dict[str, Any] = {**dict(self.options), "hub": hub, "sink_hub": sink_hub}
        if self.type in ("topic", "pattern", "action"):
            keep = {name: options.pop(name) for name in KEEP if name in options}
            options["keep"] = Keep(**keep)
        if self.type == "pattern":
            options["uri_transform"] = options.pop("transform", ())
        kinds: dict[str, Callable[..., Bridge]] = {
            "topic": TopicBridge,
            "pattern": PTopicBridge,
            "rpc": RPCBridge,
            "action": ActionBridge,
        }
        return kinds[self.type](None, self.from_uri, self.to_uri, **options)


def read_rules(path: Path) -> list[Rule]:
    """The bridges of a file, each of which can be made. Raises BadFile with all that is wrong."""
    reader = _FileReader(path)
    rules = reader.read()
    if reader.errors:
        raise BadFile("\n".join(f"{path}: {error}" for error in reader.errors))
    return rules


def shown(value: object) -> str:
    """A value for an error message, unless it may be a URL with a password in it."""
    text = repr(value)
    return "what stands there (not shown: it looks like a URL)" if "://" in text else text[:100]


class _FileReader:
    """Reads one file and gathers what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.errors: list[str] = []
        self._path = path
        self._brokers: dict[str, BaseParameters | None] = {}

    def read(self) -> list[Rule]:
        tree = self._load()
        if not isinstance(tree, dict):
            self._note("", "'brokers:' and 'bridges:' are expected")
            return []
        self._check_keys("", tree, ("brokers", "bridges"))
        for name, url in self._part(tree, "brokers", dict).items():
            self._brokers[str(name)] = self._read_broker(f"brokers.{name}", url)
        entries = self._part(tree, "bridges", list)
        found = [self._read_rule(index, entry) for index, entry in enumerate(entries)]
        rules = [rule for rule in found if rule is not None]
        if not self.errors:
            self._refuse_overlaps(rules)
        return rules

    def _note(self, where: str, what: str) -> None:
        self.errors.append(f"{where}: {what}" if where else what)

    def _load(self) -> Any:
        import yaml  # for this command alone

        try:
            return yaml.safe_load(self._path.read_text(encoding="utf8"))
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark
            line = f"line {mark.line + 1}" if mark else ""
            self._note(line, f"no YAML: {exc.problem}")  # the line itself may hold a password
        except (OSError, ValueError, yaml.YAMLError) as exc:  # a date that is none, too
            self._note("", f"cannot be read: {getattr(exc, 'strerror', None) or 'no text'}")
        return {"brokers": {}, "bridges": []}

    def _part(self, tree: dict[Any, Any], name: str, kind: type) -> Any:
        value = tree.get(name)
        if isinstance(value, kind) and (value or self.errors):
            return value
        if not self.errors:
            self._note(name, "at least one is needed, as in the documentation of bridges")
        return kind()

    def _check_keys(self, where: str, tree: dict[Any, Any], known: tuple[str, ...]) -> None:
        for key in tree:
            if key not in known:
                self._note(where, f"{shown(key)} is not known here; {nearest(str(key), known)}")

    # ---- brokers ----

    def _read_broker(self, where: str, url: Any) -> BaseParameters | None:
        if not isinstance(url, str):
            self._note(where, "a URL is expected, such as redis://localhost:6379")
            return None
        try:
            text = expand(url, os.environ)
        except KeyError as exc:
            self._note(where, f"the environment has no variable {exc.args[0]}")
            return None
        try:
            return resolve(text)
        except (ValueError, TypeError, ImportError) as exc:
            self._note(where, _without_secrets(exc, url, text))
            return None

    # ---- bridges ----

    def _read_rule(self, index: int, entry: Any) -> Rule | None:
        where = f"bridges[{index}]"
        if not isinstance(entry, dict):
            self._note(where, "'type:', 'from:' and 'to:' are expected")
            return None
        if isinstance(entry.get("name"), str):
            where = f"{where} ({entry['name']})"
        before = len(self.errors)
        kind = entry.get("type")
        if not isinstance(kind, str) or kind not in OPTIONS:
            self._note(f"{where}.type", f"{shown(kind)} is no type; {nearest(str(kind), OPTIONS)}")
            return None
        self._check_keys(where, entry, ("name", "type", "from", "to", *OPTIONS[kind]))
        source, from_uri = self._read_end(f"{where}.from", entry.get("from"), "uri")
        goal = "namespace" if kind == "pattern" else "uri"
        sink, to_uri = self._read_end(f"{where}.to", entry.get("to"), goal)
        options = tuple(self._read_options(where, entry, OPTIONS[kind]))
        if len(self.errors) > before or source is None or sink is None:
            return None
        name = str(entry.get("name") or f"{from_uri} -> {to_uri}")
        rule = Rule(kind, source, sink, from_uri, to_uri, options, name)
        return rule if self._can_be_made(where, rule) else None

    def _read_end(self, where: str, end: Any, uri: str) -> tuple[BaseParameters | None, str]:
        if not isinstance(end, dict):
            self._note(where, f"'broker:' and '{uri}:' are expected")
            return None, ""
        before = len(self.errors)
        self._check_keys(where, end, ("broker", uri))
        broker, name = end.get("broker"), end.get(uri, "" if uri == "namespace" else None)
        if not isinstance(broker, str) or broker not in self._brokers:
            known = nearest(str(broker), self._brokers) if self._brokers else "there is none"
            self._note(f"{where}.broker", f"{shown(broker)} is no broker of this file; {known}")
        if not isinstance(name, str):
            if uri in end or len(self.errors) == before:  # else it is there, and misspelt
                self._note(f"{where}.{uri}", f"a text is expected, not {shown(name)}")
            return None, ""
        return self._brokers.get(broker) if isinstance(broker, str) else None, name

    def _read_options(
        self, where: str, entry: dict[Any, Any], known: tuple[str, ...]
    ) -> Iterator[tuple[str, Any]]:
        for name in known:
            if name not in entry:
                continue
            value, kinds = entry[name], KINDS.get(name)
            if kinds and (not isinstance(value, kinds) or (value is True and bool not in kinds)):
                self._note(f"{where}.{name}", f"{shown(value)} is not {WORDS[kinds[-1]]}")
            elif name == "transform":
                yield name, self._read_pairs(f"{where}.{name}", value)
            else:
                yield name, value

    def _read_pairs(self, where: str, value: Any) -> list[tuple[str, str]]:
        pairs = value if isinstance(value, list) else [value]
        for pair in pairs:
            if not (
                isinstance(pair, list)
                and len(pair) == 2
                and all(isinstance(text, str) for text in pair)
            ):
                self._note(where, "a list of pairs of texts is expected: [[from, to], ...]")
                return []
        return [(pair[0], pair[1]) for pair in pairs]

    def _can_be_made(self, where: str, rule: Rule) -> bool:
        try:
            rule.make(Hub(rule.source, rule.name), Hub(rule.sink, rule.name))
        except (ValueError, TypeError, ImportError) as exc:
            self._note(where, str(exc))
            return False
        return True

    def _refuse_overlaps(self, rules: list[Rule]) -> None:
        for index, rule in enumerate(rules):
            for other in rules[:index]:
                if overlaps(rule, other):
                    self._note(
                        f"bridges[{index}] ({rule.name})",
                        f"takes the same as bridges[{rules.index(other)}] ({other.name}) to the "
                        "same place: everything would arrive twice",
                    )


def overlaps(rule: Rule, other: Rule) -> bool:
    """Whether two bridges would do the same work, as far as the rules tell."""
    if rule.source.address != other.source.address:
        return False
    if rule.type in ("rpc", "action") or other.type in ("rpc", "action"):
        # A call is answered once: two bridges for one name would share the calls by chance.
        return rule.type == other.type and rule.from_uri == other.from_uri
    if rule.sink.address != other.sink.address:
        return False
    if rule.type == other.type == "topic":
        return (rule.from_uri, rule.to_uri) == (other.from_uri, other.to_uri)
    # What the one takes: is there something of that which the other takes to the same place?
    return any(
        _target(one, topic) == _target(two, topic) is not None
        for one, two in ((rule, other), (other, rule))
        for topic in _topics_of(one)
    )


def unguarded_loops(rules: list[Rule]) -> Iterator[tuple[Rule, Rule]]:
    """Pairs of bridges that send bare messages round and round.

    Wrapped messages tell where they have been, and where a bridge wraps all it passes on, so do
    those that were bare.
    """
    for index, rule in enumerate(rules):
        for other in rules[:index]:
            if not (_wraps(rule) or _wraps(other)) and _is_loop(rule, other):
                yield other, rule


def _wraps(rule: Rule) -> bool:
    return dict(rule.options).get("envelope") is True or rule.type in ("rpc", "action")


def _is_loop(rule: Rule, other: Rule) -> bool:
    if (rule.source.address, rule.sink.address) != (other.sink.address, other.source.address):
        return False
    return any(
        (there := _target(one, topic)) is not None
        and (back := _target(two, there)) is not None
        and _target(one, back) is not None
        for one, two in ((rule, other), (other, rule))
        for topic in _topics_of(one)
    )


def _topics_of(rule: Rule) -> list[str]:
    """Some topics that a bridge takes."""
    return list(samples(rule.from_uri))


def _target(rule: Rule, topic: str) -> str | None:
    """Where a bridge takes a topic, None if it does not."""
    if rule.type == "topic":
        return rule.to_uri if topic == rule.from_uri else None
    bridge = rule.make(Hub(rule.source, rule.name), Hub(rule.sink, rule.name))
    assert isinstance(bridge, PTopicBridge), "it is the other type that takes topics"
    return bridge.target(topic) if bridge.takes(topic) else None


def expand(url: str, environment: Mapping[str, str]) -> str:
    """A URL with each ``${NAME}`` replaced. Raises KeyError for a name that is not there.

    In the place of user and password special characters are encoded, so that a variable holds the
    password as it is.
    """
    login_ends = url.rfind("@")

    def replace(found: re.Match[str]) -> str:
        value = environment[found[1]]
        is_login = url.find("://") != -1 and found.start() < login_ends
        return quote(value, safe="") if is_login else value

    return VARIABLE.sub(replace, url)


def _without_secrets(exc: Exception, url: str, text: str) -> str:
    """What is wrong with a URL, unless a part of what must stay secret could be in that."""
    if not ("@" in text or text != url or "password" in text):
        return str(exc)
    # What is wrong without the login, too, is wrong elsewhere.
    scheme, _, rest = url.partition("://")
    login, _, place = rest.rpartition("@")
    may_show = rest and not ("@" in scheme or "${" in scheme + place or "password" in place)
    if may_show and not set(login) & set("/?#"):  # with one of those it ends elsewhere
        try:
            resolve(f"{scheme}://{place}")
        except (ValueError, TypeError, ImportError) as bare:
            password = login.partition(":")[2]
            if not password or password not in str(bare):
                return str(bare)
    return (
        "no URL that can be read (it is not shown, for there may be a password in it); are the "
        "special characters of user and password encoded, as %40 for @?"
    )
