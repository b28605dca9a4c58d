"""A group of commands, which knows what was meant by a misspelt or misplaced word."""

from __future__ import annotations

import click


class Group(click.Group):
    """A group whose errors say what was meant.

    For a command that it has not that is the one that is most like it; for an option before a
    command, to which nearly all belong, where it stands.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = list(args)  # click takes from the list what it has read
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as exc:
            name = exc.option_name
            command = next((word for word in words if word in self.list_commands(ctx)), None)
            if command is None:
                raise
            raise click.UsageError(
                f"{exc.message.rstrip('.')}. Options of a command stand behind it: "
                f"{ctx.command_path} {command} ... {name}",
                ctx,
            ) from exc

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
