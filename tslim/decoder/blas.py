"""Matrix products on the CPU: numpy's BLAS on tiles of samples, one thread a tile.

BLAS's own threads are the wrong ones for a training step: they spin after each product, which takes a core from the
Taichi kernel that follows (it runs at half speed), and long thin matrices leave the cache between passes. So a product
runs on the thread that asks for it, and threads of ours take one tile of samples after another.
"""

import contextlib
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import threadpoolctl

from tslim.device import backend

TILE = 1024
"""Samples per tile, at most: a few arrays of this many rows of 128 fit in a core's second-level cache."""
LEAST = 256
"""Samples per tile, at least, where there are so many: below, calls cost as much as what they compute."""
FEW = 8
"""Tiles that samples are cut into before tiles grow, so that threads, whatever their number, end together."""


def for_tiles(n: int, work: Callable[[int, int, int], None], largest: int = TILE) -> None:
    """Calls ``work(start, stop, thread)`` for the tiles of n samples; each thread takes the next when it is free.

    ``thread`` counts from 0 and chooses scratch memory. Results repeat to the bit if ``work`` writes only what belongs
    to its tile. An exception in ``work`` is raised here.
    """
    size = tile_size(n, largest)
    starts = iter(range(0, n, size))

    def run(thread: int) -> None:
        for start in starts:
            work(start, min(start + size, n), thread)

    threads = backend.current().threads
    with _single_threaded():
        others = [_pool(threads).submit(run, thread) for thread in range(1, min(threads, n_tiles(n, largest)))]
        try:
            run(0)
        finally:
            for other in others:
                other.result()


def tile_size(n: int, largest: int = TILE) -> int:
    """Samples per tile of n samples, the last of which may be smaller: a multiple of LEAST, as ``largest`` must be."""
    return min(max(-(-n // (LEAST * FEW)), 1) * LEAST, largest)


def n_tiles(n: int, largest: int = TILE) -> int:
    """Tiles that n samples make."""
    return -(-n // tile_size(n, largest))


def product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out (n, q) = a (n, p)·b (p, q), for n samples; all f32, rows contiguous.

    Rows are filled up to whole cache lines: 27 columns would take half as long again as 32.
    """
    q = b.shape[1]
    if q == padded(q):

        def multiply(start: int, stop: int, thread: int) -> None:
            np.matmul(a[start:stop], b, out=out[start:stop])

        for_tiles(len(a), multiply)
        return
    wide = np.zeros((len(b), padded(q)), np.float32)
    wide[:, :q] = b
    rows = _rows(backend.current().threads, padded(q))

    def tile(start: int, stop: int, thread: int) -> None:
        out[start:stop] = np.matmul(a[start:stop], wide, out=rows[thread, : stop - start])[:, :q]

    for_tiles(len(a), tile)


def product_backward(a: np.ndarray, b: np.ndarray, grad: np.ndarray, grad_b: np.ndarray) -> None:
    """Adjoint of ``product``, given grad (n, q): adds aᵀ·grad to grad_b (p, q), and a becomes its own gradient grad·bᵀ.

    The sum over the n samples has a fixed order.
    """
    size, q = tile_size(len(a)), b.shape[1]
    partial = np.zeros((max(n_tiles(len(a)), 1), len(b), padded(q)), np.float32)
    rows = _rows(backend.current().threads, padded(q))

    def tile(start: int, stop: int, thread: int) -> None:
        wide = rows[thread, : stop - start]
        wide[:, :q] = grad[start:stop]
        np.matmul(a[start:stop].T, wide, out=partial[start // size])
        np.matmul(grad[start:stop], b.T, out=a[start:stop])

    for_tiles(len(a), tile)
    grad_b += np.add.reduce(partial[:, :, :q], axis=0)


def padded(width: int) -> int:
    """A row length of whole cache lines."""
    return -(-width // 16) * 16


@functools.cache
def _rows(threads: int, width: int) -> np.ndarray:
    """(threads, TILE, width) for a tile's rows, with zeros in columns that nobody writes."""
    return np.zeros((threads, TILE, width), np.float32)


def _single_threaded() -> contextlib.AbstractContextManager:
    return _libraries().limit(limits=1)


@functools.cache
def _libraries() -> threadpoolctl.ThreadpoolController:
    """The BLAS libraries that are loaded, numpy's among them."""
    return threadpoolctl.ThreadpoolController().select(user_api="blas")


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that help the caller; they sleep between calls."""
    return ThreadPoolExecutor(max(threads - 1, 1), "tslim-blas")
