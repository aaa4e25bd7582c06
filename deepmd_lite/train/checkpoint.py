"""Checkpoints: a checkpoint is a model file that also holds the optimizer's state.

Any checkpoint can be tested or run as a model, and no checkpoint holds code or a pickle.
"""

import numpy as np
import torch

from deepmd_lite.errors import ModelFileError
from deepmd_lite.hdf5_guard import open_guarded
from deepmd_lite.model_file import write_model

ADAM = ("step", "exp_avg", "exp_avg_sq")


def save(path, potential, optimizer, step, best, knots):
    """Write the weights, Adam's moments and the progress, atomically.

    Parameters
    ----------
    path : str or Path
        Ends in ``.dp``.
    potential : DeepPot
    optimizer : torch.optim.Adam
    step : int
        Steps done.
    best : float
        The smallest validation error so far.
    knots : int
        Of `fused.FusedPot`; 0 without it.
    """
    arrays = {"done": np.array(step), "best": np.array(best), "knots": np.array(knots)}
    for name, parameter in potential.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            arrays[f"{key}/{name}"] = value.detach().cpu().numpy()
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


def load_training(path, potential, optimizer):
    """Put Adam's moments back; the weights come from `model_file.read_model`.

    Returns
    -------
    step : int
        Steps done.
    best : float
        The smallest validation error so far.

    Raises
    ------
    ModelFileError
        If the file is damaged, or holds the state of another model.
    """
    with open_guarded(path, ModelFileError) as root:
        group = root.group("training")
        for name, parameter in potential.named_parameters():
            if "exp_avg" in group and name in group.group("exp_avg"):
                arrays = {key: group.group(key).array(name) for key in ADAM}
                if (
                    arrays["exp_avg"].shape != parameter.shape
                    or arrays["exp_avg_sq"].shape != parameter.shape
                ):
                    raise ModelFileError(f"{path}: the optimizer's state of {name} does not have its shape")
                state = {
                    key: torch.as_tensor(value, device=parameter.device) for key, value in arrays.items()
                }
                optimizer.state[parameter] = state
        return int(group.array("done")), float(group.array("best"))
