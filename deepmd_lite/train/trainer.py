"""The training loop: batches in, a model file out.

Files, in the working directory of the run:

model.ckpt.dp    the last checkpoint, with the optimizer's state: ``--restart`` continues from it bit by bit
model-best.dp    the weights with the smallest force error on the whole validation set
model.dp         the weights at the end
lcurve.out       the learning curve, in DeePMD-kit's columns
"""

from pathlib import Path

import torch

from deepmd_lite.errors import ConfigError, TrainingError
from deepmd_lite.frames.store import read_systems
from deepmd_lite.model.potential import DeepPot
from deepmd_lite.model_file import read_model
from deepmd_lite.signals import Stopped, collected
from deepmd_lite.train import checkpoint
from deepmd_lite.train.dataset import (
    Sampler,
    check_labels,
    check_sel,
    collate,
    prepare,
    system_probabilities,
)
from deepmd_lite.train.fused import FusedPot, can_fuse
from deepmd_lite.train.lcurve import LearningCurve
from deepmd_lite.train.loss import Errors, Loss
from deepmd_lite.train.schedule import Schedule
from deepmd_lite.train.start import check_same_model, new_model
from deepmd_lite.train.statistics import closest_pair


def make_folder(path):
    """Make a folder where there is none; ConfigError where a file is in the way."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ConfigError(f"{path}: cannot make this folder ({e.strerror})") from None


class Trainer:
    """A training run.

    Parameters
    ----------
    config : config.Config
    folder : str or Path, optional
        Where the run's files go.
    restart : str or Path, optional
        A checkpoint to continue.
    init_model : str or Path, optional
        A model file whose weights, statistics and energies to start from.
    progress : progress.TrainingProgress, optional
        Told of every step, and of every row of the learning curve.

    Raises
    ------
    ConfigError, DataError, NeighborOverflowError, ModelFileError
        Before the first step, when something does not fit.
    """

    def __init__(self, config, folder=".", *, restart=None, init_model=None, progress=None):
        if restart and init_model:
            raise ConfigError("give either a checkpoint to restart from or a model to start from, not both")
        self.config, self.folder, self.progress = config, Path(folder), progress
        curve = self.folder / config.training.disp_file
        make_folder(self.folder)
        if not curve.parent.is_dir():
            raise ConfigError(
                f"training.disp_file: there is no folder {curve.parent}; make it or use another name"
            )
        if restart:
            checkpoint.check_training(restart)
        start = restart or init_model
        model = None if start is None else check_same_model(read_model(start), config.model)

        prepared = self._prepare(config.training.training_data, None if model is None else model.type_map)
        self.potential = DeepPot(model or new_model(config, self.type_map, prepared))
        self.sampler = self._sampler(prepared, config.training.training_data)
        held_back = config.training.validation_data
        self.validation = held_back and self._sampler(self._prepare(held_back, self.type_map), held_back)

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.potential.to(self.device)
        self.evaluate = self._fused(prepared, restart) if can_fuse(self.potential) else self.potential
        self.potential.descriptor.nets.requires_grad_(config.model.descriptor.trainable)
        parameters = [p for p in self.potential.parameters() if p.requires_grad]
        self.schedule = Schedule(numb_steps=config.training.numb_steps, **config.schedule())
        self.loss = Loss(config.loss, self.schedule.start_lr)
        self.optimizer = torch.optim.Adam(parameters, lr=self.schedule.start_lr, fused=True)
        self.step, self.best = 0, float("inf")
        if restart:
            self.step, self.best = checkpoint.load_training(restart, self.potential, self.optimizer)
        self.lcurve = LearningCurve(
            curve, self.step, validation=self.validation is not None, loss=config.loss
        )

    def _prepare(self, data, type_map):
        """Read the frames of a data section and find their neighbors; sets ``type_map``."""
        section = self.config.model
        names = section.type_map or type_map
        systems = read_systems(data.systems, names and tuple(names))
        self.type_map = tuple(names or dict.fromkeys(e for s in systems for e in s.type_map))
        check_labels(systems, self.config.loss)
        return prepare(
            [s.remapped(self.type_map) for s in systems],
            section.descriptor.rcut,
            len(self.type_map),
            section.fitting_net.numb_fparam,
            section.fitting_net.numb_aparam,
        )

    def _sampler(self, prepared, data):
        """Batches of the frames of a data section."""
        check_sel(prepared, self.potential.sel)
        seed = self.config.training.seed or 0
        held_back = data is self.config.training.validation_data
        sampler = Sampler(prepared, data.batch_size, seed + held_back)
        if not held_back:
            sampler.probabilities = data.sys_probs or system_probabilities(data.auto_prob, sampler.counts)
        if sampler.probabilities is not None and len(sampler.probabilities) != len(sampler.systems):
            raise ConfigError(
                f"training_data.sys_probs: expected {len(sampler.systems)} numbers, one for each system, "
                f"found {len(sampler.probabilities)}"
            )
        return sampler

    def _fused(self, prepared, restart):
        """The potential with the kernels of a training step, for all pairs that the frames have."""
        everything = [*prepared, *(self.validation.systems if self.validation else [])]
        closest = min(closest_pair(everything), self.potential.rcut / 2)
        return FusedPot(self.potential, closest, checkpoint.knots(restart) if restart else None)

    def summary(self):
        """One line on what is trained on what."""
        frames = sum(map(len, self.sampler.systems))
        held_back = sum(map(len, self.validation.systems)) if self.validation else 0
        weights = sum(p.numel() for p in self.potential.parameters())
        return (
            f"{weights} weights, {list(self.potential.type_map)}, sel {list(self.potential.sel)}; "
            f"{frames} frames to train on, {held_back} to validate; "
            f"{self.config.training.numb_steps} steps on {self.device}"
        )

    def run(self):
        """Train to ``numb_steps`` and write model.dp; returns its path.

        Raises
        ------
        TrainingError
            A loss that is not finite; names the frames of the batch.
        Stopped
            SIGTERM, SIGUSR1 or SIGINT; the checkpoint is written.
        """
        c = self.config.training
        with collected() as received:
            while self.step < c.numb_steps:
                lr = self.schedule(self.step)
                errors = self._train_step(self.sampler(self.step), lr)
                self.step += 1
                if self.progress:
                    self.progress.advance(self.step)
                if self.step == 1 or self.step % c.disp_freq == 0:
                    self._display(lr, errors)
                if self.step % c.save_freq == 0 or self.step == c.numb_steps:
                    self._save()
                if received:
                    self._checkpoint()
                    raise Stopped(received[0], self.step)
        self.potential.save(self.folder / "model.dp")
        return self.folder / "model.dp"

    def _train_step(self, frames, lr):
        """One step of the optimizer; the errors before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        batch, labels = (part.to(self.device) for part in collate(frames))
        self.optimizer.zero_grad(set_to_none=True)
        errors = self.loss(self.evaluate(batch), labels, lr)
        if not torch.isfinite(errors.loss):
            names = ", ".join(f"{f.system} frame {f.index}" for f in frames)
            raise TrainingError(
                f"step {self.step + 1}: the loss is {errors.loss.item()} on {names}; look at those frames "
                "(dplite check) or lower learning_rate.start_lr"
            )
        errors.loss.backward()
        if self.config.training.gradient_max_norm > 0:
            torch.nn.utils.clip_grad_norm_(
                self.potential.parameters(), self.config.training.gradient_max_norm
            )
        self.optimizer.step()
        return errors._replace(loss=errors.loss.detach())

    def _display(self, lr, errors):
        held_back = None
        if self.validation is not None:
            n = self.config.training.validation_data.numb_btch
            first = self.step // self.config.training.disp_freq * n
            held_back = self._errors([self.validation(first + k) for k in range(n)], lr)
        self.lcurve.row(self.step, lr, errors, held_back)
        if self.progress:
            self.progress.report(self.step, lr, errors, held_back)

    @torch.no_grad()
    def _errors(self, list_of_frames, lr):
        """Mean errors over batches."""
        parts = []
        for frames in list_of_frames:
            batch, labels = (part.to(self.device) for part in collate(frames))
            parts.append(self.loss(self.evaluate(batch), labels, lr))
        columns = ([v for v in column if v is not None] for column in zip(*parts))
        return Errors(*(torch.stack(v).mean() if v else None for v in columns))

    def _save(self):
        """Write the checkpoint, and the best model when the whole validation set says so."""
        if self.evaluate is not self.potential:
            self.evaluate.refine()
        if self.validation is not None:
            everything = [[frame] for frames in self.validation.systems for frame in frames]
            errors = self._errors(everything, self.schedule(self.step))
            score = float(errors.loss if errors.force is None else errors.force)
            if score < self.best:
                self.best = score
                self.potential.save(self.folder / "model-best.dp")
        self._checkpoint()

    def _checkpoint(self):
        knots = self.evaluate.nknots if self.evaluate is not self.potential else 0
        checkpoint.save(
            self.folder / "model.ckpt.dp", self.potential, self.optimizer, self.step, self.best, knots
        )
