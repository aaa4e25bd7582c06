"""deepmd_lite: Deep Potential molecular dynamics in pure Python, Numba and MPI.

::

    learn    frames ─> neighbors ─> descriptor ─> fitting ─> potential ─> loss ─> trainer ─> model.dp
             HDF5      nlist        D_i           E_i        E, F, W             checkpoint

    run      model.dp ─> tables ─> kernels ─┬─> calculator   ASE, one process, all threads
                         (ms)      Numba    └─> domain ─> dynamics   mpirun, any number of ranks

Where to find what:

=====================  =============================================================================
``frames``             QM data: deepmd/hdf5 and deepmd/npy, conversion, checks, labelling
``box, neighbors``     periodic images as ghost atoms; the Numba cell list
``model.descriptor``   environment matrix R, embedding G, A = GᵀR, D = A A₁ᵀ   (DeepPot-SE)
``model.fitting``      E_i = net(D_i) + bias
``model.potential``    E, F = -dE/dx, virial = -dE/dstrain
``train``              statistics, loss, learning rate, the training loop
``model_file``         ``.dp`` files, shared with DeePMD-kit
``engine``             the same in Numba, fast: tables of G, fused kernels, `CompiledPot`
``workers``            kernels on several threads
``contract, backends`` what both implementations take and return; the choice between them
``calculator``         the ASE calculator ``DP``
``md``                 domain decomposition over MPI, integrators, restarts: `Simulation`, ``dplite md``
``evaluate``           test, model deviation, uncertainty, validation of the engine, plots
``theory``             the lecture: approximation, estimation, training dynamics; ``dplite theory``
=====================  =============================================================================

Importing this package loads none of torch, numba, ASE or mpi4py; the names below load theirs on first use.
"""

from importlib import import_module

__version__ = "0.1.0"

_PUBLIC = {
    "CompiledPot": "engine.compiled",
    "DP": "calculator",
    "DeepPot": "model.potential",
    "Simulation": "md.simulation",
    "read_systems": "frames.store",
    "write_system": "frames.write",
    "read_model": "model_file",
    "write_model": "model_file",
}

__all__ = [
    "DP",
    "CompiledPot",
    "DeepPot",
    "Simulation",
    "read_model",
    "read_systems",
    "write_model",
    "write_system",
]


def __getattr__(name):
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(list(globals()) + __all__)
