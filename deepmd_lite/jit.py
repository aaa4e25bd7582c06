"""Numba's ``njit`` with an on-disk cache where there is a place to write one.

Numba keeps its cache beside the source or, failing that, in the user's cache directory, and raises at import
where it can write to neither (a read-only container without a home). Then we compile once per process.

Give every kernel one signature only (one dtype and layout per argument): numba numbers the cached code of
further signatures, and two processes may take the same number at the same time. Functions that only kernels
call take ``numba.njit``: their code is cached with that of the kernel. The cache follows changes of the file that
a kernel stands in, not of files it calls into: after editing those, delete ``__pycache__/*.nbi`` (the tests do).
"""

import numba


def jit(**options):
    """Decorator: ``numba.njit(cache=True, **options)``, without the cache where it cannot be written."""

    def decorate(function):
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # "cannot cache function ...: no locator available"
            return numba.njit(**options)(function)

    return decorate
