"""A model by the implementation of one's choice: `load_potential`."""

from deepmd_lite.errors import ConfigError
from deepmd_lite.model_file import read_model

BACKENDS = ("numba", "torch")


def load_potential(path, backend="numba", precision="float64", threads=None):
    """Read a ``.dp`` file.

    Parameters
    ----------
    path : str or Path
    backend : "numba" or "torch"
        The engine, or the reference, which is slower and needs torch.
    precision : "float64" or "float32"
        Of the engine's arithmetic. The reference works in the precision of the model's nets.
    threads : int, optional
        Of the engine; as many as there are cores when left out. Those of torch are set in torch.

    Returns
    -------
    engine.compiled.CompiledPot or model.potential.DeepPot
        Both keep the contract of contract.py.

    Raises
    ------
    ConfigError
        An unknown backend or precision; precision or threads for torch.
    ModelFileError
        A file that cannot be used.
    """
    if backend == "numba":
        from deepmd_lite.engine.compiled import CompiledPot

        return CompiledPot(read_model(path), precision, threads)
    if backend != "torch":
        raise ConfigError(f"backend {backend!r}: expected one of {', '.join(BACKENDS)}")
    if precision != "float64" or threads is not None:
        raise ConfigError(
            "backend torch takes neither precision nor threads: it works in the precision of the model's nets, "
            "on torch.get_num_threads() threads"
        )
    from deepmd_lite.model.potential import DeepPot

    return DeepPot(read_model(path))
