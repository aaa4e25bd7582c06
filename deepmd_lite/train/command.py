"""``dplite train`` as a person sees it: what is trained, a bar, what was written; errors that end all ranks."""

import os
import sys

import torch
from rich.console import Console

from deepmd_lite.config import load_config
from deepmd_lite.launch import end_all
from deepmd_lite.signals import Stopped
from deepmd_lite.train.progress import TrainingProgress
from deepmd_lite.train.ranks import find_ranks
from deepmd_lite.train.trainer import Trainer


def run_command(path, folder, console, **start):
    """Train what ``input.json`` says, on all ranks that were started.

    Parameters
    ----------
    path, folder : Path
    console : rich.console.Console
    **start
        ``restart``, ``init_model`` and ``finetune`` of `Trainer`.

    Returns
    -------
    int
        Exit code.
    Path or None
        The learning curve, on the rank that wrote it.
    """
    ranks = find_ranks()
    try:
        return _run(path, folder, console if ranks.rank == 0 else Console(quiet=True), ranks, start)
    except Exception as error:
        if ranks.size == 1:
            raise
        end_all(error, ranks.rank, ranks.abort)


def _run(path, folder, console, ranks, start):
    say = lambda text, style=None: console.print(  # noqa: E731
        text, style=style, soft_wrap=True, highlight=False, markup=False
    )
    if ranks.size > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, os.cpu_count() // ranks.neighbors))
    config = load_config(path)
    for line in config.ignored:
        say(f"ignored: {line}", "yellow")
    trainer = Trainer(config, folder, ranks=ranks, **start)
    if trainer.shift:
        console.print(trainer.shift.table())
    say(trainer.summary())
    if ranks.size > 1:
        say(f"ranks {ranks.size}, threads {torch.get_num_threads()} each: frames of a batch are shared out")
    try:
        with TrainingProgress(console, config.training.numb_steps, trainer.step) as progress:
            trainer.progress = progress if ranks.rank == 0 else None
            model = trainer.run()
    except Stopped as stop:
        if ranks.rank == 0:
            text = f"dplite: {stop}; continue with --restart {trainer.folder / 'model.ckpt.dp'}"
            print(text, file=sys.stderr)
        return stop.code, None
    say(f"wrote {model}")
    if warning := trainer.warning():
        say(warning, "yellow")
    return 0, trainer.lcurve and trainer.lcurve.path
