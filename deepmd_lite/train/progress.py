"""What a person sees while a training runs: a bar with the errors and the time left, or lines where nobody looks."""

import math

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def _rmse(name, square, unit):
    return None if square is None else f"{name} {1000 * math.sqrt(float(square)):.3g} {unit}"


def errors_line(errors):
    """The errors in words: ``E 0.41 meV/atom  F 38 meV/Å``."""
    terms = zip("EFV", errors[1:], ("meV/atom", "meV/Å", "meV/atom"))
    return "  ".join(text for name, v, unit in terms if (text := _rmse(name, v, unit)))


class TrainingProgress:
    """A context that shows a `Trainer`'s progress on a rich console; its ``report`` goes into the trainer."""

    def __init__(self, console, total, done=0):
        self.console = console
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[errors]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=total, completed=done, errors="")

    def __enter__(self):
        self.bar.start()
        return self

    def __exit__(self, *_):
        self.bar.stop()

    def advance(self, step):
        self.bar.update(self.task, completed=step)

    def report(self, step, lr, training, validation):
        """Show a row of the learning curve."""
        seen, side = (training, "training") if validation is None else (validation, "validation")
        self.bar.update(self.task, errors=f"{side} {errors_line(seen)}")
        if not self.console.is_terminal:
            self.console.print(
                f"step {step}  lr {lr:.1e}  {side}: {errors_line(seen)}", soft_wrap=True, highlight=False
            )
