"""A group of commands, which knows what was meant by a misspelt one."""

from __future__ import annotations

import click


class Group(click.Group):
    """A group whose error for a command that it has not names the one that is most like it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), 1)
            if not near or "did you mean" in exc.message.lower():
                raise
            raise click.UsageError(f"{exc.message} Did you mean {near[0]}?", ctx) from exc
