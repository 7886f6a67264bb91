"""How many threads numpy's BLAS, which the decoder's matrix products run in on the CPU, takes for one product."""

import contextlib
import functools

import numpy as np  # noqa: F401  (its BLAS has to be loaded before it can be found)
import threadpoolctl


def single_threaded() -> contextlib.AbstractContextManager:
    """While open, a matrix product runs on the thread that asks for it, so that threads can each do their own."""
    return _libraries().limit(limits=1)


@functools.cache
def _libraries() -> threadpoolctl.ThreadpoolController:
    """The BLAS libraries that are loaded, numpy's among them."""
    return threadpoolctl.ThreadpoolController().select(user_api="blas")
