"""Ridge regression that also says how well it would do on samples left out.

    c = argmin_c Σ_i w_i (φ_i·c - y_i)² + λ |c|²  =  A_λ⁻¹ b,    A_λ = Φᵀ W Φ + λ,  b = Φᵀ W y

Rows may come in groups that belong together, the energy and the forces of one frame for instance. With the
hat matrix of a group, H = Φ_f A_λ⁻¹ Φ_fᵀ W_f, the residual it would have if the fit had not seen it is

    e_f(left out) = (I - H)⁻¹ e_f

exactly, without another fit. tr(A A_λ⁻¹) is the number of coefficients that data and λ leave free.

References
----------
Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2nd ed., sections 3.4 and 7.10.
"""

import numpy as np
import scipy.linalg

from deepmd_lite.errors import DataError


class NormalEquations:
    """Least squares, gathered row block by row block: memory does not grow with their number.

    Attributes
    ----------
    a : (K, K)
        Φᵀ W Φ.
    b : (K,)
        Φᵀ W y.
    yy : float
        yᵀ W y.
    rows : int
    """

    def __init__(self, size):
        self.a, self.b = np.zeros((size, size)), np.zeros(size)
        self.yy, self.rows = 0.0, 0
        self._eigen = None

    def add(self, phi, y, weight=1.0):
        """Add rows ``phi`` (n, K) with targets y (n,) and weights (n,) or one for all; DataError if not finite."""
        if not (np.isfinite(phi).all() and np.isfinite(y).all()):
            raise DataError("least squares: expected finite features and targets, found NaN or infinity")
        weighted = phi * np.reshape(weight, (-1, 1))
        self.a += weighted.T @ phi
        self.b += weighted.T @ y
        self.yy += float(np.sum(weight * y**2))
        self.rows += len(y)
        self._eigen = None

    @property
    def eigen(self):
        """Eigenvalues (K,), ascending, and eigenvectors (K, K) of A; made once."""
        if self._eigen is None:
            values, vectors = scipy.linalg.eigh(self.a)
            self._eigen = np.maximum(values, 0), vectors
        return self._eigen

    def _inverse(self, ridge):
        """Eigenvalues of A_λ⁻¹; directions that neither data nor λ determine are left alone."""
        values = self.eigen[0] + ridge
        known = values > len(values) * np.finfo(float).eps * values[-1]
        return np.divide(1, values, out=np.zeros_like(values), where=known)

    def solve(self, ridge=0.0):
        """c (K,), of the smallest norm where data and λ leave a choice."""
        vectors = self.eigen[1]
        return vectors @ (self._inverse(ridge) * (vectors.T @ self.b))

    def covariance(self, ridge):
        """A_λ⁻¹ (K, K)."""
        vectors = self.eigen[1]
        return (vectors * self._inverse(ridge)) @ vectors.T

    def factor(self, ridge):
        """L (K, K) with L Lᵀ = A_λ⁻¹."""
        return self.eigen[1] * np.sqrt(self._inverse(ridge))

    def loss(self, c):
        """Σ_i w_i (φ_i·c - y_i)²."""
        return float(c @ self.a @ c - 2 * c @ self.b + self.yy)

    def effective_dimension(self, ridge):
        """tr(A A_λ⁻¹): how many coefficients are free."""
        return float(np.sum(self.eigen[0] * self._inverse(ridge)))

    def left_out(self, phi, y, weight, ridge):
        """Residuals y - φ·c (n,) of a group of rows if the fit had not seen them; the group must be one added."""
        half = np.sqrt(np.broadcast_to(np.asarray(weight, float), len(y)))
        scaled = phi * half[:, None]
        h = scaled @ self.factor(ridge)
        residual = half * (y - phi @ self.solve(ridge))
        return scipy.linalg.solve(np.eye(len(y)) - h @ h.T, residual, assume_a="pos") / half
