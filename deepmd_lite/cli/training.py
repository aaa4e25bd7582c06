"""Models from frames: init, train, change-bias, refit, rf-fit, learning-curve."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from deepmd_lite.cli.shared import Frames, app, console, say


@app.command()
def init(
    data: Annotated[
        list[str], typer.Argument(help="Training frames: a folder, a glob, file.h5 or file.h5#/SYS.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The input file to write.")] = Path("input.json"),
    validation: Annotated[list[str] | None, typer.Option(help="Frames to validate on; repeatable.")] = None,
    rcut: Annotated[
        float | None, typer.Option(help="Cutoff in Å; from 6 to 8 by the number of neighbors when left out.")
    ] = None,
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
    model, steps = settings["model"], settings["training"]["numb_steps"]
    rcut, sel = model["descriptor"]["rcut"], model["descriptor"]["sel"]
    say(f"wrote {out}: {steps} steps, {model['type_map']}, rcut {rcut:g} Å, sel {sel}")
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
def refit(
    model: Annotated[Path, typer.Argument(help="A .dp model file.")],
    system: Frames,
    out: Annotated[Path, typer.Option("-o", "--out", help="The model file to write.")],
    validation: Annotated[
        list[str] | None,
        typer.Option(help="Frames that the model has not seen, to calibrate its uncertainty by; repeatable."),
    ] = None,
    keep_weights: Annotated[
        bool, typer.Option("--keep-weights", help="Leave the weights alone: add the uncertainty only.")
    ] = False,
    ridge: Annotated[
        str, typer.Option(help="loo (what suits frames left out best), or a number >= 0.")
    ] = "loo",
    w_energy: Annotated[float, typer.Option(help="Weight of energies: limit_pref_e of the training.")] = 1.0,
    w_force: Annotated[float, typer.Option(help="Weight of forces.")] = 1.0,
    w_virial: Annotated[float, typer.Option(help="Weight of virials.")] = 0.0,
):
    """Put the best last layer for its training frames into a model, and how uncertain that layer is."""
    from deepmd_lite.evaluate.refit import number_or_loo, refit_model

    with console.status(f"reading {', '.join(system)}"):
        report = refit_model(
            model,
            system,
            out,
            validation=validation or [],
            keep_weights=keep_weights,
            ridge=number_or_loo(ridge),
            w_energy=w_energy,
            w_force=w_force,
            w_virial=w_virial,
        )
    console.print(report.table())
    say(f"wrote {out}")


@app.command("rf-fit")
def rf_fit(
    input: Annotated[Path, typer.Argument(help="input.json, with DeePMD-kit's keys.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The model file to write.")] = Path("model.dp"),
    frames: Annotated[
        int | None, typer.Option(help="Training frames to fit to; enough for the nets when left out.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the random nets, in place of the input's.")] = None,
):
    """Fit the last layer of random nets: a potential in seconds, and a start for dplite train --init-model."""
    from deepmd_lite.evaluate.random_potential import random_potential

    with console.status("fitting random features"):
        fitted = random_potential(input, out, nframes=frames, seed=seed)
    console.print(fitted.table())
    say(f"wrote {out}")


@app.command("learning-curve")
def learning_curve(
    input: Annotated[Path, typer.Argument(help="input.json, with DeePMD-kit's keys.")],
    frames: Annotated[str, typer.Option(help="Numbers of frames to train on: 20,40,80,160.")],
    width: Annotated[
        str | None,
        typer.Option(help="Widths of the fitting net, also to be tried on the most frames: 30,60,120."),
    ] = None,
    repeats: Annotated[
        int, typer.Option(help="Trainings of each, on other frames and from other weights.")
    ] = 3,
    steps: Annotated[
        int | None, typer.Option(help="Steps of each training, in place of the input's.")
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(help="Frames to test on, in place of validation_data or a fifth held back; repeatable."),
    ] = None,
    target_force: Annotated[
        float | None, typer.Option(help="Say how many frames reach this RMSE, meV/Å.")
    ] = None,
    target_energy: Annotated[float | None, typer.Option(help="The same for the energy, meV/atom.")] = None,
    folder: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for points, tables and picture.")
    ] = Path("learning_curve"),
):
    """How errors fall with the number of training frames, and how many a target needs; goes on where it stopped."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from deepmd_lite.evaluate.sample_curve import numbers, sample_curve
    from deepmd_lite.signals import Stopped

    targets = {"force": target_force, "energy": target_energy}
    targets = {key: value for key, value in targets.items() if value is not None}
    sizes, widths = numbers(frames, "--frames"), numbers(width, "--width")
    columns = (
        TextColumn("training"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=None)

            def progress(done, total, point):
                bar.update(task, completed=done, total=total)
                if point:
                    say(point.line())

            curve = sample_curve(
                input,
                folder,
                frames=sizes,
                widths=widths,
                repeats=repeats,
                steps=steps,
                test=test,
                progress=progress,
            )
    except Stopped as stop:
        print(f"dplite: {stop}; the same command goes on", file=sys.stderr)
        raise typer.Exit(stop.code) from None
    console.print(curve.table())
    console.print(curve.law_table(targets))
    say(f"wrote {', '.join(map(str, curve.write(folder, targets)))}")
