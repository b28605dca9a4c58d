"""Which faults come when: the same for the same seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

SECONDS = {
    "cut": (0.0, 0.0),
    "cuts": (1.0, 4.0),
    "short lives": (1.0, 4.0),
    "refusal": (0.5, 5.0),
    "stall": (0.5, 10.0),
    "half open": (0.5, 10.0),
    "delay": (1.0, 5.0),
    "kill": (0.0, 5.0),
    "freeze": (0.5, 10.0),
    "subscriber": (0.0, 2.0),
    "service": (0.0, 2.0),
    "action": (0.0, 2.0),
    "node": (0.0, 2.0),
}
"""The kinds of faults, and how short and how long each may be.

``cut``: all connections end, ``cuts``: they do again and again, ``short lives``: each ends after
some bytes, ``refusal``: and new ones are refused for a while. ``stall``: the link is silent,
``half open``: and what is sent vanishes, ``delay``: all that passes is late, and then the link
breaks with much under way. ``freeze``: the broker is silent, ``kill``: it is killed, and comes back
empty. The others are stopped and run again. Of the silences some are longer than it takes to notice
them, and some are not.
"""
PARTS = ("subscriber", "service", "action", "node")
"""The faults that are a part of the program itself."""
LINKS = ("cut", "cuts", "short lives", "refusal", "stall", "half open", "delay")
"""Those of the link of one node, or of both."""
SIDES = (("base",), ("far",), ("base", "far"))
CALM = (2.0, 6.0)


class Fault(NamedTuple):
    """A fault that lasts for so many seconds, and how long all is calm before it.

    ``sides`` are the nodes whose links it is about, if it is about links.
    """

    kind: str
    sides: tuple[str, ...]
    calm: float
    lasts: float

    def __str__(self) -> str:
        where = f" of {' and '.join(self.sides)}" if self.sides else ""
        return f"{self.kind}{where} for {self.lasts:g} s"


def schedule(seed: int, broker: str) -> Iterator[Fault]:
    """Faults without an end. Each kind comes once before any comes again."""
    chance = random.Random(f"{seed} {broker}")
    while True:
        for kind in chance.sample(list(SECONDS), len(SECONDS)):
            sides = chance.choice(SIDES) if kind in LINKS else ()
            calm, lasts = chance.uniform(*CALM), chance.uniform(*SECONDS[kind])
            yield Fault(kind, sides, round(calm, 2), round(lasts, 2))
