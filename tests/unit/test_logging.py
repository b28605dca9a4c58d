"""Importing commlib, and using it, leaves the host program's logging and warnings as they were."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from typing import Any

import pytest

import commlib
from brokers import RedisServer

MODULES = [module.name for module in pkgutil.walk_packages(commlib.__path__, "commlib.")]

LOOK = """
import json, logging, os, sys, threading, warnings

def look():
    root = logging.getLogger()
    return {
        "root": (root.level, root.disabled, root.propagate, list(map(repr, root.handlers))),
        "filters": list(map(repr, root.filters)),
        "classes": (repr(logging.getLoggerClass()), repr(logging.getLogRecordFactory())),
        "disabled": root.manager.disable,
        "module": (logging.raiseExceptions, repr(logging.lastResort), logging.logThreads),
        "levels": sorted(logging._levelToName.items()),
        "others": sorted(
            (name, logger.level, logger.propagate, len(logger.handlers))
            for name, logger in logging.Logger.manager.loggerDict.items()
            if isinstance(logger, logging.Logger) and not name.startswith("commlib")
            and (logger.level or logger.handlers or not logger.propagate)
        ),
        "showwarning": repr(warnings.showwarning),
        "warnings": list(map(repr, warnings.filters)),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "sockets": sorted(kinds()),
        "excepthooks": (repr(sys.excepthook), repr(threading.excepthook)),
    }

def kinds():
    for number in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []:
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if target.startswith("socket:") or "eventpoll" in target:
            yield target
"""


def looks(program: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """How things stand before and after a program that calls ``report()`` when it has done."""
    head = f"{LOOK}\nbefore = look()\ndef report(): print(json.dumps([before, look()]))\n"
    done = subprocess.run(
        [sys.executable, "-c", head + program],
        capture_output=True,
        text=True,
        timeout=45,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    before, after = json.loads(done.stdout)
    return before, after


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith("commlib.cli")])
def test_importing_a_module_changes_nothing_and_starts_nothing(name: str) -> None:
    before, after = looks(f"import {name}\nreport()")
    assert after == before


def test_importing_the_command_line_changes_nothing_and_starts_nothing() -> None:
    names = [name for name in MODULES if name.startswith("commlib.cli")]
    before, after = looks(f"import {', '.join(names)}\nreport()")
    assert after == before


def test_importing_leaves_a_configuration_of_the_programs_own_as_it_is() -> None:
    program = """
import io
logging.basicConfig(level=logging.ERROR, stream=io.StringIO(), format="mine: %(message)s")
logging.captureWarnings(True)
logging.addLevelName(5, "TRACE")
logging.getLogger("mine").setLevel(logging.DEBUG)
warnings.simplefilter("error")
before = look()
import commlib.node, commlib.aio, commlib.transports.redis, commlib.transports.memory
report()
"""
    before, after = looks(program)
    assert after == before
    assert before["root"][0] == 40


def test_no_module_brings_a_driver_or_the_command_line_with_it() -> None:
    program = """
import commlib.node, commlib.aio, commlib.transports, commlib.endpoints
print(json.dumps([[], [name for name in
    ("hiredis", "redis", "valkey", "uvloop", "click", "pydantic", "attrs", "numpy", "zstandard")
    if name in sys.modules]]))
"""
    assert looks(program)[1] == []


def test_a_node_at_work_changes_nothing_for_the_rest_of_the_program(
    redis_server: RedisServer,
) -> None:
    program = f"""
from commlib.node import Node
with Node("quiet", connection_params={redis_server.url!r}) as node:
    node.create_rpc("test_logging.double", lambda number: 2 * number)
    assert node.create_rpc_client("test_logging.double").call(1) == 2
    node.create_subscriber("test_logging", print)
report()
"""
    before, after = looks(program)
    assert after == before


def test_without_a_word_of_the_program_only_warnings_and_worse_are_seen() -> None:
    program = """
from commlib.node import Node
node = Node("loud", connection_params="redis://127.0.0.1:1?connect_timeout=0.2", debug=False)
node.run()
node.stop()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=45, check=False
    )
    assert done.returncode == 0
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
    silent = "import logging\nlogging.getLogger('commlib').setLevel(logging.CRITICAL)\n" + program
    done = subprocess.run(
        [sys.executable, "-c", silent], capture_output=True, text=True, timeout=45, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
