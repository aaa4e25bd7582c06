"""What must hold between the parts of a model. The same checks guard reading and writing."""

from __future__ import annotations

import re

import numpy as np

from deepmd_lite.config import ACTIVATIONS, SILUT
from deepmd_lite.errors import ModelFileError
from deepmd_lite.model_file.arrays import DTYPES, Descriptor, Fitting, Layer, Model, ShortRange

JUMP = 1e-6  # eV, eV/Å, or relative: the largest jump of a pair, or of a switch, that passes


def check_model(model: Model) -> None:
    """Refuse a model whose parts contradict each other.

    Raises
    ------
    ModelFileError
        If a shape does not follow from the header, a value is not finite or out of range, or
        `exclude_types` would make the energy jump (see `_check_exclusions`).
    """
    ntypes = len(model.type_map)
    if not ntypes or len(set(model.type_map)) < ntypes:
        raise ModelFileError(f"type_map: expected distinct element names, found {model.type_map!r:.80}")
    _check_descriptor(model.descriptor, ntypes)
    _check_fitting(model.fitting, model.descriptor.dim, ntypes)
    _check_array("out_bias", model.out_bias, (ntypes,))
    if model.out_std is not None:
        _check_array("out_std", model.out_std, (ntypes,))
    _check_exclusions(model.descriptor, ntypes)
    if model.shortrange is not None:
        check_shortrange(model.shortrange, model.descriptor.rcut, ntypes)
    if model.posterior is not None:
        size = ntypes * (len(model.fitting.nets[0][-1].w) + 1)
        _check_array("last_layer/factor", model.posterior.factor, (size, size))
        _check_array("last_layer/scale", model.posterior.scale, (3,))
        if np.any(model.posterior.scale <= 0):
            raise ModelFileError(
                f"last_layer/scale: expected positive numbers, found {model.posterior.scale}"
            )
    excluded = [t for pair in model.pair_exclude_types for t in pair] + list(model.atom_exclude_types)
    if any(not 0 <= t < ntypes for t in excluded):
        raise ModelFileError(f"excluded types: expected 0 to {ntypes - 1}, found {excluded!r:.60}")
    if model.min_nbor_dist is not None and not 0 <= model.min_nbor_dist < np.inf:
        raise ModelFileError(f"min_nbor_dist: expected a length in Å, found {model.min_nbor_dist}")


def _check_array(name: str, values, shape: tuple[int, ...]) -> None:
    found = None if values is None else np.shape(values)
    if found != shape:
        raise ModelFileError(f"{name}: expected shape {shape}, found {found}")
    if not np.isfinite(values).all():
        raise ModelFileError(f"{name}: expected finite numbers, found NaN or infinity")


def _check_descriptor(descriptor: Descriptor, ntypes: int) -> None:
    d = descriptor
    if not 0 <= d.rcut_smth < d.rcut < np.inf:
        raise ModelFileError(
            f"expected 0 <= rcut_smth < rcut, found rcut_smth = {d.rcut_smth}, rcut = {d.rcut}"
        )
    if len(d.sel) != ntypes or min(d.sel) < 0 or sum(d.sel) == 0:
        raise ModelFileError(f"sel: expected {ntypes} positive numbers, found {d.sel!r:.60}")
    if not d.neuron or not 1 <= d.axis_neuron <= d.neuron[-1]:
        raise ModelFileError(
            f"axis_neuron: expected 1 to the last of {d.neuron!r:.60}, found {d.axis_neuron}"
        )
    if not 0 <= d.env_protection < np.inf:
        raise ModelFileError(f"env_protection: expected a length >= 0 in Å, found {d.env_protection}")
    _check_array("davg", d.davg, (ntypes, 4))
    _check_array("dstd", d.dstd, (ntypes, 4))
    if np.any(d.davg[:, 1:]) or np.any(d.dstd[:, 1:] != d.dstd[:, 1:2]) or np.any(d.dstd <= 0):
        raise ModelFileError("davg, dstd: expected zero xyz means and positive deviations equal over x, y, z")
    if len(d.nets) != ntypes ** (1 if d.type_one_side else 2):
        raise ModelFileError(f"embeddings: found {len(d.nets)} networks for {ntypes} types")
    for k, net in enumerate(d.nets):
        if net is not None:
            _check_net(f"embedding network {k}", net, (1, *d.neuron), d.activation_function, d.precision)


def _check_fitting(fitting: Fitting, dim: int, ntypes: int) -> None:
    f = fitting
    _check_array("bias_atom_e", f.bias_atom_e, (ntypes,))
    if f.atom_ener is not None and len(f.atom_ener) != ntypes:
        raise ModelFileError(f"atom_ener: expected {ntypes} entries, found {len(f.atom_ener)}")
    for name in ("fparam", "aparam"):
        count = getattr(f, f"numb_{name}")
        if count < 0:
            raise ModelFileError(f"numb_{name}: expected a number >= 0, found {count}")
        for key in (f"{name}_avg", f"{name}_inv_std") if count else ():
            _check_array(key, getattr(f, key), (count,))
    if len(f.nets) != ntypes or any(net is None for net in f.nets):
        raise ModelFileError(f"fitting: expected a network for each of {ntypes} types")
    for k, net in enumerate(f.nets):
        widths = (dim + f.numb_fparam + f.numb_aparam, *f.neuron)
        _check_net(f"fitting network {k}", net[:-1], widths, f.activation_function, f.precision)
        _check_net(f"fitting network {k}, output", net[-1:], (widths[-1], 1), "none", f.precision)


def _check_net(name: str, net: list[Layer], widths: tuple[int, ...], activation: str, precision: str) -> None:
    if activation not in ACTIVATIONS and not re.fullmatch(SILUT, activation):
        raise ModelFileError(
            f"{name}: activation {activation!r:.40} is not one of {', '.join(ACTIVATIONS)}, silut:T"
        )
    if len(net) != len(widths) - 1:
        raise ModelFileError(f"{name}: expected {len(widths) - 1} layers, found {len(net)}")
    for k, layer in enumerate(net):
        nin, nout = widths[k : k + 2]
        for key, shape in (("w", (nin, nout)), ("b", (nout,)), ("idt", (nout,))):
            values = getattr(layer, key)
            if values is None and key != "w":
                continue
            _check_array(f"{name}, layer {k}, {key}", values, shape)
            if values.dtype != DTYPES.get(precision):
                raise ModelFileError(f"{name}, layer {k}, {key}: expected {precision}, found {values.dtype}")
        if layer.activation != activation:
            raise ModelFileError(f"{name}, layer {k}: expected {activation}, found {layer.activation!r:.40}")
        if layer.idt is not None and nout not in (nin, 2 * nin):
            raise ModelFileError(f"{name}, layer {k}: expected no idt where the widths are {nin} and {nout}")


def _check_exclusions(descriptor: Descriptor, ntypes: int) -> None:
    """Exclusions must leave the energy continuous.

    DeePMD-kit multiplies the row of an excluded neighbor by zero but an empty slot keeps -davg/dstd, so the
    energy jumps as an excluded neighbor crosses rcut unless davg = 0 for the centre or the net returns zero.
    """
    for pair in descriptor.exclude_types:
        if len(pair) != 2 or any(not 0 <= t < ntypes for t in pair):
            raise ModelFileError(
                f"exclude_types: expected pairs of types 0 to {ntypes - 1}, found {pair!r:.60}"
            )
    excluded = {tuple(pair[::step]) for pair in descriptor.exclude_types for step in (1, -1)}
    for ti in range(ntypes):
        for tj in range(ntypes):
            net = descriptor.nets[tj if descriptor.type_one_side else ti + ntypes * tj]
            if net is None and (descriptor.type_one_side or (ti, tj) not in excluded):
                raise ModelFileError(
                    f"embeddings: no network for the types {ti}, {tj}, which are not excluded"
                )
            if (ti, tj) in excluded and np.any(descriptor.davg[ti]) and not _returns_zero(net):
                raise ModelFileError(
                    f"exclude_types holds [{ti}, {tj}] while davg of type {ti} is not zero: the energy "
                    f"would jump as a neighbor crosses rcut; train with set_davg_zero, or use "
                    f"pair_exclude_types of the model"
                )


def check_shortrange(table: ShortRange, rcut: float, ntypes: int) -> None:
    """A table must cover what it is asked for, and leave the energy continuous where pairs leave it."""
    t = table
    if not (0 <= t.start < rcut and 0 < t.step < np.inf):
        raise ModelFileError(
            f"table: expected a first distance from 0 to rcut and a positive step, found {t.start} and {t.step} Å"
        )
    if np.ndim(t.coefficients) != 4 or np.size(t.coefficients) == 0:
        raise ModelFileError(
            f"table: expected coefficients by types, interval and power, found shape {np.shape(t.coefficients)}"
        )
    _check_array("table", t.coefficients, (ntypes, ntypes, t.coefficients.shape[2], 4))
    if not np.array_equal(t.coefficients, t.coefficients.swapaxes(0, 1)):
        raise ModelFileError("table: expected the same energies for the types i, j and j, i")
    if not 0 <= t.sw_rmin < t.sw_rmax <= rcut or not t.smin_alpha > 0:
        raise ModelFileError(
            f"expected 0 <= sw_rmin < sw_rmax <= rcut = {rcut} and smin_alpha > 0, found sw_rmin = {t.sw_rmin}, "
            f"sw_rmax = {t.sw_rmax}, smin_alpha = {t.smin_alpha}"
        )
    # the weight of a neighbor at rcut in the softmin, beside one at sw_rmax
    if np.exp((t.sw_rmax - rcut) / t.smin_alpha) > JUMP:
        raise ModelFileError(
            f"smin_alpha = {t.smin_alpha}: expected at most (rcut - sw_rmax) / {-np.log(JUMP):.0f} = "
            f"{(t.sw_rmax - rcut) / np.log(JUMP):.2g} Å: the energy would jump as a neighbor crosses rcut"
        )
    interval = min(int((rcut - t.start) / t.step), t.coefficients.shape[2] - 1)
    u = min((rcut - t.start) / t.step - interval, 1.0)
    powers = np.array([[u**3, u**2, u, 1], [3 * u**2 / t.step, 2 * u / t.step, 1 / t.step, 0]])
    energy, force = abs(powers @ t.coefficients[:, :, interval].reshape(-1, 4).T).max(axis=1)
    if energy > JUMP or force > JUMP:
        raise ModelFileError(
            "table: expected energies and forces that vanish at its end or at rcut, found up to "
            f"{energy:.2g} eV and {force:.2g} eV/Å: they would jump as a pair gets there"
        )


def _returns_zero(net: list[Layer] | None) -> bool:
    """Whether an embedding net returns zero for every input: no weights, act(0) = 0, no skip at once.

    A missing net does not count: what DeePMD-kit makes of it is only known where davg = 0 leaves it nothing
    to act on.
    """
    if net is None:
        return False
    blank = not any(np.any(values) for layer in net for values in (layer.w, layer.b) if values is not None)
    skips = net[0].resnet and net[0].w.shape[1] in (1, 2)
    return blank and not skips and net[0].activation not in ("softplus", "sigmoid")
