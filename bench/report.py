"""The table that a run prints and writes down, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bench.contenders import CONTENDERS
from bench.results import Results
from bench.targets import FIGURES, Figure, Target, targets_of


def document(
    all_results: list[Results],
    machine: Mapping[str, object],
    versions: Mapping[str, Mapping[str, str]],
    rounds: int,
) -> str:
    """The whole of it."""
    parts = [f"# Benchmark\n\n{_machine(machine)}\n{_medians(rounds)}\n"]
    parts += [
        f"\n## {results.version}\n\n{table(results)}{_failures(results)}{_gaps(results)}"
        for results in all_results
    ]
    parts.append(f"\n## Versions\n\n{_versions(versions)}")
    return "".join(parts)


def _medians(rounds: int) -> str:
    return "Of one round." if rounds == 1 else f"Medians of {rounds} rounds."


def table(results: Results) -> str:
    """One line for each figure that was measured."""
    others = _others(results)
    head = ["", "ours", "ours, uvloop", *others, "of limit", "of best peer", "target", "met"]
    lines = [head, ["---", *["---:"] * (len(head) - 2), "---"]]
    lines += [
        _line(results, figure, others)
        for figure in FIGURES
        if figure.measurement in results.results
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _others(results: Results) -> list[str]:
    """Who was measured beside ours."""
    measured = {name for by_contender in results.results.values() for name in by_contender}
    return [who.name for who in CONTENDERS if who.kind != "ours" and who.name in measured]


def _line(results: Results, figure: Figure, others: list[str]) -> list[str]:
    targets = targets_of(results.broker, figure)
    names = (figure.ours, f"{figure.ours}, uvloop", *others)
    return [
        figure.title,
        *(_cell(results, figure, name) for name in names),
        _ratio(results.ratio(figure, figure.ours, "limit")),
        _ratio(results.ratio(figure, figure.ours, "peer")),
        ", ".join(_target(figure, target) for target in targets),
        ", ".join(_verdict(results, figure, target) for target in targets),
    ]


def _cell(results: Results, figure: Figure, contender: str) -> str:
    result = results.results[figure.measurement].get(contender)
    if result is None or result.cannot:
        return "–"
    value = result.value(figure.key)
    if value is None:
        return "failed"
    beside = result.value(figure.beside) if figure.beside else None
    return number(value) + ("" if beside is None else f" ({number(beside)} {figure.beside})")


def number(value: float) -> str:
    """Three figures, or all before the point: 0.0123, 1.23, 123, 12 345."""
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{number(value)} ×"


def _target(figure: Figure, target: Target) -> str:
    sign = "≥" if figure.more_is_better else "≤"
    of = {"itself": "", "limit": " × limit", "peer": " × peer"}[target.of]
    return f"{sign} {number(target.bound)}{of}"


def _verdict(results: Results, figure: Figure, target: Target) -> str:
    if (is_met := results.is_met(figure, target, figure.ours)) is None:
        return "?"
    if is_met:
        return "yes"
    with_uvloop = results.is_met(figure, target, f"{figure.ours}, uvloop")
    return "with uvloop" if with_uvloop else "**no**"


def _failures(results: Results) -> str:
    lines = [
        f"* {measurement}, {contender}: {reason}\n"
        for measurement, by_contender in results.results.items()
        for contender, result in by_contender.items()
        for reason in result.reasons
    ]
    return "".join(["\nWhat went wrong:\n\n", *lines]) if lines else ""


def _gaps(results: Results) -> str:
    """Who was not measured in what, and why."""
    gaps: dict[str, dict[str, list[str]]] = {name: {} for name in _others(results)}
    for measurement, by_contender in results.results.items():
        for contender, result in by_contender.items():
            if result.cannot and contender in gaps:
                gaps[contender].setdefault(result.cannot, []).append(measurement)
    lines = [
        f"* {contender}: {'; '.join(f'{_listed(what)} ({why})' for why, what in of.items())}\n"
        for contender, of in gaps.items()
        if of
    ]
    return "".join(["\nNot measured:\n\n", *lines]) if lines else ""


def _listed(measurements: list[str]) -> str:
    return ", ".join(measurements)


def _machine(machine: Mapping[str, object]) -> str:
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_mb']} MB; "
        f"{machine['system']}; {machine['python']}; load before: {machine['load_before']}."
    )


def _versions(versions: Mapping[str, Mapping[str, str]]) -> str:
    def lines() -> Iterator[str]:
        for contender, packages in versions.items():
            if packages:
                yield f"* {contender}: {', '.join(f'{k} {v}' for k, v in packages.items())}\n"

    return "".join(lines())
