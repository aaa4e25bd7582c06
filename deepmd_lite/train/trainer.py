"""The training loop: batches in, a model file out.

Files, in the working directory of the run:

model.ckpt.dp    the last checkpoint, with the optimizer's state: ``--restart`` continues from it bit by bit
model-best.dp    the weights with the smallest force error on the whole validation set
model.dp         the weights at the end
lcurve.out       the learning curve, in DeePMD-kit's columns
log/             the same for TensorBoard, if asked for
"""

import math
from contextlib import nullcontext
from pathlib import Path

import torch

from deepmd_lite.errors import ConfigError, TrainingError
from deepmd_lite.frames.store import open_systems
from deepmd_lite.model.potential import DeepPot
from deepmd_lite.model_file import read_model
from deepmd_lite.signals import Stopped, collected
from deepmd_lite.train import checkpoint
from deepmd_lite.train.dataset import Frames, Loader, check_labels, collate
from deepmd_lite.train.events import Events
from deepmd_lite.train.finetune import finetuned
from deepmd_lite.train.fused import FusedPot, can_fuse
from deepmd_lite.train.lcurve import LearningCurve
from deepmd_lite.train.loss import Counts, Errors, Loss
from deepmd_lite.train.optimizer import Average, make_optimizer
from deepmd_lite.train.ranks import Ranks
from deepmd_lite.train.sampler import Sampler, system_probabilities
from deepmd_lite.train.schedule import Schedule
from deepmd_lite.train.start import check_same_model, check_start, new_model
from deepmd_lite.train.statistics import check_sel, survey

CPU = torch.device("cpu")
RISE = 0.05  # of the validation error above its smallest: more is worth a word
LOOK = 100  # steps between two looks at whether the loss is finite, on a GPU


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
    finetune : str or Path, optional
        The same, with energies per element that fit the frames, and with the elements that are new to it;
        ``shift`` is the `bias.Shift`.
    progress : progress.TrainingProgress, optional
        Told of every step, and of every row of the learning curve.
    ranks : ranks.Ranks, optional
        The processes that share every batch; the first of them writes.

    Raises
    ------
    ConfigError, DataError, NeighborOverflowError, ModelFileError
        Before the first step, when something does not fit.
    """

    def __init__(
        self,
        config,
        folder=".",
        *,
        restart=None,
        init_model=None,
        finetune=None,
        progress=None,
        ranks=None,
    ):
        start = check_start(config, restart, init_model, finetune)
        self.config, self.folder, self.progress = config, Path(folder), progress
        self.ranks = ranks or Ranks()
        self.writes = self.ranks.rank == 0
        curve = self.folder / config.training.disp_file
        make_folder(self.folder)
        if not curve.parent.is_dir():
            raise ConfigError(
                f"training.disp_file: there is no folder {curve.parent}; make it or use another name"
            )
        if restart:
            checkpoint.check_training(restart)
        model, self.shift = None if start is None else read_model(start), None
        if model is not None and not finetune:
            check_same_model(model, config.model)

        data, held_back = config.training.training_data, config.training.validation_data
        self.parts = (config.model.descriptor, config.model.fitting_net)
        if model is not None:
            self.parts = (model.descriptor, model.fitting)
        known = () if model is None else model.type_map
        self.frames, found = self._survey(data, known, data.weights, growing=finetune or model is None)
        closest = found.closest
        if finetune:
            model, self.shift = finetuned(model, config, self.type_map, self.frames, found)
        self.potential = DeepPot(model or new_model(config, self.type_map, found))
        self.sampler = self._sampler(self.frames, found, data)
        self.held_back = self.validation = None
        if held_back:
            self.held_back, found = self._survey(held_back, self.type_map)
            closest = min(closest, found.closest)
            self.validation = self._sampler(self.held_back, found, held_back)

        self.device = torch.device("cuda", self.ranks.local_rank) if torch.cuda.is_available() else CPU
        self.potential.to(self.device)
        self.evaluate = self._fused(closest, restart) if can_fuse(self.potential) else self.potential
        self.potential.descriptor.nets.requires_grad_(config.model.descriptor.trainable)
        for net in self.potential.fitting.nets:
            for layer, trained in zip(net.layers, config.model.fitting_net.trained_layers):
                layer.requires_grad_(trained)
        self.schedule = Schedule(numb_steps=config.training.numb_steps, **config.schedule())
        self.loss = Loss(config.loss, self.schedule.start_lr)
        self.optimizers = make_optimizer(config.optimizer, self.potential)
        section = config.training
        self.average = Average(self.potential, section.ema_decay) if section.enable_ema else None
        self.step, self.best, self.score = 0, float("inf"), 0.0
        if restart:
            self.step, self.best = checkpoint.load_training(
                restart, self.potential, self.optimizers, self.average
            )
        self.lcurve = self.events = None
        if self.writes:
            validation = self.validation is not None
            self.lcurve = LearningCurve(curve, self.step, validation=validation, loss=config.loss)
        if self.writes and section.tensorboard:
            make_folder(log := self.folder / section.tensorboard_log_dir)
            self.events = Events(log, self.step)

    def _survey(self, data, known, weights=None, growing=False):
        """The `Frames` of a data section, and the `Survey` of all of them; sets ``type_map``.

        Those are the input's; or the elements ``known``, and if ``growing`` those of the frames after them.
        """
        names = self.config.model.type_map or (None if growing else known)
        systems = open_systems(data.systems, names and tuple(names))
        seen = [e for s in systems for e in s.head.type_map if not known or e in s.head.symbols]
        self.type_map = tuple(names or dict.fromkeys([*known, *seen]))
        check_labels(systems, self.config.loss)
        descriptor, fitting = self.parts
        frames = Frames(
            [s.remapped(self.type_map) for s in systems],
            descriptor.rcut,
            len(self.type_map),
            fitting.numb_fparam,
            fitting.numb_aparam,
            weights,
        )
        return frames, survey(frames, descriptor.rcut_smth, descriptor.env_protection)

    def _sampler(self, frames, found, data):
        """A `Loader` of the batches of a data section."""
        check_sel(found, self.potential.sel)
        seed = self.config.training.seed or 0
        held_back = data is self.config.training.validation_data
        systems = frames.systems
        sampler = Sampler(
            [s.nframes for s in systems], [s.natoms for s in systems], data.batch_size, seed + held_back
        )
        if not held_back:
            sampler.probabilities = data.sys_probs or system_probabilities(data.auto_prob, sampler.counts)
        if sampler.probabilities is not None and len(sampler.probabilities) != len(systems):
            raise ConfigError(
                f"training_data.sys_probs: expected {len(systems)} numbers, one for each system, "
                f"found {len(sampler.probabilities)}"
            )
        return Loader(frames, lambda step: sampler(step)[self.ranks.rank :: self.ranks.size])

    def _fused(self, closest, restart):
        """The potential with the kernels of a training step, for pairs of atoms as close as ``closest`` (Å)."""
        nearest = min(closest, self.potential.rcut / 2)
        return FusedPot(self.potential, nearest, checkpoint.knots(restart) if restart else None)

    def summary(self):
        """One line on what is trained on what."""
        held_back = len(self.held_back) if self.held_back else 0
        weights = sum(p.numel() for p in self.potential.parameters())
        return (
            f"{weights} weights, {list(self.potential.type_map)}, sel {list(self.potential.sel)}; "
            f"{len(self.frames)} frames to train on, {held_back} to validate; "
            f"{self.config.training.numb_steps} steps on {self.device}"
        )

    def warning(self):
        """str or None: What to know of a run that has ended: that its last part made the model worse."""
        rise = math.sqrt(self.score / self.best) - 1 if self.best else 0
        if rise < RISE:
            return None
        return (
            f"the error on the validation frames is {100 * rise:.0f} % above its smallest in this run: "
            f"{self.folder / 'model-best.dp'} has the weights of then, and fewer numb_steps may suit these frames"
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
        with collected() as received, self.events or nullcontext():
            while self.step < c.numb_steps:
                lr = self.schedule(self.step)
                errors = self._train_step(self.sampler(self.step), lr)
                self.step += 1
                if c.tensorboard and (self.step == 1 or self.step % c.tensorboard_freq == 0):
                    self._log(lr, errors)
                if self.progress:
                    self.progress.advance(self.step)
                if self.step == 1 or self.step % c.disp_freq == 0:
                    self._display(lr, errors)
                if self.step % c.save_freq == 0 or self.step == c.numb_steps:
                    self._save()
                signal = self.ranks.largest(received[0] if received else 0)
                if signal:
                    self._checkpoint()
                    raise Stopped(signal, self.step)
        self._write_model("model.dp")
        return self.folder / "model.dp"

    def _train_step(self, frames, lr):
        """One step of the optimizer; this rank's part of the errors before it."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = lr
        errors = self._part(frames, lr)
        # Looking at a number on a GPU waits for it: there only now and then.
        if (self.device is CPU or self.step % LOOK == 0) and not torch.isfinite(errors.loss):
            names = ", ".join(f"{f.system} frame {f.index}" for f in frames)
            raise TrainingError(
                f"step {self.step + 1}: the loss is {errors.loss.item()} on {names}; look at those frames "
                "(dplite check) or lower learning_rate.start_lr"
            )
        if errors.loss.requires_grad:
            errors.loss.backward()
        self.ranks.add_gradients(self.potential.parameters())
        if self.config.training.gradient_max_norm > 0:
            torch.nn.utils.clip_grad_norm_(
                self.potential.parameters(), self.config.training.gradient_max_norm
            )
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average:
            self.average.update(self.step + 1)
        return errors._replace(loss=errors.loss.detach())

    def _part(self, frames, lr):
        """What this rank's frames of a batch add to the `Errors` of the batch."""
        own = [sum(kind) for kind in zip(*(f.labels.counts for f in frames))] or [0, 0, 0]
        counts = Counts(*self.ranks.sums(own))
        if not frames:
            zero = torch.zeros((), dtype=torch.float64, device=self.device)
            return Errors(zero, *(zero if n else None for n in counts))
        batch, labels = (part.to(self.device) for part in collate(frames))
        return self.loss(self.evaluate(batch), labels, lr, counts)

    def _log(self, lr, errors):
        errors = self.ranks.total(errors)
        if self.events:
            self.events.training(self.step, lr, errors)

    def _display(self, lr, errors):
        held_back, errors = None, self.ranks.total(errors)
        if self.validation is not None:
            n = self.config.training.validation_data.numb_btch
            first = self.step // self.config.training.disp_freq * n
            held_back = self._errors([self.validation(first + k) for k in range(n)], lr)
        if self.writes:
            self.lcurve.row(self.step, lr, errors, held_back)
        if self.events and held_back:
            self.events.validation(self.step, held_back)
        if self.progress:
            self.progress.report(self.step, lr, errors, held_back)

    @torch.no_grad()
    def _errors(self, list_of_frames, lr):
        """Mean errors over batches; those of the averaged weights, if weights are averaged."""
        sums, counts = [0.0] * len(Errors._fields), [0] * len(Errors._fields)
        with self._averaged():
            for frames in list_of_frames:
                for k, value in enumerate(self._part(frames, lr)):
                    if value is not None:
                        sums[k], counts[k] = sums[k] + value, counts[k] + 1
        return self.ranks.total(Errors(*(s / n if n else None for s, n in zip(sums, counts))))

    def _save(self):
        """Write the checkpoint, and the best model when the whole validation set says so."""
        if self.evaluate is not self.potential:
            self.evaluate.refine()
        if self.validation is not None:
            errors = self._errors(self._all_held_back(), self.schedule(self.step))
            self.score = float(errors.loss if errors.force is None else errors.force)
            if self.score < self.best:
                self.best = self.score
                self._write_model("model-best.dp")
        self._checkpoint()

    def _all_held_back(self):
        """Yield the validation frames one by one, on as many ranks at once: lists of one or none."""
        rank, size, n = self.ranks.rank, self.ranks.size, len(self.held_back)
        loader = Loader(self.held_back, lambda k: [self.held_back.place((k * size + rank) % n)])
        for k in range(-(-n // size)):
            yield loader(k) if k * size + rank < n else []

    def _averaged(self):
        """A context in which the potential has the weights that are meant to be used."""
        return self.average.in_place() if self.average else nullcontext()

    def _write_model(self, name):
        if self.writes:
            with self._averaged():
                self.potential.save(self.folder / name)

    def _checkpoint(self):
        if self.writes:
            checkpoint.save(
                self.folder / "model.ckpt.dp",
                self.potential,
                self.optimizers,
                self.step,
                self.best,
                knots=getattr(self.evaluate, "nknots", 0),
                average=self.average,
            )
