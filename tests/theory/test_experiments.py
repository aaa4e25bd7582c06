"""Every experiment of the lecture in its quick form, and the command that runs them."""

import json

import pytest
from typer.testing import CliRunner

from deepmd_lite.cli import app
from deepmd_lite.errors import ConfigError
from deepmd_lite.evaluate.experiments import choose, run
from deepmd_lite.theory.experiment import at_least, at_most, near
from deepmd_lite.theory.experiments import EXPERIMENTS


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_experiment(experiment, tmp_path):
    finding = run(experiment)
    failed = [c for c in finding.outcome.checks if not c.passed]
    assert finding.outcome.checks and not failed, failed
    assert finding.draw(tmp_path).stat().st_size > 5000


def test_names_and_ids_are_unique():
    assert len({e.name for e in EXPERIMENTS}) == len({e.id for e in EXPERIMENTS}) == len(EXPERIMENTS)


def test_checks_fail_where_they_should():
    assert near("", 1.04, 1.0, rel=0.05).passed and not near("", 1.06, 1.0, rel=0.05).passed
    assert near("", -0.52, -0.5, tol=0.03).passed and not near("", -0.54, -0.5, tol=0.03).passed
    assert at_most("", 1.0, 1.0).passed and not at_most("", 1.01, 1.0).passed
    assert at_least("", 1.0, 1.0).passed and not at_least("", 0.99, 1.0).passed
    assert not any(
        c.passed
        for c in (
            near("", float("nan"), 1, tol=1),
            at_most("", float("nan"), 1),
            at_least("", float("nan"), 1),
        )
    )


def test_same_seed_same_numbers():
    (experiment,) = choose(["hoeffding"])
    first, second, other = (run(experiment, seed=s).outcome.checks for s in (1, 1, 2))
    assert first == second != other


def test_unknown_name():
    with pytest.raises(ConfigError, match="did you mean hoeffding"):
        choose(["hoefding"])


def test_command(tmp_path):
    listed = CliRunner().invoke(app, ["theory", "list"])
    assert listed.exit_code == 0 and all(e.id in listed.output for e in EXPERIMENTS)
    shown = CliRunner().invoke(app, ["theory", "run", "A5", "--json", "--plot", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    (found,) = json.loads(shown.stdout)
    assert found["passed"] and found["name"] == "hoeffding" and (tmp_path / "hoeffding.png").exists()
