"""What the README and the page of figures show is what the newest record has."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from bench import front, gallery, report, shortfalls
from bench.markers import Part
from bench.record import Record, newest
from bench.results import Result, Results
from bench.targets import FIGURES, TARGETS, Target, itself, of_client, of_limit

MAKE_IT = "make it anew: make pages"


@pytest.fixture(scope="module")
def record() -> Record:
    return Record.read(newest())


def test_the_table_of_the_readme_is_what_the_newest_record_gives(record: Record) -> None:
    assert front.PART.read() == front.text(record), MAKE_IT


def test_the_page_of_all_figures_is_what_the_newest_record_gives(record: Record) -> None:
    assert report.PAGE.read_text() == report.document(record), MAKE_IT


def test_the_docs_have_all_pictures_and_each_of_them_is_in_the_list() -> None:
    assert gallery.PART.read() == gallery.text(), MAKE_IT
    assert set(gallery.FOLDER.iterdir()) == {picture.file for picture in gallery.PICTURES}


def test_the_docs_tell_what_falls_short_in_the_newest_record_and_why(record: Record) -> None:
    assert shortfalls.PART.read() == shortfalls.text(record), MAKE_IT
    missed = {
        (results.broker, figure.measurement, figure.key)
        for results in record.brokers
        for figure, _ in shortfalls.missed(results)
    }
    assert missed <= shortfalls.REASONS.keys(), "targets that are missed without a reason"


def test_the_pictures_are_of_the_newest_record() -> None:
    stamps = {gallery.stamp(file) for file in (newest(), gallery.SCALE) if file.exists()}
    for picture in gallery.FOLDER.iterdir():
        assert any(stamp in picture.read_text() for stamp in stamps), f"{picture}: {MAKE_IT}"


def test_every_figure_of_the_record_is_on_the_page_once(record: Record) -> None:
    for results in record.brokers:
        lines = [line.split(" | ")[0] for line in report.tables(results).splitlines()]
        titles = [figure.title for figure in report.measured_figures(results)]
        assert [lines.count(f"| {title}") for title in titles] == [1] * len(titles)


def test_every_target_is_one_of_a_figure_that_is_shown() -> None:
    shown = {(figure.measurement, figure.key, figure.ours) for figure in FIGURES}
    assert {key for targets in TARGETS.values() for key in targets} <= shown


def test_the_table_is_short_and_has_three_columns_for_each_broker(record: Record) -> None:
    lines = [line for line in front.text(record).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {2 + 3 * len(record.brokers)}
    assert len(lines) <= 13


def test_a_record_that_is_written_and_read_is_the_same(record: Record, tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    record.write(one)
    Record.read(one).write(two)
    assert one.read_text() == two.read_text()
    assert Record.read(one) == Record.read(two)
    assert front.text(Record.read(one)) == front.text(record)


def test_the_newest_record_is_the_one_of_the_last_date(record: Record, tmp_path: Path) -> None:
    for file, date in (("2026-b.json", "2026-01-02"), ("2026-a.json", "2026-01-02 03:04")):
        dataclasses.replace(record, date=date).write(tmp_path / file)
    (tmp_path / "scale.json").write_text("{}")
    assert newest(tmp_path).name == "2026-a.json"


def test_a_folder_without_records_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make bench records one"):
        newest(tmp_path)


def test_only_what_is_between_the_markers_is_exchanged(tmp_path: Path) -> None:
    part = Part(tmp_path / "page.md", "me")
    page = f"before\n{part.begin}\n{{}}{part.end}\nafter\n"
    part.file.write_text(page.format("old\n"))
    assert part.read() == "old\n"
    part.write("new\n")
    assert part.file.read_text() == page.format("new\n")


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    part = Part(tmp_path / "page.md", "me")
    part.file.write_text("no markers\n")
    with pytest.raises(ValueError, match="has not both"):
        part.write("new")
    assert part.file.read_text() == "no markers\n"


def test_what_was_lost_or_came_twice_stands_beside_the_rate() -> None:
    bad = Result(
        rounds=[
            {"rate": 1e6, "lost": 0, "duplicates": 7},
            {"rate": 2e6, "lost": 3, "duplicates": 0},
        ]
    )
    good = Result(rounds=[{"rate": 1e6, "lost": 0, "duplicates": 0}])
    results = Results("redis", "Redis", {"receive": {"ours": bad, "limit": good}})
    line = next(text for text in report.tables(results).splitlines() if "receive, mess" in text)
    assert "| 1 500 000 (3 lost, 7 twice) |" in line
    assert "| 1 000 000 |" in line


def test_how_many_rounds_a_figure_is_of_stands_beside_it_if_others_failed() -> None:
    some = Result(rounds=[{"rate": 1e6, "cpu_us": 2}, {"rate": 1e6, "cpu_us": 2}])
    some.fail("it ended early")
    results = Results("redis", "Redis", {"publish": {"ours": some}})
    lines = [line.split(" | ") for line in report.tables(results).splitlines()]
    cells = [line[1] for line in lines if line[0].startswith("| publish")]
    assert cells == ["1 000 000 (2 of 3 rounds)", "2 (2 of 3 rounds)"]


def test_the_longest_of_all_rounds_counts_and_of_percentiles_the_median() -> None:
    keys = ("p50_us", "max_us", "fast_max_us")
    result = Result(rounds=[dict.fromkeys(keys, us) for us in (1, 9, 2)])
    assert [result.value(key) for key in keys] == [2, 9, 9]


def test_the_best_client_may_be_the_limit_and_a_peer_is_none() -> None:
    figure = next(one for one in FIGURES if one.measurement == "blob")
    rates = {"ours": 80, "limit": 90, "redis-py": 100, "FastStream": 500}
    results = Results("redis", "Redis", {"blob": {}})
    for name, rate in rates.items():
        results.of("blob", name).rounds.append({"mb_per_s": rate})
    assert results.is_met(figure, of_client(0.8), "ours")
    assert not results.is_met(figure, of_client(0.81), "ours")
    results.of("blob", "limit").rounds[0]["mb_per_s"] = 160
    assert results.ratio(figure, "ours", "client") == 0.5
    line = next(text for text in report.tables(results).splitlines() if "| 1 MB" in text)
    assert line.endswith("| ≥ 0.8 × best client | **no** |")


@pytest.mark.parametrize(
    ("target", "verdict"),
    [(itself(100), "with uvloop"), (of_limit(1), "**no**"), (of_client(1), "**no**")],
)
def test_uvloop_excuses_only_what_misses_a_bound_of_its_own(
    target: Target, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TARGETS["redis"], ("receive", "rate", "ours"), (target,))
    results = Results("redis", "Redis")
    for name, rate in (("ours", 50), ("ours, uvloop", 100), ("limit", 100)):
        results.of("receive", name).rounds.append({"rate": rate})
    line = next(text for text in report.tables(results).splitlines() if "receive, mess" in text)
    assert line.endswith(f" | {verdict} |")


def test_the_prose_has_the_ratios_for_receivers_alone_and_to_the_client_with_pipelines(
    record: Record,
) -> None:
    rates = {
        "publish": {"ours": 50, "redis-py, asyncio": 20, "redis-py": 40},
        "burst": {"ours": 60, "FastStream": 5, "redis-py": 40},
    }
    results = Results("redis", "Redis")
    for measurement, of in rates.items():
        for name, rate in of.items():
            results.of(measurement, name).rounds.append({"rate": rate})
    words = " ".join(front.text(dataclasses.replace(record, brokers=(results,))).split())
    assert "ours receives it 12 times as fast as the best peer" in words
    assert "by hand) ours publishes 2.5 times as many" in words


def test_who_cannot_tell_what_came_twice_is_named() -> None:
    figures = {"rate": 1e6, "lost": 0}
    counting, other = Result(rounds=[figures | {"duplicates": 0}]), Result(rounds=[figures])
    results = Results("mqtt", "Mosquitto", {"receive": {"ours": counting, "limit": other}})
    assert "* limit: what came twice (not counted)" in report.gaps(results)
