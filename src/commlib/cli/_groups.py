"""A group of commands, which knows what was meant by a misspelt or misplaced word."""

from __future__ import annotations

import click

LIKE = 0.8  # how alike a misspelt option is, of 1; --json is like --version to click


class Group(click.Group):
    """A group whose errors say what was meant.

    For a command that it has not that is the one that is most like it; for an option, which nearly
    all belong to the commands, where it stands.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as exc:
            from difflib import get_close_matches

            own = [name for option in self.get_params(ctx) for name in option.opts]
            if get_close_matches(exc.option_name, own, 1, LIKE):
                raise
            raise click.UsageError(
                f"{exc.message} An option of a command stands behind it: "
                f"{ctx.command_path} COMMAND {exc.option_name} ...",
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
