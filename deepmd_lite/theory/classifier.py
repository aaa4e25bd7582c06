"""Image classification, where a grid is out of the question and random features are not.

A picture of 32 x 32 pixels in three colors is a point in d = 3072. A mesh with two nodes per axis has 2^3072 ≈ 10^925
of them; a random feature model has as many coefficients as one cares to draw.
"""

from typing import NamedTuple

import numpy as np

from deepmd_lite.errors import ConfigError, DataError
from deepmd_lite.theory.random_features import RandomFeatureRegressor

STORABLE = 10**9  # nodes: 8 GB of float64


def mesh_nodes(d, per_axis):
    """Nodes of a mesh on the cube [0, 1]^d that is to be stored; ConfigError if they do not fit into memory."""
    if d < 1 or per_axis < 2:
        raise ConfigError(
            f"mesh: expected d >= 1 and two nodes per axis or more, found d = {d}, {per_axis} nodes"
        )
    nodes = per_axis**d
    if nodes > STORABLE:
        raise ConfigError(
            f"mesh: {per_axis} nodes per axis in d = {d} are {per_axis}^{d} ≈ 10^{d * np.log10(per_axis):.0f} nodes, "
            f"expected at most {STORABLE:.0e}; use random features"
        )
    return nodes


class ImageClasses(NamedTuple):
    """Classes of pictures, each a template plus noise.

    Attributes
    ----------
    templates : (classes, d)
        Of unit mean square.
    noise : float
        Standard deviation in each of the d channels of the pixels.
    """

    templates: np.ndarray
    noise: float

    def sample(self, n, rng):
        """Pictures x (n, d) and their labels (n,) int."""
        labels = rng.integers(len(self.templates), size=n)
        x = self.templates[labels] + self.noise * rng.standard_normal((n, self.templates.shape[1]))
        return x, labels


def smooth_images(classes, noise, rng, *, side=32, channels=3, modes=3):
    """`ImageClasses` with random smooth templates: cosines of at most ``modes`` half waves along each axis.

    Parameters
    ----------
    classes : int
    noise : float
    rng : numpy.random.Generator
    side, channels, modes : int
        d = side² · channels.
    """
    pixels = (np.arange(side) + 0.5) / side
    waves = np.cos(np.pi * np.arange(modes + 1)[:, None] * pixels)  # (modes + 1, side)
    amplitude = rng.standard_normal((classes, channels, modes + 1, modes + 1))
    templates = np.einsum("ckab,ax,by->cxyk", amplitude, waves, waves).reshape(classes, -1)
    return ImageClasses(templates / np.sqrt(np.mean(templates**2, axis=1, keepdims=True)), noise)


class RandomFeatureClassifier:
    """Ridge regression of one-hot labels on random features; the largest output is the answer.

    Parameters
    ----------
    m, ridge, activation, distribution, bias, random_state
        As for `random_features.RandomFeatureRegressor`.

    Attributes
    ----------
    classes_ : (classes,)
        The labels seen, sorted.
    regressor_ : RandomFeatureRegressor
    """

    def __init__(
        self, *, m=1000, ridge=1e-3, activation="relu", distribution="sphere", bias=False, random_state=0
    ):
        self.m, self.ridge, self.activation = m, ridge, activation
        self.distribution, self.bias, self.random_state = distribution, bias, random_state

    def fit(self, x, labels):
        """Fit to x (n, d) and labels (n,) of any kind; DataError if there is one class only."""
        self.classes_, index = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(
                f"classifier: expected labels of two classes or more, found {list(self.classes_)}"
            )
        self.regressor_ = RandomFeatureRegressor(
            m=self.m,
            ridge=self.ridge,
            activation=self.activation,
            distribution=self.distribution,
            bias=self.bias,
            random_state=self.random_state,
        ).fit(x, np.eye(len(self.classes_))[index])
        return self

    def predict(self, x):
        """Labels (n,) of points x (n, d)."""
        return self.classes_[self.regressor_.predict(x).argmax(axis=1)]

    def score(self, x, labels):
        """Share of right answers."""
        return float(np.mean(self.predict(x) == labels))
