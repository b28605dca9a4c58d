"""What tells a regression from noise, on records that are made up."""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from bench import compare
from bench.changes import Change, changes
from bench.compare import status, text
from bench.record import Record
from bench.results import Result, Results
from bench.targets import FIGURES
from bench.verdict import Verdict, chance, holm, judge, least_chance, rounds_needed

MACHINE = {
    "processor": "Abacus",
    "cores": 2,
    "architecture": "wood",
    "memory_mb": 1,
    "system": "Linux 6",
    "python": "CPython 3.11",
    "load_before": 0.0,
}
NOISY = (0.99, 1.02, 1.0, 0.97, 1.01)  # what five rounds of one kind are like


def test_a_file_that_is_no_record_is_told_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "some.json"
    for words in ("", "[]", "{}"):
        file.write_text(words)
        monkeypatch.setattr(sys, "argv", ["compare", str(file), str(file)])
        with pytest.raises(SystemExit) as ended:
            compare.main()
        assert ended.value.code == 2
        assert f"{file} is no record" in capsys.readouterr().err


def rates(median: float, noise: Iterable[float] = NOISY) -> Result:
    """Rounds about that rate."""
    return Result(rounds=[{"rate": median * factor, "lost": 0} for factor in noise])


def record(machine: dict[str, object] = MACHINE, **contenders: Result) -> Record:
    """A record in which these were measured in receiving."""
    results = Results("redis", "Redis 7", {"receive": dict(contenders)})
    return Record("2026-01-01", machine, 5, {}, (results,))


def of(found: Iterable[Change], contender: str = "ours", key: str = "rate") -> Change:
    """What became of that contender's figure."""
    return next(
        change for change in found if (change.contender, change.figure.key) == (contender, key)
    )


def compared(before: Record, after: Record) -> Change:
    return of(changes(before, after))


# ---- the test ----


def test_sets_that_do_not_overlap_are_as_unlikely_as_there_are_ways_to_deal_them() -> None:
    assert chance([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == 2 / 252
    assert chance([6, 7, 8, 9, 10], [1, 2, 3, 4, 5]) == 2 / 252


def test_equal_sets_are_what_is_to_be_expected() -> None:
    assert chance([4, 4, 4, 4, 4], [4, 4, 4, 4, 4]) == 1
    assert chance([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]) == 1


def test_the_chance_is_that_of_the_tables_of_mann_and_whitney() -> None:
    # U = 4 of 5 and 5: (1 + 1 + 2 + 3 + 5) ways out of 252 on each side.
    assert chance([1, 2, 3, 4, 9], [5, 6, 7, 8, 10]) == 24 / 252


def test_the_chance_of_many_rounds_is_exact_too() -> None:
    low, high = list(range(10)), list(range(10, 20))
    assert chance(low, high) == least_chance(low, high) == 2 / 184_756
    # One pair has changed sides: on each side one way for that, and one for none.
    assert chance([*low[:-1], 10], [9, *high[1:]]) == 4 / 184_756


def test_among_many_figures_each_is_held_against_its_share_of_what_are_left() -> None:
    assert holm([]) == holm([0.01]) == 0.01
    assert holm([0.009, 0.009]) == 0.005, "neither counts"
    assert holm([0.004, 0.009]) == 0.01, "the first counts, and leaves the second by itself"
    assert holm([0.004, 0.5, 0.5]) == 0.01 / 3


def test_ten_rounds_are_enough_for_a_whole_run_and_five_for_one_figure() -> None:
    assert (rounds_needed(1), rounds_needed(2), rounds_needed(200), rounds_needed(900)) == (
        *(5, 6, 9, 10),
    )


def test_of_rounds_of_one_kind_about_one_in_a_hundred_is_mistaken() -> None:
    dealer = random.Random(7)
    sets = [[dealer.gauss(100, 20) for _ in range(10)] for _ in range(500)]
    verdicts = [judge(both[:5], both[5:], more_is_better=True, least=0) for both in sets]
    assert sum(verdict is not Verdict.NOISE for verdict in verdicts) < 15


@pytest.mark.parametrize(
    ("more_is_better", "verdict"), [(True, "improvement"), (False, "regression")]
)
def test_more_is_better_or_worse(more_is_better: bool, verdict: str) -> None:
    before, after = [100 * factor for factor in NOISY], [120 * factor for factor in NOISY]
    assert judge(before, after, more_is_better=more_is_better) == verdict


def test_a_difference_that_is_sure_but_small_is_noise() -> None:
    before, after = [100, 100.1, 100.2, 100.3, 100.4], [102, 102.1, 102.2, 102.3, 102.4]
    assert judge(before, after, more_is_better=False) is Verdict.NOISE
    assert judge(before, after, more_is_better=False, least=1) is Verdict.REGRESSION


# ---- records ----


def test_a_fall_against_the_limit_is_a_regression() -> None:
    before = record(ours=rates(500), limit=rates(700))
    after = record(ours=rates(400), limit=rates(700))
    change = compared(before, after)
    assert (change.verdict, change.of_limit) == (Verdict.REGRESSION, True)
    assert change.percent == pytest.approx(-20, abs=3)
    assert status(before, after, [change]) == 1


def test_rounds_of_one_kind_are_noise() -> None:
    before = record(ours=rates(500), limit=rates(700, reversed(NOISY)))
    after = record(ours=rates(490, reversed(NOISY)), limit=rates(700))
    assert compared(before, after).verdict is Verdict.NOISE
    assert status(before, after, changes(before, after)) == 0


def test_a_machine_that_is_slower_today_makes_no_regression() -> None:
    before = record(ours=rates(500), limit=rates(700))
    after = record(ours=rates(250), limit=rates(350))
    assert compared(before, after).verdict is Verdict.NOISE
    assert of(changes(before, after), "limit").verdict is Verdict.REGRESSION
    assert status(before, after, changes(before, after)) == 0


def test_a_machine_that_slows_down_within_the_run_makes_none_either() -> None:
    slowing = (1.0, 0.8, 0.6, 0.5, 0.4)
    before = record(ours=rates(500), limit=rates(700))
    after = record(ours=rates(500, slowing), limit=rates(700, slowing))
    assert compared(before, after).verdict is Verdict.NOISE


def test_a_round_that_failed_leaves_the_others_with_those_they_were_taken_with() -> None:
    limit = rates(700, (1.0, 0.1, 1.0, 1.0, 1.0, 1.0))
    before, ours = record(ours=rates(500), limit=rates(700)), Result()
    for factor in (1.0, None, 1.0, 1.0, 1.0, 1.0):
        if factor is None:
            ours.fail("it ended early")
        else:
            ours.rounds.append({"rate": 500 * factor})
    assert compared(before, record(ours=ours, limit=limit)).verdict is Verdict.NOISE


def test_without_a_limit_figures_are_compared_as_they_are() -> None:
    change = compared(record(ours=rates(500)), record(ours=rates(700)))
    assert (change.verdict, change.of_limit) == (Verdict.IMPROVEMENT, False)


def test_of_different_machines_only_ratios_are_compared_and_that_is_said() -> None:
    before = record(ours=rates(500), limit=rates(700))
    after = record(MACHINE | {"cores": 8}, ours=rates(1000), limit=rates(1400))
    found = changes(before, after)
    assert [change.contender for change in found] == ["ours"]
    assert of(found).verdict is Verdict.NOISE
    assert "cores: 2 and 8): only ratios are compared" in text(before, after, found)
    assert changes(record(ours=rates(500)), after) == []


def test_a_few_rounds_are_not_judged() -> None:
    before, after = record(ours=rates(500, NOISY[:3])), record(ours=rates(100, NOISY[:3]))
    found = changes(before, after)
    assert of(found).verdict is Verdict.TOO_FEW
    assert status(before, after, found) == 2
    assert "too few rounds: among so many it takes 5 on each side" in text(before, after, found)


def test_a_message_that_is_lost_where_none_was_is_a_regression() -> None:
    worse = rates(500)
    worse.rounds[3]["lost"] = 1
    before, after = record(ours=rates(500)), record(ours=worse)
    found = changes(before, after)
    assert of(found).verdict is Verdict.NOISE
    assert of(found, key="lost").verdict is Verdict.REGRESSION
    assert status(before, after, found) == 1


def test_what_could_be_measured_and_now_fails_is_told_and_a_failure() -> None:
    broken = Result()
    broken.fail("it ended early")
    before, after = record(ours=rates(500)), record(ours=broken)
    found = changes(before, after)
    assert found == []
    told = "* fails now: redis, receive, ours, 1 of 1 rounds: it ended early"
    assert told in text(before, after, found)
    assert status(before, after, found) == 1


def test_a_round_that_fails_where_none_did_is_a_failure() -> None:
    worse, bad = rates(500), rates(500)
    worse.fail("it ended early")
    for _ in range(2):
        bad.fail("it ended late")
    before, after = record(ours=rates(500)), record(ours=worse)
    found = changes(before, after)
    assert of(found).verdict is Verdict.NOISE
    told = "* fails now: redis, receive, ours, 1 of 6 rounds: it ended early"
    assert told in text(before, after, found)
    assert status(before, after, found) == 1
    assert status(after, record(ours=bad), changes(after, record(ours=bad))) == 0, "some did before"
    assert status(after, before, changes(after, before)) == 0, "none does any more"


def test_a_failing_round_of_others_is_no_failure() -> None:
    worse = rates(100)
    worse.fail("it ended early")
    before, after = record(ours=rates(500), FastStream=rates(100)), record(ours=rates(500))
    after.brokers[0].results["receive"]["FastStream"] = worse
    assert status(before, after, changes(before, after)) == 0


def test_what_the_later_record_has_not_is_no_failure() -> None:
    before, after = record(ours=rates(500), limit=rates(700)), record(limit=rates(700))
    assert status(before, after, changes(before, after)) == 2


def test_what_others_make_worse_is_told_but_no_failure() -> None:
    before = record(ours=rates(500), FastStream=rates(100))
    after = record(ours=rates(500), FastStream=rates(50))
    found = changes(before, after)
    assert of(found, "FastStream").verdict is Verdict.REGRESSION
    assert status(before, after, found) == 0


# ---- many figures ----


def noise(seed: int, rounds: int) -> Record:
    """A hundred figures of ours and more, all of one kind."""
    dealer = random.Random(seed)
    brokers = []
    for broker in ("redis", "mqtt", "amqp"):
        results = Results(broker, broker)
        for figure in FIGURES:
            of_ours = results.of(figure.measurement, "ours")
            of_ours.rounds = of_ours.rounds or [{} for _ in range(rounds)]
            for words in of_ours.rounds:
                words[figure.key] = 0 if figure.key == "lost" else dealer.gauss(100, 20)
        brokers.append(results)
    return Record("2026-01-01", MACHINE, rounds, {}, tuple(brokers))


def slowed(before: Record, factor: float) -> Record:
    """The same with one figure multiplied, and its own noise in all others."""
    after = noise(1000, before.rounds)
    for words, old in zip(
        after.brokers[0].results["publish"]["ours"].rounds,
        before.brokers[0].results["publish"]["ours"].rounds,
        strict=True,
    ):
        words["rate"] = old["rate"] * factor
    return after


def test_a_hundred_figures_of_noise_are_no_failure() -> None:
    statuses = []
    for seed in range(0, 60, 2):
        before, after = noise(seed, 10), noise(seed + 1, 10)
        found = changes(before, after, least=0)
        assert len(found) > 100
        statuses.append(status(before, after, found))
    assert statuses.count(0) >= len(statuses) - 1
    assert 2 not in statuses


def test_one_that_is_worse_among_a_hundred_is_found_in_ten_rounds() -> None:
    before = noise(0, 10)
    after = slowed(before, 0.3)
    found = changes(before, after)
    assert of(found).verdict is Verdict.REGRESSION
    assert status(before, after, found) == 1


def test_among_a_hundred_five_rounds_tell_only_what_to_measure_again() -> None:
    before = noise(0, 5)
    after = slowed(before, 0.3)
    found = changes(before, after)
    assert of(found).verdict is Verdict.PERHAPS
    assert status(before, after, found) == 2
    assert "* perhaps: redis, publish, messages/s, ours: " in (told := text(before, after, found))
    assert "among so many it takes 9 on each side" in told


# ---- what it writes ----


def test_other_versions_are_told() -> None:
    before = record(ours=rates(500))
    newer = dataclasses.replace(before, versions={"ours": {"msgspec": "2"}})
    older = dataclasses.replace(before, versions={"ours": {"msgspec": "1"}})
    assert "msgspec of ours: 1 and 2" in text(older, newer, changes(older, newer))


def test_it_reads_what_was_written_and_ends_with_a_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    record(ours=rates(500), limit=rates(700)).write(old)
    record(ours=rates(300), limit=rates(700)).write(new)
    monkeypatch.setattr(sys, "argv", ["compare", str(old), str(new)])
    assert compare.main() == 1
    assert "* regression: redis, receive, messages/s, ours: 0.71" in capsys.readouterr().out


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "scale.json"
    file.write_text('{"series": []}')
    with pytest.raises(ValueError, match="no record"):
        Record.read(file)
