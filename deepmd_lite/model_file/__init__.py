"""Model files: ``.dp`` <-> plain arrays. No torch here.

A ``.dp`` file is the backend-neutral format of DeePMD-kit: an HDF5 file whose root attribute ``json``
holds a tree and whose root datasets ``variable_0000``, ``variable_0001``, ... hold the arrays that the tree
names under its keys ``@variables``. It holds no code. ``dp convert-backend model.dp model.pth`` makes the
file for LAMMPS.

==========  ==========================================================================
``arrays``  what a model is: `Model`, `Descriptor`, `Fitting`, `Layer`, `ShortRange`, `Posterior`
``check``   what must hold between its parts, when read and before it is written
``reader``  from a file that is believed in nothing
``writer``  to the oldest versions of the format that DeePMD-kit 3.x reads
==========  ==========================================================================
"""

from deepmd_lite.model_file.arrays import Descriptor, Fitting, Layer, Model, Posterior, ShortRange
from deepmd_lite.model_file.check import check_model
from deepmd_lite.model_file.reader import read_model
from deepmd_lite.model_file.writer import write_model

__all__ = [
    "Descriptor",
    "Fitting",
    "Layer",
    "Model",
    "Posterior",
    "ShortRange",
    "check_model",
    "read_model",
    "write_model",
]
