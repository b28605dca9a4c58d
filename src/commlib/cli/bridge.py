"""`commlib bridge`: the bridges of a file, run until a signal.

Exit status: 0 after SIGINT or SIGTERM, 1 if the file is no good or every bridge is refused.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from commlib._params import BaseParameters
from commlib._portal import new_loop
from commlib.aio._bridge import Bridge
from commlib.aio._hub import Hub
from commlib.cli._bridge_file import BadFile, Rule, read_rules, unguarded_loops
from commlib.cli._groups import Group
from commlib.exceptions import AuthError, CommlibError

log = logging.getLogger("commlib.bridges")

FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group(cls=Group)
def bridge() -> None:
    """Connect brokers, as a file says.

    \b
    brokers:
      edge: redis://localhost
      cloud: rediss://robot:${CLOUD_PASSWORD}@cloud.example
    bridges:
      - type: topic              # or pattern, rpc, action
        from: {broker: edge, uri: sonar.front}
        to: {broker: cloud, uri: robot1.sonar.front}
      - type: pattern
        from: {broker: edge, uri: sensors.*}
        to: {broker: cloud, namespace: robot1}
        transform: [[sensors, readings]]
    """


@bridge.command()
@FILE
def check(file: Path) -> None:
    """Say what is wrong with FILE, or that nothing is."""
    rules = _read(file)
    for rule in rules:
        click.echo(_describe(rule))
    for warning in _warnings(rules):
        click.echo(f"warning: {warning}")
    click.echo(f"{file}: {_count(rules)}, nothing wrong")


@bridge.command()
@FILE
def run(file: Path) -> None:
    """Run the bridges of FILE until SIGINT or SIGTERM.

    SIGHUP reads it again: bridges that have changed are restarted, the others go on. If the new
    file is no good, all go on as they are. Bridges whose broker is away wait for it. If every
    bridge is refused by a broker, it ends with status 1.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    rules = _read(file)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        if not runner.run(_Bridges(file).run(rules)):
            raise SystemExit(1)


def _read(file: Path) -> list[Rule]:
    try:
        return read_rules(file)
    except BadFile as exc:
        raise click.ClickException(str(exc)) from exc
    except ModuleNotFoundError as exc:
        if exc.name != "yaml":
            raise
        text = 'the bridge command needs PyYAML: pip install "commlib-py[cli]"'
        raise click.ClickException(text) from exc


def _warnings(rules: list[Rule]) -> Iterator[str]:
    for one, other in unguarded_loops(rules):
        yield (
            f"{one.name} and {other.name} form a loop: messages without an envelope would go round "
            "in it; 'envelope: true' at one of the two guards it"
        )


def _describe(rule: Rule) -> str:
    to = f"{rule.to_uri}.*" if rule.type == "pattern" else rule.to_uri
    return f"{rule.type} {rule.source} {rule.from_uri} -> {rule.sink} {to}"


def _count(rules: list[Rule]) -> str:
    return "1 bridge" if len(rules) == 1 else f"{len(rules)} bridges"


def _state(rules: list[Rule], outcomes: list[CommlibError | bool]) -> str:
    """How many run, wait and have failed, and why."""
    running, waiting = outcomes.count(True), outcomes.count(False)
    if running == len(rules):
        return f"{_count(rules)} running"
    parts = [f"{running} of {_count(rules)} running"]
    if waiting:
        parts.append("1 waits for its broker" if waiting == 1 else f"{waiting} wait for a broker")
    errors = [outcome for outcome in outcomes if isinstance(outcome, CommlibError)]
    refused = [error for error in errors if isinstance(error, AuthError)]
    for word, those in (("refused", refused), ("failed", [e for e in errors if e not in refused])):
        if those:
            texts = dict.fromkeys(map(str, those))
            parts.append(f"{len(those)} {word}: {' / '.join(texts)}")
    return "; ".join(parts)


class _Bridges:
    """The bridges that run, on one connection for each broker."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._running: dict[Rule, Bridge] = {}
        self._hubs: list[Hub] = []
        # A signal is never missed, and those that come while one is served wait their turn.
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._all_refused = False

    async def run(self, rules: list[Rule]) -> bool:
        """Run until SIGINT or SIGTERM. False, at once, if every bridge is refused."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        work = loop.create_task(self._begin(rules))
        try:
            while await self._signals.get() is signal.SIGHUP:
                work = loop.create_task(self._reload(work))
        finally:
            work.cancel()
            await asyncio.wait([work])
            await self._stop(list(self._running))
        return not self._all_refused

    async def _begin(self, rules: list[Rule]) -> None:
        """Start all, and end if a person has to mend every one of them."""
        errors = await self._apply(rules)
        self._all_refused = len([e for e in errors if isinstance(e, AuthError)]) == len(rules)
        if self._all_refused:
            self._signals.put_nowait(signal.SIGTERM)

    async def _reload(self, work: asyncio.Task[None]) -> None:
        try:
            await asyncio.wait([work])  # what came before
        except asyncio.CancelledError:
            work.cancel()
            raise
        try:
            await self._apply(read_rules(self._file))
        except BadFile as exc:
            log.error("the file was not taken, all goes on as before:\n%s", exc)
        except Exception:  # the next signal must find somebody who listens
            log.exception("the file was not taken")

    async def _apply(self, rules: list[Rule]) -> list[CommlibError]:
        """Stop what is no longer wanted, start what is new, and try again what has failed.

        Returns why those have failed that have.
        """
        gone = [rule for rule in self._running if rule not in rules]
        new = [rule for rule in rules if rule not in self._running]
        await self._stop(gone)
        for warning in _warnings(rules) if new else ():
            log.warning("%s", warning)
        for rule in new:
            self._running[rule] = rule.make(self._hub(rule.source), self._hub(rule.sink))
        outcomes = await asyncio.gather(*(self._start(rule) for rule in rules))
        log.info("stopped %d, started %d", len(gone), len(new))
        click.echo(_state(rules, outcomes))
        return [outcome for outcome in outcomes if isinstance(outcome, CommlibError)]

    async def _start(self, rule: Rule) -> CommlibError | bool:
        """Whether the bridge runs now, False if it waits for a broker; or why it cannot."""
        bridge = self._running[rule]
        try:
            await bridge.run()
        except CommlibError as exc:
            log.error("%s: %s", rule.name, exc)
            return exc
        return bridge.ready

    def _hub(self, params: BaseParameters) -> Hub:
        for hub in self._hubs:
            if hub.params == params:
                return hub
        hub = Hub(params, str(params))
        self._hubs.append(hub)
        return hub

    async def _stop(self, rules: list[Rule]) -> None:
        """Stop bridges, and leave the brokers that no other one needs."""
        bridges = [self._running.pop(rule) for rule in rules]
        await asyncio.gather(*(bridge.stop() for bridge in bridges))
        for rule, stopped in zip(rules, bridges, strict=True):
            log.info("%s: %s", rule.name, _summary(stopped))
        needed = Counter(
            id(hub) for bridge in self._running.values() for hub in (bridge.hub, bridge.sink)
        )
        idle = [hub for hub in self._hubs if not needed[id(hub)]]
        self._hubs = [hub for hub in self._hubs if needed[id(hub)]]
        await asyncio.gather(*(hub.close() for hub in idle))


def _summary(stopped: Bridge) -> str:
    stats = stopped.stats
    names = ("received", "forwarded", "looped", "refused", "dropped", "expired", "errors")
    parts = [f"{getattr(stats, name)} {name}" for name in names if getattr(stats, name)]
    return ", ".join(parts if stats.received else ["nothing received", *parts])
