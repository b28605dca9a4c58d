"""The seed's loggers: they log, also from afar, and leave all other logging as it is."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collected import Collected
from commlib import aio, logger
from commlib._packet import Packet
from commlib.exceptions import SerializationError
from commlib.logger import LOG_FORMAT, Logger, RemoteLogger
from commlib.pubsub import Publisher, Subscriber


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


# ---- from afar ----


class Outlet:
    """What a ``RemoteLogger`` knows of its publisher; it takes something when it is ``open``."""

    def __init__(self) -> None:
        self.topic = "robot.logs"
        self.open = True
        self.on_offer: Any = lambda: None
        self.lines: list[str] = []

    def pack(self, msg: dict[str, str], topic: str) -> Packet:
        if "too big" in msg["msg"]:
            raise SerializationError("too big")
        assert topic == self.topic
        assert msg.keys() == {"msg"}
        return Packet(msg["msg"].encode())

    def offer(self, packet: Packet, topic: str) -> bool:
        self.on_offer()
        if self.open:
            self.lines.append(packet.payload.decode())
        return self.open

    @property
    def texts(self) -> list[str]:
        """What was logged, without when, where and how bad."""
        return [line.partition(" - ")[2] for line in self.lines]


@pytest.mark.parametrize(
    "make",
    [
        lambda: "redis://:secret@host",
        lambda: None,
        lambda: aio.MPublisher(conn_params="memory://robot"),
    ],
    ids=["url", "none", "many topics"],
)
def test_what_is_no_publisher_of_one_topic_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(
        TypeError, match=r"is a Publisher, such as node\.create_publisher"
    ) as caught:
        RemoteLogger("all.logs", make())
    assert "secret" not in str(caught.value)


@pytest.fixture
def outlet() -> Outlet:
    return Outlet()


@pytest.fixture
def remote(outlet: Outlet, namespace: str) -> RemoteLogger:
    """A handler that publishes what a logger of this test's own is told."""
    publisher: Any = outlet
    handler = RemoteLogger("robot", publisher)
    log = logging.getLogger(namespace)
    log.setLevel(logging.DEBUG)
    log.addHandler(handler)
    return handler


@pytest.fixture
def log(remote: RemoteLogger, namespace: str) -> logging.Logger:
    return logging.getLogger(namespace)


def test_a_record_tells_when_where_how_bad_and_what(log: logging.Logger, outlet: Outlet) -> None:
    record = log.makeRecord(log.name, logging.WARNING, "f", 1, "battery at %d %%", (9,), None)
    record.created = 1_700_000_000.123
    log.handle(record)
    assert outlet.lines == ["[1700000000123][robot][WARNING] - battery at 9 %"]


def test_a_traceback_goes_along_and_the_formatter_has_its_say(
    log: logging.Logger, remote: RemoteLogger, outlet: Outlet
) -> None:
    try:
        raise ValueError("no such arm")
    except ValueError:
        log.exception("failed")
    assert outlet.texts[0].startswith("failed\nTraceback")
    assert outlet.texts[0].endswith("ValueError: no such arm")
    remote.setFormatter(logging.Formatter("%(levelno)d:%(message)s"))
    log.info("x")
    assert outlet.texts[1] == "20:x"


def test_a_level_lets_through_what_is_as_bad(outlet: Outlet, namespace: str) -> None:
    publisher: Any = outlet
    log = logging.getLogger(namespace)
    log.setLevel(logging.DEBUG)
    log.addHandler(RemoteLogger("robot", publisher, "ERROR"))
    log.warning("no")
    log.error("yes")
    assert outlet.texts == ["yes"]


@pytest.mark.parametrize(
    ("name", "is_sent"),
    [
        ("commlib", False),
        ("commlib.session", False),
        ("commlib.node", False),
        ("commlib.node.robot", True),
        ("commlibrary", True),
        ("robot.arm", True),
    ],
)
def test_records_of_the_library_itself_are_left_out(
    remote: RemoteLogger, outlet: Outlet, name: str, is_sent: bool
) -> None:
    remote.handle(logging.LogRecord(name, logging.ERROR, "f", 1, "text", None, None))
    assert outlet.texts == ["text"] * is_sent
    assert remote.dropped == 0


def test_what_is_logged_while_a_record_is_sent_does_not_go_round_in_circles(
    log: logging.Logger, outlet: Outlet
) -> None:
    outlet.on_offer = lambda: log.error("while it is sent")
    log.error("once")
    log.error("twice")
    assert outlet.texts == ["once", "twice"]


def test_a_formatter_that_logs_does_not_go_round_in_circles(
    log: logging.Logger, remote: RemoteLogger, outlet: Outlet
) -> None:
    class Talkative(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            log.debug("formatting")
            return super().format(record)

    remote.setFormatter(Talkative())
    log.error("once")
    assert outlet.texts == ["once"]


def test_records_wait_for_the_connection_in_order_up_to_a_bound(
    log: logging.Logger, remote: RemoteLogger, outlet: Outlet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger, "MAX_KEPT", 3)
    outlet.open = False
    for number in range(5):
        log.error(number)
    assert (outlet.texts, remote.dropped) == ([], 2)
    outlet.open = True
    log.error(5)
    assert (outlet.texts, remote.dropped) == (["3", "4", "5"], 3)
    outlet.open = False
    log.error(6)
    outlet.open = True
    remote.flush()
    assert outlet.texts[3:] == ["6"]


def test_what_waits_is_dropped_and_counted_when_there_will_be_no_connection(
    log: logging.Logger, remote: RemoteLogger, outlet: Outlet
) -> None:
    outlet.open = False
    for number in range(3):
        log.error(number)
    remote.drop_kept()
    assert remote.dropped == 3
    outlet.open = True
    log.error(3)
    assert (outlet.texts, remote.dropped) == (["3"], 3)


def test_more_than_so_many_a_second_are_dropped_and_counted(
    log: logging.Logger, remote: RemoteLogger, outlet: Outlet, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(logger, "MAX_RATE", 3)
    monkeypatch.setattr(logger.time, "monotonic", lambda: now[0])
    for number in range(5):
        log.error(number)
    assert (outlet.texts, remote.dropped) == (["0", "1", "2"], 2)
    now[0] += 1
    log.error("a second later")
    assert (outlet.texts[3:], remote.dropped) == (["a second later"], 2)


def test_what_cannot_be_sent_is_dropped_and_does_not_hold_up_the_others(
    log: logging.Logger, remote: RemoteLogger, outlet: Outlet
) -> None:
    log.error("too big")
    log.error("fits")
    assert (outlet.texts, remote.dropped) == (["fits"], 1)


def test_a_mistake_of_the_program_is_told_as_every_handler_tells_it(
    log: logging.Logger,
    remote: RemoteLogger,
    outlet: Outlet,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.propagate = False
    try:
        log.error("%d", "no number")
    finally:
        log.propagate = True
    assert "--- Logging error ---" in capsys.readouterr().err
    log.error("next")
    assert (outlet.texts, remote.dropped) == (["next"], 1)


def test_any_text_can_be_sent_and_none_is_endless(log: logging.Logger, outlet: Outlet) -> None:
    log.error("a file called \udcff")
    log.error("x" * 1_000_000)
    assert outlet.texts == ["a file called ?", "x" * logger.MAX_TEXT]


def test_threads_that_log_at_once_lose_nothing(
    log: logging.Logger, remote: RemoteLogger, outlet: Outlet
) -> None:
    def work(number: int) -> None:
        for n in range(100):
            log.error(f"{number}.{n}")
            remote.flush()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outlet.texts) == sorted(
        f"{number}.{n}" for number in range(8) for n in range(100)
    )
    assert remote.dropped == 0


@pytest.mark.parametrize(
    ("setup", "seen"),
    [
        ("", "seen"),
        ("log.addHandler(RemoteLogger('other', publisher))", "seen"),
        ("logging.basicConfig(format='mine: %(message)s')", "mine: seen"),
        ("log.addHandler(logging.NullHandler())", ""),
        ("logging.lastResort = None", ""),
    ],
    ids=["nothing", "two of them", "a configuration", "a handler", "silence"],
)
def test_what_python_shows_is_what_it_shows_without_it(setup: str, seen: str) -> None:
    program = f"""
import logging
from commlib.logger import RemoteLogger
from commlib.pubsub import Publisher
publisher = Publisher("robot.logs", conn_params="memory://robot")
log = logging.getLogger("robot.arm")
{setup}
log.addHandler(RemoteLogger("robot", publisher))
log.info("not seen")
log.warning("seen")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=45, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.strip()) == (0, "", seen)


@pytest.mark.parametrize("policy", ["buffer", "wait", "raise"])
def test_without_a_broker_logging_neither_waits_nor_raises(namespace: str, policy: str) -> None:
    url = f"redis://127.0.0.1:1?offline={policy}&connect_timeout=0.1"
    with Publisher(f"{namespace}.logs", conn_params=url) as publisher:
        remote = RemoteLogger("robot", publisher)
        log = logging.getLogger(namespace)
        log.addHandler(remote)
        for number in range(2 * logger.MAX_KEPT):
            log.error(number)
        assert remote.dropped >= logger.MAX_KEPT
        assert publisher.stats.sent == 0
    log.error("after stop()")


@pytest.mark.parametrize("face", ["sync", "aio"])
def test_a_publisher_of_either_face_will_do(namespace: str, face: str) -> None:
    url, got = f"memory://test_logger_{face}", Collected()
    with (
        Subscriber("robot.logs", got, conn_params=url),
        Publisher("robot.logs", conn_params=url) as publisher,
    ):
        core = publisher.core
        assert isinstance(core, aio.Publisher)
        log = logging.getLogger(namespace)
        log.addHandler(RemoteLogger("robot", core if face == "aio" else publisher))
        log.error("heard")
        assert got.first["msg"].endswith("[robot][ERROR] - heard")
