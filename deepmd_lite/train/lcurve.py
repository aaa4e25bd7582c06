"""lcurve.out: the learning curve in DeePMD-kit's columns.

    # step  rmse_val rmse_trn  rmse_e_val rmse_e_trn  rmse_f_val rmse_f_trn [rmse_v_val rmse_v_trn]  lr

Only the ``_trn`` columns without validation data. Energies and virials are per atom; rmse is the root of the
loss.
"""

import os

import numpy as np


class LearningCurve:
    """Appends rows to the file at ``path``; removes rows after step ``keep``, left by a run that died."""

    def __init__(self, path, keep, validation, loss):
        self.path, self.validation = path, validation
        self.terms = [
            k for k in "efv" if getattr(loss, f"start_pref_{k}") or getattr(loss, f"limit_pref_{k}")
        ]
        kept = self._rows_up_to(keep) if keep and path.exists() else []
        with open(path, "w") as f:
            f.write("".join([self._header(), *kept]))

    def _rows_up_to(self, step):
        return [r for r in open(self.path).readlines() if not r.startswith("#") and int(r.split()[0]) <= step]

    def _header(self):
        names = ["rmse", *(f"rmse_{k}" for k in self.terms)]
        sides = ("val", "trn") if self.validation else ("trn",)
        columns = "".join("  " + "".join(f" {f'{n}_{s}':>11s}" for s in sides) for n in names)
        return (
            f"# {'step':>5s}{columns}   {'lr':>8s}\n"
            "# If there is no available reference data, rmse_*_{val,trn} will print nan\n"
        )

    def row(self, step, lr, training, validation):
        """Write one row; ``training`` and ``validation`` are `loss.Errors`."""
        sides = [validation, training] if self.validation else [training]
        values = [self._values(side) for side in sides]
        columns = "".join("  " + "".join(f" {v:11.2e}" for v in pair) for pair in zip(*values))
        with open(self.path, "a") as f:
            f.write(f"{step:7d}{columns}   {lr:8.1e}\n")
            f.flush()
            os.fsync(f.fileno())

    def _values(self, errors):
        squares = dict(zip("efv", errors[1:]))
        return [
            float(v) ** 0.5 if v is not None else np.nan
            for v in (errors.loss, *(squares[k] for k in self.terms))
        ]


def read_lcurve(path):
    """The columns of an lcurve.out by name: dict of (nrows,) arrays."""
    with open(path) as f:
        names = f.readline().lstrip("#").split()
    rows = np.loadtxt(path, ndmin=2)
    return dict(zip(names, rows.T)) if rows.size else {n: np.zeros(0) for n in names}
