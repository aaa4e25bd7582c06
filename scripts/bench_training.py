"""Seconds per training step by precision and batch size, its phases, and the reference code in the same sitting.

usage: python scripts/bench_training.py INPUT [--batch 1,8] [--steps 40] [--rounds 3] [--plain] [--peer VENV]

INPUT is an input.json. VENV is an environment with DeePMD-kit, whose TensorFlow (--backend pt: PyTorch) backend
trains the same input with one frame a step in turn with ours; it uses float64. --plain times the torch model in place
of the fused kernels too. Medians over the rounds of median steps.
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

from deepmd_lite.config import load_config, parse_config
from deepmd_lite.train.dataset import collate
from deepmd_lite.train.trainer import Trainer


class Clock:
    """Seconds by phase."""

    def __init__(self):
        self.phases, self._last = {}, time.perf_counter()

    def lap(self, name):
        now = time.perf_counter()
        self.phases.setdefault(name, []).append(now - self._last)
        self._last = now


def make_trainer(config, folder, precision, batch):
    source = json.loads(json.dumps(config.source))
    for section in ("descriptor", "fitting_net"):
        source["model"].setdefault(section, {})["precision"] = precision
    source["training"]["training_data"] |= {
        "systems": config.training.training_data.systems,
        "batch_size": batch,
    }
    source["training"].pop("validation_data", None)
    return Trainer(parse_config(source), folder)


def ours(config, precision, batch, steps, plain=False):
    """Median seconds of each phase and of a step, after five to warm up."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(config, folder, precision, batch)
        evaluate = trainer.potential if plain else trainer.evaluate
        for k in range(steps + 5):  # read and prepared once, as in all epochs but the first
            trainer.sampler(k)
        clock, seconds = Clock(), []
        for k in range(steps + 5):
            start = time.perf_counter()
            clock.lap("between")
            for optimizer in trainer.optimizers:
                optimizer.zero_grad(set_to_none=True)
            frames, labels = collate(trainer.sampler(k))
            clock.lap("batch")
            prediction = evaluate(frames)
            clock.lap("forward")
            loss = trainer.loss(prediction, labels, trainer.schedule(k)).loss
            clock.lap("loss")
            loss.backward()
            clock.lap("backward")
            for optimizer in trainer.optimizers:
                optimizer.step()
            clock.lap("optimizer")
            seconds.append(time.perf_counter() - start)
    phases = {
        name: float(np.median(values[5:])) for name, values in clock.phases.items() if name != "between"
    }
    return float(np.median(seconds[5:])), phases


def theirs(venv, config, backend, steps):
    """Average seconds of a step as DeePMD-kit reports it, the first window left out."""
    source = json.loads(json.dumps(config.source))
    training = source["training"]
    training.pop("validation_data", None)
    training.update(numb_steps=3 * steps, disp_freq=steps, save_freq=10**6, disp_training=True)
    training["training_data"] |= {
        "systems": [str(Path(s).resolve()) for s in config.training.training_data.systems],
        "batch_size": 1,
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "input.json").write_text(json.dumps(source))
        command = [str(venv / "bin" / "dp"), f"--{backend}", "train", "input.json"]
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
    parser.add_argument("--batch", default="1,8", help="frames a step")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plain", action="store_true", help="the torch model too")
    parser.add_argument("--peer", type=Path, help="environment with DeePMD-kit")
    parser.add_argument("--backend", default="tf", help="of DeePMD-kit")
    options = parser.parse_args()
    config, peer = load_config(options.input), options.peer and options.peer.resolve()
    cases = [(p, b, False) for p in ("float64", "float32") for b in map(int, options.batch.split(","))]
    cases += [("float64", 1, True)] if options.plain else []
    print(f"{torch.get_num_threads()} threads")
    steps, phases, reference = {}, {}, []
    for _ in range(options.rounds):
        if peer:
            reference.append(theirs(peer, config, options.backend, options.steps))
        for case in cases:
            precision, batch, plain = case
            seconds, phases[case] = ours(config, precision, batch, options.steps, plain)
            steps.setdefault(case, []).append(seconds)
    base = float(np.median(reference)) if peer else np.nan
    if peer:
        print(f"DeePMD-kit ({options.backend}), float64, batch 1: {1000 * base:.1f} ms a step")
    for (precision, batch, plain), values in steps.items():
        median = float(np.median(values))
        line = f"{precision}, batch {batch}{', torch model' if plain else ''}: {1000 * median:.1f} ms a step"
        line += f", {1000 * median / batch:.1f} a frame"
        if peer:
            line += f", {base * batch / median:.2f} times faster"
        parts = ", ".join(f"{name} {1000 * v:.1f}" for name, v in phases[precision, batch, plain].items())
        print(f"{line} ({parts})")


if __name__ == "__main__":
    main()
