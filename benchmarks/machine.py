"""What this machine can do, measured in the same run as what it is compared with."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tslim.decoder import blas

GEMM_ROWS, GEMM_SIDE = 8192, 512
"""Of (rows, side) · (side, side): tall, as batches of samples are, and large enough for full speed."""
STREAM_FLOATS = 48_000_000
"""Per array: 192 MB, far more than any cache holds."""


@dataclass(frozen=True)
class Machine:
    """Measured ceilings."""

    gemm_gflops: float
    """single-precision matrix product, numpy's BLAS on one tile of rows a thread, all threads"""
    bandwidth_gbs: float
    """c = a + b over arrays too large for the caches, torch, all threads; bytes read and written, in GB/s"""

    def roofline_ms(self, flops: float, n_bytes: float) -> float:
        """The time that work takes at least: its arithmetic at GEMM speed or its bytes at memory bandwidth."""
        return 1e3 * max(flops / (self.gemm_gflops * 1e9), n_bytes / (self.bandwidth_gbs * 1e9))


def best_of(repeats: int, work: Callable[[], object]) -> float:
    """Seconds of the quickest of several calls, after one that does not count."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def measure() -> Machine:
    """Takes a second or two."""
    rng = np.random.default_rng(0)
    a, b = (rng.random(shape, dtype=np.float32) for shape in ((GEMM_ROWS, GEMM_SIDE), (GEMM_SIDE, GEMM_SIDE)))
    out = np.empty_like(a)
    gemm = best_of(40, lambda: blas.product(a, b, out))
    x, y, z = (torch.ones(STREAM_FLOATS) for _ in range(3))
    stream = best_of(5, lambda: torch.add(x, y, out=z))
    return Machine(2 * GEMM_ROWS * GEMM_SIDE**2 / gemm / 1e9, 3 * 4 * STREAM_FLOATS / stream / 1e9)
