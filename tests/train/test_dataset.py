"""Frames on their way to the trainer: read when wanted, the same whatever is kept and however many threads."""

import gc
import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from deepmd_lite import read_systems, write_system
from deepmd_lite.config import load_config, parse_config
from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.frames.store import open_systems
from deepmd_lite.model import batch as batches
from deepmd_lite.train import dataset
from deepmd_lite.train.dataset import Frames, Loader, check_labels, collate
from deepmd_lite.train.sampler import Sampler, batch_size, system_probabilities
from deepmd_lite.train.statistics import survey
from deepmd_lite.train.trainer import Trainer

LABELS = ("energy", "force", "virial", "weight")


@pytest.fixture(params=["frames.h5#/{}", "folder/{}"])
def address(request, frames, tmp_path):
    """A function: the address of a copy of the system, changed by ``change``."""

    def written(name="x", change=lambda system: None):
        (system,) = read_systems(f"{frames}#/train")
        change(system)
        write_system(f"{tmp_path}/{request.param.format(name)}", system)
        return f"{tmp_path}/{request.param.format(name)}"

    return written


def prepared(*addresses, weights=None):
    return Frames(open_systems(addresses, ("O", "H")), 4.0, 2, weights=weights)


def same(a, b):
    """Whether two frames are equal, bit by bit."""
    arrays = [*vars(a.batch).items(), *((k, getattr(a.labels, k)) for k in LABELS)]
    other = {**vars(b.batch), **{k: getattr(b.labels, k) for k in LABELS}}
    return (a.system, a.index) == (b.system, b.index) and all(
        np.array_equal(np.asarray(v), np.asarray(other[k])) for k, v in arrays if hasattr(v, "__array__")
    )


def test_frames_are_those_of_the_file(address):
    (system,) = read_systems(address("x"), ("O", "H"))
    frames = prepared(address("x"))
    for k in (5, 0, 5):
        found = frames.frame(0, k)
        expected = batches.from_frame(system.coord[k], system.atype, None, system.pbc, 4.0, 2)
        assert torch.equal(found.batch.coord, expected.coord)
        assert np.array_equal(found.batch.index, expected.index)
        assert found.labels.force.tolist() == system.labels["force"][k].tolist()
        assert found.labels.weight.tolist() == [1.0]
    assert [frames.place(n) for n in (0, 7)] == [(0, 0), (0, 7)]


def test_a_part_is_read_as_the_whole(address):
    def some_without_energy(system):
        system.found["energy"][[1, 4]] = False
        system.labels["energy"][[1, 4]] = 0

    place = address("x", some_without_energy)  # two sets
    (stored,), (whole,) = open_systems(place), read_systems(place)
    assert stored.nframes == 8 and stored.found == {"energy", "force", "virial"}
    for start, stop in itertools.combinations(range(9), 2):
        part, expected = stored.read(start, stop), whole.select(slice(start, stop))
        assert np.array_equal(part.coord, expected.coord)
        for key in whole.labels:
            assert np.array_equal(part.labels[key], expected.labels[key])
            assert np.array_equal(part.found[key], expected.found[key])


def test_mixed_type_is_read_as_the_whole(tmp_path):
    rng = np.random.default_rng(1)
    home = tmp_path / "s" / "set.000"
    home.mkdir(parents=True)
    (tmp_path / "s" / "type.raw").write_text("0 0 0")
    (tmp_path / "s" / "type_map.raw").write_text("H O")
    (tmp_path / "s" / "nopbc").touch()
    np.save(home / "coord.npy", rng.normal(size=(12, 9)))
    np.save(home / "force.npy", rng.normal(size=(12, 9)))
    np.save(home / "real_atom_types.npy", rng.integers(-1, 2, (12, 3)) * [1, 1, 0])
    systems, wholes = open_systems(tmp_path / "s"), read_systems(tmp_path / "s")
    assert [s.nframes for s in systems] == [w.nframes for w in wholes] and len(systems) > 3
    for stored, whole in zip(systems, wholes):
        for k in range(stored.nframes):
            part = stored.read(k, k + 1)
            assert np.array_equal(part.coord[0], whole.coord[k])
            assert np.array_equal(part.labels["force"][0], whole.labels["force"][k])


def test_files_stay_open_no_longer_than_needed(frames):
    systems = open_systems(f"{frames}#/train")
    with pytest.raises(DataError, match="cannot be written"):
        write_system(f"{frames}#/more", read_systems(f"{frames}#/train")[0])
    del systems
    gc.collect()
    write_system(f"{frames}#/more", read_systems(f"{frames}#/train")[0])


@pytest.mark.parametrize(("most", "fewest"), [(0, 0), (5, 4), (100, 8)])  # frames may differ by some pairs
def test_batches_do_not_depend_on_what_is_kept(address, monkeypatch, most, fewest):
    place = address("x")
    expected = prepared(place)
    room = most * expected.frame(0, 0).nbytes
    monkeypatch.setattr(dataset, "ROOM", room)
    frames, sampler = prepared(place), Sampler([8], [9], 3, seed=1)
    loader = Loader(frames, sampler)
    for step in (*range(7), 2):
        found = loader(step)
        assert all(same(f, expected.frame(s, k)) for f, (s, k) in zip(found, sampler(step), strict=True))
    assert sum(f.nbytes for f in frames._kept.values()) <= room
    assert fewest <= len(frames._kept) <= most


def test_memory_of_a_frame_is_counted(address):
    """Positions and forces, three float64 an atom; the virial, nine; an int32 for each neighbor."""
    frame = prepared(address("x")).frame(0, 0)
    assert frame.nbytes - dataset.OBJECTS >= 2 * 9 * 24 + 72 + 4 * len(frame.batch.index)


@pytest.mark.parametrize("threads", [1, 3])
def test_passes_keep_the_order(address, monkeypatch, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(dataset, "BLOCK", (1, 2))  # one frame at a time
    frames = prepared(address("a"), address("b"))
    found = list(frames.map(lambda frame: (frame.system[-1], frame.index)))
    assert found == [(s, k) for s in "ab" for k in range(8)]
    one_by_one = survey(frames, 0.5)
    monkeypatch.setattr(dataset, "BLOCK", (2**21, 32))
    at_once = survey(frames, 0.5)
    assert np.array_equal(one_by_one.sums, at_once.sums) and one_by_one.closest == at_once.closest


def altered(frames, change):
    """Let ``change(system, start)`` alter whatever is read from the first system, from frame ``start`` on."""
    read = frames.systems[0].read

    def wrong(start, stop):
        system = read(start, stop)
        change(system, start)
        return system

    frames.systems[0].read = wrong
    return frames


def test_bad_frames_are_named_before_the_first_step(address, monkeypatch):
    def overlap(system, start):
        if start == 6:
            system.coord[0, 3] = system.coord[0, 8]

    def not_finite(system, start):
        if start == 6:
            system.labels["force"][0, 2] = np.nan

    places = address("x"), address("y")
    monkeypatch.setattr(dataset, "BLOCK", (2**21, 3))
    with pytest.raises(DataError, match=r"x: atoms 3 \(O\) and 8 \(H\) of frame 6 are 0 Å apart"):
        survey(altered(prepared(places[0]), overlap), 0.5)
    with pytest.raises(DataError, match="y: force of frame 6 holds nan"):
        survey(altered(prepared(places[1]), not_finite), 0.5)


def test_what_fails_in_the_background_is_raised_in_the_trainer(task, frames, write_input, tmp_path):
    """A file that is damaged while a training runs."""
    write_system(tmp_path / "folder", read_systems(f"{frames}#/train")[0])
    task["training"]["training_data"]["systems"] = str(tmp_path / "folder")
    trainer = Trainer(load_config(write_input(task)), tmp_path)
    force = tmp_path / "folder" / "set.000" / "force.npy"
    force.write_bytes(force.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"force.npy: not a readable array"):
        trainer.run()


def test_atoms_that_meet_later_are_named(address):
    def meet(system, start):
        system.coord[0, 1] = system.coord[0, 0]

    with pytest.raises(DataError, match="x, frame 4: atoms 0 and 1"):
        Loader(altered(prepared(address("x")), meet), lambda step: [(0, 4)])(0)


def test_restart_is_bitwise_when_nothing_is_kept(task, write_input, tmp_path, monkeypatch):
    """Weights after 10 + 10 steps are those after 20, and those of a run that keeps all frames."""
    task["training"]["training_data"]["batch_size"] = "mixed:3"
    Trainer(load_config(write_input(task)), tmp_path / "kept").run()
    monkeypatch.setattr(dataset, "ROOM", 0)
    first = Trainer(load_config(write_input(task)), tmp_path / "parts")
    first.config.training.numb_steps = 10
    first.run()
    checkpoint = tmp_path / "parts" / "model.ckpt.dp"
    Trainer(load_config(write_input(task)), tmp_path / "parts", restart=checkpoint).run()
    curves = [(tmp_path / run / "lcurve.out").read_text() for run in ("kept", "parts")]
    assert curves[0] == curves[1]


# ------------------------------------------------------------ labels and weights


def test_labels_must_be_there_for_the_loss(address, task):
    def only_energy(system):
        for key in ("force", "virial"):
            system.found[key][:] = False

    check_labels(open_systems(address("x")), parse_config(task).loss)
    only_force = parse_config({**task, "loss": {"start_pref_e": 0, "limit_pref_e": 0}}).loss
    with pytest.raises(DataError, match="the loss counts force, the frames have energy"):
        check_labels(open_systems(address("y", only_energy)), only_force)


def weighted(system):
    system.labels["weight"] = np.array([2.0, 1, 1, 1, 1, 1, 1, 0.5])
    system.found["weight"] = np.ones(8, bool)


def test_weights_of_frames_and_systems(address):
    places = address("x", weighted), address("y")
    frames = prepared(*places, weights=[3.0, 0.1])
    _, labels = collate([frames.frame(0, 0), frames.frame(0, 7), frames.frame(1, 0)])
    assert labels.weight.tolist() == [6.0, 1.5, 0.1]
    with pytest.raises(ConfigError, match="weights: expected 1 numbers, one for each system, found 2"):
        prepared(places[0], weights=[1.0, 1.0])


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_weights_are_positive(address, weight):
    def wrong(system):
        weighted(system)
        system.labels["weight"][3] = weight

    with pytest.raises(DataError, match=f"x: weight of frame 3 is {weight}; expected a positive number"):
        survey(prepared(address("x", wrong)), 0.5)


def test_collate_keeps_labels_with_their_frames(address):
    parts = [prepared(address("x")).frame(0, k) for k in (3, 1, 4)]
    batch, labels = collate(parts)
    assert batch.nframes == 3
    assert labels.energy.tolist() == [float(f.labels.energy) for f in parts]
    assert torch.equal(labels.force[9:18], parts[1].labels.force)


# ------------------------------------------------------------ the order of frames


def test_every_frame_once_per_epoch_and_batches_depend_on_the_step_alone():
    sampler = Sampler([8], [9], 3, seed=5)
    epoch = [sampler(k) for k in range(3)]
    assert [len(b) for b in epoch] == [3, 3, 2]
    assert sorted(place for batch in epoch for place in batch) == [(0, k) for k in range(8)]
    assert sampler(3) != epoch[0]
    again = Sampler([8], [9], 3, seed=5)
    assert [again(k) for k in (2, 0)] == [epoch[2], epoch[0]]


def test_batches_hold_frames_of_one_system():
    sampler = Sampler([8, 5], [9, 40], "auto:20", seed=2)
    epoch = [sampler(k) for k in range(3 + 5)]
    assert sorted(len(b) for b in epoch) == [1] * 5 + [2, 3, 3]
    assert all(len({s for s, _ in batch}) == 1 for batch in epoch)
    assert len({place for batch in epoch for place in batch}) == 13


def test_mixed_batches_hold_frames_of_all_systems():
    """Each frame once in an epoch; a batch of 4 from 30 + 10 frames has 1 of the second system on average."""
    sampler = Sampler([30, 10], [9, 40], "mixed:4", seed=2)
    epoch = [sampler(k) for k in range(10)]
    assert [len(b) for b in epoch] == [4] * 10
    assert len({place for batch in epoch for place in batch}) == 40
    assert len(Counter(sum(s for s, _ in batch) for batch in epoch)) > 2
    assert [len(Sampler([7], [9], "mixed:4", seed=0)(k)) for k in range(3)] == [4, 3, 4]


def test_probabilities_are_those_of_draws():
    """Of 4000 draws, a share 0.9 ± 5 standard deviations √(0.9·0.1/4000) = 0.005; frames in turn."""
    sampler = Sampler([100, 100], [9, 9], "mixed:5", seed=3, probabilities=[0.1, 0.9])
    drawn = [place for k in range(800) for place in sampler(k)]
    assert np.mean([s for s, _ in drawn]) == pytest.approx(0.9, abs=5 * 0.005)
    first = [k for s, k in drawn[:200] if s == 1]  # one epoch: at least one order, and part of the next
    assert sorted(first[:100]) == list(range(100))


def test_batch_size_rules():
    sizes = [batch_size(b, 9) for b in (2, "auto", "auto:10", "max:32", "max:8", "mixed:7")]
    assert sizes == [2, 4, 2, 3, 1, 1]


@pytest.mark.parametrize(
    ("rule", "message"),
    [("filter:100", "out of systems"), ("mix:100", "LMDB"), ("max", "found 'max'"), ("mixed:0", "mixed")],
)
def test_other_batch_size_rules_are_refused(task, rule, message):
    task["training"]["training_data"]["batch_size"] = rule
    with pytest.raises(ConfigError, match=message):
        parse_config(task)


def test_system_probabilities():
    assert system_probabilities("prob_sys_size", [1, 3]) is None
    assert system_probabilities("prob_uniform", [1, 3]) == pytest.approx([0.5, 0.5])
    assert system_probabilities("prob_sys_size;0:1:0.8;1:3:0.2", [5, 1, 3]) == pytest.approx(
        [0.8, 0.05, 0.15]
    )
