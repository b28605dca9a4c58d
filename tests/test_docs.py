"""Every Python example of the README and the docs runs, and prints what it says it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from brokers import MosquittoServer, RabbitServer, RedisServer

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKING = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md"]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PRINTED = re.compile(r"^ *#> (.*)$", re.MULTILINE)
LONGEST = 30.0


class Block(NamedTuple):
    """An example: where it begins, and its text. ``#>`` is before each line that it prints."""

    page: str
    line: int
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> list[Block]:
    return [
        Block(str(page.relative_to(ROOT)), text.count("\n", 0, found.start()) + 1, found[1])
        for page in PAGES
        for text in [page.read_text()]
        for found in FENCE.finditer(text)
    ]


def test_there_are_examples() -> None:
    assert {block.page for block in blocks()} >= {"README.md"}


@pytest.mark.parametrize("block", blocks(), ids=str)
def test_an_example_runs_and_prints_what_it_says(
    block: Block,
    redis_server: RedisServer,
    mqtt_server: MosquittoServer,
    amqp_server: RabbitServer,
    tmp_path: Path,
) -> None:
    urls = {
        "COMMLIB_URL": redis_server.url,
        "MQTT_URL": mqtt_server.url,
        "AMQP_URL": amqp_server.url,
    }
    program = tmp_path / "example.py"
    program.write_text(block.code)
    process = subprocess.run(
        [sys.executable, "-W", "error", program],
        env={**os.environ, **urls},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines() == PRINTED.findall(block.code), process.stderr


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []
