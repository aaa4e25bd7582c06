"""What can go wrong, by name.

Every message says what was expected, what was found and what to do. The command line turns these into
exit code 2 and one line on stderr; anything else is a bug and exits 1.
"""


class DeepmdLiteError(Exception):
    """Base of all errors that deepmd_lite raises on purpose."""


class ConfigError(DeepmdLiteError, ValueError):
    """An input file or option that cannot be used."""


class DataError(DeepmdLiteError, ValueError):
    """Frames that cannot be used: names the file, the dataset, what was expected and what was found."""


class ModelFileError(DeepmdLiteError, ValueError):
    """A model file that is damaged, unsafe, from the future, or not of a supported kind."""


class NeighborOverflowError(DeepmdLiteError, ValueError):
    """An atom has more neighbors of a type than ``sel`` holds."""


class DomainError(DeepmdLiteError, ValueError):
    """A geometry or decomposition that cannot be evaluated."""


class TrainingError(DeepmdLiteError, RuntimeError):
    """A training run that failed: a non-finite loss, for instance (exit code 1)."""


class SimulationError(DeepmdLiteError, RuntimeError):
    """A simulation that came to something that cannot be: an exploding force, for instance (exit code 1)."""
