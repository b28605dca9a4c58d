"""What counts instructions, as far as it needs no valgrind; and that its record is complete."""

from __future__ import annotations

from pathlib import Path as File

import pytest
from bench.instructions import callgrind, record
from bench.instructions.paths import EVERYWHERE, PATHS, Path
from bench.instructions.peer import PEERS
from bench.instructions.record import Count, Counts, Record, Row
from bench.instructions.survey import cells_of
from bench.roster import ROOT

RECORDED = ROOT / "bench" / "results" / "instructions.json"

PART = b"""# callgrind format
version: 1
creator: callgrind-3.19.0
pid: 27249
cmd:  python -m bench.instructions.child publish
part: 2


desc: I1 cache:
desc: Trigger: --dump-before=getppid

positions: line
events: Ir
summary: 24701191


ob=(3) /lib/x86_64-linux-gnu/libc.so.6
fl=(1) ???
fn=(2) getppid
0 totals
totals: 24701191
"""

THING = Path("a", "publish", "text", 10, brokers=("redis", "memory"))
OTHER = Path("b", "receive", "text", 10, brokers=("redis",))


def recorded(counts: Counts, **made_with: str) -> Record:
    return Record(made_with, {"system": "Linux"}, counts)


# ---- callgrind ----


def test_the_total_of_a_part_is_found_among_its_functions() -> None:
    assert callgrind.total(PART) == 24_701_191


@pytest.mark.parametrize("part", [b"", b"summary: 12\n", PART + PART])
def test_a_part_without_one_total_is_refused(part: bytes) -> None:
    with pytest.raises(ValueError, match="totals"):
        callgrind.total(part)


def test_every_second_part_is_a_lap() -> None:
    start, between = 500, 7
    assert callgrind.laps({1: start, 2: 10, 3: between, 4: 11, 5: between, 6: 12}) == [10, 11, 12]


def test_numbers_of_parts_are_compared_as_numbers() -> None:
    assert callgrind.laps({number: number for number in range(12, 0, -1)}) == [2, 4, 6, 8, 10, 12]


def test_a_missing_part_is_refused() -> None:
    with pytest.raises(ValueError, match="missing"):
        callgrind.laps({1: 500, 2: 10, 4: 11})


def test_parts_are_read_from_the_folder_that_callgrind_was_told(tmp_path: File) -> None:
    (command,) = (word for word in callgrind.command(tmp_path, ["python"]) if "out-file" in word)
    out = File(command.partition("=")[2])
    out.write_bytes(b"totals: 1\n")  # what came behind the last mark
    for number, total in enumerate((500, 10, 7, 11), 1):
        out.with_name(f"{out.name}.{number}").write_bytes(b"events: Ir\ntotals: %d\n" % total)
    assert callgrind.read(tmp_path) == [10, 11]


# ---- comparing ----


def test_a_count_is_the_middle_one_of_its_rounds() -> None:
    assert record.counted([1020.0, 1000.0, 990.0]) == Count(1000, 0.03)
    assert record.counted([1000.4]) == Count(1000, 0.0)


@pytest.mark.parametrize(
    ("now", "then", "grown", "shrunk", "says"),
    [
        (1000, Count(1000), False, False, "+0.0 %"),
        (1029, Count(1000), False, False, "+2.9 %"),
        (1031, Count(1000), True, False, "+3.1 %  MORE"),
        (1031, Count(1000, 0.02), False, False, "+3.1 %"),
        (1051, Count(1000, 0.02), True, False, "+5.1 %  MORE"),
        (960, Count(1000), False, True, "-4.0 %  less"),
        (960, Count(1000, 0.02), False, False, "-4.0 %"),
        (1000, None, False, False, "new"),
    ],
)
def test_a_count_has_grown_when_it_is_beyond_what_it_varies_by(
    now: int, then: Count | None, grown: bool, shrunk: bool, says: str
) -> None:
    row = Row("publish", "redis", now, then)
    assert (row.has_grown, row.has_shrunk) == (grown, shrunk)
    assert str(row).endswith(says)


def test_a_row_tells_both_counts() -> None:
    line = str(Row("publish", "redis", 32_100, Count(32_000)))
    assert line.split() == ["publish", "redis", "32,100", "32,000", "+0.3", "%"]
    assert len(line) == len(record.HEADING)


def test_what_was_counted_is_compared_with_the_same_path_on_the_same_broker() -> None:
    now = {"a": {"redis": Count(1), "mqtt": Count(2)}, "b": {"redis": Count(3)}}
    rows = record.compared(now, {"a": {"mqtt": Count(20), "amqp": Count(30)}})
    assert rows == [
        Row("a", "redis", 1, None),
        Row("a", "mqtt", 2, Count(20)),
        Row("b", "redis", 3, None),
    ]


def test_other_builds_are_named() -> None:
    now = {"python": "CPython 3.12", "libc": "glibc", "uvloop": ""}
    then = {"python": "CPython 3.11", "libc": "glibc", "uvloop": "0.22", "redis broker": "Redis 7"}
    assert record.differences(now, then) == [
        "python is CPython 3.12, not CPython 3.11",
        "uvloop is none, not 0.22",
    ]


def test_what_was_not_counted_again_stays_as_it_was_recorded() -> None:
    old = recorded(
        {"b": {"redis": Count(3)}, "a": {"memory": Count(2), "redis": Count(1)}, "gone": {}},
        python="3",
        mqtt="4",
    )
    new = recorded({"a": {"redis": Count(10)}}, python="3")
    merged = record.merged(old, new, [THING, OTHER])
    assert merged == recorded(
        {"a": {"redis": Count(10), "memory": Count(2)}, "b": {"redis": Count(3)}},
        python="3",
        mqtt="4",
    )
    assert list(merged.counts) == ["a", "b"]
    assert list(merged.counts["a"]) == ["redis", "memory"]


def test_paths_that_nobody_has_counted_are_named() -> None:
    assert record.missing({"a": {"memory": Count(1)}}, [THING, OTHER]) == [
        "a on redis",
        "b on redis",
    ]


# ---- writing ----


def test_what_is_written_is_read_again() -> None:
    there = recorded({"a": {"redis": Count(1, 0.01), "memory": Count(2)}}, python="CPython 3")
    assert record.read(record.write(there)) == there


def test_a_count_that_changes_changes_few_lines() -> None:
    def lines(count: int) -> list[bytes]:
        return record.write(recorded({"a": {"redis": Count(count), "memory": Count(2)}})).split(
            b"\n"
        )

    assert sum(old != new for old, new in zip(lines(1), lines(3), strict=True)) == 1


def test_the_document_has_a_line_for_each_path() -> None:
    there = recorded(
        {"a": {"redis": Count(1234, 0.012), "memory": Count(2)}, "b": {"redis": Count(5)}},
        python="CPython 3",
    )
    text = record.document(there, [THING, OTHER])
    assert f"| path | {' | '.join(EVERYWHERE)} |" in text
    assert "| a | 1,234 | – | – | 2 |" in text
    assert "| b | 5 | – | – | – |" in text
    assert "1.2 % at most" in text
    assert "python CPython 3, system Linux" in text


# ---- the paths ----


def test_a_lap_is_made_of_whole_bursts_on_known_brokers() -> None:
    for path in PATHS:
        assert path.count % path.burst == 0, path.name
        assert set(path.brokers) <= set(EVERYWHERE), path.name
    assert len({path.name for path in PATHS}) == len(PATHS)


def test_whoever_needs_somebody_at_the_other_end_of_a_broker_has_a_peer() -> None:
    assert {path.role for path in PATHS} - set(PEERS) == {"encode", "decode"}


def test_cells_are_the_paths_on_the_brokers_that_they_have() -> None:
    assert cells_of([THING, OTHER], EVERYWHERE) == [
        (THING, "redis"),
        (THING, "memory"),
        (OTHER, "redis"),
    ]
    assert cells_of([OTHER], ["mqtt"]) == []


def test_the_record_names_exactly_the_paths_that_there_are() -> None:
    there = record.read(RECORDED.read_bytes())
    assert {name: list(by_broker) for name, by_broker in there.counts.items()} == {
        path.name: list(path.brokers) for path in PATHS
    }
    for by_broker in there.counts.values():
        assert all(count.instructions > 0 for count in by_broker.values())


def test_the_document_is_that_of_the_record() -> None:
    there = record.read(RECORDED.read_bytes())
    assert RECORDED.with_suffix(".md").read_text() == record.document(there, PATHS)
