"""Test nodes without a broker: one in this process, that can be listened to and made to fail.

With pytest there are fixtures of the same, from a plugin that pytest finds by itself:
``commlib_broker``, ``commlib_node`` and ``commlib_messages``.
"""

from __future__ import annotations

from commlib.testing._broker import MemoryBroker, capture
from commlib.testing._capture import Capture, Captured
from commlib.testing._faults import Faults
from commlib.testing._virtual import VirtualLoop, run

__all__ = ["Capture", "Captured", "Faults", "MemoryBroker", "VirtualLoop", "capture", "run"]
