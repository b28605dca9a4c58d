"""What `make scale` takes for too much, and says of it, on figures that are made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from bench.scale import __main__ as command
from bench.scale import collector, page
from bench.scale.exceptions import KNOWN, Known
from bench.scale.judgement import judge
from bench.scale.promise import growths, too_much
from bench.scale.record import Record, medians
from bench.scale.roles import MORE
from bench.scale.runs import RUNS, Figures
from bench.scale.series import DRAWN, KINDS, Cost, Kind, Series, series

DECADES = (1, 10, 100, 1_000, 10_000)
MACHINE: dict[str, object] = {
    "cores": 2,
    "processor": "Abacus",
    "memory_mb": 1,
    "system": "Linux 6",
    "python": "CPython 3.11",
    "date": "2026-01-02",
}


def made(run: str, figure: str, points: Mapping[int, float], broker: str = "redis") -> Series:
    """One series, of figures as a child reports them."""
    kind = next(kind for kind in KINDS if (kind.run, kind.figure) == (run, figure))
    runs = {run: {many: _complete(kind, value) for many, value in points.items()}}
    return next(one for one in series(broker, runs) if one.figure == figure)


def _complete(kind: Kind, value: float) -> Figures:
    """All figures of the run; the other ones are nothing."""
    others = {other.figure: 0.0 for other in KINDS if other.run == kind.run}
    return others | {kind.figure: value}


def of(cost: Callable[[int], float], points: tuple[int, ...] = DECADES) -> dict[int, float]:
    """What so many cost."""
    return {many: cost(many) for many in points}


# -- what is too much -----------------------------------------------------------------------------


@pytest.mark.parametrize("figure", ["make_s", "make_cpu_s", "rss_kb"])
def test_all_of_them_may_cost_twice_as_much_for_twice_as_many(figure: str) -> None:
    assert not too_much([made("topics", figure, of(lambda many: many * 2048.0))])


@pytest.mark.parametrize("figure", ["make_s", "make_cpu_s", "rss_kb"])
def test_all_of_them_may_not_cost_half_as_much_again(figure: str) -> None:
    found = too_much([made("topics", figure, of(lambda many: 2048 * many**1.5))])
    assert [(growth.low, growth.high) for growth in found] == [
        (1, 10),
        (10, 100),
        (100, 1_000),
        (1_000, 10_000),
    ]
    assert found[0].doubling == pytest.approx(2**1.5)


@pytest.mark.parametrize(
    ("run", "figure"),
    [(kind.run, kind.figure) for kind in KINDS if kind.cost is Cost.EACH],
)
def test_one_message_or_one_more_that_costs_as_much_for_twice_as_many_is_fine(
    run: str, figure: str
) -> None:
    assert not too_much([made(run, figure, of(lambda many: 50.0))])


@pytest.mark.parametrize(
    ("run", "figure"),
    [(kind.run, kind.figure) for kind in KINDS if kind.cost is Cost.EACH],
)
def test_one_message_or_one_more_may_not_cost_half_as_much_again_for_twice_as_many(
    run: str, figure: str
) -> None:
    found = too_much([made(run, figure, of(lambda many: 50 * 1.5 ** (many.bit_length())))])
    assert (1_000, 10_000) in [(growth.low, growth.high) for growth in found]


def test_what_is_within_the_noise_is_no_fault() -> None:
    noisy = {1: 50.0, 10: 90.0, 100: 60.0, 1_000: 110.0, 10_000: 70.0}
    assert not too_much([made("topics", "one_busy_us", noisy)])


def test_growth_is_seen_in_one_decade_though_the_next_is_level() -> None:
    points = {1: 5.0, 10: 5.0, 100: 50.0, 1_000: 50.0, 10_000: 50.0}
    (found,) = too_much([made("topics", "one_busy_us", points)])
    assert (found.low, found.high) == (10, 100)


def test_the_last_span_is_judged_though_it_ends_before_the_next_decade() -> None:
    points = {1: 5.0, 10: 5.0, 100: 5.0, 1_000: 5.0, 2_000: 10.0}
    (found,) = too_much([made("nodes", "cpu_us", points)])
    assert (found.low, found.high, found.doubling) == (1_000, 2_000, 2.0)


def test_points_between_decades_are_no_spans_of_their_own() -> None:
    one = made("topics", "one_busy_us", of(lambda many: 5.0, (1, 100, 1_000, 2_000, 10_000)))
    assert one.spans() == [(1, 100), (100, 1_000), (1_000, 10_000)]


def test_the_step_from_one_to_some_is_shown_and_not_judged_where_it_has_a_reason() -> None:
    points = {1: 5.0, 10: 50.0, 100: 50.0}
    with_reason = made("topics", "all_busy_us", points)
    without = made("topics", "one_busy_us", points)
    assert [growth.is_step for growth in growths(with_reason)] == [True, False]
    assert not too_much([with_reason])
    assert [(growth.low, growth.high) for growth in too_much([without])] == [(1, 10)]


def test_what_is_too_little_to_be_told_from_nothing_is_not_judged() -> None:
    assert not list(growths(made("topics", "make_s", {1: 1e-6, 10: 1e-3})))


def test_growth_from_nothing_to_much_is_not_passed_over() -> None:
    assert too_much([made("topics", "rss_kb", {1: 0.0, 10: 1024 * 1024.0})])


# -- known exceptions -----------------------------------------------------------------------------

PATTERNS = Known(
    "patterns",
    "they are compared",
    runs=frozenset({"patterns"}),
    figures=frozenset({"one_busy_us"}),
    since=100,
    at_most=1.6,
    brokers=frozenset({"redis"}),
)
COLLECTOR = Known(
    "collector",
    "it looks at all objects",
    runs=frozenset({"topics"}),
    figures=frozenset({"make_cpu_s"}),
    since=1_000,
    at_most=3.0,
    shown_by="topics_uncollected",
)


def patterns(last: float, broker: str = "redis") -> Series:
    """The cost of a message with 100, 1000 and 10 000 patterns, of which the last is this."""
    return made("patterns", "one_busy_us", {100: 10.0, 1_000: 10.0, 10_000: last}, broker)


def test_what_is_known_has_its_reason_and_is_no_fault() -> None:
    found = judge([patterns(40.0)], [PATTERNS])
    assert not found.unexplained
    assert [growth.high for growth in found.explained[PATTERNS]] == [10_000]
    assert not found.gone


def test_a_known_exception_explains_only_so_much() -> None:
    found = judge([patterns(100.0)], [PATTERNS])
    assert [growth.high for growth in found.unexplained] == [10_000]
    assert not found.explained
    assert not found.gone


def test_a_known_exception_explains_nothing_on_another_broker_or_before_its_time() -> None:
    assert judge([patterns(40.0, "mqtt")], [PATTERNS]).unexplained
    assert judge([patterns(40.0)], [replace(PATTERNS, since=10_000)]).unexplained


def test_a_known_exception_that_no_longer_occurs_is_named() -> None:
    assert judge([patterns(10.0)], [PATTERNS]).gone == [PATTERNS]


def test_a_known_exception_that_was_not_looked_for_has_not_gone() -> None:
    assert not judge([patterns(10.0, "mqtt")], [PATTERNS]).gone
    assert not judge([made("patterns", "one_busy_us", {1: 5.0, 100: 5.0})], [PATTERNS]).gone


GROWING = {100: 0.005, 1_000: 0.05, 10_000: 0.8}
LEVEL = {100: 0.005, 1_000: 0.05, 10_000: 0.5}


def test_the_collector_is_a_reason_only_where_all_is_well_with_it_off() -> None:
    on = made("topics", "make_cpu_s", GROWING)
    well = made("topics_uncollected", "make_cpu_s", LEVEL)
    bad = made("topics_uncollected", "make_cpu_s", GROWING)
    elsewhere = made("topics_uncollected", "make_cpu_s", LEVEL, "mqtt")
    assert list(judge([on, well], [COLLECTOR]).explained) == [COLLECTOR]
    for others in ([], [elsewhere]):
        assert [one.series for one in judge([on, *others], [COLLECTOR]).unexplained] == [on]
    assert [one.series for one in judge([on, bad], [COLLECTOR]).unexplained] == [on, bad]


def test_each_known_exception_is_about_series_that_there_are() -> None:
    kinds = {(kind.run, kind.figure) for kind in KINDS}
    for known in KNOWN:
        pairs = {(run, figure) for run in known.runs for figure in known.figures}
        assert pairs <= kinds, known.name
        assert not known.shown_by or known.shown_by in RUNS


# -- words ----------------------------------------------------------------------------------------


def record(*all_series: Series, rounds: int = 1, failures: tuple[str, ...] = ()) -> Record:
    """A record in which these are measured, and the other figures of their runs are nothing."""
    runs: dict[str, dict[str, dict[int, Figures]]] = {}
    for one in all_series:
        kind = next(kind for kind in KINDS if (kind.run, kind.figure) == (one.run, one.figure))
        points = runs.setdefault(one.broker, {}).setdefault(one.run, {})
        for many, value in zip(one.x, one.y, strict=True):
            points.setdefault(many, _complete(kind, 0.0))[kind.figure] = value / kind.factor
    return Record(dict(MACHINE), rounds, runs, list(failures))


def test_the_page_names_what_is_too_much_and_shows_it_in_bold() -> None:
    text = page.document(record(made("topics", "one_busy_us", {100: 5.0, 1_000: 50.0})))
    assert "For this there is no known reason" in text
    assert (
        "* redis, messages on one topic, CPU µs per message: 2.00 times as much for twice as many, "
        "from 100 to 1 000 (at most 1.25)\n"
    ) in text
    assert "| messages on one topic | CPU µs per message | 5 | 50 | **2.00** |" in text


def test_the_page_shows_the_step_in_brackets() -> None:
    text = page.document(record(made("topics", "all_busy_us", {1: 5.0, 10: 50.0})))
    assert "Nothing without a known reason." in text
    assert "| messages on all topics | CPU µs per message | 5 | 50 | (2.00) |" in text


def test_the_page_gives_the_reason_of_what_is_known() -> None:
    text = page.document(record(patterns(20.0), patterns(24.0, "amqp")))
    assert "Known exceptions that no longer occur" in text
    text = page.document(record(patterns(25.0)))
    assert "* Redis and patterns: Redis compares each message with every pattern" in text
    assert "  * redis, messages for one pattern, CPU µs per message: 1.32 times" in text


def test_the_page_says_of_the_collector_what_was_measured_and_else_nothing() -> None:
    on = made("topics", "make_cpu_s", GROWING)
    off = made("topics_uncollected", "make_cpu_s", {100: 0.005, 1_000: 0.04, 10_000: 0.44})
    (note,) = collector.notes([on, off])
    assert "on redis takes 1.10 times as long as each of 1000 (44 and 40 µs of CPU)" in note
    assert note.endswith("with it on, 1.60 times (80 and 50).")
    assert not list(collector.notes([on]))
    assert not list(collector.notes([off]))
    assert "garbage collector" not in page.document(record(on))


def test_the_page_says_how_often_all_was_measured_and_where_it_ended() -> None:
    one = made("topics", "one_busy_us", {100: 5.0})
    assert "All was measured once." in " ".join(page.document(record(one)).split())
    text = page.document(record(one, rounds=3, failures=("redis, topics, 1000: no more",)))
    assert "measured 3 times, of which the median is shown." in " ".join(text.split())
    assert "* redis, topics, 1000: no more\n" in text


# -- runs -----------------------------------------------------------------------------------------


class ObedientChild:
    """A child that answers each order with all that any role has to say."""

    pid = 1

    def __enter__(self) -> ObedientChild:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def hear(self, timeout: float) -> Figures:
        return {}

    def ask(self, *words: object) -> Figures:
        if words == ("make more",):
            made = ("make_s", "make_cpu_s", "rss_kb", "more_us", "connections")
            return dict.fromkeys(made, 1.0)
        return {"cpu_us": 1.0, "call_us": 1.0, "lost": 0}


class ObedientBed:
    """A bed on which nothing runs; it remembers what was started."""

    def __init__(self) -> None:
        self.started: list[tuple[str, dict[str, object]]] = []
        self.waited_for: list[int] = []

    def wait_until_settled(self, pid: int, endpoints: int) -> None:
        self.waited_for.append(endpoints)

    def start(self, role: str, **options: object) -> ObedientChild:
        self.started.append((role, options))
        return ObedientChild()

    def fresh_name(self, words: int = 1) -> str:
        return ".".join(["fresh"] * words)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_gives_the_figures_that_are_shown_of_it(name: str) -> None:
    figures = RUNS[name](ObedientBed(), 10)  # type: ignore[arg-type] # it stands in for one
    assert {kind.figure for kind in KINDS if kind.run == name} <= set(figures)


@pytest.mark.parametrize("name", RUNS)
def test_all_that_there_is_many_of_has_settled_before_it_is_measured(name: str) -> None:
    bed = ObedientBed()
    RUNS[name](bed, 10)  # type: ignore[arg-type] # it stands in for one
    each = 2 if "nodes" in name else 1  # endpoints of a node
    # When it is made, when it was weighed, and when some more are made.
    settled = [10 * each, 10 * each, (10 + MORE) * each]
    waits = range(0, len(bed.waited_for), len(settled))
    assert settled in [bed.waited_for[begin : begin + len(settled)] for begin in waits]


def test_only_what_is_made_without_the_collector_is_told_to_have_it_off() -> None:
    off = set()
    for name, run in RUNS.items():
        bed = ObedientBed()
        run(bed, 10)  # type: ignore[arg-type] # it stands in for one
        if any(options.get("collector", 1) == 0 for _, options in bed.started):
            off.add(name)
    assert off == {"topics_uncollected"}


# -- records --------------------------------------------------------------------------------------


def test_of_several_rounds_the_median_counts() -> None:
    rounds = [{"nodes": {1: {"cpu_us": cpu}, 10: {"cpu_us": 1.0}}} for cpu in (9.0, 2.0, 3.0)]
    assert medians(rounds) == {"nodes": {1: {"cpu_us": 3.0}, 10: {"cpu_us": 1.0}}}


def test_what_failed_in_one_round_has_no_median() -> None:
    whole, part = (
        {"nodes": {1: {"cpu_us": 1.0}, 10: {"cpu_us": 1.0}}},
        {"nodes": {1: {"cpu_us": 3.0}}},
    )
    assert medians([whole, part]) == medians([part, whole]) == {"nodes": {1: {"cpu_us": 2.0}}}


def test_a_record_that_is_written_and_read_is_the_same(tmp_path: Path) -> None:
    one = record(made("topics", "rss_kb", of(lambda many: 8.0 * many)), rounds=3)
    one.write(tmp_path / "scale.json")
    assert Record.read(tmp_path / "scale.json") == one


@pytest.mark.parametrize(
    ("one", "status"),
    [
        (record(patterns(10.0)), 0),
        (record(patterns(25.0)), 0),
        (record(patterns(100.0)), 1),
        (record(patterns(100.0, "mqtt")), 1),
        (record(patterns(10.0), failures=("mqtt, nodes, 2000: ended early",)), 1),
    ],
    ids=["level", "known", "beyond what is known", "not known", "failed"],
)
def test_the_status_is_that_of_what_has_no_reason(one: Record, status: int) -> None:
    assert command.status(one) == status


def test_all_that_is_drawn_is_a_series_and_every_run_has_one() -> None:
    assert {(kind.run, kind.figure) for kind in KINDS} >= DRAWN
    assert {kind.run for kind in KINDS} == set(RUNS)
