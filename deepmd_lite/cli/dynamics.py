"""Molecular dynamics: md."""

from pathlib import Path
from typing import Annotated

import typer

from deepmd_lite.cli.shared import app
from deepmd_lite.errors import ConfigError


@app.command()
def md(
    input: Annotated[Path | None, typer.Argument(help="md.json.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value or section.key=value in place of the file's; repeatable."),
    ] = None,
    restart: Annotated[bool, typer.Option("-r", "--restart", help="Continue from the checkpoint.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how the work would be shared out, and what it would cost.")
    ] = False,
    ranks: Annotated[
        int | None, typer.Option(help="Number of ranks for --dry-run, in place of those started.")
    ] = None,
    help_config: Annotated[bool, typer.Option("--help-config", help="Explain every key of md.json.")] = False,
):
    """Molecular dynamics on any number of ranks: mpirun -n 4 dplite md md.json."""
    from deepmd_lite.md.command import run_command
    from deepmd_lite.md.settings import describe

    if help_config:
        print(describe(), end="")
        return
    if input is None:
        raise ConfigError("dplite md: expected an md.json; see --help-config for its keys")
    code = run_command(input, settings or [], restart=restart, dry_run=dry_run, ranks=ranks)
    if code:
        raise typer.Exit(code)
