"""What all commands share: how they end, what they print, and what they say of a misspelt word."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Iterator
from itertools import count
from typing import Any

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from commands import refused
from commlib.cli import _common, _printing
from commlib.cli._common import (
    MAX_KNOWN,
    command,
    on_signals,
    paced,
    same_broker,
    unknown,
    until_stopped,
)
from commlib.cli._main import commlib
from commlib.cli._printing import draws, print_json, print_line, print_table, say
from commlib.exceptions import CommlibError, SerializationError
from commlib.transports import resolve

RED = "\x1b[31m\x9b31m\u202e"
"""What a terminal obeys."""

# ---- how they end ----


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CommlibError("mend this"), 1),
        (ValueError("mend this"), 2),
        (TypeError("mend this"), 2),
        (SerializationError("mend this"), 1),
        (BrokenPipeError(), 0),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_that_are_the_users_to_mend_are_one_line(error: BaseException, status: int) -> None:
    @click.command()
    @command
    async def fails(url: object) -> None:
        raise error

    result = CliRunner().invoke(fails, ["--url", "memory://x"])
    assert result.exit_code == status
    assert ("Error: mend this" in result.stderr) is (status in (1, 2))
    assert "Traceback" not in result.output


@pytest.mark.parametrize("url", ["nonsense", "nonsense://x", "redis://h:99999"])
@pytest.mark.parametrize("words", ["node list", "topic list", f"replay {__file__}"])
def test_a_url_of_no_broker_is_told_in_one_line(words: str, url: str) -> None:
    option = "--to" if words.startswith("replay") else "--url"
    for where, env in (([option, url], None), ([], {"COMMLIB_URL": url})):
        result = CliRunner().invoke(commlib, [*words.split(), *where], env=env)
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("topic", "info", " "), "needs at least one word"),
        (("topic", "echo", "a.*b.**\0"), "control character"),
        (("topic", "hz", ""), "needs at least one word"),
        (("topic", "pub", "a.*", "1"), "a.*"),
        (("topic", "pub", "a.b", "{"), "neither JSON nor YAML"),
        (("topic", "pub", "a.b", ""), "there is no message"),
        (("event", "emit", "a.*"), "a.*"),
        (("event", "emit", "a.*", "--name", "x"), "a.*"),
        (("event", "emit", "a.b", "5"), "an object"),
        (("rpc", "info", "a.*"), "a.*"),
        (("rpc", "call", "a.*", "{}"), "a.*"),
        (("rpc", "call", "a.b", "{"), "neither JSON nor YAML"),
        (("action", "info", "a.*"), "a.*"),
        (("action", "send", "a.*", "{}"), "a.*"),
        (("action", "send", "a.b", "{"), "neither JSON nor YAML"),
        (("action", "cancel", "a.*", "1"), "a.*"),
        (("record", "a..\0", "-o", "no/such/place.mcap"), "control character"),
    ],
)
def test_wrong_words_are_told_in_one_line_and_nobody_is_asked(
    words: tuple[str, ...], told: str
) -> None:
    said = refused("memory://words", *words, status=2)
    assert said.startswith("Error: ")
    assert told in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("url", "client_id"),
    [
        ("mqtt://host?client_id=robot-1&session_expiry=60", "robot-1"),
        ("amqp://host?client_id=robot-1&session_expiry=60&queue_type=quorum", "robot-1"),
        ("mqtt://host", ""),
    ],
)
@pytest.mark.parametrize("from_environment", [True, False])
def test_a_command_does_not_take_the_place_of_a_node(
    url: str, client_id: str, from_environment: bool
) -> None:
    seen: list[Any] = []

    @click.command()
    @command
    async def looks(url: object) -> None:
        seen.append(url)

    given = ([], {"COMMLIB_URL": url}) if from_environment else (["--url", url], {})
    assert CliRunner().invoke(looks, given[0], env=given[1]).exit_code == 0
    assert (seen[0].host, seen[0].session_expiry) == ("host", 0)
    assert seen[0].client_id == ("" if from_environment else client_id)


async def test_until_stopped_tells_a_signal_from_an_end() -> None:
    async def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    assert await until_stopped(interrupt()) is True
    assert await until_stopped(asyncio.sleep(0)) is False


@pytest.fixture
def hangup() -> Iterator[int]:
    """SIGHUP, which does nothing by itself."""
    number = signal.SIGHUP
    before = signal.signal(number, lambda *_: None)
    yield number
    signal.signal(number, before)


async def test_a_terminal_that_is_closed_is_heard_once(hangup: int) -> None:
    came = asyncio.Event()
    with on_signals(came.set):
        os.kill(os.getpid(), hangup)
        await came.wait()
        assert signal.getsignal(hangup) is signal.SIG_IGN
    assert signal.getsignal(hangup) is signal.SIG_IGN
    asyncio.get_running_loop().remove_signal_handler(hangup)


async def test_a_terminal_that_is_closed_is_heard_once_though_two_tell_it_at_once(
    hangup: int,
) -> None:
    acts: list[int] = []
    errors: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    with on_signals(lambda: acts.append(1)):
        os.kill(os.getpid(), hangup)
        os.kill(os.getpid(), hangup)
        while not acts:  # noqa: ASYNC110 - both are heard in the same turn
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    loop.remove_signal_handler(hangup)
    assert (acts, errors) == ([1], [])


async def test_where_a_closed_terminal_is_ignored_it_stays_so(hangup: int) -> None:
    signal.signal(hangup, signal.SIG_IGN)
    with on_signals(lambda: None):
        assert signal.getsignal(hangup) is signal.SIG_IGN
    assert signal.getsignal(hangup) is signal.SIG_IGN


async def test_turns_are_given_at_a_rate_and_little_that_was_missed_is_made_up_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, now, slept = asyncio.get_running_loop(), 100.0, list[float]()
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        nonlocal now
        slept.append(round(seconds, 3))
        now += seconds
        await sleep(0)

    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(asyncio, "sleep", note)
    turns = paced(10.0)
    for _ in range(3):
        await anext(turns)
    now += 60.0  # as after Ctrl-Z
    for _ in range(5):
        await anext(turns)
    await turns.aclose()
    assert slept == [0.1, 0.1, 0.0, 0.0, 0.1, 0.1, 0.1]


async def test_turns_without_a_rate_leave_the_loop_to_others() -> None:
    others = asyncio.Event()
    asyncio.get_running_loop().call_soon(others.set)
    numbers = count()
    async for _ in paced(None):
        if next(numbers) and others.is_set():
            break
    assert next(numbers) > 1


# ---- errors ----


def test_a_broker_that_is_not_there_is_told_once_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_common, "CONNECT_SECONDS", 0.2)
    said = refused("redis://127.0.0.1:1", "node", "list")
    assert said.startswith("Error: no broker at redis://127.0.0.1:1/0 within 0.2 s: cannot be ")
    assert "; is a broker running there? Another one is named by --url" in said
    assert "\n" not in said


def test_what_is_misspelt_is_told_with_what_was_meant() -> None:
    for words, meant in ((["topc"], "topic"), (["topic", "ecko"], "echo")):
        result = CliRunner().invoke(commlib, words)
        assert result.exit_code == 2
        assert f"No such command '{words[-1]}'. Did you mean {meant}?" in result.stderr
    assert "mean" not in CliRunner().invoke(commlib, ["xyzzy"]).stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--url redis://h topic list", "'--url'. Options .* behind it: commlib topic ... --url"),
        ("--url=redis://h topic list", "'--url'. Options .* behind it: commlib topic ... --url"),
        ("topic --json list", "'--json'. Options .* behind it: commlib topic list ... --json"),
    ],
)
def test_an_option_before_its_command_is_told_where_it_stands(words: str, told: str) -> None:
    result = CliRunner().invoke(commlib, words.split())
    assert result.exit_code == 2
    assert re.search(told.replace("'", "'?"), result.stderr)  # click's versions differ in these
    assert "mean" not in result.stderr


@pytest.mark.parametrize("words", ["--verson", "--nonsense", "topic --version"])
def test_an_option_without_a_command_behind_it_is_just_unknown(words: str) -> None:
    result = CliRunner().invoke(commlib, words.split())
    assert result.exit_code == 2
    assert "No such option" in result.stderr
    assert "behind it" not in result.stderr


def test_a_name_that_is_not_there_is_told_with_what_there_is() -> None:
    assert unknown("sona", ["battery", "sonar"]) == "did you mean sonar?"
    assert unknown("xyzzy", ["b", "a", "b"]) == "known are: b, a"
    assert unknown("xyzzy", []) == "known are: none"
    assert unknown("xyzzy", map(str, range(MAX_KNOWN + 1))).endswith(f", {MAX_KNOWN - 1}, ...")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], ""),
        (["--url", "redis://h a"], " --url 'redis://h a'"),
        (["--url", "redis://u:secret@h"], " --url ... (the same, which has a password)"),
    ],
)
def test_another_command_is_told_the_same_broker_but_no_password(
    words: list[str], told: str
) -> None:
    @click.command()
    @click.option("--url")
    def tells(url: str | None) -> None:
        click.echo(same_broker(resolve("redis://u:secret@h" if "secret" in str(url) else None)))

    assert CliRunner().invoke(tells, words).stdout == f"{told}\n"


# ---- what they print ----


def test_what_strangers_say_does_nothing_to_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say(f"{RED}\nb")
    assert capsys.readouterr().out == "\\u001b[31m\\u009b31m\\u202e\nb\n"
    for show in (print_line, print_json):
        show({RED: RED})
        text = capsys.readouterr().out
        assert text.replace("\n", "").isprintable()
        assert json.loads(text) == {RED: RED}


def test_nothing_is_drawn_over_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for term, drawn in (("xterm", True), ("dumb", False)):
        monkeypatch.setenv("TERM", term)
        assert draws(Console(force_terminal=True)) is drawn
    assert not draws(Console(force_terminal=False))


def test_a_table_that_nobody_looks_at_is_as_wide_as_it_must_be(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(("NAME", "COUNT"), [("x" * 200, 1), ("list[int]", 22)], "none")
    assert capsys.readouterr().out.splitlines() == [
        f"NAME{' ' * 198}COUNT",
        f"{'x' * 200}  1",
        f"list[int]{' ' * 193}22",
    ]


def test_a_table_on_a_terminal_hides_nothing_and_obeys_nothing_that_strangers_wrote(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Console(width=30, force_terminal=True, record=True, color_system=None)
    monkeypatch.setattr(_printing, "console", lambda: screen)
    print_table(("NAME", "TYPE"), [("n" * 50, "list[int]"), ("\x1b[31m", "[red]")], "none")
    text = screen.export_text()
    assert text.count("n") == 50 + 1  # the one in "int"
    assert "[red]" in text
    assert "\\u001b[31m" in text


def test_a_table_without_rows_is_a_sentence_beside_the_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(("NAME",), [], "there is nothing")
    assert capsys.readouterr() == ("", "there is nothing\n")


def test_a_table_has_its_columns_below_each_other_whatever_the_letters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(("NAME", "N"), [("\u4e2d\u6587", 1), ("abcd", 2)], "none")
    assert capsys.readouterr().out.splitlines()[1:] == ["\u4e2d\u6587  1", "abcd  2"]
