"""SECURITY.md: what it promises is held by tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from security.kinds import COUNTED, KINDS, RAISES, REDIS_COMMANDS, SILENT

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf8")
PROOFS = sorted(set(re.findall(r"`(tests/\S+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("file", "test"), PROOFS)
def test_each_test_that_is_named_is_there(file: str, test: str) -> None:
    assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(encoding="utf8"), re.M)


def test_every_promise_is_looked_for() -> None:
    assert len(re.findall(r"`tests/\S+\.py::\w+`", PAGE)) == PAGE.count(".py::") >= 30


def test_the_rights_for_redis_are_those_that_are_tried() -> None:
    assert REDIS_COMMANDS in PAGE


def test_the_table_of_refusals_is_the_one_that_is_tried() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.splitlines()
        if re.match(r"\| \w", line) and line.count("|") == 6
    ]
    names = {"the same at QoS 1": "publish at QoS 1"}
    for verbs, *cells in rows:
        for verb in verbs.split(", "):
            for kind, cell in zip(("redis", "mqtt", "mqtt311", "amqp"), cells, strict=True):
                if cell == "(none)":
                    assert names.get(verb, verb) not in KINDS[kind].refusals
                    continue
                said = RAISES if "AuthError" in cell else COUNTED if "counted" in cell else SILENT
                found = KINDS[kind].refusals[names.get(verb, verb)]
                assert said == found, (verb, kind)
    assert len(rows) == 7, "without its head, whose first cell is empty"
