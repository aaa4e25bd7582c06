"""dplite init --minutes: the number of steps from a time."""

import json
import time

import pytest

from deepmd_lite.config import load_config
from deepmd_lite.errors import ConfigError
from deepmd_lite.train import budget
from deepmd_lite.train.init import write_input as init_input
from deepmd_lite.train.trainer import Trainer


@pytest.mark.parametrize("seconds", [20.0, 60.0, 3600.0])
def test_a_plan_fills_its_time(seconds):
    cost = budget.Cost(start=5.0, step=0.02, row=0.1, save=3.0)
    made = budget.plan(seconds, cost)
    steps = made["numb_steps"]
    rows, saves = steps // made["disp_freq"], steps // made["save_freq"]
    assert 1 <= rows <= budget.ROWS and 1 <= saves <= budget.SAVES
    taken = cost.start + steps * cost.step + rows * cost.row + saves * cost.save
    # less than a step is left over, and the rows and checkpoints lost where their intervals were rounded up: at most
    # half of either, which may take SHARE of the time each
    assert seconds - cost.step - budget.SHARE * seconds <= taken <= seconds


def test_too_little_time_is_refused():
    cost = budget.Cost(start=5.0, step=0.02, row=0.1, save=3.0)
    with pytest.raises(
        ConfigError, match=r"--minutes 0.1: the start .* 5 s, a step 0.02 s, .* give more time"
    ):
        budget.plan(6.0, cost)


def test_measured_costs_are_those_of_the_run(task):
    """Each part takes some time, and nothing is counted twice."""
    begin = time.perf_counter()
    cost = budget.measure(task)
    taken = time.perf_counter() - begin
    assert all(seconds > 0 for seconds in cost)
    assert cost.start + (budget.MEASURED - 1) * cost.step + cost.row + cost.save <= taken
    assert task["training"]["numb_steps"] == 20  # the input stays as it was


def test_init_for_minutes(frames, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "measure", lambda made: budget.Cost(1.0, 0.1, 0.01, 0.02))
    data = {"data": [f"{frames}#/train"], "validation": [f"{frames}#/validation"], "size": "small"}
    made = init_input(tmp_path / "input.json", minutes=1, **data)
    # 60 s less the start, 200 rows and 20 checkpoints, by 0.1 s
    assert made["training"]["numb_steps"] == 566
    assert (
        json.loads((tmp_path / "input.json").read_text())["training"]["save_freq"] == 29
    )  # 566 / 20, rounded up
    Trainer(load_config(tmp_path / "input.json"), tmp_path)
    with pytest.raises(ConfigError, match="either --steps or --minutes"):
        init_input(tmp_path / "other.json", minutes=1, steps=10, **data)
    for minutes in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="--minutes: expected more than 0, found"):
            init_input(tmp_path / "other.json", minutes=minutes, **data)
