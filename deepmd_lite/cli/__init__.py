"""``dplite``: one thin function per subcommand, each a call of a library function with plain arguments.

Exit codes: 0; 2 for bad input or usage (one line on stderr; ``--debug`` shows the traceback); 1 for a run
that failed; 143 or 130 after a SIGTERM or Ctrl-C that left a checkpoint.
"""

import errno
import sys
import warnings
from typing import Annotated

import typer

from deepmd_lite.cli.shared import app
from deepmd_lite.errors import DeepmdLiteError, SimulationError, TrainingError

# isort: off
# in the order of --help; importing them is what adds their commands
from deepmd_lite.cli import data, training, evaluation, dynamics, theory  # noqa: F401

# isort: on


def _show_version(wanted: bool):
    if wanted:
        from deepmd_lite import __version__

        print(f"deepmd_lite {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
):
    """Deep Potential: train on quantum-mechanical frames, run molecular dynamics."""


def main():
    """Run ``dplite``; errors become one line and an exit code."""
    warnings.showwarning = lambda message, *_, **__: print(f"dplite: warning: {message}", file=sys.stderr)
    try:
        app()
    except (DeepmdLiteError, OSError) as e:
        if "--debug" in sys.argv:
            raise
        print(f"dplite: {e}", file=sys.stderr)
        failed = isinstance(e, (TrainingError, SimulationError)) or getattr(e, "errno", None) in (
            errno.ENOSPC,
            errno.EFBIG,
            errno.EIO,
        )
        sys.exit(1 if failed else 2)
