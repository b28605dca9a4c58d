"""The relay of TCP connections under the name that commlib-py 0.13 has for it."""

from __future__ import annotations

from commlib.proxy import TCPProxy

__all__ = ["TCPBridge"]

TCPBridge = TCPProxy
"""The same class: see `commlib.proxy`."""
