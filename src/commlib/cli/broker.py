"""`commlib broker`: a Redis-compatible broker on this machine, with nothing to install or set up.

Exit status: 0 after SIGINT or SIGTERM, 1 if the server could not start or ended by itself.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import click

from commlib.cli._valkey import PortTaken, ValkeyError, ValkeyProcess


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=6379,
    show_default=True,
    help="TCP port; 0 takes a free one.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
def broker(port: int, host: str) -> None:
    """Run a broker on this machine.

    It is Valkey, which speaks the protocol of Redis. Prints the broker's URL once it answers, and
    runs until Ctrl-C or SIGTERM. What it holds is in memory alone, and there is no password.
    """
    # None for a signal, or the status of the server that ended. The queue is one that a signal
    # handler may put into, so that a signal is never missed, not even while the server starts.
    endings: SimpleQueue[int | None] = SimpleQueue()
    with _on_signal(lambda: endings.put(None)), _started(port, host) as server:
        click.echo(server.url)
        threading.Thread(target=lambda: endings.put(server.wait()), daemon=True).start()
        status = endings.get()
        if status is not None:
            raise click.ClickException(
                f"the broker ended by itself (status {status}); its last words:\n"
                f"{server.last_words()}"
            )


def _started(port: int, host: str) -> ValkeyProcess:
    try:
        return ValkeyProcess.start(port, host)
    except PortTaken as exc:
        raise click.ClickException(f"{exc}; --port 0 picks a free one") from exc
    except ValkeyError as exc:
        raise click.ClickException(str(exc)) from exc


@contextmanager
def _on_signal(act: Callable[[], None]) -> Iterator[None]:
    """Have SIGINT and SIGTERM call `act` instead of ending the process, until the block ends."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: act()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
