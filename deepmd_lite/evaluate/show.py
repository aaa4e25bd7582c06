"""What a model file holds: ``dplite show``."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from deepmd_lite.model_file import read_model


@dataclass(frozen=True)
class Summary:
    """A model in words.

    Attributes
    ----------
    path : str
    rows : list of (str, str)
        What, and its value.
    """

    path: str
    rows: list[tuple[str, str]]

    def table(self):
        """rich.table.Table: Two columns."""
        table = Table(title=self.path, show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table


def show(path):
    """Describe a model file.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Summary

    Raises
    ------
    ModelFileError
        If the file cannot be used.
    """
    model = read_model(path)
    d, f = model.descriptor, model.fitting
    names = model.type_map
    bias = f.bias_atom_e + model.out_bias
    rows = [
        ("elements", " ".join(names)),
        ("descriptor", f"se_e2_a, {'one' if d.type_one_side else 'two'}-sided, {d.dim} numbers per atom"),
        ("range", f"rcut {d.rcut:g} Å, smooth from {d.rcut_smth:g} Å"),
        ("sel", ", ".join(f"{name} {n}" for name, n in zip(names, d.sel))),
        ("embedding nets", _nets(d.nets, d) + f", axis_neuron {d.axis_neuron}"),
        ("fitting nets", _nets(f.nets, f)),
        ("parameters", f"{sum(_size(net) for net in d.nets + f.nets if net):,}"),
        ("energy per element", ", ".join(f"{name} {e:.6g} eV" for name, e in zip(names, bias))),
    ]
    optional = [
        ("excluded pairs", _pairs(d.exclude_types + model.pair_exclude_types, names)),
        ("excluded elements", " ".join(names[t] for t in model.atom_exclude_types)),
        ("frame parameters", f.numb_fparam and str(f.numb_fparam)),
        ("atom parameters", f.numb_aparam and str(f.numb_aparam)),
        ("pair table", model.shortrange and _shortrange(model.shortrange)),
        ("lone atoms", f.atom_ener and "net(0) is subtracted (atom_ener)"),
        ("uncertainty", model.posterior and "covariance of the last layer, by dplite refit"),
        ("closest pair in training", model.min_nbor_dist and f"{model.min_nbor_dist:.4g} Å"),
        ("trained by", "input" in model.metadata and "deepmd_lite; the file holds its input"),
        ("file", f"{Path(path).stat().st_size / 1e6:.2f} MB"),
    ]
    return Summary(str(path), rows + [row for row in optional if row[1]])


def _nets(nets, options):
    widths = "-".join(map(str, options.neuron))
    act = options.activation_function + (", resnet_dt" if options.resnet_dt else "")
    return f"{sum(net is not None for net in nets)} of {widths}, {act}, {options.precision}"


def _shortrange(table):
    return f"up to {table.sw_rmin:g} Å, the nets from {table.sw_rmax:g} Å, smin_alpha {table.smin_alpha:g} Å"


def _size(net):
    return sum(
        np.size(values) for layer in net for values in (layer.w, layer.b, layer.idt) if values is not None
    )


def _pairs(pairs, names):
    return ", ".join(f"{names[a]}-{names[b]}" for a, b in pairs)
