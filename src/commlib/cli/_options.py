"""The options that several commands have: one name, one meaning, one unit in all of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import click
from click import Context, Parameter

F = TypeVar("F", bound=Callable[..., Any])


class Option(Protocol):
    """What gives a command an option."""

    def __call__(self, work: F, /) -> F: ...


_TIME = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|min|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)


class Time(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.3
    """Seconds, or a number with another unit: 500ms, 90s, 5m, 1h, 1d. More than 0."""

    name = "TIME"

    def __init__(self, least: float = 0.0, most: float = float("inf")) -> None:
        self.least = least
        self.most = most

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> float:
        seconds = float(value) if isinstance(value, int | float) else seconds_of(value)
        if not seconds:
            self.fail(f"{value!r} is no time; it is one as 1.5, 90s, 5m or 1h", param, ctx)
        if not self.least <= seconds <= self.most:
            limit = f"{self.least:g} s at least"
            if self.most < float("inf"):
                limit = f"from {self.least:g} to {self.most:g} s"
            self.fail(f"{value}: it is {limit}", param, ctx)
        return seconds


class Size(click.ParamType):  # type: ignore[type-arg]
    """Bytes: 1000, 500kB, 2GiB."""

    name = "SIZE"

    def convert(self, value: Any, param: Parameter | None, ctx: Context | None) -> int:
        size = value if isinstance(value, int) else size_of(value)
        if not size:
            self.fail(f"{value!r} is no size; it is one as 500MB or 2GiB", param, ctx)
        return size


def seconds_of(text: str) -> float | None:
    """How many seconds a text as ``5m`` says; None if it is none."""
    found = _TIME.fullmatch(text.strip())
    return None if found is None else float(found[1]) * _SECONDS[found[2] or "s"]


def size_of(text: str) -> int | None:
    """How many bytes a text as ``2GiB`` says; None if it is none."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        return None
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** " kmgt".index(found[2].lower() or " "))


def url_option(*names: str) -> Option:
    """``--url``, and other names for it."""
    return click.option(
        "--url",
        *names,
        "url",
        envvar="COMMLIB_URL",
        show_envvar=True,
        metavar="URL",
        help="The broker, as redis://host, mqtt://user:password@host or amqp://host; "
        "by default Redis on this machine.",
    )


URL = url_option()


def count_option(what: str, default: int | None = None) -> Option:
    """``--count``, of whatever there is so many of."""
    return click.option(
        "--count",
        "-c",
        type=click.IntRange(min=1),
        default=default,
        show_default=default is not None,
        metavar="N",
        help=what,
    )


def rate_option(what: str, default: float | None = None) -> Option:
    """``--rate``, in times a second."""
    return click.option(
        "--rate",
        "-r",
        type=click.FloatRange(min=0.001, max=100_000),
        default=default,
        show_default=default is not None,
        metavar="HZ",
        help=what,
    )


def timeout_option(what: str, default: float | None) -> Option:
    """``--timeout``, of an answer that is waited for."""
    return click.option(
        "--timeout",
        type=Time(),
        default=default,
        show_default="for ever" if default is None else True,
        help=what,
    )


def duration_option(what: str = "End after so long.", default: float | None = None) -> Option:
    """``--duration``, after which it ends by itself."""
    return click.option(
        "--duration",
        "-d",
        type=Time(),
        default=default,
        show_default=default is not None,
        help=what,
    )


def listen_option(what: str, default: float | None = None) -> Option:
    """``--listen``, to what is published."""
    return click.option(
        "--listen", type=Time(), default=default, show_default=default is not None, help=what
    )


WAIT = click.option(
    "--wait",
    type=Time(),
    default=1.0,
    show_default=True,
    help="How long nodes have at most to answer who they are.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
JSON_LINES = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, an object on each line."
)
ALL = click.option("--all", "show_all", is_flag=True, help="Show commlib's own topics as well.")
OUTPUT = click.option(
    "--output", "-o", "file", metavar="FILE", help="Write to FILE, - is standard output."
)
NO_CHECK = click.option(
    "--no-check", is_flag=True, help="Send it without asking nodes what they take."
)
