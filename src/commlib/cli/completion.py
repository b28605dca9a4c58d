"""`commlib completion`: the script by which a shell completes the command's words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_COMMLIB_COMPLETE"  # by which the script asks; click makes it of the program's name


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete commands, options and names.

    \b
    bash:  eval "$(commlib completion bash)"       in ~/.bashrc
    zsh:   eval "$(commlib completion zsh)"        in ~/.zshrc, after compinit
    fish:  commlib completion fish | source        in ~/.config/fish/config.fish

    Names of nodes, topics, services and actions are asked from the broker of --url or COMMLIB_URL.
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these three"
    root = ctx.find_root().command
    try:
        script = kind(root, {}, "commlib", VARIABLE).source()
    except RuntimeError as exc:  # a bash that is too old, or none
        raise click.ClickException(str(exc)) from exc
    click.echo(script)
