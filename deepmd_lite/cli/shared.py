"""What all commands share: the app they belong to, how they print, options of more than one of them."""

from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    help="Deep Potential: train on quantum-mechanical frames, run molecular dynamics.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console()


def say(text, style=None):
    """Print a line as it is, however wide the terminal."""
    console.print(text, style=style, soft_wrap=True, highlight=False, markup=False)


Frames = Annotated[
    list[str],
    typer.Option("-s", "--system", help="Frames: a folder, a glob, file.h5 or file.h5#/SYS; repeatable."),
]
Backend = Annotated[str, typer.Option(help="numba (the engine) or torch (the reference).")]
Precision = Annotated[str, typer.Option(help="float64, or float32: twice as fast, 1e-6 less exact.")]


def words(text):
    """The words of a comma-separated option, or None."""
    return None if text is None else [w.strip() for w in text.split(",")]
