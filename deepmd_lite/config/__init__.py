"""``input.json``: DeePMD-kit's keys for an energy model, its defaults, and what deepmd_lite makes of them.

==========  ===================================================================
``schema``  the sections, their keys, defaults, units and limits
``reading`` the file: strict JSON, unknown keys, keys without effect
==========  ===================================================================
"""

from deepmd_lite.config.reading import load_config, parse_config
from deepmd_lite.config.schema import ACTIVATIONS, MAX_RCUT, PRECISIONS, SILUT, Config

__all__ = ["ACTIVATIONS", "MAX_RCUT", "PRECISIONS", "SILUT", "Config", "load_config", "parse_config"]
