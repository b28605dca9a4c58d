"""How programs are run that must have nothing to complain of."""

from __future__ import annotations

STRICT = ("-X", "dev", "-W", "error")
"""Options of Python: everything that may be wrong is told, and warnings are errors."""

FORKING = (*STRICT, "-W", "ignore:This process:DeprecationWarning")
"""For programs which fork although they have threads: that is what they are about."""

HEAD = """
import logging
# How long a step of the loop takes says nothing on a busy machine.
logging.getLogger("asyncio").addFilter(lambda it: not it.getMessage().startswith("Executing "))
del logging
"""
"""What such a program begins with."""
