"""The model a training run starts from, built from the input and the frames."""

import numpy as np

from deepmd_lite import model_file
from deepmd_lite.errors import ConfigError
from deepmd_lite.model.network import random_layers
from deepmd_lite.train.pair_table import pair_table
from deepmd_lite.train.statistics import energy_bias, env_mat_statistics, parameter_statistics


def choose_sel(setting, found):
    """``sel`` as numbers: given ones as they are; ``auto`` or ``auto:1.1`` from a `statistics.Survey` of the frames.

    The factor (1.1 when not given) is headroom above the largest number of neighbors found, rounded up to a
    multiple of 4 as in DeePMD-kit.
    """
    if not isinstance(setting, str):
        return tuple(setting)
    factor = float(setting.partition(":")[2] or 1.1)
    return tuple(int(-(-max(n, 1) * factor // 4) * 4) for n in found.neighbors)


def check_start(config, restart, init_model, finetune):
    """The file that training starts from, or None; ConfigError for several, or for a new model of no description."""
    files = [path for path in (restart, init_model, finetune) if path]
    if len(files) > 1:
        raise ConfigError(
            "give one of a checkpoint to restart from, a model to start from and a model to fine-tune, not several"
        )
    if not files and "model" not in config.model_fields_set:
        raise ConfigError(
            "model: expected this section, found none; only a start from a model can do without it"
        )
    return files[0] if files else None


def check_same_model(model, section):
    """The model file that is continued, if it is what the input's model section describes; else ConfigError.

    What the section leaves out is the file's, a descriptor or fitting_net as a whole; ``sel`` may be ``auto``: the
    file's stands. Statistics, energies and weights always come from the file.
    """
    given = section.model_fields_set
    wanted = {
        key: (getattr(section, key), getattr(model, key))
        for key in ("type_map", "pair_exclude_types", "atom_exclude_types")
        if key in given and getattr(section, key) is not None
    }
    for part, asked, found in (
        ("descriptor", section.descriptor, model.descriptor),
        ("fitting_net", section.fitting_net, model.fitting),
    ):
        if part not in given:
            continue
        shared = sorted(set(type(asked).model_fields) & set(vars(found)) - {"atom_ener", "set_davg_zero"})
        wanted |= {f"{part}.{key}": (getattr(asked, key), getattr(found, key)) for key in shared}
    if isinstance(section.descriptor.sel, str):
        wanted.pop("descriptor.sel", None)
    for key, (asked, found) in wanted.items():
        if np.shape(asked) != np.shape(found) or np.any(np.asarray(asked) != np.asarray(found)):
            raise ConfigError(f"model.{key}: the input says {asked}, the model file {found}; make them equal")
    if "use_srtab" in given and not _same_table(pair_table(section, model.type_map), model.shortrange):
        raise ConfigError(
            "model.use_srtab, smin_alpha, sw_rmin, sw_rmax: expected those of the model file, found another table "
            "or switch; make them equal"
        )
    return model


def _same_table(asked, found):
    if asked is None or found is None:
        return asked is found
    return all(np.array_equal(getattr(asked, key), value) for key, value in vars(found).items())


def new_model(config, type_map, found):
    """A `model_file.Model` with random weights, and statistics and energies per element from the frames.

    Parameters
    ----------
    config : config.Config
    type_map : tuple of str
    found : statistics.Survey
    """
    d, f = config.model.descriptor, config.model.fitting_net
    ntypes, sel = len(type_map), choose_sel(d.sel, found)
    if len(sel) != ntypes:
        raise ConfigError(
            f"model.descriptor.sel: expected {ntypes} numbers for {list(type_map)}, found {len(sel)}"
        )
    davg, dstd = env_mat_statistics(found, sel)
    if d.set_davg_zero or d.exclude_types:  # excluded types with davg != 0 would make the energy jump at rcut
        davg[:] = 0
    rng = np.random.default_rng((d.seed or 0, 1))
    pairs = ntypes if d.type_one_side else ntypes**2
    descriptor = model_file.Descriptor(
        rcut=d.rcut,
        rcut_smth=d.rcut_smth,
        sel=sel,
        neuron=tuple(d.neuron),
        axis_neuron=d.axis_neuron,
        davg=davg.astype(d.precision),  # as a model file keeps it: a restart sees the same numbers
        dstd=dstd.astype(d.precision),
        nets=[
            random_layers((1, *d.neuron), act=d.activation_function, resnet_dt=d.resnet_dt, rng=rng)
            for _ in range(pairs)
        ],
        resnet_dt=d.resnet_dt,
        type_one_side=d.type_one_side,
        exclude_types=[tuple(p) for p in d.exclude_types],
        env_protection=d.env_protection,
        set_davg_zero=d.set_davg_zero or bool(d.exclude_types),
        activation_function=d.activation_function,
        precision=d.precision,
    )
    fitting, out_bias = _new_fitting(f, descriptor.dim, ntypes, found), np.zeros(ntypes)
    shortrange = pair_table(config.model, type_map)
    if shortrange is not None:  # atoms that come close keep the energy of their element
        fitting.bias_atom_e, out_bias = out_bias, fitting.bias_atom_e
    return model_file.Model(
        type_map=tuple(type_map),
        descriptor=descriptor,
        fitting=fitting,
        out_bias=out_bias,
        shortrange=shortrange,
        pair_exclude_types=[tuple(p) for p in config.model.pair_exclude_types],
        atom_exclude_types=list(config.model.atom_exclude_types),
        min_nbor_dist=found.closest if np.isfinite(found.closest) else None,
        definition={k: v for k, v in config.source["model"].items() if not k.startswith("_")},
        metadata={"input": config.source},
    )


def _new_fitting(f, dim, ntypes, found):
    rng = np.random.default_rng((f.seed or 0, 2))
    widths = (dim + f.numb_fparam + f.numb_aparam, *f.neuron, 1)
    fparam_avg, fparam_inv_std = parameter_statistics(found, "fparam")
    aparam_avg, aparam_inv_std = parameter_statistics(found, "aparam")
    return model_file.Fitting(
        neuron=tuple(f.neuron),
        bias_atom_e=energy_bias(found, f.atom_ener),
        nets=[
            random_layers(widths, act=f.activation_function, resnet_dt=f.resnet_dt, rng=rng, last_linear=True)
            for _ in range(ntypes)
        ],
        resnet_dt=f.resnet_dt,
        activation_function=f.activation_function,
        precision=f.precision,
        atom_ener=f.atom_ener or None,
        numb_fparam=f.numb_fparam,
        numb_aparam=f.numb_aparam,
        fparam_avg=fparam_avg,
        fparam_inv_std=fparam_inv_std,
        aparam_avg=aparam_avg,
        aparam_inv_std=aparam_inv_std,
    )
