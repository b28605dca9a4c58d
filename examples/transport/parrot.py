"""Parrot, a made-up broker: JSON over TCP, a line for each message.

A client sends, and is sent ``said``, ``given`` and ``sync``:

* ``["hear", prefix]``: whatever is said on names that begin so; ``["ignore", prefix]`` ends it.
* ``["say", name, text]``: for all who hear it.
* ``["take", queue, who]``: one text of a queue, now or as soon as there is one; ``["leave", queue,
  who]`` takes all of that back. ``who`` is a name by which the client knows what it is for.
* ``["give", queue, text]``: for one who takes it, or kept.
* ``["sync"]``: an answer when all of the above is done.

Start it with: python parrot.py [PORT]
"""

import asyncio
import json
import sys
from asyncio import StreamReader, StreamWriter
from collections import defaultdict, deque

LONGEST_LINE = 32 * 1024 * 1024


class Parrot:
    def __init__(self) -> None:
        self.heard: dict[StreamWriter, set[str]] = {}
        self.takers: defaultdict[str, deque[tuple[StreamWriter, str]]] = defaultdict(deque)
        self.kept: defaultdict[str, deque[str]] = defaultdict(deque)

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.heard[writer] = set()
        try:
            async for line in reader:
                verb, *rest = json.loads(line)
                getattr(self, f"on_{verb}")(writer, *rest)
        except (ValueError, AttributeError, TypeError, OSError) as exc:
            print("a client was turned away:", exc, file=sys.stderr)
        finally:
            del self.heard[writer]
            for queue, takers in self.takers.items():
                self.takers[queue] = deque(taker for taker in takers if taker[0] is not writer)
            writer.close()

    def on_hear(self, writer: StreamWriter, prefix: str) -> None:
        self.heard[writer].add(prefix)

    def on_ignore(self, writer: StreamWriter, prefix: str) -> None:
        self.heard[writer].discard(prefix)

    def on_say(self, writer: StreamWriter, name: str, text: str) -> None:
        for listener, prefixes in self.heard.items():
            if name.startswith(tuple(prefixes)):
                tell(listener, "said", name, text)

    def on_take(self, writer: StreamWriter, queue: str, who: str) -> None:
        if self.kept[queue]:
            tell(writer, "given", who, self.kept[queue].popleft())
        else:
            self.takers[queue].append((writer, who))

    def on_leave(self, writer: StreamWriter, queue: str, who: str) -> None:
        left = (taker for taker in self.takers[queue] if taker != (writer, who))
        self.takers[queue] = deque(left)

    def on_give(self, writer: StreamWriter, queue: str, text: str) -> None:
        if self.takers[queue]:
            taker, who = self.takers[queue].popleft()
            tell(taker, "given", who, text)
        else:
            self.kept[queue].append(text)

    def on_sync(self, writer: StreamWriter) -> None:
        tell(writer, "sync")


def tell(writer: StreamWriter, *message: str) -> None:
    writer.write(json.dumps(message).encode() + b"\n")


async def main(port: int) -> None:
    server = await asyncio.start_server(Parrot().serve, "127.0.0.1", port, limit=LONGEST_LINE)
    print(f"parrot://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 7000))
