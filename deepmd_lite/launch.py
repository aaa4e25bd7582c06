"""Was this process started alone, or as one of several ranks? And how they end together."""

import os
import sys
import time
import traceback

from deepmd_lite.errors import ConfigError, DeepmdLiteError, SimulationError, TrainingError

LAUNCHERS = (
    "PMI_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "PALS_RANKS",
)  # tell how many were started


def started_ranks():
    """(Name of the launcher's variable, number of ranks that it says were started); (None, 1) without one."""
    for name in LAUNCHERS:
        if os.environ.get(name, "1").isdigit() and int(os.environ.get(name, "1")) > 1:
            return name, int(os.environ[name])
    return None, 1


def check_launcher(comm):
    """ConfigError where N processes were started that do not know of each other (mpirun of another MPI)."""
    name, started = started_ranks()
    if comm.size == 1 and started > 1:
        raise ConfigError(
            f"{name} says that {started} ranks were started, but each of them is alone: this mpirun belongs to "
            "another MPI than mpi4py; use the one of mpi4py's MPI (pip install mpich puts it beside python)"
        )


def end_all(error, rank, abort):
    """End all ranks for an error of this one, with one message: 2 for bad input, 1 for a run that failed.

    Parameters
    ----------
    error : Exception
        The one that is being handled.
    rank : int
    abort : callable
        abort(code) ends all ranks.
    """
    if rank > 0:
        time.sleep(2)  # what all ranks stumble over, rank 0 says for all
    known = isinstance(error, (DeepmdLiteError, OSError))
    where = f" (rank {rank})" if rank > 0 else ""
    text = f"dplite: {error}{where}" if known else f"dplite: rank {rank}:\n{traceback.format_exc()}"
    print(text, file=sys.stderr, flush=True)
    time.sleep(0.5)  # for mpirun to pass it on before all ends
    failed = isinstance(error, (SimulationError, TrainingError, OSError))
    code = 2 if known and not failed else 1
    abort(code)
    raise SystemExit(code)  # where abort returns before the process is gone
