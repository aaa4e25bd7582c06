"""``dplite refit``: the last layer of a model refitted to frames, and its uncertainty put into the model file."""

from dataclasses import dataclass, replace

from rich.table import Table

from deepmd_lite.errors import ConfigError
from deepmd_lite.evaluate.last_layer import LastLayer
from deepmd_lite.frames.store import read_systems
from deepmd_lite.model_file import read_model, write_model


@dataclass(frozen=True)
class Report:
    """What was found; losses per frame, in eV².

    Attributes
    ----------
    nframes, size : int
        Frames fitted to; coefficients of the last layers.
    before, after, minimum : float
        The loss of the weights as trained, of those refitted with the ridge, and the smallest there is.
    ridge, dimension : float
        λ; how many coefficients the frames have fixed.
    kept : bool
        Whether the weights were left as they were.
    calibrated : str
        The frames by which standard deviations were scaled.
    coverage : dict of str to float
        Share of errors within 90 % intervals by quantity, of frames that were not scaled by.
    """

    nframes: int
    size: int
    before: float
    after: float
    minimum: float
    ridge: float
    dimension: float
    kept: bool
    calibrated: str
    coverage: dict[str, float]

    def table(self):
        """rich.table.Table: Two columns."""
        table = Table(title="Last layer", show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        gap = 100 * (1 - self.minimum / self.before) if self.before else 0.0
        for row in (
            ("frames", str(self.nframes)),
            ("coefficients", f"{self.size}, of which the frames fix {self.dimension:.0f}"),
            ("ridge", f"{self.ridge:.3g}"),
            ("loss as trained", f"{self.before:.6g}"),
            ("loss at its minimum", f"{self.minimum:.6g}: training left {gap:.2g} % undone"),
            ("loss refitted with the ridge", f"{self.after:.6g}"),
            ("weights", "as trained" if self.kept else "refitted"),
            ("calibrated by", self.calibrated),
            *(
                (f"{key} within 90 % interval", f"{100 * share:.1f} %")
                for key, share in self.coverage.items()
            ),
        ):
            table.add_row(*row)
        return table


def refit_model(
    path,
    systems,
    out,
    *,
    validation=(),
    keep_weights=False,
    ridge="loo",
    w_energy=1.0,
    w_force=1.0,
    w_virial=0.0,
):
    """Write a model with a refitted last layer and its posterior.

    Parameters
    ----------
    path, out : str or Path
        The ``.dp`` files to read and to write.
    systems : str, Path or sequence of them
        Frames that the model was trained on, as for `read_systems`.
    validation : str, Path or sequence of them
        Frames it was not trained on, by which to calibrate; without them, those it was trained on, left out one by
        one.
    keep_weights : bool
        Leave the weights as they are.
    ridge, w_energy, w_force, w_virial
        As for `LastLayer`.

    Returns
    -------
    Report

    Raises
    ------
    ConfigError
        A ridge or weights that cannot be used; a model with a pair table.
    ModelFileError, DataError
        If the model or the frames cannot be used.
    """
    model = read_model(path)
    frames = read_systems(systems, model.type_map)
    others = read_systems(validation, model.type_map) if validation else []
    layer = LastLayer(model, w_energy=w_energy, w_force=w_force, w_virial=w_virial).fit(frames, ridge)
    found = layer.refit()
    new = model if keep_weights else found.model
    judge = LastLayer(replace(new, posterior=layer.posterior))
    if others:
        calibrated = f"{sum(s.nframes for s in others)} other frames"
        coverage = judge.calibrate(others)
    else:
        judge, calibrated = layer, "the same frames, each left out in turn"
        coverage = layer.calibrate(frames, left_out=True)
    write_model(out, replace(new, posterior=judge.posterior))
    return Report(
        nframes=sum(s.nframes for s in frames),
        size=layer.features.size,
        before=found.before,
        after=found.after,
        minimum=found.minimum,
        ridge=layer.ridge,
        dimension=layer.effective_dimension,
        kept=keep_weights or found.after == found.before,
        calibrated=calibrated,
        coverage=coverage,
    )


def number_or_loo(text):
    """The ``ridge`` that an option says; ConfigError where it is neither."""
    try:
        return text if text == "loo" else float(text)
    except ValueError:
        raise ConfigError(f"--ridge {text}: expected loo or a number >= 0") from None
