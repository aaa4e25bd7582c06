"""``dplite``: one thin function per subcommand, each a call of a library function with plain arguments.

Exit codes: 0; 2 for bad input or usage (one line on stderr; ``--debug`` shows the traceback); 1 for a run
that failed; 143 or 130 after a SIGTERM or Ctrl-C that left a checkpoint.
"""

import errno
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deepmd_lite.errors import ConfigError, DeepmdLiteError, SimulationError, TrainingError

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


@app.command()
def convert(
    inputs: Annotated[
        list[str], typer.Argument(help="Files that ASE reads: extxyz, OUTCAR, CP2K, QE, GPAW ...")
    ],
    out: Annotated[str, typer.Option("-o", "--out", help="file.h5, or a folder for deepmd/npy.")],
    stress: Annotated[
        str | None,
        typer.Option(
            help="What the file's stress or virial means: virial (eV, positive when compressed), virial_negative, "
            "ase (eV/Å³, positive when stretched), stress_positive, kbar (VASP's), or none to leave it out."
        ),
    ] = None,
    units: Annotated[
        str | None, typer.Option(help="Unit of the forces, where not eV/Å: hartree/bohr, kcal/mol/Å ...")
    ] = None,
    length: Annotated[str | None, typer.Option(help="Unit of the coordinates, where it differs.")] = None,
    energy_key: Annotated[str | None, typer.Option(help="Name of the energy in the file.")] = None,
    force_key: Annotated[str | None, typer.Option(help="Name of the forces in the file.")] = None,
    virial_key: Annotated[str | None, typer.Option(help="Name of the virial or stress in the file.")] = None,
    type_map: Annotated[str | None, typer.Option(help="Elements in order: O,H.")] = None,
):
    """Turn files of other codes into training frames."""
    from deepmd_lite.frames.convert import convert as convert_files

    done = convert_files(
        inputs,
        out,
        type_map=_words(type_map),
        stress=stress,
        energy_key=energy_key,
        force_key=force_key,
        virial_key=virial_key,
        units=units,
        length=length,
    )
    for system, address in zip(done.systems, done.addresses):
        say(f"{system.formula}: {system.nframes} frames in {address}")
    for note in done.notes:
        say(f"note: {note}", "yellow")


@app.command()
def label(
    structures: Annotated[Path, typer.Argument(help="A file of structures that ASE reads.")],
    calculator: Annotated[
        str,
        typer.Option(
            "-c", "--calculator", help="ASE's name (emt), package.module:Class, or file.py:function."
        ),
    ],
    out: Annotated[str, typer.Option("-o", "--out", help="file.h5#/SYSTEM; frames that are there are kept.")],
    options: Annotated[str | None, typer.Option(help="Arguments of the calculator, a JSON object.")] = None,
):
    """Label structures with energy, force and virial by any ASE calculator; goes on where it was stopped."""
    from rich.progress import Progress

    from deepmd_lite.frames.label import label as label_structures

    with Progress(console=console) as bar:
        task = bar.add_task("labelling", total=None)
        summary = label_structures(
            structures,
            calculator,
            out,
            options=options,
            progress=lambda done, total, skipped: bar.update(task, completed=done, total=total),
        )
    counts = f"{summary.labelled} frames labelled, {summary.found} were there, {summary.skipped} failed"
    say(f"{out}: {counts}")
    if summary.skipped:
        raise typer.Exit(1)


@app.command()
def check(
    data: Annotated[list[str], typer.Argument(help="Frames: a folder, a glob, file.h5 or file.h5#/SYS.")],
    rcut: Annotated[float, typer.Option(help="Cutoff for the neighbor statistics, Å.")] = 6.0,
    type_map: Annotated[str | None, typer.Option(help="Elements in order: O,H.")] = None,
):
    """Look frames over: overlaps, duplicates, units, forces against energies, the sel to use."""
    from deepmd_lite.frames.check import check as look_over

    report = look_over(data, rcut, _words(type_map))
    console.print(report.render())
    if not report.ok:
        raise typer.Exit(2)


@app.command()
def split(
    data: Annotated[list[str], typer.Argument(help="Frames: a folder, a glob, file.h5 or file.h5#/SYS.")],
    out: Annotated[
        str,
        typer.Option("-o", "--out", help="name.h5 makes name_training.h5, name_validation.h5, name_test.h5."),
    ],
    fractions: Annotated[str, typer.Option(help="Of training, validation and test frames.")] = "0.8,0.1,0.1",
    seed: Annotated[int, typer.Option(help="Same seed, same split.")] = 0,
    blocks: Annotated[
        int | None,
        typer.Option(help="Cut each system into so many stretches of a trajectory and share out those."),
    ] = None,
):
    """Share out frames among training, validation and test sets."""
    from deepmd_lite.frames.split import split_files

    for part, nframes, path in split_files(data, out, fractions, seed=seed, blocks=blocks):
        say(f"{part}: {nframes} frames in {path}")


def _words(text):
    """The words of a comma-separated option, or None."""
    return None if text is None else [w.strip() for w in text.split(",")]


@app.command()
def init(
    data: Annotated[
        list[str], typer.Argument(help="Training frames: a folder, a glob, file.h5 or file.h5#/SYS.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The input file to write.")] = Path("input.json"),
    validation: Annotated[list[str] | None, typer.Option(help="Frames to validate on; repeatable.")] = None,
    rcut: Annotated[float, typer.Option(help="Cutoff in Å.")] = 6.0,
    size: Annotated[str, typer.Option(help="Of the nets: small (fast) or large (accurate).")] = "large",
    steps: Annotated[
        int | None, typer.Option(help="Training steps; from the number of frames when left out.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="In place of steps: as many as this machine does in that time.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
):
    """Write a sensible input.json from the data."""
    from deepmd_lite.train.init import write_input

    settings = write_input(
        out,
        data=data,
        validation=validation,
        rcut=rcut,
        size=size,
        steps=steps,
        minutes=minutes,
        overwrite=force,
    )
    sel = settings["model"]["descriptor"]["sel"]
    say(
        f"wrote {out}: {settings['training']['numb_steps']} steps, {settings['model']['type_map']}, sel {sel}"
    )
    say(f"next: dplite train {out}")


@app.command()
def train(
    input: Annotated[Path, typer.Argument(help="input.json, with DeePMD-kit's keys.")],
    restart: Annotated[Path | None, typer.Option("-r", "--restart", help="Continue this checkpoint.")] = None,
    init_model: Annotated[
        Path | None, typer.Option("-i", "--init-model", help="Start from this model.")
    ] = None,
    finetune: Annotated[
        Path | None, typer.Option("-t", "--finetune", help="Fit this model to other frames.")
    ] = None,
    folder: Annotated[Path, typer.Option("-o", "--out", help="Folder for model and curves.")] = Path("."),
):
    """Train a model; ends with model.dp, lcurve.out and a plot of the learning curve."""
    from deepmd_lite.evaluate.plots import learning_curve
    from deepmd_lite.train.command import run_command

    start = {"restart": restart, "init_model": init_model, "finetune": finetune}
    code, curve = run_command(input, folder, console, **start)
    if curve:
        say(f"wrote {curve} and {learning_curve(curve, folder / 'lcurve.png')}")
    raise typer.Exit(code)


@app.command("change-bias")
def change_bias(
    model: Annotated[Path, typer.Argument(help="A .dp model file.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The model file to write.")],
    system: Frames = None,
    mode: Annotated[
        str,
        typer.Option("-m", "--mode", help="change: fit what the model misses; set: fit the labels alone."),
    ] = "change",
    values: Annotated[
        str | None, typer.Option("-b", "--bias-value", help="Energies per element by hand, eV: -93.57,-187.1")
    ] = None,
):
    """Shift the energies per element so that a model fits the energies of other frames."""
    from deepmd_lite.train.bias import change_bias as change

    console.print(change(model, system, out, mode=mode, values=values).table())
    say(f"wrote {out}")


@app.command()
def test(
    model: Annotated[Path, typer.Option("-m", "--model", help="A .dp model file.")],
    system: Frames,
    detail: Annotated[
        Path | None,
        typer.Option("-d", "--detail", help="Prefix of files with every number, in DeePMD-kit's columns."),
    ] = None,
    plots: Annotated[Path | None, typer.Option(help="Picture to draw: prediction against reference.")] = None,
    backend: Backend = "numba",
    precision: Precision = "float64",
):
    """Compare a model with reference data: RMSE and MAE by system and by element."""
    from deepmd_lite.evaluate.test import test_model

    report = test_model(model, system, detail, plots, backend, precision)
    console.print(report.table())
    console.print(report.element_table())
    if plots:
        say(f"wrote {plots}")


@app.command("model-devi")
def model_devi(
    models: Annotated[list[Path], typer.Option("-m", "--model", help="A .dp model file; give two or more.")],
    system: Frames,
    out: Annotated[Path, typer.Option("-o", "--out", help="The file to write.")] = Path("model_devi.out"),
    frequency: Annotated[
        int, typer.Option("-f", "--frequency", help="Steps between frames, for the step column.")
    ] = 1,
    real_error: Annotated[
        bool, typer.Option("--real-error", help="Deviation from the reference data instead of from the mean.")
    ] = False,
    atomic: Annotated[bool, typer.Option("--atomic", help="Add the force deviation of every atom.")] = False,
    relative: Annotated[
        float | None, typer.Option(help="Level in eV/Å: force deviations relative to |F| + level.")
    ] = None,
    relative_v: Annotated[
        float | None, typer.Option("--relative-v", help="Level in eV: the same for the virial.")
    ] = None,
    backend: Backend = "numba",
    precision: Precision = "float64",
):
    """How far several models disagree, in the columns of DeePMD-kit's model_devi.out."""
    from deepmd_lite.evaluate.model_devi import model_deviation

    deviations = model_deviation(
        models,
        system,
        frequency=frequency,
        real_error=real_error,
        relative=relative,
        relative_v=relative_v,
        backend=backend,
        precision=precision,
    )
    deviations.write(out, atomic)
    console.print(deviations.table())
    say(f"wrote {out}")


@app.command()
def analyze(
    trajectory: Annotated[Path, typer.Argument(help="HDF5 of dplite md, or any file that ASE reads.")],
    rdf: Annotated[
        str | None, typer.Option(help="Radial distribution of these pairs: O-O,O-H; or all.")
    ] = None,
    msd: Annotated[bool, typer.Option("--msd", help="Mean square displacement and diffusion.")] = False,
    vacf: Annotated[bool, typer.Option("--vacf", help="Velocity autocorrelation and vibrations.")] = False,
    every: Annotated[int, typer.Option(help="Use each N-th frame.")] = 1,
    skip: Annotated[int, typer.Option(help="Leave out so many frames at the beginning.")] = 0,
    dt: Annotated[
        float | None, typer.Option(help="fs between frames of the file, where it holds no time.")
    ] = None,
    rmax: Annotated[
        float | None, typer.Option(help="Range of the radial distribution, Å; 6 to 8 by the cell.")
    ] = None,
    folder: Annotated[Path, typer.Option("-o", "--out", help="Folder for tables and pictures.")] = Path(
        "analysis"
    ),
):
    """Structure, diffusion and vibrations of a trajectory; all of them unless --rdf, --msd or --vacf choose."""
    from deepmd_lite.evaluate.analyze import analyze as analyze_trajectory

    with console.status(f"reading {trajectory}"):
        analysis = analyze_trajectory(
            trajectory, folder, rdf=rdf, msd=msd, vacf=vacf, every=every, skip=skip, dt=dt, rmax=rmax
        )
    for table in analysis.tables():
        console.print(table)
    for note in analysis.notes:
        say(f"note: {note}", "yellow")
    say(f"wrote {', '.join(map(str, analysis.files))}")


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


@app.command()
def validate(
    model: Annotated[Path, typer.Option("-m", "--model", help="A .dp model file.")],
    system: Frames,
    precision: Precision = "float64",
):
    """The engine against the reference implementation (torch): differences on the same frames."""
    from deepmd_lite.evaluate.validate import validate_model

    console.print(validate_model(model, system, precision).table())


@app.command()
def show(model: Annotated[Path, typer.Argument(help="A .dp model file.")]):
    """What a model file holds."""
    from deepmd_lite.evaluate.show import show as describe

    console.print(describe(model).table())


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
