"""Time and peak memory of the full neighbor list of a large box of water.

    python scripts/bench_neighbors.py                 943,296 atoms, 6 Å, about 84 million pairs
    python scripts/bench_neighbors.py --code vesin    the same list by vesin, in a process of its own

The box is a cubic lattice at the density of atoms in liquid water, displaced at random: the cost of a list
depends on the density alone. A first call on a small box, not timed, compiles the kernels or loads them.
"""

import argparse
import resource
import time

import numpy as np

DENSITY = 0.1003  # atoms/Å³: water at 300 K and 1.00 g/cm³


def water_like(natoms, seed=0):
    """Positions (natoms, 3) and cell (3, 3), Å: a lattice with vacancies, displaced by up to 0.7 Å."""
    rng = np.random.default_rng(seed)
    length = (natoms / DENSITY) ** (1 / 3)
    side = int(np.ceil(natoms ** (1 / 3)))
    sites = np.indices((side,) * 3).reshape(3, -1).T[rng.permutation(side**3)[:natoms]]
    return (sites + 0.5) * (length / side) + rng.uniform(-0.7, 0.7, (natoms, 3)), length * np.eye(3)


def ours(coord, box, rcut):
    from deepmd_lite.box import extend
    from deepmd_lite.neighbors import cell_list

    ghosts = extend(coord, box, (True, True, True), rcut)
    return len(cell_list(ghosts.coord, len(coord), rcut).index)


def vesin(coord, box, rcut):
    from vesin import NeighborList

    return len(
        NeighborList(cutoff=rcut, full_list=True).compute(
            points=coord, box=box, periodic=True, quantities="i"
        )[0]
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--natoms", type=int, default=943_296)
    parser.add_argument("--rcut", type=float, default=6.0, help="Å")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--code", choices=["deepmd_lite", "vesin"], default="deepmd_lite")
    args = parser.parse_args()
    code = {"deepmd_lite": ours, "vesin": vesin}[args.code]
    code(*water_like(30_000), args.rcut)
    coord, box = water_like(args.natoms)
    print(f"{args.code}: {args.natoms} atoms, rcut {args.rcut:g} Å")
    for _ in range(args.repeat):
        wall, cpu = time.perf_counter(), time.process_time()
        npairs = code(coord, box, args.rcut)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{npairs} pairs: {wall:.2f} s wall, {cpu:.2f} s CPU, {1e9 * cpu / npairs:.1f} ns CPU per pair")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
