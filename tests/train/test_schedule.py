"""Learning rates, against their formulas and those of DeePMD-kit."""

import pytest

from deepmd_lite.train.schedule import Schedule


def test_exponential_decay_is_a_staircase():
    lr = Schedule("exp", start_lr=1e-3, stop_lr=1e-5, numb_steps=1000, decay_steps=100)
    assert lr(0) == lr(99) == 1e-3
    assert lr(100) == pytest.approx(1e-3 * 0.01**0.1, rel=1e-14)
    assert lr(999) == pytest.approx(1e-3 * 0.01**0.9, rel=1e-14)


def test_given_decay_rate():
    lr = Schedule("exp", start_lr=1e-3, stop_lr=3e-4, numb_steps=1000, decay_steps=10, decay_rate=0.5)
    assert [lr(9), lr(10), lr(25)] == [1e-3, 0.5e-3, 3e-4]


@pytest.mark.parametrize("numb_steps, used", [(2000, 100), (500, 6)])
def test_decay_steps_beyond_the_run(numb_steps, used):
    lr = Schedule("exp", start_lr=1e-3, stop_lr=1e-5, numb_steps=numb_steps, decay_steps=numb_steps)
    assert lr(used - 1) == 1e-3 > lr(used)


def test_decay_steps_beyond_the_run_stay_with_a_given_rate():
    lr = Schedule(
        "exp", start_lr=1e-3, stop_lr=1e-5, numb_steps=50, decay_steps=100, decay_rate=0.9, smooth=True
    )
    assert lr(50) == pytest.approx(1e-3 * 0.9**0.5, rel=1e-14)


def test_cosine_and_warm_up():
    lr = Schedule("cosine", 1e-2, 1e-4, 110, warmup_steps=10, warmup_start_factor=0.5)
    assert [lr(0), lr(5), lr(10)] == pytest.approx([0.5e-2, 0.75e-2, 1e-2])
    assert lr(60) == pytest.approx((1e-2 + 1e-4) / 2)


@pytest.mark.parametrize(
    "shape, middle", [("inverse_linear", 2 / 101), ("cosine", 1.01 / 2), ("linear", 1.01 / 2)]
)
def test_wsd_is_flat_then_decays(shape, middle):
    """Of 1,000 steps 100 warm up and the last 200 decay; half way through the mean of the two rates, or of 1/lr."""
    phases = {"warmup_steps": 100, "decay_phase_ratio": 0.2}
    lr = Schedule("wsd", 1e-3, 1e-5, 1000, **phases, decay_type=shape)
    assert lr(50) == pytest.approx(5e-4, rel=1e-14)
    assert {lr(k) for k in range(100, 801)} == {1e-3}
    assert lr(801) < 1e-3
    assert lr(900) == pytest.approx(1e-3 * middle, rel=1e-14)
    assert lr(1000) == lr(2000) == pytest.approx(1e-5, rel=1e-14)


def test_wsd_decays_over_one_step_at_least_and_all_at_most():
    assert Schedule("wsd", 1e-3, 1e-5, 5)(4) == 1e-3  # 10 % of 5 steps: the last one, towards step 5
    assert Schedule("wsd", 1e-3, 1e-5, 5)(5) == pytest.approx(1e-5, rel=1e-14)
    whole = Schedule("wsd", 1e-3, 1e-5, 100, warmup_steps=50, decay_phase_ratio=1.0, decay_type="linear")
    assert whole(75) == pytest.approx((1e-3 + 1e-5) / 2, rel=1e-14)


DEEPMD_KIT = [  # what 3.2.0 gives from 1e-3 to 1e-5 in 100 steps, at steps 0, 7, 30, 61, 93, 110
    (
        {"type": "exp", "decay_steps": 9},
        [1e-3, 1e-3, 2.88403150312661e-4, 8.31763771102671e-5, 1.58489319246111e-5, 1e-5],
    ),
    (
        {"type": "exp", "decay_steps": 9, "smooth": True, "warmup_steps": 5},
        [0, 9.07600521681814e-4, 2.97635144163132e-4, 6.62296761714833e-5, 1.40400424554832e-5, 1e-5],
    ),
    (
        {"type": "exp", "decay_steps": 200, "decay_rate": 0.9, "smooth": True},
        [
            1e-3,
            9.96319172865414e-4,
            9.84320151778507e-4,
            9.68375883888978e-4,
            9.52188137986044e-4,
            9.43698750865759e-4,
        ],
    ),
    (
        {"type": "exp", "decay_steps": 5000, "warmup_steps": 10},
        [0, 7e-4, 3.59381366380463e-4, 7.35642254459642e-5, 1.43072298919376e-5, 1e-5],
    ),
    (
        {"type": "cosine", "warmup_steps": 10, "warmup_start_factor": 0.2},
        [2e-4, 7.6e-4, 8.84191999343894e-4, 4.02083713045209e-4, 2.47036154933817e-5, 1e-5],
    ),
    ({"type": "wsd", "warmup_steps": 10}, [0, 7e-4, 1e-3, 1e-3, 3.25732899022801e-5, 1e-5]),
    (
        {"type": "wsd", "decay_type": "cosine", "decay_phase_ratio": 0.55},
        [1e-3, 1e-3, 1e-3, 8.07270700419542e-4, 4.90437917081492e-5, 1e-5],
    ),
    (
        {"type": "wsd", "decay_type": "linear", "decay_phase_ratio": 0.55, "warmup_steps": 8},
        [0, 8.75e-4, 1e-3, 7.12e-4, 1.36e-4, 1e-5],
    ),
]


@pytest.mark.parametrize("keys, rates", DEEPMD_KIT)
def test_rates_of_deepmd_kit(keys, rates):
    """To the 15 digits given; powers lose about |ln ratio| = 5 units in the last place."""
    lr = Schedule(start_lr=1e-3, stop_lr=1e-5, numb_steps=100, **keys)
    assert [lr(k) for k in (0, 7, 30, 61, 93, 110)] == pytest.approx(rates, rel=1e-14)
