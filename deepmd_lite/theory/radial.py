"""The structural theorem: a Barron function is not smooth only along affine subspaces, a sphere is none.

For a radial function f(r) in R³ the norm inf E |a| |w|_2, without a price for biases and for an affine part, is an
integral over r (Ongie et al., with the Radon transform carried out),

    ‖f‖_R = 2 ∫_0^∞ |3f'' + r f'''| dr + 4 |f'(0)|

and since 3f'' + r f''' = (2f' + r f'')' it is twice the total variation of g = 2f' + r f'', from g = 0 before
r = 0. The cone |x| has the norm 4. The distance | |x| - 1 | to the sphere has none: rounded over a width ε, it has
4/ε + 4.

What a network needs for an error δ is a convex problem. The mean of a solution over rotations is as good and no
larger, so the neurons may be taken in shells, w uniform on the unit sphere with one bias each, and the smallest path
norm is a linear program over the weights of shells.

References
----------
E and Wojtowytsch, Calc. Var. 61, 46 (2022) (structural theorem); Ongie, Willett, Soudry and Srebro, ICLR 2020.
"""

import numpy as np

from deepmd_lite.errors import ConfigError, DataError


class RoundedDistance:
    """f(r) = sqrt((r - radius)² + ε²): the distance to a sphere, or with radius 0 to the origin, rounded over ε."""

    def __init__(self, radius, eps):
        if radius < 0 or not eps > 0:
            raise ConfigError(f"distance: expected radius >= 0 and eps > 0, found {radius} and {eps}")
        self.radius, self.eps = radius, eps

    def __call__(self, r):
        return np.hypot(r - self.radius, self.eps)

    def d1(self, r):
        """f'."""
        return (r - self.radius) / self(r)

    def d2(self, r):
        """f''."""
        return self.eps**2 / self(r) ** 3

    def grid(self, n=20001):
        """Radii (n,) from 0 to far out, dense within ε of the kink."""
        u = np.linspace(np.arcsinh(-self.radius / self.eps), np.arcsinh(1e6 / self.eps), n)
        return np.maximum(self.radius + self.eps * np.sinh(u), 0)


def radon_norm_radial(d1, d2, r):
    """‖f‖_R of a radial function in R³.

    Parameters
    ----------
    d1, d2 : callable
        f' and f''.
    r : (n,)
        Ascending radii from 0 to where 2f' + r f'' no longer changes, fine enough for its extrema.

    Returns
    -------
    float
    """
    g = 2 * d1(r) + r * d2(r)
    return float(2 * (abs(g[0]) + np.abs(np.diff(g)).sum()))


def shells(r, b):
    """E_w relu(w·x - b) for |x| = r in R³, with w uniform on the unit sphere: w·x is uniform on (-r, r).

    Parameters
    ----------
    r : (n,), positive
    b : (k,)

    Returns
    -------
    (n, k)
    """
    r, b = np.asarray(r, float)[:, None], np.asarray(b, float)
    return np.where(b < -r, -b, np.maximum(r - b, 0) ** 2 / (4 * r))


def min_path_norm_fit(phi, y, tol):
    """The smallest path norm with which neurons reach a tolerance.

        min |c|_1  such that  |Φ c + c_0 - y| ≤ tol at every sample

    Parameters
    ----------
    phi : (n, k)
        Outputs of neurons, or shells, whose path norm is one.
    y : (n,)
    tol : float
        Largest error, in units of y.

    Returns
    -------
    c : (k,)
    offset : float
        c_0.

    Raises
    ------
    DataError
        If no combination reaches the tolerance.
    """
    from scipy.optimize import linprog

    k, one = phi.shape[1], np.ones((len(phi), 1))
    rows = np.hstack([phi, -phi, one])
    found = linprog(
        np.r_[np.ones(2 * k), 0],
        A_ub=np.vstack([rows, -rows]),
        b_ub=np.r_[y + tol, tol - y],
        bounds=[(0, None)] * (2 * k) + [(None, None)],
        method="highs",
    )
    if found.status:
        raise DataError(
            f"smallest path norm: no combination of {k} neurons comes within {tol:g} of {len(y)} samples; "
            "use more neurons or a larger tolerance"
        )
    return found.x[:k] - found.x[k : 2 * k], float(found.x[-1])
