"""The tree of commands: a thing, then what is done with it."""

from __future__ import annotations

import typer

from prebuilds.cli import pools, templates, tokens, workspaces

app = typer.Typer(
    help="Development workspaces that are ready before anybody asks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(templates.app, name="templates")
app.add_typer(templates.app, name="template", hidden=True)
app.add_typer(pools.app, name="pools")
app.add_typer(pools.app, name="pool", hidden=True)
app.add_typer(workspaces.app, name="workspaces")
app.add_typer(workspaces.app, name="workspace", hidden=True)
app.add_typer(tokens.app, name="tokens")
