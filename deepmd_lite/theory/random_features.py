"""The random feature model: a two-layer network whose inner weights are drawn once and stay.

    f_m(x; a) = (1/m) Σ_j a_j φ(x; w_j),    φ(x; w) = σ(w·x + b),   w_j ~ π independently

As m → ∞ it fills the reproducing kernel Hilbert space of k(x, x') = E_w[φ(x; w) φ(x'; w)], in which
‖f‖² = inf E a(w)² over f = E a(w) φ(·; w)  (Rahimi and Recht 2008; E, Ma and Wu 2019, "Barron space").
"""

import numpy as np

from deepmd_lite.errors import ConfigError, DataError

ACTIVATIONS = {
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "cos": np.cos,
    "sign": lambda z: (z > 0).astype(float),  # the step function
}


class RandomFeatures:
    """Features φ(x; w_j) of fixed random weights.

    Parameters
    ----------
    d, m : int
        Dimension of x; number of features.
    activation : str
        A key of `ACTIVATIONS`.
    distribution : "sphere" or "gaussian"
        w uniform on the unit sphere, or N(0, I/d).
    bias : bool
        b ~ U(-1, 1) (cos: U(0, 2π)), or none.
    rng : numpy.random.Generator

    Attributes
    ----------
    w : (m, d)
    b : (m,)

    Raises
    ------
    ConfigError
        d or m below one; an unknown activation or distribution.
    """

    def __init__(self, d, m, *, activation="relu", distribution="sphere", bias=False, rng):
        if d < 1 or m < 1:
            raise ConfigError(f"random features: expected d >= 1 and m >= 1, found d = {d}, m = {m}")
        if activation not in ACTIVATIONS or distribution not in ("sphere", "gaussian"):
            raise ConfigError(
                f"random features: expected one of {', '.join(ACTIVATIONS)} and sphere or gaussian, "
                f"found {activation!r}, {distribution!r}"
            )
        self.activation = activation
        w = rng.standard_normal((m, d))
        self.w = w / np.linalg.norm(w, axis=1, keepdims=True) if distribution == "sphere" else w / np.sqrt(d)
        low, high = (0, 2 * np.pi) if activation == "cos" else (-1, 1)
        self.b = rng.uniform(low, high, m) if bias else np.zeros(m)

    def __call__(self, x):
        """φ (n, m) of points x (n, d)."""
        return ACTIVATIONS[self.activation](x @ self.w.T + self.b)


class RandomFeatureRegressor:
    """Ridge regression on random features, in scikit-learn's manner.

        a = argmin_a (1/n) Σ_i (f_m(x_i; a) - y_i)² + (λ/m) |a|²

    whose prediction is that of kernel ridge regression with k_m(x, x') = (1/m) Σ_j φ(x; w_j) φ(x'; w_j) and
    (K/n + λ) in the place of K/n.

    Parameters
    ----------
    m : int
    ridge : float
        λ; 0 is the interpolant, or least squares, of the smallest norm.
    activation, distribution, bias
        As for `RandomFeatures`.
    random_state : int or numpy.random.Generator

    Attributes
    ----------
    features_ : RandomFeatures
    coef_ : (m,) or (m, outputs)
        a.
    norm_ : float
        sqrt(mean a²), the RKHS norm of the representation.
    effective_dimension_ : float
        tr(K (K + nλ)⁻¹).
    loo_residuals_ : array like y
        y_i minus the prediction of a fit that has not seen sample i.
    """

    def __init__(
        self, *, m=1000, ridge=0.0, activation="relu", distribution="sphere", bias=False, random_state=0
    ):
        self.m, self.ridge, self.activation = m, ridge, activation
        self.distribution, self.bias, self.random_state = distribution, bias, random_state

    def fit(self, x, y):
        """Fit to x (n, d) and y (n,) or (n, outputs); DataError if not finite or of different length."""
        x, y = np.asarray(x, float), np.asarray(y, float)
        if x.ndim != 2 or len(x) != len(y) or not len(x):
            raise DataError(f"random features: expected x (n, d) and y (n,), found {x.shape} and {y.shape}")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise DataError("random features: expected finite x and y, found NaN or infinity")
        rng = np.random.default_rng(self.random_state)
        self.features_ = RandomFeatures(
            x.shape[1],
            self.m,
            activation=self.activation,
            distribution=self.distribution,
            bias=self.bias,
            rng=rng,
        )
        # f = (φ/√m) (a/√m): with c = a/√m, plain ridge regression of weight nλ
        u, s, vt = np.linalg.svd(self.features_(x) / np.sqrt(self.m), full_matrices=False)
        known = s > len(s) * np.finfo(float).eps * s[0]
        u, s, vt = u[:, known], s[known], vt[known]
        filtered = s**2 / (s**2 + len(x) * self.ridge)
        inner = u.T @ y
        self.coef_ = np.sqrt(self.m) * vt.T @ _rows(filtered / s, inner)
        self.norm_ = float(np.sqrt(np.mean(self.coef_**2)))
        self.effective_dimension_ = float(filtered.sum())
        free = 1 - np.einsum("ik,k,ik->i", u, filtered, u)
        with np.errstate(
            divide="ignore", invalid="ignore"
        ):  # an interpolant says nothing about samples left out
            self.loo_residuals_ = _rows(
                1 / np.where(free > 1e-12, free, np.nan), y - u @ _rows(filtered, inner)
            )
        return self

    def predict(self, x):
        """f_m of points x (n, d): (n,) or (n, outputs)."""
        return self.features_(np.asarray(x, float)) @ self.coef_ / self.m

    def score(self, x, y):
        """R²: 1 - mean squared error / variance of y."""
        y = np.asarray(y, float)
        return 1 - np.mean((self.predict(x) - y) ** 2) / np.mean((y - y.mean(axis=0)) ** 2)


def _rows(factor, matrix):
    """``matrix`` with its rows multiplied by ``factor`` (n,)."""
    return (factor * matrix.T).T


def representation_norm(a):
    """sqrt(E a(w)²) of a representation f = E a(w) φ(·; w), from coefficients a_j (m,) of drawn features."""
    return float(np.sqrt(np.mean(np.square(a))))


def combination(features, a):
    """f_m = (1/m) Σ_j a_j φ(·; w_j) as a function of points x (n, d)."""
    return lambda x: features(x) @ a / len(a)


def sampled(target, features):
    """The f_m of the direct theorem: a_j = a*(w_j), for a target that has its ``density`` a*."""
    return combination(features, target.density(features))


def projected(target, features, x):
    """The f_m of the least mean square error at points x (n, d): the infimum over a."""
    phi = features(x) / len(features.w)
    return combination(features, np.linalg.lstsq(phi, target(x), rcond=None)[0])


def approximation_curve(target, x, network, sizes, repeats):
    """Errors of networks of several sizes, each drawn several times.

    Parameters
    ----------
    target : callable
        f (n,) of points (n, d).
    x : (n, d)
        Where to compare.
    network : function of m
        Draws f_m: `sampled` or `projected` random features, ``target.sample_barron_network``.
    sizes : sequence of int
    repeats : int

    Returns
    -------
    (sizes, repeats, n)
        f_m - f.
    """
    f = target(x)
    return np.array([[network(m)(x) - f for _ in range(repeats)] for m in sizes])


def coefficient_growth(x, y, sizes, *, ridge, repeats, rng):
    """How coefficients grow as random features of relus with bias come closer to functions.

    The inverse theorem: if f_m → f with |a_j| ≤ C for all m, then f is in the RKHS. Each fit has the ridge
    λ = ridge/m, so that error and coefficients are those of the direct theorem where it applies.

    Parameters
    ----------
    x : (n, d)
    y : (n, k)
        Values of k functions.
    sizes : sequence of int
    ridge : float
    repeats : int
    rng : numpy.random.Generator

    Returns
    -------
    error, largest, norm : (sizes, k)
        Root mean square error at x, max_j |a_j| and sqrt(mean a²): medians over draws.
    """
    found = np.empty((len(sizes), repeats, 3, y.shape[1]))
    for row, m in zip(found, sizes):
        for cell in row:
            model = RandomFeatureRegressor(m=m, ridge=ridge / m, bias=True, random_state=rng).fit(x, y)
            cell[0] = np.sqrt(np.mean((model.predict(x) - y) ** 2, axis=0))
            cell[1] = np.abs(model.coef_).max(axis=0)
            cell[2] = np.sqrt(np.mean(model.coef_**2, axis=0))
    return tuple(np.median(found, axis=1).transpose(1, 0, 2))
