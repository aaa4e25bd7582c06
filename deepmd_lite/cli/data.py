"""Frames: convert, label, check, split."""

from pathlib import Path
from typing import Annotated

import typer

from deepmd_lite.cli.shared import app, console, say, words


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
        type_map=words(type_map),
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

    report = look_over(data, rcut, words(type_map))
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
