"""The `commlib` command. Importing this package imports nothing; `main` does."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command with the arguments of the process and leave with its exit status."""
    try:
        from commlib.cli._main import commlib
    except ModuleNotFoundError as exc:
        # Only click's own absence has this remedy; any other is a fault of ours and shows itself.
        if exc.name != "click":
            raise
        sys.exit(_without_click())
    from commlib.cli._output import telling_what_is_lost

    with telling_what_is_lost():
        commlib(prog_name="commlib")


def _without_click() -> int:
    print('the commlib command needs click: pip install "commlib-py[cli]"', file=sys.stderr)
    return 2
