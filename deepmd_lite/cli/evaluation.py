"""How good a model is, and what it says: test, model-devi, validate, show, analyze."""

from pathlib import Path
from typing import Annotated

import typer

from deepmd_lite.cli.shared import Backend, Frames, Precision, app, console, say
from deepmd_lite.errors import ConfigError


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
    models: Annotated[
        list[Path],
        typer.Option("-m", "--model", help="A .dp model file: two or more, or one after dplite refit."),
    ],
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
    """How uncertain models are, by their disagreement or the covariance in one, in the columns of model_devi.out."""
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
def validate(
    model: Annotated[Path, typer.Option("-m", "--model", help="A .dp model file.")],
    system: Frames,
    precision: Precision = "float64",
):
    """The engine against the reference implementation (torch): differences on the same frames."""
    from deepmd_lite.evaluate.validate import validate_model

    console.print(validate_model(model, system, precision).table())


@app.command()
def show(
    model: Annotated[Path, typer.Argument(help="A .dp model file.")],
    diagnostics: Annotated[
        bool,
        typer.Option(
            "--diagnostics", help="Path norms; with frames also the generalization gap and complexity."
        ),
    ] = False,
    system: Annotated[
        list[str] | None, typer.Option("-s", "--system", help="Frames it was trained on, for --diagnostics.")
    ] = None,
    validation: Annotated[
        list[str] | None, typer.Option(help="Frames it was not trained on, for --diagnostics; repeatable.")
    ] = None,
):
    """What a model file holds; with --diagnostics what learning theory says of it."""
    from deepmd_lite.evaluate.show import show as describe

    if (system or validation) and not diagnostics:
        raise ConfigError("dplite show: frames are for --diagnostics; add it, or leave them out")
    console.print(describe(model).table())
    if diagnostics:
        from deepmd_lite.evaluate.diagnostics import diagnose

        with console.status("reading frames"):
            found = diagnose(model, system, validation)
        for table in found.tables():
            console.print(table)
        for line in found.lines():
            say(line)


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
