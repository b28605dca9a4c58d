"""How a command ends whose words make no sense, whoever is on the broker."""

from __future__ import annotations

import click


class WrongWords(click.ClickException):
    """A name, a URL or a message that can be none, or not with this kind of broker.

    The exit status is that of an option which there is not.
    """

    exit_code = 2
