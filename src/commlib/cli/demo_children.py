"""The processes of `commlib demo`, as the demo sees them: started, given orders, ended."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import IO, Any, Self, TypeVar

import msgspec

from commlib.cli.demo_orders import Order, Ready, Stop
from commlib.exceptions import CommlibError

R = TypeVar("R")

ROLES = ("sonar", "watcher", "adder", "threads", "tasks")
PROGRAM = ("-m", "commlib.cli.demo_roles")
STOP_TIMEOUT = 5.0  # s for a process to end when told to; stop() promises one


class ChildFailed(CommlibError):
    """A process of the demo ended too early, or not at all."""


class Child:
    """A process that plays one role."""

    def __init__(self, role: str, process: asyncio.subprocess.Process, complaints: IO[bytes]):
        self.role = role
        self._process = process
        self._complaints = complaints

    @classmethod
    async def start(cls, role: str, namespace: str, url: str) -> Self:
        """Start a process for this role; it says by itself when it is ready."""
        complaints = tempfile.TemporaryFile()  # noqa: SIM115 - kill() closes it
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", *PROGRAM, role, namespace),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints,
            # Not on the command line, where everybody on this machine could read the password.
            env={**os.environ, "COMMLIB_URL": url},
            start_new_session=True,  # Ctrl-C in the terminal is for the demo to act on.
        )
        return cls(role, process, complaints)

    async def ask(self, order: Order, kind: type[R]) -> R:
        """Give an order and return the report; raises ChildFailed if there is none."""
        assert self._process.stdin is not None, "it was started with a pipe"
        try:
            self._process.stdin.write(msgspec.json.encode(order) + b"\n")
            await self._process.stdin.drain()
        except ConnectionError:
            raise await self.ended() from None
        return await self.hear(kind)

    async def hear(self, kind: type[R]) -> R:
        """The next report; raises ChildFailed if the process ends instead."""
        assert self._process.stdout is not None, "it was started with a pipe"
        line = await self._process.stdout.readline()
        if not line:
            raise await self.ended()
        return msgspec.json.decode(line, type=kind)

    async def ended(self) -> ChildFailed:
        """Return when the process has ended, with an error that tells what it said last."""
        status = await self._process.wait()
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no reason given")
        return ChildFailed(f"the process '{self.role}' ended early (status {status}): {last}")

    async def stop(self) -> None:
        """Have it leave the broker and end; raises ChildFailed if it does not, or not well."""
        assert self._process.stdin is not None, "it was started with a pipe"
        self._process.stdin.write(msgspec.json.encode(Stop()) + b"\n")
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                status = await self._process.wait()
        except TimeoutError:
            raise ChildFailed(
                f"the process '{self.role}' did not end within {STOP_TIMEOUT:g} s"
            ) from None
        if status:
            raise await self.ended()

    async def kill(self) -> None:
        """Make sure that the process is gone; idempotent."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        self._complaints.close()


@asynccontextmanager
async def children(namespace: str, url: str) -> AsyncIterator[dict[str, Child]]:
    """A ready process for each role; at the end none is left, whatever happened."""
    started: dict[str, Child] = {}
    try:
        for role in ROLES:
            started[role] = await Child.start(role, namespace, url)
        await asyncio.gather(*(child.hear(Ready) for child in started.values()))
        yield started
        await asyncio.gather(*(child.stop() for child in started.values()))
    finally:
        for child in started.values():
            await child.kill()


async def unless_one_ends(work: Coroutine[Any, Any, R], those: Iterable[Child]) -> R:
    """What ``work`` returns; raises ChildFailed as soon as one of the children ends."""
    ends = [asyncio.create_task(child.ended()) for child in those]
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task, *ends], return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            if end.done():
                raise end.result()
        return task.result()
    finally:
        for pending in (task, *ends):
            pending.cancel()
        await asyncio.gather(task, *ends, return_exceptions=True)
