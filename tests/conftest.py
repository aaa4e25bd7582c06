"""Small random models of every shape; no stale kernels."""

from pathlib import Path

import numpy as np
import pytest

import deepmd_lite
from deepmd_lite import model_file
from deepmd_lite.model.network import random_layers


def pytest_configure(config):
    """Forget kernels older than a source beside them: Numba sees changes of a kernel's own file only (jit.py)."""
    for index in Path(deepmd_lite.__file__).parent.rglob("__pycache__/*.nbi"):
        newest = max(source.stat().st_mtime for source in index.parents[1].glob("*.py"))
        if index.stat().st_mtime < newest:
            index.unlink()


@pytest.fixture
def random_model():
    """A factory: random_model(ntypes=2, one_side=True, ...) -> model_file.Model with non-zero davg."""
    return make


def make(
    ntypes=2,
    *,
    one_side=True,
    act="tanh",
    resnet_dt=False,
    sel=20,
    seed=0,
    davg=True,
    fparam=0,
    aparam=0,
    **model,
):
    rng = np.random.default_rng(seed)
    dstd = rng.uniform(0.1, 0.3, (ntypes, 1)).repeat(4, axis=1)
    mean = np.zeros((ntypes, 4))
    mean[:, 0] = rng.uniform(0.05, 0.2, ntypes) * davg
    nets = [
        random_layers((1, 3, 6, 6), act=act, resnet_dt=resnet_dt, rng=rng)
        for _ in range(ntypes if one_side else ntypes**2)
    ]
    descriptor = model_file.Descriptor(
        rcut=4.0,
        rcut_smth=1.0,
        sel=(sel,) * ntypes,
        neuron=(3, 6, 6),
        axis_neuron=3,
        davg=mean,
        dstd=dstd,
        nets=nets,
        resnet_dt=resnet_dt,
        type_one_side=one_side,
        activation_function=act,
        exclude_types=model.pop("exclude_types", []),
        set_davg_zero=not davg,
    )
    widths = (18 + fparam + aparam, 10, 10, 1)
    fitting = model_file.Fitting(
        neuron=(10, 10),
        bias_atom_e=rng.normal(0, 1, ntypes),
        nets=[
            random_layers(widths, act=act, resnet_dt=resnet_dt, rng=rng, last_linear=True)
            for _ in range(ntypes)
        ],
        resnet_dt=resnet_dt,
        activation_function=act,
        atom_ener=model.pop("atom_ener", None),
        numb_fparam=fparam,
        numb_aparam=aparam,
        **{f"{k}_avg": rng.normal(0, 1, n) for k, n in (("fparam", fparam), ("aparam", aparam)) if n},
        **{f"{k}_inv_std": rng.uniform(1, 2, n) for k, n in (("fparam", fparam), ("aparam", aparam)) if n},
    )
    return model_file.Model(
        type_map=("O", "H", "C")[:ntypes],
        descriptor=descriptor,
        fitting=fitting,
        out_bias=rng.normal(0, 1, ntypes),
        **model,
    )
