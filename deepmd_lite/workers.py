"""One kernel on several threads, each with its share of the work; kernels run without Python's lock."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _pool(threads):
    """The threads beside the calling one."""
    return ThreadPoolExecutor(threads)


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not live on in a forked process


class _OneThreadOfBlas:
    """A context in which BLAS has one thread, since each worker does its own products; nests over threads."""

    def __init__(self):
        self._controller, self._lock, self._depth = None, threading.Lock(), 0

    def __enter__(self):
        with self._lock:
            self._controller = self._controller or ThreadpoolController().select(user_api="blas")
            if self._depth == 0:
                self._limit = self._controller.limit(limits=1)
            self._depth += 1

    def __exit__(self, *_):
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._limit.restore_original_limits()


one_thread_of_blas = _OneThreadOfBlas()


def run_on_threads(kernel, nworkers, *arguments):
    """Call ``kernel(worker, *arguments)`` for worker 0 .. nworkers - 1 at once; returns when all are done."""
    with one_thread_of_blas:
        others = [_pool(nworkers - 1).submit(kernel, worker, *arguments) for worker in range(1, nworkers)]
        kernel(0, *arguments)
        for other in others:
            other.result()
