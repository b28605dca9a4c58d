"""Messages as they are typed at a prompt: JSON or YAML, checked against the schema of who reads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click
import msgspec

from commlib._schemas import Schema

MAX_ERRORS = 5  # of one payload that are told

HELP = """\b
The message is JSON or YAML:  '{"distance": 1.5}'  or  'distance: 1.5'
@FILE reads it from a file, - from standard input."""


def read_payload(text: str) -> Any:
    """The data that a text spells, or that of the file or the input that it names.

    Raises ClickException for what is neither JSON nor YAML, or cannot be read.
    """
    where = ""
    if text == "-":
        text, where = sys.stdin.read(), "standard input: "
    elif text.startswith("@"):
        path = Path(text[1:])
        try:
            text, where = path.read_text(), f"{path}: "
        except (OSError, UnicodeDecodeError) as exc:
            raise click.ClickException(f"{path}: {exc}") from exc
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        pass  # YAML, then: nearly all JSON is that, too, but read ten times as slowly
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as exc:
        reason = " ".join(str(exc).split())
        raise click.ClickException(f"{where}neither JSON nor YAML: {reason}") from exc


def check_payload(data: Any, schema: Schema | None, of_whom: str) -> None:
    """Raises ClickException that names each wrong field. A schema of None allows everything.

    ``of_whom`` says in the error whose schema it is.
    """
    if schema is None:
        return
    wrong = list(islice(_errors(data, schema), MAX_ERRORS))
    if wrong:
        lines = "\n".join(f"  {text}" for text in wrong)
        raise click.ClickException(
            f"the message is not what {of_whom} takes:\n{lines}\n--no-check sends it all the same"
        )


def _errors(data: Any, schema: Schema) -> Iterator[str]:
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(schema)
    for error in sorted(validator.iter_errors(data), key=lambda error: list(map(str, error.path))):
        where = ".".join(map(str, error.absolute_path))
        yield f"{where}: {error.message}" if where else error.message
    if isinstance(data, dict):
        yield from _strangers(data, schema, schema, "")


def _strangers(data: Any, part: Schema, root: Schema, where: str) -> Iterator[str]:
    """Fields that the other side does not know: mostly they are misspelt."""
    from commlib._params import nearest
    from commlib._schemas import resolved

    part = resolved(part, root)
    known = part.get("properties")
    if not isinstance(data, dict) or not isinstance(known, dict):
        return
    for name, value in data.items():
        place = f"{where}.{name}" if where else str(name)
        if name not in known:
            if not isinstance(part.get("additionalProperties"), dict):
                yield f"{place}: there is no such field; {nearest(str(name), known)}"
        elif isinstance(known[name], dict):
            yield from _strangers(value, known[name], root, place)
