"""The lecture's experiments: theory list, theory run."""

import json
from pathlib import Path
from typing import Annotated

import typer

from deepmd_lite.cli.shared import app, console, say
from deepmd_lite.errors import ConfigError

theory = typer.Typer(
    no_args_is_help=True, help="The learning theory of the lecture: experiments that measure it."
)
app.add_typer(theory, name="theory")


@theory.command("list")
def theory_list():
    """The experiments, by chapter."""
    from deepmd_lite.evaluate.experiments import listing

    console.print(listing())


@theory.command("run")
def theory_run(
    names: Annotated[list[str] | None, typer.Argument(help="Names or ids of experiments.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Run all of them.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Larger samples: minutes in place of seconds.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON.")] = False,
    seed: Annotated[int, typer.Option(help="Same seed, same numbers.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="Folder for a picture of each.")] = None,
):
    """Measure statements of the lecture: what was predicted, what was found, whether it holds."""
    from deepmd_lite.evaluate.experiments import EXPERIMENTS, choose, run

    if bool(names) == everything:
        raise ConfigError(
            f"dplite theory run: expected names of experiments or --all, found {'both' if names else 'neither'}; "
            "dplite theory list names them"
        )
    findings = []
    for experiment in EXPERIMENTS if everything else choose(names):
        with console.status(f"{experiment.id} {experiment.name}"):
            finding = run(experiment, full, seed)
        findings.append(finding)
        if not as_json:
            console.print(finding.table())
        if plot:
            picture = finding.draw(plot)
            if not as_json:
                say(f"wrote {picture}")
    if as_json:
        print(json.dumps([finding.as_dict() for finding in findings], indent=2))
    elif len(findings) > 1:
        say(f"{sum(f.passed for f in findings)} of {len(findings)} experiments pass")
    if not all(finding.passed for finding in findings):
        raise typer.Exit(1)
