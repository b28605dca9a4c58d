"""Whether another client has our client id: it throws us out, and we throw it out. Pure.

An episode begins with a word of the broker's (MQTT 5), or when several connections in a row were
short: Mosquitto 2.0, and every broker on MQTT 3.1.1, has no word for it. From then on every
connection that ends counts as taken over, so that the two come in turns, with long pauses.

It ends with a connection that has outlived such a pause, and when the broker was not to be reached:
then it was its restarts that have ended them.
"""

from __future__ import annotations

from collections import deque

from commlib._session import AUTH_PAUSE, TakenOver
from commlib.exceptions import CommlibError

SHORT_SECONDS = 10.0  # the life of a connection that another client with our name may have ended
SHORT_LIVES = 3  # that the broker has closed, within the window, after which that is likely
BREAKS = 20  # the same of those that break: so does one to whom we write, but bad links do, too
WINDOW_SECONDS = 2 * AUTH_PAUSE  # longer than the longest pause that both make, 1.5 times as much


class Rivals:
    """What becomes of the connections of one client id; ``name`` is the broker's, for the log."""

    def __init__(self, name: str, client_id: str) -> None:
        self._who = f"{name}: another client came with the client id {client_id!r}"
        self.forget()

    def forget(self) -> None:
        """Whatever was the matter is over."""
        self._closed: deque[float] = deque(maxlen=SHORT_LIVES)
        self._broken: deque[float] = deque(maxlen=BREAKS)
        self._is_fight = False
        self._is_told = False

    def judge(self, reason: Exception | None, begun: float, ended: float) -> Exception | None:
        """Why a connection has ended, at which times (s), as is known of it and of those before.

        TakenOver if it was another client; it says what to do, once in each episode.
        """
        if ended - begun > WINDOW_SECONDS:
            self.forget()
        is_said = isinstance(reason, TakenOver)
        if isinstance(reason, CommlibError) and not is_said:
            return reason  # our own, or another one of the broker's
        if not is_said:
            if ended - begun < SHORT_SECONDS:
                self._note(self._broken if isinstance(reason, OSError) else self._closed, ended)
            if not self._is_fight:
                return reason
        if self._is_told:
            return TakenOver(f"{self._who} again")
        self._is_told = True
        doubt = "" if is_said else ", as it seems"
        other = "" if is_said else ", or do not publish what the broker ends connections for"
        return TakenOver(f"{self._who}{doubt}; give each program its own{other}")

    def _note(self, ends: deque[float], ended: float) -> None:
        ends.append(ended)
        self._is_fight |= len(ends) == ends.maxlen and ended - ends[0] < WINDOW_SECONDS
