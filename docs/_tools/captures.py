"""Makes the terminal captures of docs/command.md anew: `python docs/_tools/captures.py`.

It types each command of the page into a terminal (tmux), beside which a broker, the robot of the
tutorial and a few nodes more run, and puts what the terminal shows behind it. In the page

    <!-- captured -->                       is before a fence of the kind `text`, whose lines with
                                            `$ ` are typed
    <!-- captured, Ctrl-C after 3 s -->     that ends the last of them
    <!-- drawn, Ctrl-C after 3 s: commlib top -->   is before a picture of it, in colour
    <!-- made: commlib graph -o FILE -->            is before a picture that it has made itself
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text

DOCS = Path(__file__).parents[1]
PAGE = DOCS / "command.md"
HOST = "pi-of-the-rover"  # as much of it as this machine's name has letters stands in its place
WIDTH, HEIGHT = 100, 45
PATIENCE = 60.0  # s for a command to end

PAUSE = r"(?:, Ctrl-C after (\d+) s)?"
CAPTURED = re.compile(rf"<!-- captured{PAUSE} -->\n```text\n(.*?)```\n", re.DOTALL)
DRAWN = re.compile(rf"<!-- drawn{PAUSE}: (.*?) -->\n(!\[.*?\]\((.*?)\))\n")
MADE = re.compile(r"<!-- made: (.*? -o (\S+)) -->\n!\[.*?\]\((.*?)\)\n")
FILE = re.compile(r'^```python title="([^"]+)"\n(.*?)^```$', re.DOTALL | re.MULTILINE)

OTHERS = Path(__file__).with_name("others.py")


class Screen:
    """A terminal of tmux with a shell in it."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self._name = f"commlib-docs-{os.getpid()}"
        shell = "bash --norc --noprofile"
        size = ["-x", str(WIDTH), "-y", str(HEIGHT)]
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, "-c", str(folder), shell, env=env)
        # The shell says when it waits for a command again.
        signal = f"tmux -L {self._name} wait-for -S prompt"
        self._tmux("send-keys", f"PS1='$ ' PROMPT_COMMAND='{signal}'", "Enter")
        self._wait()

    def _tmux(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        command = ["tmux", "-L", self._name, *arguments]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env=env, timeout=PATIENCE
        )
        return done.stdout

    def _wait(self) -> None:
        self._tmux("wait-for", "prompt")

    def type(self, command: str, stop_after: float | None = None) -> str:
        """What the screen shows of a command, with colours; after ``stop_after`` s comes Ctrl-C."""
        self._tmux("send-keys", "-R", "")
        self._tmux("clear-history")
        self._tmux("send-keys", "-l", command)
        self._tmux("send-keys", "Enter")
        if stop_after is None:
            self._wait()
            return self._shown()
        time.sleep(stop_after)
        shown = self._shown()  # what it draws over the whole screen is gone after its end
        self._tmux("send-keys", "C-c")
        self._wait()
        after = self._shown()
        return after if command in after and len(after) >= len(shown) else shown

    def _shown(self) -> str:
        return self._tmux("capture-pane", "-e", "-p", "-J", "-S", "-").rstrip()

    def close(self) -> None:
        """End the terminal and what runs in it."""
        self._tmux("kill-server")


def lines_of(shown: str, command: str) -> list[str]:
    """The lines below a command, without the prompt behind them."""
    lines = Text.from_ansi(shown).plain.splitlines()
    begin = next((i for i, line in enumerate(lines) if line.endswith(command)), -1)
    lines = [line.rstrip() for line in lines[begin + 1 :]]
    while lines and lines[-1] in ("", "$"):
        lines.pop()
    return lines


def elsewhere(text: str) -> str:
    """A text as another machine would print it."""
    name = socket.gethostname()
    return text.replace(name, HOST[: len(name)].ljust(len(name), "r"))


def captured(screen: Screen, found: re.Match[str]) -> str:
    """A fence with what its commands print."""
    head = found[0].split("```text\n")[0]
    commands = [line.removeprefix("$ ") for line in found[2].splitlines() if line[:2] == "$ "]
    lines = []
    for number, command in enumerate(commands, 1):
        pause = float(found[1]) if found[1] and number == len(commands) else None
        lines += [f"$ {command}", *lines_of(elsewhere(screen.type(command, pause)), command)]
    return f"{head}```text\n" + "\n".join(lines) + "\n```\n"


def draw(screen: Screen, found: re.Match[str]) -> None:
    """Make a picture of what a command shows."""
    shown = screen.type(found[2], float(found[1]) if found[1] else None)
    shown = shown.removesuffix("\n$")  # it waits for the next one
    prompt = "$ " if shown.startswith(found[2]) else ""
    text = Text.from_ansi(elsewhere(prompt + shown))
    with open(os.devnull, "w") as nowhere:
        console = Console(
            record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor"
        )
        console.print(text)
    svg = console.export_svg(title=found[2], unique_id=Path(found[4]).stem)
    # It would fetch its font from elsewhere; every machine has one of its own.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    (DOCS / found[4]).write_text(svg.replace("Fira Code", "ui-monospace"))


def free_port() -> int:
    """The port of Redis, if nobody listens on it, else another one."""
    for port in (6379, 0):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)) as sock:
            return int(sock.getsockname()[1])
    raise OSError("no free port")


@contextmanager
def running(*command: str, folder: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A program beside, until the block ends."""
    with subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def robots() -> Iterator[Screen]:
    """A terminal beside a broker, the robot of the tutorial and others."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, text in FILE.findall((DOCS / "tutorial.md").read_text()):
            (folder / name).write_text(text)  # of each the last form
        (folder / "others.py").write_text(OTHERS.read_text())
        port = free_port()
        env = {
            **os.environ,
            "COMMLIB_URL": f"redis://127.0.0.1:{port}",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONWARNINGS": "ignore",
            "TERM": "xterm-256color",
        }
        broker = stack.enter_context(
            running("commlib", "broker", "--port", str(port), folder=folder, env=env)
        )
        assert broker.stdout is not None
        broker.stdout.readline()  # it answers now
        for program in ("robot.py", "others.py"):
            stack.enter_context(running(sys.executable, program, folder=folder, env=env))
        time.sleep(2)
        screen = Screen(folder, env)
        stack.callback(screen.close)
        yield screen


def main() -> None:
    """Make all captures of the page anew."""
    text = PAGE.read_text()
    with robots() as screen:
        for found in DRAWN.finditer(text):
            print(shlex.quote(found[2]), flush=True)
            draw(screen, found)
        for found in MADE.finditer(text):
            print(found[1], flush=True)
            screen.type(found[1])
            (DOCS / found[3]).write_text((screen.folder / found[2]).read_text())

        def renewed(found: re.Match[str]) -> str:
            print(found[2].split("\n")[0], flush=True)
            return captured(screen, found)

        PAGE.write_text(CAPTURED.sub(renewed, text))


if __name__ == "__main__":
    main()
