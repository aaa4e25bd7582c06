"""Path norms, gaps, complexity of the last layer, and the error taken apart.

Frames are crystals of NiAl at random displacements, labelled by ASE's effective-medium potential, which the model
tests/physics/alloy.dp was trained on (at 300-1500 K).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from typer.testing import CliRunner

from deepmd_lite import CompiledPot, read_model, write_system
from deepmd_lite.cli import app
from deepmd_lite.engine.last_layer import Features, coefficients
from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.evaluate import diagnostics as d
from deepmd_lite.evaluate import frame_errors as errors
from deepmd_lite.evaluate.decomposition import decompose, decomposition_table, teacher_frames
from deepmd_lite.evaluate.test import test_model as compare
from deepmd_lite.model.network import from_layers
from deepmd_lite.theory.complexity import rademacher_linear

MODEL = Path(__file__).parents[1] / "physics/alloy.dp"


def alloy(nframes, seed, displacement=0.1):
    """Frames of 16 atoms."""
    crystal = bulk("NiAl", "cesiumchloride", a=2.88).repeat(2)
    rng = np.random.default_rng(seed)
    return teacher_frames(crystal, EMT(), nframes, displacement=displacement, strain=0.02, rng=rng)


@pytest.fixture(scope="module")
def model():
    return read_model(MODEL)


@pytest.fixture(scope="module")
def training():
    return alloy(12, seed=1)


@pytest.fixture(scope="module")
def gathered(model, training):
    layer = Features(model)
    return layer, d.gather(layer, [training], np.random.default_rng(0))


def features(layer, system, key):
    return np.concatenate([rows[key] for *_, rows in d.feature_rows(layer, [system])])


@pytest.mark.parametrize("options", [{"resnet_dt": True}, {"one_side": False, "act": "relu"}])
def test_no_net_changes_by_more_than_its_path_norm(random_model, options):
    model = random_model(**options)
    norms, rng = d.path_norms(model), np.random.default_rng(0)
    assert [n.net for n in norms][-2:] == ["fitting O", "fitting H"]
    assert (
        [n.net for n in norms][:2] == ["embedding O", "embedding H"]
        if model.descriptor.type_one_side
        else [
            "embedding O-O",
            "embedding H-O",
        ]
    )
    for norm, net in zip(norms, [*model.descriptor.nets, *model.fitting.nets]):
        assert norm.shape == "-".join(map(str, [len(net[0].w), *(layer.w.shape[1] for layer in net)]))
        network = from_layers(net, "float64")
        x, step = (torch.tensor(rng.normal(size=(500, len(net[0].w)))) for _ in range(2))
        with torch.no_grad():
            change = (network(x + step) - network(x)).sum(1).abs() / step.abs().amax(1)
        assert 0 < change.max() <= norm.trained


def test_the_path_norm_is_reached_by_a_linear_net_of_positive_weights(random_model):
    """Then every path counts with its own sign, shortcuts included."""
    model = random_model(act="none", resnet_dt=True)
    net = [replace(layer, w=np.abs(layer.w)) for layer in model.fitting.nets[0]]
    model = replace(model, fitting=replace(model.fitting, nets=[net, net]))
    network = from_layers(net, "float64")
    ones = torch.ones(1, len(net[0].w), dtype=torch.float64)
    with torch.no_grad():
        change = float(network(ones) - network(0 * ones))
    assert d.path_norms(model)[-1].trained == pytest.approx(change, rel=1e-12)


def test_errors_by_frame_are_those_of_dplite_test(model, training, tmp_path):
    there = np.arange(12) % 3 > 0
    partly = replace(training, found=training.found | {"force": there})
    write_system(tmp_path / "partly.h5#/a", partly)
    found = errors.frame_errors(CompiledPot(model), [partly, training])
    write_system(tmp_path / "training.h5#/a", training)
    report = compare(MODEL, [tmp_path / "partly.h5", tmp_path / "training.h5"]).total
    for key in ("energy", "force"):
        assert found.rmse(key) == pytest.approx(getattr(report, key).rmse, rel=1e-9)
        assert found.mae(key) == pytest.approx(getattr(report, key).mae, rel=1e-9)
        assert found.counts[key].sum() == getattr(report, key).count


def test_intervals_are_those_of_the_mean_over_frames():
    """To first order sd(RMSE) = sd(e²) / (2 RMSE √n); 2000 draws know it within 1.6 %, second order is 1/n = 1 %."""
    rng, n = np.random.default_rng(0), 100
    squares = rng.gamma(4.0, 1.0, n)
    e = errors.FrameErrors({"force": 30 * squares}, {"force": squares}, {"force": np.full(n, 30.0)})
    draws = e.resampled("force", rng)
    assert draws.std() == pytest.approx(squares.std() / (2 * e.rmse("force") * np.sqrt(n)), rel=0.06)
    gap = errors.generalization_gap("force", [e, e], rng)
    assert gap.training[0] == gap.validation[0] == pytest.approx(1e3 * e.rmse("force"))
    assert gap.gap[0] == 0 and gap.gap[1] < 0 < gap.gap[2]
    assert gap.gap[2] - gap.gap[1] > gap.training[2] - gap.training[1]


def test_complexity_is_that_of_the_features(model, training, gathered):
    """Both estimates scatter by their se; four of the two together are allowed."""
    layer, found = gathered
    potential, c = CompiledPot(model), coefficients(model)
    e = [errors.frame_errors(potential, [s]) for s in (training, alloy(5, seed=2))]
    for key, n in (("energy", 12), ("force", 12 * 48)):
        result = d._complexity(key, found[key], c, e)
        phi = features(layer, training, key)
        direct = rademacher_linear(phi, np.linalg.norm(c), np.random.default_rng(1), 64)
        assert (result.frames, result.rows, result.size) == (12, n, 34)
        # plain draws scatter more than those with a control variate: their own se counts
        assert result.rademacher == pytest.approx(1e3 * direct.value, abs=4 * (result.se + 1e3 * direct.se))
        assert result.gap == pytest.approx(1e3 * abs(e[1].mae(key) - e[0].mae(key)))
        assert 2 * result.rademacher > result.gap  # it is a bound, and a weak one


def test_noise_absorbed_is_the_r2_of_fits_to_noise(training, gathered):
    """R² of pure noise has the mean K/n and the variance 2 K (n - K) / n² (n + 2); 40 draws, four standard errors."""
    layer, found = gathered
    phi = features(layer, training, "force")
    n, rank = len(phi), np.linalg.matrix_rank(phi, rtol=1e-8)
    xi = np.random.default_rng(2).choice([-1.0, 1.0], (n, 40))
    r2 = 1 - np.sum((xi - phi @ np.linalg.lstsq(phi, xi, rcond=1e-8)[0]) ** 2, axis=0) / n
    absorbed = d._complexity("force", found["force"], np.ones(34), [None]).absorbed
    assert absorbed == pytest.approx(rank / n, abs=1e-12)
    assert r2.mean() == pytest.approx(absorbed, abs=4 * np.sqrt(2 * rank * (n - rank) / (n + 2) / 40) / n)


def test_leverage_grows_with_the_distance_from_the_frames(training, gathered):
    layer, found = gathered
    own = d.leverages(layer, found["force"].equations, [training])
    assert own.mean() == pytest.approx(1, rel=1e-6)  # tr(A A⁻¹) / n is what it is measured in
    far = d.leverages(layer, found["force"].equations, [alloy(4, seed=3, displacement=0.3)])
    assert far.min() > own.max()


def test_tables(model, training, tmp_path):
    """Everything with frames of both kinds; path norms alone without; frames to validate on are not enough."""
    write_system(tmp_path / "a.h5#/training", training)
    write_system(tmp_path / "a.h5#/validation", alloy(5, seed=2))
    frames = [f"{tmp_path}/a.h5#/training", f"{tmp_path}/a.h5#/validation"]
    shown = CliRunner().invoke(
        app, ["show", str(MODEL), "--diagnostics", "-s", frames[0], "--validation", frames[1]]
    )
    assert shown.exit_code == 0, shown.output
    for word in ("fitting Al", "Generalization", "2 Rad", "leverage of the other frames' forces"):
        assert word in shown.output
    found = d.diagnose(MODEL)
    assert len(found.tables()) == 1 and not found.lines()
    found = d.diagnose(MODEL, frames[0])
    assert found.gaps[0].gap is None and found.complexities[0].gap is None and found.leverage is None
    with pytest.raises(ConfigError, match="give -s FRAMES"):
        d.diagnose(MODEL, None, frames[1])
    write_system(tmp_path / "bare.h5#/a", replace(training, labels={}, found={}))
    with pytest.raises(DataError, match="expected energy or force labels"):
        d.diagnose(MODEL, f"{tmp_path}/bare.h5")
    refused = CliRunner().invoke(app, ["show", str(MODEL), "-s", frames[0]])
    assert isinstance(refused.exception, ConfigError)


@pytest.mark.parametrize("ridge", [0.0, "loo"])
def test_the_error_taken_apart(model, training, ridge):
    """Minimisers are minimisers: of the loss over the population, and on the frames trained on."""
    population = [alloy(30, seed=4)]
    found = decompose("12 frames", model, [training], population, ridge=ridge)
    loss = [16 * e**2 + f**2 for e, f in zip(found.rmse["energy"], found.rmse["force"])]  # ΔE²/N = N (ΔE/N)²
    assert loss[0] < loss[1] and loss[0] < loss[2]
    assert 0 < found.undone < 1
    for key in ("energy", "force"):
        assert sum(found.parts(key)) == pytest.approx(found.rmse[key][2] ** 2, rel=1e-12)
        assert decomposition_table([found], key).row_count == 1


def test_a_refitted_model_has_no_optimization_error(model, training):
    """Rounding of normal equations whose condition number is 1e8 or so: 1e-6 of the errors is allowed."""
    from deepmd_lite.evaluate.last_layer import LastLayer

    refitted = LastLayer(model).fit([training], 0.0).refit().model
    found = decompose("refitted", refitted, [training], [alloy(10, seed=5)], ridge=0.0)
    assert found.undone == pytest.approx(0, abs=1e-6)
    assert found.rmse["force"][2] == pytest.approx(found.rmse["force"][1], rel=1e-6)
