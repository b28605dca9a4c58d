"""The seed's logger: it logs, and leaves all other logging as it is."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commlib.logger import LOG_FORMAT, Logger


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a logger of this test's own, which is put back in the end."""
    name = f"test_logger.{request.node.name}"
    yield name
    logger = logging.getLogger(name)
    logger.setLevel(logging.NOTSET)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


@pytest.mark.parametrize(
    ("method", "level"),
    [
        ("debug", logging.DEBUG),
        ("info", logging.INFO),
        ("warn", logging.WARNING),
        ("warning", logging.WARNING),
        ("error", logging.ERROR),
    ],
)
def test_a_message_is_logged_as_it_is_with_the_line_of_the_program(
    namespace: str, caplog: pytest.LogCaptureFixture, method: str, level: int
) -> None:
    getattr(Logger(namespace, debug=True), method)("100 % done")

    (record,) = caplog.records
    assert (record.name, record.levelno) == (namespace, level)
    assert record.getMessage() == "100 % done"
    assert record.filename == "test_logger.py"
    assert record.funcName.startswith("test_a_message")
    assert not record.exc_info


@pytest.mark.parametrize("method", ["debug", "info", "warn", "warning", "error"])
def test_the_error_that_is_handled_is_logged_if_wanted(
    namespace: str, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    try:
        raise ValueError("no such arm")
    except ValueError:
        getattr(Logger(namespace, debug=True), method)("failed", exc_info=True)
    assert "no such arm" in caplog.text


def test_it_is_pythons_logger_of_that_name(namespace: str) -> None:
    logger = Logger(namespace)
    assert logger.namespace == namespace
    assert logger.std_logger is logging.getLogger(namespace)
    assert logger.log_file is None


# ---- levels ----


def test_without_debug_the_level_stays_as_the_program_has_set_it(namespace: str) -> None:
    logging.getLogger(namespace).setLevel(logging.ERROR)
    assert Logger(namespace).std_logger.level == logging.ERROR


def test_debug_is_switched_on_and_back_to_what_it_was(namespace: str) -> None:
    logging.getLogger(namespace).setLevel(logging.ERROR)
    logger = Logger(namespace, debug=True)
    assert logger.std_logger.level == logging.DEBUG
    logger.set_debug(True)
    logger.set_debug(False)
    assert logger.std_logger.level == logging.ERROR
    logger.set_debug(False)
    assert logger.std_logger.level == logging.ERROR


def test_another_logger_of_the_same_name_can_switch_debug_off(namespace: str) -> None:
    Logger(namespace, debug=True)
    other = Logger(namespace)
    other.set_debug(False)
    assert other.std_logger.level == logging.NOTSET


def test_debug_is_a_bool(namespace: str) -> None:
    wrong: Any = 1
    with pytest.raises(TypeError, match="debug is True or False"):
        Logger(namespace).set_debug(wrong)


# ---- files ----


def test_what_is_let_through_is_written_to_the_file_as_well(
    namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "robot.log"
    path.write_text("before\n")
    logger = Logger(namespace, debug=True, log_file=path)
    logger.info("ρομπότ")

    before, line = path.read_text(encoding="utf-8").splitlines()
    assert before == "before"
    assert "INFO" in line
    assert namespace in line
    assert line.endswith(": ρομπότ")
    assert [record.getMessage() for record in caplog.records] == ["ρομπότ"]
    assert logging.Formatter(LOG_FORMAT).format(caplog.records[0]) == line
    assert logger.log_file == path


def test_a_line_is_written_once_however_many_loggers_are_made(
    namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = [
        threading.Thread(target=Logger, args=(namespace, False, log_file))
        for log_file in ("robot.log", str(tmp_path / "robot.log"), "./robot.log") * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Logger(namespace, log_file="other.log").error("once")

    for name in ("robot.log", "other.log"):
        assert len((tmp_path / name).read_text().splitlines()) == 1


def test_a_file_that_cannot_be_written_is_an_error_at_once(namespace: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        Logger(namespace, log_file=tmp_path / "missing" / "robot.log")


# ---- the logging of the program ----


@pytest.mark.parametrize("name", ["", "root"])
def test_the_root_logger_is_refused(name: str) -> None:
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    with pytest.raises(ValueError, match="the root logger"):
        Logger(name, debug=True)
    assert (root.level, list(root.handlers)) == before


def test_making_a_logger_changes_nothing_else() -> None:
    program = """
import logging
def look():
    root = logging.getLogger()
    return (root.level, root.handlers, dict(logging._levelToName), root.manager.disable,
            logging.getLoggerClass(), logging.getLogger("mine").level, logging.lastResort)
before = look()
from commlib.logger import Logger
logger = Logger("robot", debug=True)
Logger("robot.arm")
assert look() == before
logger.info("not seen")
logger.error("seen")
assert look() == before
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=45, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "seen\n")
