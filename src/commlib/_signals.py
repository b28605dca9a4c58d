"""What signals may do to the main thread, the only one in which Python calls their handlers."""

from __future__ import annotations

import signal
import threading
from _signal import getsignal  # type: ignore[import-not-found] # quicker than that of signal

_SIGNALS = [int(number) for number in signal.valid_signals()]
_QUIET = {signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, None}
_known_quiet: list[object] = []
"""The handlers of all signals as they were when they were found to be quiet."""


def may_be_interrupted() -> bool:
    """Whether a handler of the program's own may come in between on this thread.

    Ctrl-C by itself is none: what it interrupts ends.
    """
    if threading.get_ident() != threading.main_thread().ident:
        return False
    global _known_quiet
    handlers = [*map(getsignal, _SIGNALS)]
    if handlers == _known_quiet:
        return False
    try:
        is_quiet = _QUIET.issuperset(handlers)
    except TypeError:  # a handler that cannot be hashed
        return True
    if is_quiet:
        _known_quiet = handlers
    return not is_quiet
