"""The experiments, one module per chapter of the lecture; ``EXPERIMENTS`` is all of them in its order."""

from deepmd_lite.theory.experiments import (
    approximation,
    barron,
    complexity,
    estimation,
    features,
    networks,
    training,
    wide_nets,
)

EXPERIMENTS = [
    experiment
    for chapter in (approximation, features, barron, networks, estimation, complexity, training, wide_nets)
    for experiment in chapter.EXPERIMENTS
]
