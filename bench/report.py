"""The tables that a run prints and writes down, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bench.record import FOLDER, Record
from bench.results import Result, Results
from bench.roster import CONTENDERS
from bench.targets import FIGURES, Figure, Target, targets_of

PAGE = FOLDER / "latest.md"

# Which measurements are in which table; those that are in none are in the last one.
SECTIONS = {
    "Rates": ("publish", "receive", "burst", "bridge"),
    "Calls": ("call", "calls", "tasks", "goals", "slow_goals"),
    "Latency of messages, from when they were due": ("latency",),
    "Sizes and numbers": (
        *("payload_16", "payload_200", "payload_10k", "payload_1m", "blob"),
        *("fan_out", "spread", "fan_in", "topics"),
    ),
    "Footprint": ("node", "start"),
    "Others": (),
}
_SECTION_OF = {name: title for title, names in SECTIONS.items() for name in names}
_BESIDE = {"duplicates": "twice"}
LEGEND = (
    "Beside a figure stands what was lost, came twice or failed, wherever anything was counted "
    "that did; and of how many rounds the figure is, if others have none. Percentiles are medians "
    "over the rounds, as is all else; but *p99.9* and *max* of messages are those of the messages "
    "of all rounds together, and what went wrong is that of the worst round. *Of limit* and *of "
    "best peer* are ratios of ours, without uvloop; peers are earlier releases and FastStream, "
    "other libraries are clients, and so is the limit where a target is one of the best client.\n"
)


def document(record: Record) -> str:
    """The whole of it."""
    parts = [f"# Benchmark\n\n{machine_line(record)}\n{_medians(record)}\n\n{LEGEND}"]
    parts += [
        f"\n## {results.version}\n{tables(results)}{_failures(results)}{gaps(results)}"
        for results in record.brokers
    ]
    parts.append(f"\n## Versions\n\n{_versions(record.versions)}")
    return "".join(parts)


def _medians(record: Record) -> str:
    """How many rounds there were."""
    if record.rounds == 1:
        return "Of one round."
    return f"Medians of {record.rounds} rounds."


def tables(results: Results) -> str:
    """A table for each section of which anything was measured."""
    measured = measured_figures(results)
    sections = {
        title: [figure for figure in measured if section_of(figure) == title] for title in SECTIONS
    }
    return "".join(
        f"\n### {title}\n\n{_table(results, figures)}"
        for title, figures in sections.items()
        if figures
    )


def measured_figures(results: Results) -> list[Figure]:
    """Those that anybody has who is in their line."""
    return [
        figure
        for figure in FIGURES
        if any(
            results.value(figure, name) is not None
            for name in results.results.get(figure.measurement, {})
            if not _is_repeated(figure) or name in _faces(figure)
        )
    ]


def section_of(figure: Figure) -> str:
    """The title of the table that it is in."""
    return _SECTION_OF.get(figure.measurement, "Others")


def _table(results: Results, figures: list[Figure]) -> str:
    """One line for each figure, one column for each who has any of them."""
    others = [
        name
        for name in _others(results)
        if any(results.value(figure, name) is not None for figure in figures)
    ]
    head = ["", "ours", "ours, uvloop", *others, "of limit", "of best peer", "target", "met"]
    lines = [head, ["---", *["---:"] * (len(head) - 2), "---"]]
    lines += [_line(results, figure, others) for figure in figures]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _others(results: Results) -> list[str]:
    """Who was measured beside ours."""
    measured = {name for by_contender in results.results.values() for name in by_contender}
    return [who.name for who in CONTENDERS if who.kind != "ours" and who.name in measured]


def _line(results: Results, figure: Figure, others: list[str]) -> list[str]:
    targets = targets_of(results.broker, figure)
    cells = [_cell(results, figure, name) for name in (*_faces(figure), *others)]
    if _is_repeated(figure):
        cells[2:] = [""] * len(others)  # they are in the line of the other face
    return [
        figure.title,
        *cells,
        _ratio(results.ratio(figure, figure.ours, "limit")),
        _ratio(results.ratio(figure, figure.ours, "peer")),
        ", ".join(target_text(figure, target) for target in targets),
        ", ".join(_verdict(results, figure, target) for target in targets),
    ]


def _faces(figure: Figure) -> tuple[str, str]:
    """Ours in its line, without uvloop and with it."""
    return figure.ours, f"{figure.ours}, uvloop"


def _is_repeated(figure: Figure) -> bool:
    """Whether an earlier line has the same of another face of ours, and all others."""
    key = (figure.measurement, figure.key)
    return figure is not next(one for one in FIGURES if (one.measurement, one.key) == key)


def _cell(results: Results, figure: Figure, contender: str) -> str:
    result = results.results[figure.measurement].get(contender)
    if result is None or result.cannot:
        return "–"
    value = result.value(figure.key)
    if value is None:
        return "failed" if result.reasons else "–"
    told = [*(_wrong(result) if figure.beside else ()), *_some_rounds(result, figure.key)]
    return number(value) + (f" ({', '.join(told)})" if told else "")


def _wrong(result: Result) -> Iterator[str]:
    """What did not go well."""
    for key in ("lost", "duplicates", "failed"):
        if count := result.value(key):
            yield f"{number(count)} {_BESIDE.get(key, key)}"


def _some_rounds(result: Result, key: str) -> Iterator[str]:
    """How many rounds have the figure, if not all do."""
    having = sum(key in figures for figures in result.rounds)
    if having < len(result.rounds):
        yield f"{having} of {len(result.rounds)} rounds"


def number(value: float) -> str:
    """Three figures, or all before the point: 0.0123, 1.23, 123, 12 345."""
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{number(value)} ×"


def target_text(figure: Figure, target: Target) -> str:
    """What is expected, as in "≥ 0.5 × limit"."""
    sign = "≥" if figure.more_is_better else "≤"
    of = {"itself": "", "limit": " × limit", "peer": " × peer", "client": " × best client"}
    return f"{sign} {number(target.bound)}{of[target.of]}"


def _verdict(results: Results, figure: Figure, target: Target) -> str:
    if (is_met := results.is_met(figure, target, figure.ours)) is None:
        return "?"
    if is_met:
        return "yes"
    # A ratio would be one to others that run without uvloop.
    with_uvloop = f"{figure.ours}, uvloop"
    if target.of == "itself" and results.is_met(figure, target, with_uvloop):
        return "with uvloop"
    return "**no**"


def _failures(results: Results) -> str:
    lines = [
        f"* {measurement}, {contender}: {reason}\n"
        for measurement, by_contender in results.results.items()
        for contender, result in by_contender.items()
        for reason in result.reasons
    ]
    return "".join(["\nWhat went wrong:\n\n", *lines]) if lines else ""


def gaps(results: Results) -> str:
    """Who was not measured in what, and why."""
    measured = {name for by_contender in results.results.values() for name in by_contender}
    found: dict[str, dict[str, list[str]]] = {
        who.name: {} for who in CONTENDERS if who.name in measured
    }
    for measurement, by_contender in results.results.items():
        for contender, result in by_contender.items():
            if result.cannot:
                found[contender].setdefault(result.cannot, []).append(measurement)
    for contender in _uncounted(results) & found.keys():
        found[contender]["not counted"] = ["what came twice"]
    lines = [
        f"* {contender}: {'; '.join(f'{_listed(what)} ({why})' for why, what in of.items())}\n"
        for contender, of in found.items()
        if of
    ]
    return "".join(["\nNot measured:\n\n", *lines]) if lines else ""


def _uncounted(results: Results) -> set[str]:
    """Who cannot tell what came twice, if others can."""
    rounds = [
        (contender, words)
        for by_contender in results.results.values()
        for contender, result in by_contender.items()
        for words in result.rounds
        if "lost" in words
    ]
    counting = {contender for contender, words in rounds if "duplicates" in words}
    return {contender for contender, _ in rounds} - counting if counting else set()


def _listed(measurements: list[str]) -> str:
    return ", ".join(measurements)


def machine_line(record: Record) -> str:
    """The machine, in a line."""
    machine = record.machine
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_mb']} MB; "
        f"{machine['system']}; {machine['python']}; load before: {machine['load_before']}; "
        f"sources: {machine.get('source', 'not known')}."
    )


def _versions(versions: Mapping[str, Mapping[str, str]]) -> str:
    def lines() -> Iterator[str]:
        for contender, packages in versions.items():
            if packages:
                yield f"* {contender}: {', '.join(f'{k} {v}' for k, v in packages.items())}\n"

    return "".join(lines())
