"""Figures: what there is to say of many of them, and how people read them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt

Spread = dict[str, float]
"""How values lie: ``min``, ``mean``, ``p50``, ``p99``, ``max`` and ``std``."""


def spread(values: Iterable[float]) -> Spread | None:
    """How values lie; None of nothing."""
    some = sorted(values)
    if not some:
        return None
    mean = sum(some) / len(some)
    last = len(some) - 1
    return {
        "min": some[0],
        "mean": mean,
        "p50": some[round(last * 0.5)],
        "p99": some[round(last * 0.99)],
        "max": some[-1],
        "std": sqrt(sum((value - mean) ** 2 for value in some) / len(some)),
    }


def in_ms(found: Spread, *names: str) -> str:
    """Some figures of a spread of ms."""
    return ", ".join(f"{name} {found[name]:.2f}" for name in names) + " ms"


def in_bytes(count: float) -> str:
    """Bytes as people read them; 1 kB is 1000."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} GB"


def clock(seconds: float) -> str:
    """A time as 0:01:30."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def counted(number: int, word: str) -> str:
    """A number of things, the word in the plural where there is not one of them."""
    plural = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{number} {word if number == 1 else plural}"
