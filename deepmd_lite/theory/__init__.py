"""The learning theory of Weinan E's lecture "A Mathematical Perspective on Machine Learning" as working code.

======================  ==================================================================================
approximation
``integration``         grids need m^(-α/d), Monte Carlo m^(-1/2): the curse of dimensionality; Hoeffding
``interpolation``       piecewise linear on the Kuhn mesh; polynomials and Runge's example
``fourier``             frequencies on a grid against random ones
``random_features``     f = (1/m) Σ a_j φ(x; w_j) with fixed w: direct and inverse theorems
``kernels``             k(x, x') = E φ φ and its RKHS
``networks, norms``     two-layer, deep and residual nets; path norms
``barron, spectral``    Barron norm, from a representation and from the Fourier transform
``radial``              the structural theorem: which distances are in Barron space
estimation
``risk``                empirical and population risk, the generalization gap
``decomposition``       error = approximation + estimation + optimization
``double_descent``      as many features as samples is the worst choice
``complexity``          Rademacher complexity: finite classes, C⁰, Lipschitz and RKHS balls
``barron_complexity``   the same of the Barron ball
``bounds``              what complexity bounds: the deviation of empirical from population risk
``barron_regressor``    path-norm regularisation and its a-priori bound
``classifier``          images: d = 3072 is no curse to random features
training
``descent``             gradient descent, SGD, the variance of the gradient over a class of functions
``tangent``             wide nets in the usual scaling: the neural tangent kernel
``mean_field``          wide nets scaled by 1/m: particles, the Wasserstein gradient flow
tools
``ridge``               least squares that knows its leave-one-out error and its covariance
``curves``              error against sample size: a power law and its floor
``experiment``          what an experiment is; ``experiments`` holds them: ``dplite theory list``
======================  ==================================================================================

docs/theory.md sets slides of the lecture, functions and measured numbers side by side. What this says about a Deep
Potential is in ``evaluate``: ``last_layer``, ``diagnostics``, ``decomposition``.
"""
