"""TensorBoard: the errors of a training as event files.

Scalars by step: ``learning_rate``; ``loss``, ``rmse_energy`` (eV/atom), ``rmse_force`` (eV/Å) and ``rmse_virial``
(eV/atom), each under ``/training`` and ``/validation``, where there are labels.
"""

from deepmd_lite.errors import ConfigError


class Events:
    """A context that writes event files; ``__exit__`` puts them on disk.

    Parameters
    ----------
    folder : Path
        Event files of an earlier run in it stay; TensorBoard does not show what they hold beyond `done`.
    done : int
        Steps done before.

    Raises
    ------
    ConfigError
        Without the package tensorboard.
    """

    def __init__(self, folder, done):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as e:
            raise ConfigError(
                f"training.tensorboard: expected the package tensorboard, found none that works ({e}); "
                "pip install tensorboard, or set it to false"
            ) from None
        self._writer = SummaryWriter(str(folder), purge_step=done + 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._writer.close()

    def training(self, step, lr, errors):
        """Write the learning rate and the errors (`loss.Errors`) of a batch."""
        self._writer.add_scalar("learning_rate", lr, step)
        self._errors(step, errors, "training")

    def validation(self, step, errors):
        """Write the errors (`loss.Errors`) of the validation batches of a row of lcurve.out."""
        self._errors(step, errors, "validation")

    def _errors(self, step, errors, side):
        self._writer.add_scalar(f"loss/{side}", float(errors.loss), step)
        for name in ("energy", "force", "virial"):
            square = getattr(errors, name)
            if square is not None:
                self._writer.add_scalar(f"rmse_{name}/{side}", float(square) ** 0.5, step)
