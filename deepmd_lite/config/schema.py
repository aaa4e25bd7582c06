"""The sections of ``input.json``: the only statement of its keys, defaults and units.

Lengths in Å, energies in eV. A section has

- fields: the keys that count, under DeePMD-kit's names, with its defaults (3.2);
- ``ALIASES``: other names of a field;
- ``IGNORED``: keys of DeePMD-kit that do not change the model; accepted, and listed in `Config.ignored`;
- ``ONLY``: keys of DeePMD-kit that would change the model, with the one value that deepmd_lite can honor.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    model_validator,
)

from deepmd_lite.config.values import (
    Activation,
    BatchSize,
    HuberDelta,
    Neuron,
    Pair,
    Precision,
    Rcut,
    Seed,
    Sel,
    Systems,
    Trainable,
)

UNIVERSAL = "zbl"  # use_srtab: the universal potential of the elements, in place of a file


class Section(BaseModel):
    """A part of the input: fields, and what becomes of DeePMD-kit's other keys."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)

    ALIASES: ClassVar[dict[str, str]] = {}
    IGNORED: ClassVar[frozenset[str]] = frozenset()
    ONLY: ClassVar[dict[str, Any]] = {}


class Descriptor(Section):
    """``model.descriptor``: se_e2_a (Zhang et al., NeurIPS 2018)."""

    ALIASES = {"n_axis_neuron": "axis_neuron"}

    type: Literal["se_e2_a", "se_a"] = "se_e2_a"
    sel: Sel = "auto"
    rcut: Rcut = 6.0
    rcut_smth: NonNegativeFloat = 0.5
    neuron: Neuron = [10, 20, 40]
    axis_neuron: PositiveInt = 4
    resnet_dt: bool = False
    type_one_side: bool = False
    activation_function: Activation = "tanh"
    precision: Precision = "default"
    exclude_types: list[Pair] = []
    env_protection: NonNegativeFloat = 0.0
    set_davg_zero: bool = False
    seed: Seed = None
    trainable: bool = True

    @model_validator(mode="after")
    def _consistent(self):
        if self.rcut_smth >= self.rcut:
            raise ValueError(
                f"expected rcut_smth < rcut, found rcut_smth = {self.rcut_smth}, rcut = {self.rcut}"
            )
        if self.axis_neuron > self.neuron[-1]:
            raise ValueError(
                f"expected axis_neuron <= {self.neuron[-1]}, the last of neuron, found {self.axis_neuron}"
            )
        return self


class FittingNet(Section):
    """``model.fitting_net``: the energy of an atom from its descriptor."""

    ALIASES = {"n_neuron": "neuron"}
    IGNORED = frozenset({"rcond"})
    ONLY = {
        "tot_ener_zero": False,
        "default_fparam": None,
        "dim_case_embd": 0,
        "layer_name": None,
        "use_aparam_as_mask": False,
    }

    type: Literal["ener"] = "ener"
    neuron: Neuron = [120, 120, 120]
    resnet_dt: bool = True
    activation_function: Activation = "tanh"
    precision: Precision = "default"
    numb_fparam: NonNegativeInt = 0
    numb_aparam: NonNegativeInt = 0
    atom_ener: list[float | None] = []
    seed: Seed = None
    trainable: Trainable = True

    @model_validator(mode="after")
    def _one_per_layer(self):
        if isinstance(self.trainable, list) and len(self.trainable) != len(self.neuron) + 1:
            raise ValueError(
                f"expected {len(self.neuron) + 1} values in trainable, one per layer of neuron and one for the "
                f"output, found {len(self.trainable)}"
            )
        return self

    @property
    def trained_layers(self) -> list[bool]:
        """``trainable`` for each layer, that of the output last."""
        one = isinstance(self.trainable, bool)
        return [self.trainable] * (len(self.neuron) + 1) if one else self.trainable


class Model(Section):
    """``model``: which elements, and the two nets."""

    IGNORED = frozenset(
        "data_stat_nbatch data_bias_nsample finetune_head info model_branch_alias "
        "bridging_r_inner bridging_r_outer".split()
    )
    ONLY = {
        "type": "standard",
        "data_stat_protect": 0.01,
        "bridging_method": "None",
        **dict.fromkeys("preset_out_bias type_embedding modifier".split()),
        **dict.fromkeys("compress spin model_dict shared_dict".split()),
    }

    type_map: list[Annotated[str, Field(min_length=1)]] | None = Field(None, min_length=1)
    descriptor: Descriptor = Field(default_factory=Descriptor)
    fitting_net: FittingNet = Field(default_factory=FittingNet)
    pair_exclude_types: list[Pair] = []
    atom_exclude_types: list[NonNegativeInt] = []
    use_srtab: Annotated[str, Field(min_length=1)] | None = None  # a file, or "zbl"
    smin_alpha: PositiveFloat | None = None
    sw_rmin: NonNegativeFloat | None = None
    sw_rmax: PositiveFloat | None = None
    srtab_add_bias: bool = True

    @model_validator(mode="after")
    def _short_range(self):
        switch = {key: getattr(self, key) for key in ("smin_alpha", "sw_rmin", "sw_rmax")}
        if self.use_srtab is None:
            idle = [key for key, value in switch.items() if value is not None]
            if idle:
                raise ValueError(f"expected {idle[0]} with use_srtab only; remove it")
            return self
        if None in (self.sw_rmin, self.sw_rmax) or not self.sw_rmin < self.sw_rmax < self.descriptor.rcut:
            raise ValueError(
                f"use_srtab: expected sw_rmin < sw_rmax < rcut = {self.descriptor.rcut}, found sw_rmin = "
                f"{self.sw_rmin}, sw_rmax = {self.sw_rmax}"
            )
        if self.use_srtab != UNIVERSAL and self.type_map is None:
            raise ValueError(
                "use_srtab: expected a type_map, in the order of the table's columns, found none"
            )
        if not self.srtab_add_bias:
            raise ValueError(
                "srtab_add_bias: expected true, found false: atoms that come close would lose the energy of "
                "their element"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self):
        if not self.descriptor.trainable and not any(self.fitting_net.trained_layers):
            raise ValueError("expected a net that is trainable, found none: nothing would be learned")
        if self.type_map is None:
            return self
        names, ntypes = self.type_map, len(self.type_map)
        if len(set(names)) < ntypes:
            raise ValueError(f"expected distinct names in type_map, found {names}")
        for key, values in (
            ("descriptor.sel", self.descriptor.sel),
            ("fitting_net.atom_ener", self.fitting_net.atom_ener),
        ):
            if isinstance(values, list) and values and len(values) != ntypes:
                raise ValueError(
                    f"expected {ntypes} numbers in {key}, one per type of {names}, found {len(values)}"
                )
        pairs = self.pair_exclude_types + self.descriptor.exclude_types
        for t in [*self.atom_exclude_types, *(t for pair in pairs for t in pair)]:
            if t >= ntypes:
                raise ValueError(f"expected excluded types from 0 to {ntypes - 1}, found {t}")
        return self


class LearningRate(Section):
    """``learning_rate``: a warm-up to ``start_lr``, and a decay to ``stop_lr`` at once or, ``wsd``, late."""

    IGNORED = frozenset({"scale_by_worker"})
    OF_TYPE: ClassVar[dict[str, set[str]]] = {
        "exp": {"decay_rate", "decay_steps", "smooth"},
        "wsd": {"decay_phase_ratio", "decay_type"},
    }

    type: Literal["exp", "cosine", "wsd"] = "exp"
    start_lr: PositiveFloat = 1e-3
    stop_lr: PositiveFloat | None = None
    stop_lr_ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    decay_steps: PositiveInt = 5000
    decay_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    smooth: bool = False
    decay_phase_ratio: Annotated[float, Field(gt=0, le=1)] = 0.1
    decay_type: Literal["inverse_linear", "cosine", "linear"] = "inverse_linear"
    warmup_steps: NonNegativeInt = 0
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    warmup_start_factor: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _consistent(self):
        if self.stop_lr is not None and self.stop_lr_ratio is not None:
            raise ValueError("expected stop_lr or stop_lr_ratio, found both")
        if self.warmup_steps and self.warmup_ratio is not None:
            raise ValueError("expected warmup_steps or warmup_ratio, found both")
        for kind, keys in self.OF_TYPE.items():
            idle = sorted(keys & self.model_fields_set)
            if self.type != kind and idle:
                raise ValueError(
                    f"expected {idle[0]} with type {kind} only, found it with {self.type}; remove it"
                )
        if self.last_lr > self.start_lr:
            raise ValueError(f"expected stop_lr <= start_lr, found {self.last_lr} and {self.start_lr}")
        return self

    @property
    def last_lr(self) -> float:
        """The rate at the end: ``stop_lr``, or 5e-8 where neither it nor its ratio is given."""
        if self.stop_lr_ratio is not None:
            return self.start_lr * self.stop_lr_ratio
        return 5e-8 if self.stop_lr is None else self.stop_lr


class Loss(Section):
    """``loss``: prefactors of energy, force and virial at the first and at a vanishing rate; what errors cost."""

    ONLY = {
        "use_default_pf": False,
        "enable_atom_ener_coeff": False,
        "numb_generalized_coord": 0,
        **{f"{end}_pref_{term}": 0 for end in ("start", "limit") for term in ("h", "ae", "pf", "gf")},
    }

    type: Literal["ener"] = "ener"
    start_pref_e: NonNegativeFloat = 0.02
    limit_pref_e: NonNegativeFloat = 1.0
    start_pref_f: NonNegativeFloat = 1000.0
    limit_pref_f: NonNegativeFloat = 1.0
    start_pref_v: NonNegativeFloat = 0.0
    limit_pref_v: NonNegativeFloat = 0.0
    loss_func: Literal["mse", "mae"] = "mse"
    use_huber: bool = False
    huber_delta: HuberDelta = 0.01  # eV/atom, eV/Å, eV/atom
    f_use_norm: bool = False
    relative_f: PositiveFloat | None = None  # eV/Å
    intensive_ener_virial: bool = False

    @model_validator(mode="after")
    def _consistent(self):
        mae = self.loss_func == "mae"
        if self.use_huber and (mae or self.relative_f is not None):
            other = "loss_func mae" if mae else "relative_f"
            raise ValueError(f"expected use_huber or {other}, found both")
        if self.f_use_norm and not (self.use_huber or mae):
            raise ValueError("expected f_use_norm with use_huber or loss_func mae, found neither")
        if not any(getattr(self, f"{end}_pref_{term}") for end in ("start", "limit") for term in "efv"):
            raise ValueError(
                "expected a positive prefactor, found all of them zero: nothing would be learned"
            )
        return self


class Data(Section):
    """Where frames are, and how many make a batch."""

    ONLY = {"rglob_patterns": None, "min_pair_dist": 0, "set_prefix": "set"}

    systems: Systems
    batch_size: BatchSize = "auto"


class TrainingData(Data):
    """``training.training_data``: frames, how often each system is drawn, and what it weighs."""

    ALIASES = {"auto_prob_style": "auto_prob", "sys_weights": "sys_probs"}

    auto_prob: str = "prob_sys_size"
    sys_probs: list[NonNegativeFloat] | None = None
    weights: list[PositiveFloat] | None = None  # of each system's frames in the loss

    @model_validator(mode="after")
    def _probabilities(self):
        if self.sys_probs is not None and abs(math.fsum(self.sys_probs) - 1) > 1e-6:
            raise ValueError(f"expected sys_probs that add up to 1, found {math.fsum(self.sys_probs)}")
        return self


class ValidationData(Data):
    """``training.validation_data``: frames, and how many batches a line of lcurve.out averages over."""

    ALIASES = {"numb_batch": "numb_btch"}
    IGNORED = frozenset("auto_prob auto_prob_style sys_probs sys_weights".split())

    numb_btch: PositiveInt = 1


class Training(Section):
    """``training``: the data, the number of steps, and what is written when."""

    ALIASES = dict.fromkeys(("stop_batch", "num_step", "num_steps", "numb_step"), "numb_steps")
    IGNORED = frozenset(
        "stat_file stat_file_mode save_dir save_ckpt max_ckpt_keep ckpt_keep_ratio disp_training disp_avg "
        "time_training profiling profiling_file enable_profiler zero_stage neighbor_graph_method "
        "enable_compile enable_tf32 ema_ckpt_keep".split()
    )
    ONLY = {
        "opt_type": "Adam",
        "numb_epoch": None,
        "mixed_precision": None,
        "change_bias_after_training": False,
        "acc_freq": 1,
    }

    training_data: TrainingData
    validation_data: ValidationData | None = None
    numb_steps: PositiveInt
    seed: Seed = None
    disp_file: Annotated[str, Field(min_length=1)] = "lcurve.out"
    disp_freq: PositiveInt = 1000
    save_freq: PositiveInt = 1000
    gradient_max_norm: NonNegativeFloat = 0.0  # 0: no clipping
    enable_ema: bool = False
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    tensorboard: bool = False
    tensorboard_log_dir: Annotated[str, Field(min_length=1)] = "log"
    tensorboard_freq: PositiveInt = 1


class Optimizer(Section):
    """``optimizer``: Adam, AdamW; SOAP or HybridMuon for the matrices of hidden layers and Adam for all else."""

    ALIASES = {"muon_momentum": "momentum"}

    type: Literal["Adam", "AdamW", "SOAP", "HybridMuon", "Muon"] = "Adam"
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    weight_decay: NonNegativeFloat = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95  # of Muon

    @model_validator(mode="after")
    def _momentum_is_of_muon(self):
        if not self.type.endswith("Muon") and "momentum" in self.model_fields_set:
            raise ValueError(f"expected momentum with type Muon only, found it with {self.type}; remove it")
        return self


class Config(Section):
    """A whole ``input.json``."""

    IGNORED = frozenset({"validating"})
    ONLY = {"nvnmd": None}

    model: Model = Field(default_factory=Model)  # left out, that of the model which training starts from
    learning_rate: LearningRate = Field(default_factory=LearningRate)
    optimizer: Optimizer = Field(default_factory=Optimizer)
    loss: Loss = Field(default_factory=Loss)
    training: Training

    _source: dict = PrivateAttr(default_factory=dict)
    _ignored: list[str] = PrivateAttr(default_factory=list)

    @property
    def source(self) -> dict:
        """The input as it was written."""
        return self._source

    @property
    def ignored(self) -> list[str]:
        """Keys that were accepted and have no effect, as paths like ``training.stat_file``."""
        return self._ignored

    @model_validator(mode="after")
    def _warm_up_ends(self):
        steps = self.schedule()["warmup_steps"]
        if steps >= self.training.numb_steps:
            raise ValueError(
                f"expected learning_rate.warmup_steps < training.numb_steps, found {steps} and "
                f"{self.training.numb_steps}"
            )
        return self

    def schedule(self) -> dict:
        """What `train.schedule.Schedule` needs, with the ratios resolved."""
        s = self.learning_rate
        ratio = s.warmup_ratio
        return {
            "type": s.type,
            "start_lr": s.start_lr,
            "stop_lr": s.last_lr,
            "decay_steps": s.decay_steps,
            "decay_rate": s.decay_rate,
            "smooth": s.smooth,
            "decay_phase_ratio": s.decay_phase_ratio,
            "decay_type": s.decay_type,
            "warmup_steps": s.warmup_steps if ratio is None else int(ratio * self.training.numb_steps),
            "warmup_start_factor": s.warmup_start_factor,
        }
