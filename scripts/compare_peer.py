"""A model of ours, read by DeePMD-kit: differences of energy, force and virial.

usage: python scripts/compare_peer.py MODEL FRAMES --peer VENV [--frames 20]

Converts MODEL (.dp) with `dp convert-backend` to .pth in VENV, an environment with DeePMD-kit and PyTorch,
evaluates the first frames of FRAMES in both, and prints the largest differences.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from deepmd_lite import DeepPot, read_systems

THEIRS = """
import sys
import numpy as np
from deepmd.infer import DeepPot
model, frames, out = sys.argv[1:]
frames = np.load(frames)
coord, box = frames["coord"], frames["box"]
n = len(coord)
e, f, v = DeepPot(model).eval(coord.reshape(n, -1), box.reshape(n, 9) if box.size else None, frames["atype"])[:3]
np.savez(out, energy=e.reshape(n), force=f.reshape(n, -1, 3), virial=v.reshape(n, 3, 3))
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("frames")
    parser.add_argument("--peer", type=Path, required=True, help="environment with DeePMD-kit")
    parser.add_argument("--frames", dest="count", type=int, default=20)
    options = parser.parse_args()

    potential = DeepPot.load(options.model)
    system = read_systems(options.frames, potential.type_map)[0].select(slice(options.count))
    boxes = [None] * system.nframes if system.box is None else system.box
    ours = [potential.evaluate(c, system.atype, b, system.pbc) for c, b in zip(system.coord, boxes)]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        box = np.zeros(0) if system.box is None else system.box
        np.savez(folder / "frames.npz", coord=system.coord, box=box, atype=system.atype)
        bin = options.peer.resolve() / "bin"
        convert = [bin / "dp", "convert-backend", options.model.resolve(), folder / "model.pth"]
        evaluate = [
            bin / "python",
            "-c",
            THEIRS,
            *(folder / n for n in ("model.pth", "frames.npz", "out.npz")),
        ]
        for command in (convert, evaluate):
            run = subprocess.run(command, capture_output=True, text=True, cwd=folder)
            if run.returncode:
                raise SystemExit(run.stderr[-2000:])
        with np.load(folder / "out.npz") as theirs:
            print(f"{system.nframes} frames of {system.name}")
            for key, unit in (("energy", "eV"), ("force", "eV/Å"), ("virial", "eV")):
                mine = np.array([getattr(p, key) for p in ours])
                difference = np.abs(mine - theirs[key]).max()
                scale = np.abs(theirs[key]).max()
                print(
                    f"{key:7s} largest difference {difference:.1e} {unit}, relative {difference / scale:.1e}"
                )


if __name__ == "__main__":
    main()
