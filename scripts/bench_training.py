"""Seconds per training step, beside the reference code in the same sitting.

usage: python scripts/bench_training.py INPUT [--steps 30] [--rounds 3] [--peer VENV]

INPUT is an input.json; VENV an environment with DeePMD-kit, whose PyTorch backend then trains the same input in
turn with ours. Prints the median step of each round and the ratio of the medians.
"""

import argparse
import json
import re
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from deepmd_lite.config import load_config
from deepmd_lite.train.trainer import Trainer


def ours(config, steps):
    """Median seconds of a step, after three to warm up."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, folder)
        seconds = []
        for k in range(steps + 3):
            start = time.perf_counter()
            trainer._train_step(trainer.sampler(k), trainer.schedule(k))
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[3:]))


def theirs(venv, config, steps):
    """Average seconds of a step as DeePMD-kit reports it, the first window left out."""
    source = json.loads(json.dumps(config.source))
    training = source["training"]
    training.update(numb_steps=3 * steps, disp_freq=steps, save_freq=10**6, disp_training=True)
    for section, data in (
        ("training_data", config.training.training_data),
        ("validation_data", config.training.validation_data),
    ):
        if data is not None:
            training[section]["systems"] = [str(Path(s).resolve()) for s in data.systems]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "input.json").write_text(json.dumps(source))
        command = [str(Path(venv).resolve() / "bin" / "dp"), "--pt", "train", "input.json"]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    found = re.search(r"average training time: ([\d.]+) s/batch", run.stdout + run.stderr)
    if not found:
        raise SystemExit(f"no time in the reference's output:\n{run.stderr[-2000:]}")
    return float(found[1])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", type=Path, help="environment with DeePMD-kit")
    options = parser.parse_args()
    config = load_config(options.input)
    print(f"{torch.get_num_threads()} threads")
    rows = []
    for k in range(options.rounds):
        row = [ours(config, options.steps)]
        line = f"round {k + 1}: deepmd_lite {1000 * row[0]:.0f} ms"
        if options.peer:
            row.append(theirs(options.peer, config, options.steps))
            line += f", DeePMD-kit (PyTorch) {1000 * row[1]:.0f} ms, ratio {row[1] / row[0]:.2f}"
        print(line, flush=True)
        rows.append(row)
    medians = np.median(rows, axis=0)
    print("median: " + ", ".join(f"{1000 * m:.0f} ms" for m in medians))
    if options.peer:
        print(f"DeePMD-kit / deepmd_lite = {medians[1] / medians[0]:.2f}")


if __name__ == "__main__":
    main()
