"""``python -m deepmd_lite`` is ``dplite``."""

from deepmd_lite.cli import main

main()
