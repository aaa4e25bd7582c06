"""A model on all frames of a system."""

from dataclasses import dataclass

import numpy as np

from deepmd_lite.frames.system import System


@dataclass
class Predictions:
    """What a model says about the frames of a system.

    Attributes
    ----------
    system : System
        The frames, with their labels.
    energy : (nframes,) eV
    force : (nframes, natoms, 3) eV/Å
    virial : (nframes, 3, 3) eV
    """

    system: System
    energy: np.ndarray
    force: np.ndarray
    virial: np.ndarray

    def against(self, label):
        """Reference and prediction where the data have a label.

        Parameters
        ----------
        label : str
            ``energy``, ``force`` or ``virial``.

        Returns
        -------
        reference, prediction : np.ndarray
            Of the frames that have it, (n, ...) each; n may be 0.
        """
        found = self.system.found.get(label, np.zeros(self.system.nframes, bool))
        reference = self.system.labels.get(label, getattr(self, label))
        return reference[found], getattr(self, label)[found]


def predict(potential, system):
    """Evaluate every frame.

    Parameters
    ----------
    potential : CompiledPot or DeepPot
    system : System
        With the type_map of the potential.

    Returns
    -------
    Predictions
    """
    parameters = [key for key in ("fparam", "aparam") if getattr(potential.model.fitting, f"numb_{key}")]
    results = []
    for k in range(system.nframes):
        box = None if system.box is None else system.box[k]
        given = {key: system.labels[key][k] for key in parameters if key in system.labels}
        results.append(potential.evaluate(system.coord[k], system.atype, box, system.pbc, **given))
    energy, force, virial = (
        np.array([getattr(r, key) for r in results]) for key in ("energy", "force", "virial")
    )
    return Predictions(system, energy, force, virial)
