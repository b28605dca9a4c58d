"""Messaging for cyber-physical systems: the public modules are ``commlib.node`` and its neighbours.

PYTEST_DONT_REWRITE: pytest finds the fixtures of ``commlib.testing`` by itself, and would warn
where a program has imported commlib before it runs its tests.
"""

__version__ = "1.0.0a1"
