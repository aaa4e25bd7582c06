"""Accuracy on public data sets, trained with the defaults of `dplite init` in a given time, beside published figures.

usage: python scripts/benchmark_accuracy.py --minutes 60 [--threads N] [-o OUT] [--force] SET=PATH ...
       python scripts/benchmark_accuracy.py [-o OUT] --write docs/benchmarks.md

SET=PATH, any of (where to get them: docs/benchmarks.md, or `how_to_repeat` below):

    water=FOLDER     with data_0, data_1, data_2 (training) and data_3 (test), deepmd/npy
    Cu=FOLDER        with Cu_train.xyz and Cu_test.xyz, extxyz
    Si=FOLDER        with Si_train.xyz and Si_test.xyz, extxyz; what it calls virial is a pressure in kbar
    ethanol=FILE     1,000 frames, extxyz; test_MD.xyz beside it is the test, if there, or else 50 of the frames
    acac=FOLDER      with train_300K.xyz and, if there, test_MD_300K.xyz and test_MD_600K.xyz; or else 50 frames

Every `dplite` command that runs is printed first, so that it can be run by hand. The files of a set go to OUT/SET; a
set whose OUT/SET/result.json is there is left alone unless --force, so that sets can be run one after the other.
Errors are those of model.dp, the weights at the end, on frames that it has not seen.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

VALIDATION = 0.05  # of the training frames, where the test has frames of its own: to watch the run by


class Benchmark(NamedTuple):
    """A data set, the figures published on it, and where both are from."""

    title: str
    measure: str  # "rmse" or "mae", of the published figures and so of ours
    energy: str  # "energy_per_atom" or, for molecules, "energy"
    training: str  # file of the frames to train on
    tests: dict  # name of a test to its file
    held_back: float  # share of the training frames to test on, where there is no file to test on
    published: dict  # method to (energy, force) of every test, meV/atom or meV, meV/Å
    source: str
    stress: str | None = None  # what numbers under the name virial mean


MLEARN = (
    "Data: [mlearn](https://github.com/materialsvirtuallab/mlearn) (BSD-3), as extxyz. Figures: Zuo et al., "
    "J. Phys. Chem. A 124, 731 (2020); forces there in eV/Å with two decimals."
)
BOTNET = "[BOTNet-datasets](https://github.com/davkovacs/BOTNet-datasets) (MIT)"
MACE = "Batatia et al., NeurIPS 2022 (arXiv:2206.07697), and references there"
BENCHMARKS = {
    "water": Benchmark(
        title="Liquid water (PBE0-TS, 192 atoms, 320 frames to train on)",
        measure="rmse",
        energy="energy_per_atom",
        training="data_[0-2]",
        tests={"data_3": "data_3"},
        held_back=0,
        published={
            "DeePMD-kit se_a, 10k steps": [("16", "93")],
            "DeePMD-kit se_a, 100k steps": [("3.1", "40.0")],
            "DeePMD-kit se_a, 1M steps": [("0.25", "35.4")],
            "forces of zero": [("–", "816")],
        },
        source="Data: [DeePMD-kit](https://github.com/deepmodeling/deepmd-kit), `examples/water/data` (LGPL-3). "
        "Figures: the learning curve of its example, one frame a step. Energies in the files are float32, a "
        "resolution of 0.01 meV/atom.",
    ),
    "Cu": Benchmark(
        title="Copper (262 frames to train on)",
        measure="mae",
        energy="energy_per_atom",
        training="Cu_train.xyz",
        tests={"test": "Cu_test.xyz"},
        held_back=0.1,
        published={"GAP": [("0.46", "10")], "MTP": [("0.41", "10")]},
        source=MLEARN,
    ),
    "Si": Benchmark(
        title="Silicon, with virials (214 frames to train on)",
        measure="mae",
        energy="energy_per_atom",
        training="Si_train.xyz",
        tests={"test": "Si_test.xyz"},
        held_back=0.1,
        published={
            "GAP": [("2.91", "70")],
            "MTP": [("2.21", "60")],
            "Behler-Parrinello nets": [("3.8–9.3", "83–120")],
        },
        source=f"{MLEARN} Training and test frames share one high-symmetry cell. What the files call virial is a "
        "pressure in kbar, as their own strained frames show.",
        stress="kbar",
    ),
    "ethanol": Benchmark(
        title="Ethanol (rMD17, PBE/def2-SVP)",
        measure="mae",
        energy="energy",
        training="ethanol_train.xyz",
        tests={"test": "test_MD.xyz"},
        held_back=0.05,
        published={
            "ANI": [("2.5", "13.4")],
            "GAP": [("3.5", "18.1")],
            "ACE": [("1.2", "7.3")],
            "NequIP": [("0.4", "2.8")],
            "MACE": [("0.4", "2.1")],
        },
        source=f"Data: {BOTNET}, `dataset_ethanol/train.xyz`: 1,000 geometries of rMD17 (Christensen and von "
        "Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020)), computed again with the same functional and "
        f"basis. Figures, for 1,000 training frames of rMD17 itself: {MACE}.",
    ),
    "acac": Benchmark(
        title="Acetylacetone (500 frames at 300 K)",
        measure="rmse",
        energy="energy",
        training="train_300K.xyz",
        tests={"300 K": "test_MD_300K.xyz", "600 K": "test_MD_600K.xyz"},
        held_back=0.1,
        published={
            "NequIP": [("0.81", "5.9"), ("6.0", "27.8")],
            "MACE": [("0.9", "5.1"), ("4.6", "22.4")],
        },
        source=f"Data: {BOTNET}, `dataset_acac`. Figures: {MACE}.",
    ),
}


def dplite(environment, *arguments):
    """Print a dplite command and run it: (seconds, largest memory in MB)."""
    words = [str(a) for a in arguments]
    print(f"\n$ dplite {shlex.join(words)}", flush=True)
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "deepmd_lite", *words], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"dplite {words[0]} ended with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    return time.perf_counter() - begin, usage.ru_maxrss * unit / 1e6


def hardware(environment):
    """What the trainings run on, in words."""
    code = "import torch as t; print(t.cuda.get_device_name() if t.cuda.is_available() else '', t.get_num_threads())"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    *gpu, threads = run.stdout.split()
    if gpu:
        return " ".join(gpu)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{threads} thread{'s' * (threads != '1')} of {names[0] if names else platform.machine()}"


def frames(benchmark, source, folder, environment):
    """Training and validation frames, those of each test, and in words which are which."""
    home, training = (source, benchmark.training) if source.is_dir() else (source.parent, source.name)
    found = sorted(home.glob(training))
    if not found:
        raise SystemExit(f"{home}: expected {training} in it; see how to repeat in docs/benchmarks.md")
    files = {name: home / file for name, file in benchmark.tests.items() if (home / file).exists()}
    if not found[0].is_file():
        return (
            found,
            None,
            files,
            f"Trained on {', '.join(p.name for p in found)}, tested on {', '.join(benchmark.tests.values())}.",
        )
    stress = ["--stress", benchmark.stress, "--virial-key", "virial"] if benchmark.stress else []
    for old in folder.glob("frames*.h5"):
        old.unlink()
    everything = folder / "frames.h5"
    dplite(environment, "convert", found[0], "-o", everything, *stress)
    held_back = VALIDATION if files else benchmark.held_back
    shares = f"{1 - held_back:g},{held_back:g},0" if files else f"{1 - held_back:g},0,{held_back:g}"
    dplite(environment, "split", everything, "-o", everything, "--fractions", shares)
    parts = {p: folder / f"frames_{p}.h5" for p in ("training", "validation", "test")}
    share = f"{100 * (1 - held_back):g} % of {found[0].name}"
    if not files:
        said = f"Trained on {share}, tested on the others."
        return [parts["training"]], None, {next(iter(benchmark.tests)): parts["test"]}, said
    tests = {}
    for k, (name, path) in enumerate(files.items()):
        tests[name] = folder / f"frames_of_test_{k}.h5"
        dplite(environment, "convert", path, "-o", tests[name], *stress)
    said = f"Trained on {share}, tested on {', '.join(p.name for p in files.values())}."
    return [parts["training"]], parts["validation"], tests, said


def errors(prefix):
    """RMSE and MAE from the files of `dplite test -d`: meV and meV/atom over frames, meV/Å over components."""
    found = {}
    for quantity, name in (
        ("energy", "e"),
        ("energy_per_atom", "e_peratom"),
        ("force", "f"),
        ("virial_per_atom", "v_peratom"),
    ):
        path = Path(f"{prefix}.{name}.out")
        if path.stat().st_size:
            reference, prediction = np.split(np.loadtxt(path, ndmin=2), 2, axis=1)
            d = 1000 * (prediction - reference)
            found[quantity] = {
                "count": d.size,
                "rmse": float(np.sqrt(np.mean(d**2))),
                "mae": float(np.mean(np.abs(d))),
            }
    return found


def run(name, source, folder, minutes, environment):
    """Train and test one set; writes result.json in its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    training, validation, tests, said = frames(BENCHMARKS[name], source, folder, environment)
    held_back = ["--validation", validation] if validation else []
    path, model = folder / "input.json", folder / "model.dp"
    dplite(environment, "init", *training, *held_back, "--minutes", minutes, "-o", path, "--force")
    seconds, memory = dplite(environment, "train", path, "-o", folder)
    found = {}
    for k, (test, address) in enumerate(tests.items()):
        prefix = folder / f"test_{k}"
        dplite(environment, "test", "-m", model, "-s", address, "-d", prefix)
        found[test] = errors(prefix)
    settings = json.loads(path.read_text())
    for section in ("training_data", "validation_data"):
        settings["training"].get(section, {}).pop("systems", None)
    result = {
        "set": name,
        "minutes": minutes,
        "hardware": hardware(environment),
        "frames": said,
        "settings": settings,
        "steps": settings["training"]["numb_steps"],
        "seconds": round(seconds, 1),
        "peak_memory_MB": round(memory),
        "tests": found,
    }
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")


def table(header, rows, side="--:"):
    """A table in Markdown, a list of lines; all columns but the first on this side."""
    lines = [header, ["---", *[side] * (len(header) - 1)], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def compared(name, result):
    """The published figures of a set and ours, a list of lines."""
    b = BENCHMARKS[name]
    unit = "meV/atom" if b.energy == "energy_per_atom" else "meV"
    quantities = {b.energy: f"energy, {unit}", "force": "force, meV/Å"}
    if b.stress:
        quantities["virial_per_atom"] = "virial, meV/atom"
    header, ours = [f"test {b.measure.upper()}"], ["**deepmd_lite**"]
    for test in b.tests:
        found = result["tests"].get(test, {})
        for quantity, words in quantities.items():
            header.append(f"{words}{f', {test}' if len(b.tests) > 1 else ''}")
            ours.append(f"**{found[quantity][b.measure]:.3g}**" if quantity in found else "–")
    missing = ["–"] * (len(quantities) - 2)
    rows = [
        [method, *(x for pair in pairs for x in (*pair, *missing))] for method, pairs in b.published.items()
    ]
    return [f"### {b.title}", "", *table(header, [*rows, ours]), "", f"{result['frames']} {b.source}", ""]


def how_to_repeat():
    """The last section, a list of lines."""
    files = {
        name: ", ".join([f"`{b.training}`", *(f"`{f}`" for f in b.tests.values())])
        for name, b in BENCHMARKS.items()
    }
    command = "python scripts/benchmark_accuracy.py"
    return [
        "## How to repeat",
        "",
        "Nothing is fetched: get the data from the places named above. extxyz files hold `energy` (eV), `forces`",
        "(eV/Å) and, for Si, `virial` (pressures in kbar in truth). Where there is no file to test on, some of the",
        "frames of the other are left out of the training and tested on.",
        "",
        *table(["set", "files"], [[f"`{name}`", words] for name, words in files.items()], "---"),
        "",
        "```",
        f"{command} --minutes 60 -o benchmarks water=FOLDER Cu=FOLDER Si=FOLDER ethanol=FILE acac=FOLDER",
        f"{command} -o benchmarks --write docs/benchmarks.md",
        "```",
        "",
        "Each set leaves its frames, input.json, model, learning curve and result.json in `benchmarks/SET`. A set",
        "that is done is left alone; `--force` trains it again. The script prints each `dplite` command it runs.",
    ]


def render(results):
    """docs/benchmarks.md from results (dict of set to what `run` wrote): a str."""
    cost = [
        [
            name,
            f"{r['minutes']:g} min",
            f"{r['seconds'] / 60:.1f} min",
            f"{r['steps']:,}",
            f"{1000 * r['seconds'] / r['steps']:.1f} ms",
            f"{r['peak_memory_MB']:,} MB",
            r["hardware"],
        ]
        for name, r in results.items()
    ]
    lines = [
        "# Accuracy",
        "",
        "Public data sets, each trained once with what `dplite init --minutes` writes, and tested on frames that the",
        "training has not seen. Force errors are over components. Figures of others are cited, not measured here;",
        "their models differ in size, and their trainings in length.",
        "",
        *(line for name, result in results.items() for line in compared(name, result)),
        "## What the trainings took",
        "",
        *table(["set", "asked for", "time", "steps", "time / step", "memory", "on"], cost),
        "",
        "Time and memory (largest resident set) are those of the process `dplite train`.",
        "",
        *how_to_repeat(),
    ]
    return "\n".join(lines) + "\n"


def assignment(text):
    """(set, path) from SET=PATH."""
    name, _, path = text.partition("=")
    if name not in BENCHMARKS or not path:
        raise argparse.ArgumentTypeError(f"{text}: expected SET=PATH with SET one of {', '.join(BENCHMARKS)}")
    if not Path(path).exists():
        raise argparse.ArgumentTypeError(f"{text}: there is no {path}")
    return name, Path(path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    parser.add_argument("sets", nargs="*", type=assignment, metavar="SET=PATH")
    parser.add_argument("--minutes", type=float, default=60, help="of training, for each set")
    parser.add_argument("--threads", type=int, help="of training; all cores by default")
    parser.add_argument("-o", "--out", type=Path, default=Path("benchmarks"), help="folder of the results")
    parser.add_argument("--force", action="store_true", help="train sets again that are done")
    parser.add_argument("--write", type=Path, help="write the page of all results in OUT to this file")
    options = parser.parse_args()
    threads = {"OMP_NUM_THREADS": str(options.threads)} if options.threads else {}
    for name, source in options.sets:
        folder = options.out / name
        if (folder / "result.json").exists() and not options.force:
            print(f"{name}: {folder / 'result.json'} is there; --force trains again")
        else:
            run(name, source, folder, options.minutes, {**os.environ, **threads})
    paths = {name: options.out / name / "result.json" for name in BENCHMARKS}
    results = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    print("\n" + "\n".join(line for name, result in results.items() for line in compared(name, result)))
    if options.write:
        if not results:
            raise SystemExit(f"{options.out}: expected results in it, found none; name sets to train")
        options.write.write_text(render(results), encoding="utf-8")
        print(f"wrote {options.write}")


if __name__ == "__main__":
    main()
