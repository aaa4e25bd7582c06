"""Checkpoints: a checkpoint is a model file that also holds the optimizer's state.

Any checkpoint can be tested or run as a model, and no checkpoint holds code or a pickle.
"""

import numpy as np
import torch

from deepmd_lite.errors import ModelFileError
from deepmd_lite.hdf5_guard import open_guarded
from deepmd_lite.model_file import write_model
from deepmd_lite.train import soap


def save(path, potential, optimizers, step, best, *, knots=0, average=None):
    """Write the weights, the optimizers' states and the progress, atomically.

    Parameters
    ----------
    path : str or Path
        Ends in ``.dp``.
    potential : DeepPot
    optimizers : list of torch.optim.Optimizer
    step : int
        Steps done.
    best : float
        The smallest validation error so far.
    knots : int
        Of `fused.FusedPot`; 0 without it.
    average : optimizer.Average, optional
    """
    arrays = {"done": np.array(step), "best": np.array(best), "knots": np.array(knots)}
    for name, parameter in potential.named_parameters():
        for optimizer in optimizers:
            for key, value in optimizer.state.get(parameter, {}).items():
                arrays[f"{key}/{name}"] = value.detach().cpu().numpy()
    if average is not None:
        arrays |= {f"average/{n}": v.cpu().numpy() for n, v in zip(average.names, average.values)}
    write_model(path, potential.to_model(), training=arrays)


def check_training(path):
    """Raise ModelFileError unless a file is a checkpoint."""
    with open_guarded(path, ModelFileError) as root:
        if "training" not in root:
            raise ModelFileError(
                f"{path}: expected a checkpoint, found a model alone; start from it with --init-model"
            )


def knots(path):
    """The number of knots in use when a checkpoint was written, or None where it does not say."""
    with open_guarded(path, ModelFileError) as root:
        group = root.group("training")
        return (int(group.array("knots")) or None) if "knots" in group else None


def load_training(path, potential, optimizers, average=None):
    """Put the optimizers' states and the average back; the weights come from `model_file.read_model`.

    Returns
    -------
    step : int
        Steps done.
    best : float
        The smallest validation error so far.

    Raises
    ------
    ModelFileError
        If the file is damaged, or holds the state of another model or of other optimizers.
    """
    names = {parameter: name for name, parameter in potential.named_parameters()}
    with open_guarded(path, ModelFileError) as root:
        group = root.group("training")

        def stored(key, parameter, shape):
            if key not in group or names[parameter] not in group.group(key):
                return None
            array = group.group(key).array(names[parameter])
            if array.shape != shape:
                raise ModelFileError(f"{path}: {key} of {names[parameter]} does not have its shape")
            return torch.as_tensor(array, device=parameter.device)

        for optimizer in optimizers:
            kind = type(optimizer).__name__
            for parameter in (p for g in optimizer.param_groups for p in g["params"]):
                shapes = _shapes(kind, parameter)
                state = {key: stored(key, parameter, shape) for key, shape in shapes.items()}
                if all(value is not None for value in state.values()):
                    optimizer.state[parameter] = state
            if not optimizer.state and int(group.array("done")) > 0:
                raise ModelFileError(
                    f"{path}: expected the state of {kind}, found none; keep the optimizer of that training, or "
                    "start from its weights with --init-model"
                )
        if average is not None:
            found = [stored("average", p, p.shape) for p in average.parameters]
            average.values = [
                p.detach().clone() if v is None else v for v, p in zip(found, average.parameters)
            ]
        return int(group.array("done")), float(group.array("best"))


def _shapes(kind, parameter):
    """dict: Shapes of the tensors that an optimizer of this name keeps of a parameter."""
    if kind == "SOAP":
        return {key: value.shape for key, value in soap.new_state(parameter).items()}
    if kind == "Muon":
        return {"momentum_buffer": parameter.shape}
    return {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
