"""What `commlib doctor` says: findings, and how they are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from textwrap import wrap
from typing import Literal

from msgspec import Struct
from rich.console import Console
from rich.text import Text

from commlib.cli._figures import counted
from commlib.cli._shown import printable

Severity = Literal["ok", "info", "warning", "error"]
STYLES: dict[Severity, str] = {
    "ok": "green",
    "info": "blue",
    "warning": "yellow",
    "error": "bold red",
}
NAMES = 8  # that are listed in one finding
INDENT, NARROWEST = 20, 40  # characters before the text of a finding, and of it
STEP = 4  # characters before it where both have no room side by side


class Finding(Struct, frozen=True, kw_only=True):
    """What a check has found. ``cause`` and ``mend`` are empty where nothing is wrong."""

    severity: Severity
    check: str
    text: str
    cause: str = ""
    mend: str = ""


def good(check: str, text: str) -> Finding:
    """Nothing is wrong here."""
    return Finding(severity="ok", check=check, text=text)


def listed(names: Iterable[str]) -> str:
    """Names with commas between them, each once, and how many more there are."""
    each = list(dict.fromkeys(names))
    more = f" and {len(each) - NAMES} more" if len(each) > NAMES else ""
    return ", ".join(each[:NAMES]) + more


def show(finding: Finding, screen: Console) -> None:
    """Print a finding for people; what is long goes on below its beginning on a terminal."""
    head = Text(f"{finding.severity:<9}", STYLES[finding.severity])
    head.append(f"{finding.check:<{INDENT - 9}}", "bold")
    _print(head, finding.text, screen)
    for name, text in (("cause", finding.cause), ("mend", finding.mend)):
        if text:
            _print(Text(f"{'':9}{name + ':':<{INDENT - 9}}"), text, screen)


def _print(head: Text, text: str, screen: Console) -> None:
    text = printable(text)
    if not screen.is_terminal:
        screen.print(head + Text(text))
        return
    indent = INDENT
    if screen.width < INDENT + NARROWEST:
        screen.print(head)
        indent = STEP
        head = Text(" " * indent)
    for line in wrap(text, max(1, screen.width - indent)):
        screen.print(head + Text(line))
        head = Text(" " * indent)


def summary(findings: Iterable[Finding]) -> str:
    """How many there are of each severity that is worse than information."""
    count = Counter(finding.severity for finding in findings)
    if not (count["error"] or count["warning"]):
        return "nothing is wrong"
    words = [counted(count[what], what) for what in ("error", "warning") if count[what]]
    return " and ".join(words)
