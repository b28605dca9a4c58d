"""Messages as they are typed at a prompt: JSON or YAML, checked against a schema.

The YAML is that of version 1.2 (its core schema): ``on`` and ``2026-01-02`` are texts, ``010`` is
ten. A robot's ``state: ON`` would be ``true`` in YAML 1.1.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commlib import _json
from commlib._params import nearest
from commlib._schemas import MAX_DEPTH, Schema, resolved
from commlib.cli._wrong_words import WrongWords

if TYPE_CHECKING:
    from jsonschema import ValidationError

MAX_ERRORS = 5  # of one payload that are told
MAX_SHOWN = 40  # characters of a wrong value
MAX_TEXT = 200  # characters of what the validator itself says

HELP = """\b
The message is JSON or YAML:  '{"distance": 1.5}'  or  'distance: 1.5'
@FILE reads it from a file, - from standard input."""

_WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
"""What JSON Schema calls the types, and people."""


# ---- reading ----


def read_text(text: str) -> tuple[str, str]:
    """The text itself, or that of the file or the input that it names; and its place, for errors.

    Raises ClickException for what cannot be read.
    """
    if text == "-":
        return sys.stdin.read(), "standard input: "
    if text.startswith("@"):
        path = Path(text[1:])
        try:
            return path.read_text(encoding="utf-8-sig"), f"{path}: "
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is no text in UTF-8"
            raise click.ClickException(f"{path}: {reason}") from exc
    return text, ""


def read_payload(text: str) -> Any:
    """The data that a text spells, or that of the file or the input that it names.

    Raises WrongWords for what is neither JSON nor YAML, ClickException for what cannot be read.
    """
    text, where = read_text(text)
    if not text.strip():
        raise WrongWords(f"{where}there is no message; an empty one is {{}}")
    try:
        return _json.parse(text.encode())
    except _json.NOT_DECODABLE:
        pass  # YAML, then: nearly all JSON is that, too, but read ten times as slowly
    import yaml

    try:
        loader = _loader()(text)
        try:
            return _with_text_keys(loader.get_single_data())
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        reason = " ".join(str(exc).split()) or type(exc).__name__
        raise WrongWords(f"{where}neither JSON nor YAML: {reason}") from exc


@cache
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Plain data, with what YAML 1.2 takes for null, a truth value and a number."""

        yaml_implicit_resolvers = {}

    rules = (
        ("null", r"~|null|Null|NULL|", "~nN"),
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
        (
            "float",
            r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
            r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
            "-+.0123456789",
        ),
    )
    for name, pattern, first in rules:
        tag = f"tag:yaml.org,2002:{name}"
        begins = ["", *first] if name == "null" else list(first)
        Loader.add_implicit_resolver(tag, re.compile(rf"(?:{pattern})\Z"), begins)

    def whole(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
        text = loader.construct_scalar(node)
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text, base)

    Loader.add_constructor("tag:yaml.org,2002:int", whole)
    return Loader


def _with_text_keys(data: Any) -> Any:
    """The same with the keys that JSON would have."""
    if isinstance(data, dict):
        return {
            key if isinstance(key, str) else _spelled(key): _with_text_keys(value)
            for key, value in data.items()
        }
    return [_with_text_keys(item) for item in data] if isinstance(data, list) else data


def _spelled(value: Any) -> str:
    return _json.encode(value).decode()


# ---- checking ----


def check_payload(data: Any, schema: Schema | None, of_whom: str, does: str = "takes") -> None:
    """Raises ClickException that names each wrong field. A schema of None allows everything.

    ``of_whom`` says in the error whose schema it is, ``does`` what they do with such messages. One
    that is no JSON Schema, as strangers may send, or refers to something outside, is told on
    standard error and allows everything, too.
    """
    if schema is None:
        return
    from jsonschema import SchemaError
    from referencing.exceptions import Unresolvable

    try:
        wrong = list(islice(dict.fromkeys(_errors(data, schema)), MAX_ERRORS + 1))
    except (SchemaError, Unresolvable, RecursionError, re.error):
        text = f"not checked: what {of_whom} tells of its messages is no JSON Schema"
        click.echo(text, err=True)
        return
    if wrong:
        lines = [f"  {text}" for text in wrong[:MAX_ERRORS]]
        more = ["  and more"] if len(wrong) > MAX_ERRORS else []
        raise click.ClickException(
            "\n".join(
                (
                    f"the message is not what {of_whom} {does}:",
                    *lines,
                    *more,
                    "--no-check sends it all the same",
                )
            )
        )


def _errors(data: Any, schema: Schema) -> Iterator[str]:
    from jsonschema import Draft202012Validator
    from referencing import Registry

    Draft202012Validator.check_schema(schema)
    # A registry of its own: by default a reference to a URL would be fetched from there.
    validator = Draft202012Validator(schema, registry=Registry())
    for error in sorted(validator.iter_errors(data), key=lambda error: list(map(str, error.path))):
        yield from _told(error)
    yield from _strangers(data, schema, schema, "", 0)


def _told(error: ValidationError) -> Iterator[str]:
    """What is wrong, each with its field."""
    where = _place(error)
    value: Any = error.instance
    rule: Any = error.validator_value
    if error.validator == "required":
        for name in rule:
            if name not in value:
                yield f"{_inside(where, name)}: it is needed, and not there"
    elif error.validator == "additionalProperties" and rule is False:
        part: Any = error.schema
        known = part.get("properties", {})
        for name in value:
            if name not in known:
                yield _stranger(_inside(where, name), name, known)
    elif error.validator in ("anyOf", "oneOf") and error.context:
        yield from _of_alternatives(error, where)
    elif error.validator == "type":
        yield _labelled(where, _expected(_as_list(rule), value))
    elif error.validator == "enum":
        allowed = ", ".join(map(_spelled, rule))
        yield _labelled(where, f"{_shown(value)} is none of {allowed}")
    else:
        yield _labelled(where, _short(error.message, MAX_TEXT))


def _of_alternatives(error: ValidationError, where: str) -> Iterator[str]:
    """What is wrong with the alternative that is meant; else all that may be there."""
    branches: dict[Any, list[ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.schema_path[0], []).append(inner)
    expected: list[str] = []
    for inners in branches.values():
        other_type = [one for one in inners if one.validator == "type" and not one.path]
        if not other_type:
            for one in inners:
                yield from _told(one)
            return
        expected += _as_list(other_type[0].validator_value)
    yield _labelled(where, _expected(expected, error.instance))


def _expected(types: list[str], value: Any) -> str:
    words = " or ".join(_WORDS.get(each, each) for each in dict.fromkeys(types))
    return f"{words} is expected, not {_shown(value)}"


def _as_list(types: Any) -> list[str]:
    return [types] if isinstance(types, str) else list(types)


def _place(error: ValidationError) -> str:
    where = ""
    for part in error.absolute_path:
        where = f"{where}[{part}]" if isinstance(part, int) else _inside(where, part)
    return where


def _inside(where: str, name: object) -> str:
    return f"{where}.{name}" if where else str(name)


def _labelled(where: str, text: str) -> str:
    return f"{where}: {text}" if where else text


def _shown(value: Any) -> str:
    return _short(_spelled(value), MAX_SHOWN)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _stranger(place: str, name: str, known: dict[str, Any]) -> str:
    hint = nearest(name, known) if known else "it has none"
    return f"{place}: there is no such field; {hint}"


def _strangers(data: Any, part: Schema, root: Schema, where: str, depth: int) -> Iterator[str]:
    """Fields that the other side does not know: mostly they are misspelt."""
    part = resolved(_alternative(part, root), root)
    if depth > MAX_DEPTH:
        return
    items = part.get("items")
    if isinstance(data, list) and isinstance(items, dict):
        for index, item in enumerate(data):
            yield from _strangers(item, items, root, f"{where}[{index}]", depth + 1)
    known = part.get("properties")
    if not isinstance(data, dict) or not isinstance(known, dict):
        return
    for name, value in data.items():
        place = _inside(where, name)
        if isinstance(known.get(name), dict):
            yield from _strangers(value, known[name], root, place, depth + 1)
        elif name not in known and part.get("additionalProperties", False) is False:
            yield _stranger(place, name, known)


def _alternative(part: Schema, root: Schema) -> Schema:
    """The only alternative that is an object or a list, if there is just one; else the same."""
    alternatives = resolved(part, root).get("anyOf")
    if not isinstance(alternatives, list):
        return part
    nested = [
        each
        for each in alternatives
        if isinstance(each, dict) and resolved(each, root).get("type") in ("object", "array")
    ]
    return nested[0] if len(nested) == 1 else part
