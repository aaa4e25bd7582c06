"""``input.json``: DeePMD-kit's keys for an energy model, its defaults, and what deepmd_lite makes of them.

==========  ===================================================================
``values``  what keys accept that take more than a number or a word
``schema``  the sections, their keys, defaults, units and limits
``reading`` the file: strict JSON, unknown keys, keys without effect
==========  ===================================================================
"""

from deepmd_lite.config.reading import load_config, parse_config
from deepmd_lite.config.schema import UNIVERSAL, Config
from deepmd_lite.config.values import ACTIVATIONS, MAX_RCUT, PRECISIONS, SILUT

__all__ = [
    "ACTIVATIONS",
    "MAX_RCUT",
    "PRECISIONS",
    "SILUT",
    "UNIVERSAL",
    "Config",
    "load_config",
    "parse_config",
]
