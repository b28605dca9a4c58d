"""Every pattern over every broker. Nothing here knows which broker it is."""

from __future__ import annotations

import pytest

from commlib._portal import Portal


@pytest.fixture(autouse=True)
def _clean(portal: Portal) -> None:
    """No test of a pattern leaves a task or a thread behind."""
