"""Docstrings as the Markdown of the site has them.

``::`` before an indented block is reStructuredText, which editors show; in Markdown the block alone
says it.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ALONE = re.compile(r"^ *::\n", re.MULTILINE)
BEHIND = re.compile(r"(?: :|:):$", re.MULTILINE)


class Plain(griffe.Extension):
    """Leaves out what is for other readers than those of Markdown."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Adapt the docstring of what was read."""
        if obj.docstring is not None:
            text = ALONE.sub("", obj.docstring.value)
            obj.docstring.value = BEHIND.sub(lambda end: "" if end[0][0] == " " else ":", text)
