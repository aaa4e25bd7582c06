"""What a Deep Potential model is, as plain values: the tree of a ``.dp`` file without its wrapping."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

DTYPES = {"float64": np.float64, "float32": np.float32}


@dataclass(eq=False)
class Layer:
    """One layer, y = act(x w + b) * idt + skip, where skip is x (nout = nin) or [x, x] (nout = 2 nin).

    Attributes
    ----------
    w : (nin, nout) float64 or float32
    b, idt : (nout,) or None
    activation : str
        One of `config.ACTIVATIONS`, or ``"silut:T"``.
    resnet : bool
        Whether the skip is added where the widths allow it.
    """

    w: np.ndarray
    b: np.ndarray | None
    idt: np.ndarray | None
    activation: str
    resnet: bool


@dataclass(eq=False)
class Descriptor:
    """se_e2_a: the environment matrix, its statistics and the embedding nets. Lengths in Å.

    Attributes
    ----------
    davg, dstd : (ntypes, 4) float64
        Mean and standard deviation of a row of the environment matrix, per type of the centre.
    nets : list
        Layers of the embedding net by neighbor type tj (`type_one_side`) or by ti + ntypes * tj;
        None where the pair (ti, tj) is excluded.
    exclude_types : list of (int, int)
        Pairs of types that do not see each other (symmetric).
    """

    rcut: float
    rcut_smth: float
    sel: tuple[int, ...]
    neuron: tuple[int, ...]
    axis_neuron: int
    davg: np.ndarray
    dstd: np.ndarray
    nets: list[list[Layer] | None]
    resnet_dt: bool = False
    type_one_side: bool = False
    exclude_types: list[tuple[int, int]] = field(default_factory=list)
    env_protection: float = 0.0
    set_davg_zero: bool = False
    activation_function: str = "tanh"
    precision: str = "float64"

    @property
    def dim(self) -> int:
        """Length of the descriptor of one atom, M * axis_neuron."""
        return self.neuron[-1] * self.axis_neuron


@dataclass(eq=False)
class Fitting:
    """The energy of an atom from its descriptor: one net per type. Energies in eV.

    Attributes
    ----------
    bias_atom_e : (ntypes,) float64
        Added to the output of the net; `Model.out_bias` is added as well.
    nets : list of list of Layer
        By type of the centre.
    atom_ener : list of (float or None), or None
        Only a flag: where not None, net(0) is subtracted; the value itself already sits in a bias.
    fparam_avg, fparam_inv_std : (numb_fparam,) or None
    aparam_avg, aparam_inv_std : (numb_aparam,) or None
        (parameter - avg) * inv_std is appended to the descriptor.
    """

    neuron: tuple[int, ...]
    bias_atom_e: np.ndarray
    nets: list[list[Layer]]
    resnet_dt: bool = True
    activation_function: str = "tanh"
    precision: str = "float64"
    atom_ener: list[float | None] | None = None
    numb_fparam: int = 0
    numb_aparam: int = 0
    fparam_avg: np.ndarray | None = None
    fparam_inv_std: np.ndarray | None = None
    aparam_avg: np.ndarray | None = None
    aparam_inv_std: np.ndarray | None = None


@dataclass(eq=False)
class ShortRange:
    """A table of pair energies that takes over from the nets where atoms are close (model/shortrange.py).

    Attributes
    ----------
    start, step : float
        First knot of the table and distance between knots, Å.
    coefficients : (ntypes, ntypes, nintervals, 4) float64
        V(r) = ((c₀ u + c₁) u + c₂) u + c₃ in eV on interval k, with u = (r - start) / step - k; symmetric in types.
        V is zero from the last knot or rcut on.
    smin_alpha, sw_rmin, sw_rmax : float
        Width of the softmin, and the distances between which the nets fade in, Å.
    """

    start: float
    step: float
    coefficients: np.ndarray
    smin_alpha: float
    sw_rmin: float
    sw_rmax: float


@dataclass(eq=False)
class Posterior:
    """How uncertain the last layer of the fitting nets is, after a fit to frames (evaluate/last_layer.py).

    Its coefficients c are (w, b) of each type in turn, K = ntypes (H + 1) numbers for H neurons before it. An energy
    φ · c then has the standard deviation scale |Lᵀ φ|.

    Attributes
    ----------
    factor : (K, K) float64
        L, with L Lᵀ the covariance of c up to a factor.
    scale : (3,) float64
        That factor for energies, forces and virials: what makes 90 % intervals cover 90 %.
    """

    factor: np.ndarray
    scale: np.ndarray


@dataclass(eq=False)
class Model:
    """All of a Deep Potential energy model as plain values.

    Attributes
    ----------
    out_bias, out_std : (ntypes,) float64
        `out_bias` (eV) is added per atom; `out_std` is carried along and unused for an energy.
    pair_exclude_types : list of (int, int)
        Pairs removed from the neighbor list (symmetric).
    atom_exclude_types : list of int
        Types whose atomic energy is zero, biases included.
    min_nbor_dist : float or None
        Closest pair of the training data, Å.
    definition : dict
        ``model_def_script``: how the model was asked for. Never trusted; the header above decides.
    metadata : dict
        Provenance by deepmd_lite, JSON values only.
    shortrange : ShortRange or None
        Where it is given, `out_bias` stays outside of the blend, and the energy of `fitting` with its bias is inside.
    posterior : Posterior or None
        Belongs to these weights: whoever changes hidden ones drops it.
    """

    type_map: tuple[str, ...]
    descriptor: Descriptor
    fitting: Fitting
    out_bias: np.ndarray
    out_std: np.ndarray | None = None
    pair_exclude_types: list[tuple[int, int]] = field(default_factory=list)
    atom_exclude_types: list[int] = field(default_factory=list)
    min_nbor_dist: float | None = None
    definition: dict = field(default_factory=dict)
    metadata: dict = field(default_factory=dict)
    shortrange: ShortRange | None = None
    posterior: Posterior | None = None
