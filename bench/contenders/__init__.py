"""Who takes part. A contender is a module of this package and an entry in `CONTENDERS`.

The module is run with the interpreter of an environment of its own, ``.venv-bench/<environment>``,
which `scripts/setup.sh` makes of the requirements in ``<environment>.txt``; ours and the limit are
run with that of the project. It plays the roles that `bench.roles` lists, by its name on the
command line, and says what came of it in JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]

ONLY_OURS = frozenset({"blob", "topics", "goals", "bridge"})
EVERYTHING = frozenset({"publish", "receive", "burst", "call", "calls", "node", "start"})
WITHOUT_UVLOOP, WITH_UVLOOP = {"uvloop": 0}, {"uvloop": 1}


@dataclass(frozen=True)
class Contender:
    """A library, or a way to use it.

    ``kind``: "ours" is measured against the "limit" and the best "peer"; a "client" is shown beside
    them, for it is a driver and has neither types nor calls. ``takes_part`` in these measurements.
    """

    name: str
    module: str
    kind: Literal["ours", "limit", "peer", "client"]
    takes_part: frozenset[str]
    imports: str = ""
    environment: str = ""
    packages: tuple[str, ...] = ()
    options: Mapping[str, int] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        """The interpreter that runs it."""
        if not self.environment:
            return Path(sys.executable)
        return ROOT / ".venv-bench" / self.environment / "bin/python"


OUR_PACKAGES = ("commlib-py", "msgspec", "hiredis", "uvloop")
OUR_IMPORTS = "commlib.node, commlib.transports.redis"

CONTENDERS = (
    Contender(
        "ours",
        "bench.contenders.ours",
        "ours",
        EVERYTHING | ONLY_OURS,
        imports=OUR_IMPORTS,
        packages=OUR_PACKAGES,
        options=WITHOUT_UVLOOP,
    ),
    Contender("limit", "bench.limits", "limit", frozenset({"publish", "receive", "call", "blob"})),
    Contender(
        "commlib 0.13.2",
        "bench.contenders.commlib_0_13_2",
        "peer",
        EVERYTHING,
        imports=OUR_IMPORTS,
        environment="commlib_0_13_2",
        packages=("commlib-py", "pydantic", "redis", "hiredis", "orjson"),
    ),
    Contender(
        "ours, uvloop",
        "bench.contenders.ours",
        "ours",
        EVERYTHING | ONLY_OURS,
        imports=OUR_IMPORTS + ", uvloop",
        options=WITH_UVLOOP,
    ),
    Contender(
        "commlib 0.6.3",
        "bench.contenders.commlib_0_6_3",
        "peer",
        EVERYTHING,
        imports=OUR_IMPORTS,
        environment="commlib_0_6_3",
        packages=("commlib-py", "redis", "hiredis", "ujson"),
    ),
    Contender(
        "ours, aio",
        "bench.contenders.ours_aio",
        "ours",
        frozenset({"call", "calls", "tasks"}),
        options=WITHOUT_UVLOOP,
    ),
    Contender(
        "FastStream",
        "bench.contenders.faststream",
        "peer",
        EVERYTHING | {"tasks"},
        imports="faststream.redis",
        environment="faststream",
        packages=("faststream", "pydantic", "redis", "hiredis", "orjson", "uvloop"),
    ),
    Contender(
        "ours, aio, uvloop",
        "bench.contenders.ours_aio",
        "ours",
        frozenset({"call", "calls", "tasks"}),
        options=WITH_UVLOOP,
    ),
    Contender(
        "redis-py",
        "bench.contenders.redis_py",
        "client",
        frozenset({"publish", "receive", "burst", "call", "calls", "blob", "start"}),
        imports="redis",
        environment="redis_py",
        packages=("redis", "hiredis", "orjson", "uvloop"),
    ),
    Contender(
        "redis-py, asyncio",
        "bench.contenders.redis_py_aio",
        "client",
        frozenset({"publish", "receive", "burst", "blob"}),
        environment="redis_py",
    ),
)
"""In the order in which they take turns: ours never twice in a row."""
