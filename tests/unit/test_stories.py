"""Pages that tell a story: what is printed is what they say, or the story is wrong."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

import stories
from commlib import __version__

PORTS = {"6379": 6380, "1883": 1884}
HOST = socket.gethostname()


def told(tmp_path: Path, text: str) -> None:
    """Tell the story of a page with this text."""
    page = tmp_path / "page.md"
    page.write_text(text)
    stories.tell(page, tmp_path, PORTS)


def console(*lines: str, title: str = "") -> str:
    fence = f'```console title="{title}"' if title else "```console"
    return "\n".join([fence, *lines, "```", ""])


def test_fences_without_a_title_are_no_part_of_the_story(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```python\nraise\n```\n\n{console('$ true')}\n```sh\nrm -rf\n```\n")
    assert [(step.line, step.kind, step.text) for step in stories.steps(page)] == [
        (5, "console", "$ true\n")
    ]


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("a  b", "a b"),
        (f"pid 12345 on {HOST}", f"pid 4711 on {stories.HOST}"),
        ("took 0.3 ms", "took 12.25 ms"),
        ("since 2030-01-02 03:04:05", "since 2026-11-26 10:30:00"),
        ("id 0a1b2c3d4e5f,", "id 8fe78efa57ee,"),
        (f"commlib {__version__}", f"commlib {stories.VERSION}"),
        ('{"t":1795715475624,"a":1}', '{"t":1795689000000,"a":1}'),
    ],
)
def test_a_line_may_differ_in_what_is_another_thing_each_time(printed: str, expected: str) -> None:
    assert stories.alike(printed, expected)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [("3 messages", "4 messages"), ("a", "a b"), ("speed: 1", "sped: 1"), ("0.5", "half")],
)
def test_it_may_not_differ_in_anything_else(printed: str, expected: str) -> None:
    assert not stories.alike(printed, expected)


def test_dots_stand_for_any_lines() -> None:
    assert stories.matched(["a", "b", "c", "d", "e"], ["a", "...", "d"]) == 4
    assert stories.matched(["a", "b"], ["...", "a", "b"]) == 2
    assert stories.matched(["a", "b"], ["...", "c"]) is None


def test_files_are_there_and_a_port_is_another_one(tmp_path: Path) -> None:
    told(
        tmp_path,
        '```text title="where"\nredis://127.0.0.1:6379\n```\n\n'
        + console("$ cat where", "redis://127.0.0.1:6379", "$ grep -c 6380 where", "1"),
    )


def test_what_runs_in_a_terminal_goes_on_until_ctrl_c(tmp_path: Path) -> None:
    told(
        tmp_path,
        '```text title="log"\none\n```\n\n'
        + console("$ tail -f -n +1 log", "one", title="Terminal 1")
        + console("$ cp log copy", "$ cp copy two", "$ ls", "copy", "log", "page.md", "two")
        + console("^C", "$ cat copy", "one", title="Terminal 1"),
    )


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["$ echo two", "one"], "page.md:1.*instead of\none\nit prints\ntwo"),
        (["$ printf 'one\\ntwo\\n'", "one"], "it also prints \\['two'\\]"),
        (["$ false"], "exit status 1"),
        (["$ echo 'a b'", "a c"], "instead of"),
    ],
)
def test_what_is_not_as_the_page_says_is_an_error_that_names_the_line(
    tmp_path: Path, lines: list[str], complaint: str
) -> None:
    with pytest.raises(AssertionError, match=f"(?s){complaint}"):
        told(tmp_path, console(*lines))
