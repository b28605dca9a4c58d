"""Which users of a broker may tell of nodes, as far as the broker lets it be known."""

from __future__ import annotations

import logging
from math import inf

from commlib._discovery import ANNOUNCE
from commlib._params import BaseParameters

log = logging.getLogger("commlib.discovery")

STRIKE_SECONDS, STRIKES = 1.0, 3
"""A connection that breaks so soon after something was told, so often in a row, breaks because of
it: some brokers end the connection of who publishes what he may not."""
CALM_SECONDS = 1.0  # for each strike, in which nothing is told: does the connection break anyway?


class Rights:
    """All may, until the broker refuses it. Times are in s, of one clock."""

    def __init__(self) -> None:
        self._may_not: list[BaseParameters] = []
        self._told_at = -inf
        self._strikes = 0

    def may(self, params: BaseParameters) -> bool:
        """Whether who connects with these may tell."""
        return params not in self._may_not

    def refuse(self, params: BaseParameters, why: object) -> None:
        """The broker does not let him; it is warned of once."""
        if not self.may(params):
            return
        self._may_not.append(params)
        self._strikes = 0
        log.warning(
            "%s: no discovery: %s. Give the user the right to publish and subscribe to %s and "
            "what is below it, or make nodes with discovery=False",
            *(params, why, ANNOUNCE),
        )

    def note_told(self, now: float) -> None:
        """Something was told."""
        self._told_at = now

    def are_missing(self, now: float) -> bool:
        """The connection has broken: whether it does so whenever something is told."""
        self._strikes = self._strikes + 1 if now - self._told_at < STRIKE_SECONDS else 0
        return self._strikes >= STRIKES

    def calm(self) -> float:
        """How long nothing is to be told on a connection that has come back."""
        return self._strikes * CALM_SECONDS
