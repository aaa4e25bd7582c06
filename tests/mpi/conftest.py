"""Programs under ``mpirun``, the one beside this Python where there is one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MPIRUN = shutil.which("mpirun", path=str(Path(sys.executable).parent)) or shutil.which("mpirun")


@pytest.fixture
def mpirun():
    """mpirun(ranks, *arguments, **options): the command of python with arguments, run or (start=True) started."""
    if MPIRUN is None:
        pytest.skip("no mpirun: pip install mpich")

    patient = {
        **os.environ,
        "MPIR_CVAR_POLLS_BEFORE_YIELD": "1",
    }  # with more ranks than cores: wait, do not spin

    def run(ranks, *arguments, start=False, timeout=240, **options):
        command = [MPIRUN, "-n", str(ranks), sys.executable, *map(str, arguments)]
        options = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "env": patient,
            **options,
        }
        if start:
            return subprocess.Popen(command, **options)
        return subprocess.run(command, timeout=timeout, **options)

    return run
