"""The sections of ``input.json``: the only statement of its keys, defaults and units.

Lengths in Å, energies in eV. A section has

- fields: the keys that count, under DeePMD-kit's names, with its defaults (3.2);
- ``ALIASES``: other names of a field;
- ``IGNORED``: keys of DeePMD-kit that do not change the model; accepted, and listed in `Config.ignored`;
- ``ONLY``: keys of DeePMD-kit that would change the model, with the one value that deepmd_lite can honor.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    model_validator,
)

ACTIVATIONS = ("tanh", "relu", "gelu", "gelu_tf", "relu6", "softplus", "sigmoid", "silu", "none", "linear")
SILUT = r"silut(:\d+(\.\d+)?)?"  # silut:T, silu continued by a tanh above T
PRECISIONS = dict(default="float64", double="float64", float64="float64", single="float32", float32="float32")
MAX_RCUT = 30.0  # Å; beyond it, ten thousand neighbors an atom fill the memory


def _activation(name: str) -> str:
    if name.lower() not in ACTIVATIONS and not re.fullmatch(SILUT, name.lower()):
        raise ValueError(f"expected one of {', '.join(ACTIVATIONS)}, silut:T, found {name!r}")
    return name.lower()


def _precision(name: str) -> str:
    if name not in PRECISIONS:
        raise ValueError(f"expected default, float64 or float32, found {name!r}")
    return PRECISIONS[name]


def _rcut(value: float) -> float:
    if value > MAX_RCUT:
        raise ValueError(f"expected at most {MAX_RCUT:g} Å, found {value:g}")
    return value


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _sel(value: Any) -> Any:
    if isinstance(value, list) and value and all(map(_is_count, value)):
        return value
    if isinstance(value, str) and re.fullmatch(r"auto(:\d+(\.\d*)?)?", value):
        if float(value.partition(":")[2] or 1.1) >= 1:
            return value
    raise ValueError(f'expected a positive number per type, "auto" or "auto:1.1", found {value!r}')


def _batch_size(value: Any) -> Any:
    listed = isinstance(value, list) and value and all(map(_is_count, value))
    auto = isinstance(value, str) and re.fullmatch(r"auto(:[1-9]\d*)?", value)
    if not (_is_count(value) or listed or auto):
        raise ValueError(f'expected a positive number, a list of them, "auto" or "auto:N", found {value!r}')
    return value


def _systems(value: Any) -> Any:
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not paths or not all(isinstance(p, str) and p for p in paths):
        raise ValueError(f"expected a path or a list of paths, found {value!r:.80}")
    return paths


Activation = Annotated[str, AfterValidator(_activation)]
Precision = Annotated[str, AfterValidator(_precision)]
Neuron = Annotated[list[PositiveInt], Field(min_length=1)]
Pair = Annotated[list[NonNegativeInt], Field(min_length=2, max_length=2)]
Seed = Annotated[NonNegativeInt | None, Field()]


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
    sel: Annotated[list[int] | str, BeforeValidator(_sel)] = "auto"
    rcut: Annotated[PositiveFloat, AfterValidator(_rcut)] = 6.0
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
        "trainable": True,
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


class Model(Section):
    """``model``: which elements, and the two nets."""

    IGNORED = frozenset(
        "data_stat_nbatch data_bias_nsample finetune_head info model_branch_alias srtab_add_bias "
        "bridging_r_inner bridging_r_outer".split()
    )
    ONLY = {
        "type": "standard",
        "data_stat_protect": 0.01,
        "bridging_method": "None",
        **dict.fromkeys(
            "preset_out_bias use_srtab smin_alpha sw_rmin sw_rmax type_embedding modifier".split()
        ),
        **dict.fromkeys("compress spin model_dict shared_dict".split()),
    }

    type_map: list[Annotated[str, Field(min_length=1)]] | None = Field(None, min_length=1)
    descriptor: Descriptor = Field(default_factory=Descriptor)
    fitting_net: FittingNet = Field(default_factory=FittingNet)
    pair_exclude_types: list[Pair] = []
    atom_exclude_types: list[NonNegativeInt] = []

    @model_validator(mode="after")
    def _consistent(self):
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
    """``learning_rate``: exponential or cosine decay from ``start_lr`` to ``stop_lr``, after a warm-up."""

    IGNORED = frozenset({"scale_by_worker"})

    type: Literal["exp", "cosine"] = "exp"
    start_lr: PositiveFloat = 1e-3
    stop_lr: PositiveFloat | None = None
    stop_lr_ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    decay_steps: PositiveInt = 5000
    decay_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    smooth: bool = False
    warmup_steps: NonNegativeInt = 0
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    warmup_start_factor: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _consistent(self):
        if self.stop_lr is not None and self.stop_lr_ratio is not None:
            raise ValueError("expected stop_lr or stop_lr_ratio, found both")
        if self.warmup_steps and self.warmup_ratio is not None:
            raise ValueError("expected warmup_steps or warmup_ratio, found both")
        idle = sorted({"decay_rate", "decay_steps", "smooth"} & self.model_fields_set)
        if self.type == "cosine" and idle:
            raise ValueError(f"expected {idle[0]} with type exp only, found it with cosine; remove it")
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
    """``loss``: prefactors of energy, force and virial at the first and at a vanishing learning rate."""

    IGNORED = frozenset({"huber_delta"})
    ONLY = {
        "loss_func": "mse",
        "use_huber": False,
        "f_use_norm": False,
        "relative_f": None,
        "use_default_pf": False,
        "enable_atom_ener_coeff": False,
        "intensive_ener_virial": False,
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

    @model_validator(mode="after")
    def _something_to_learn(self):
        if not any(getattr(self, f"{end}_pref_{term}") for end in ("start", "limit") for term in "efv"):
            raise ValueError(
                "expected a positive prefactor, found all of them zero: nothing would be learned"
            )
        return self


class Data(Section):
    """Where frames are, and how many make a batch."""

    ONLY = {"rglob_patterns": None, "min_pair_dist": 0, "set_prefix": "set"}

    systems: Annotated[list[str], BeforeValidator(_systems)]
    batch_size: Annotated[int | list[int] | str, BeforeValidator(_batch_size)] = "auto"


class TrainingData(Data):
    """``training.training_data``: frames, and how often each system is drawn."""

    ALIASES = {"auto_prob_style": "auto_prob", "sys_weights": "sys_probs"}

    auto_prob: str = "prob_sys_size"
    sys_probs: list[NonNegativeFloat] | None = None

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
        "time_training profiling profiling_file enable_profiler tensorboard tensorboard_log_dir "
        "tensorboard_freq zero_stage neighbor_graph_method enable_compile enable_tf32 ema_decay "
        "ema_ckpt_keep".split()
    )
    ONLY = {
        "opt_type": "Adam",
        "numb_epoch": None,
        "mixed_precision": None,
        "enable_ema": False,
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


class Optimizer(Section):
    """``optimizer``: Adam with its usual constants."""

    ONLY = {"adam_beta1": 0.9, "adam_beta2": 0.999, "weight_decay": 0}

    type: Literal["Adam"] = "Adam"


class Config(Section):
    """A whole ``input.json``."""

    IGNORED = frozenset({"validating"})
    ONLY = {"nvnmd": None}

    model: Model
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
            "warmup_steps": s.warmup_steps if ratio is None else int(ratio * self.training.numb_steps),
            "warmup_start_factor": s.warmup_start_factor,
        }
