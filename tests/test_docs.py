"""Every example of the README and the docs runs, and prints what it says it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import stories
from brokers import MosquittoServer, RabbitServer, RedisServer, free_port, running

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKING = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md"]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PRINTED = re.compile(r"^ *#> (.*)$", re.MULTILINE)
STORIES = [page for page in PAGES if stories.steps(page)]
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


@pytest.fixture(scope="module")
def mosquitto() -> Iterator[MosquittoServer]:
    """One that keeps what the pages let it retain, which other tests do not expect."""
    with running(MosquittoServer) as server:
        yield server


def test_there_are_examples() -> None:
    assert {block.page for block in blocks()} >= {"README.md"}


@pytest.mark.parametrize("block", blocks(), ids=str)
def test_an_example_runs_and_prints_what_it_says(
    block: Block,
    redis_server: RedisServer,
    mosquitto: MosquittoServer,
    amqp_server: RabbitServer,
    tmp_path: Path,
) -> None:
    urls = {
        "COMMLIB_URL": redis_server.url,
        "MQTT_URL": mosquitto.url,
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


def test_there_are_stories() -> None:
    assert {page.name for page in STORIES} >= {"tutorial.md"}


@pytest.mark.parametrize("page", STORIES, ids=lambda page: page.stem)
def test_what_a_page_has_one_type_shows_what_it_says(
    page: Path, mosquitto: MosquittoServer, tmp_path: Path
) -> None:
    ports = {"6379": free_port(), "1883": mosquitto.port, "8883": free_port()}
    stories.tell(page, tmp_path, ports)


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []
