"""Device memory in two kinds, so that nothing else in tslim asks which arch it runs on.

*Arrays* hold what passes from stage to stage (rays, samples, features, decoder weights). On the CPU they are numpy
arrays, which Taichi kernels and BLAS both use in place; on a GPU they are ``ti.ndarray``. Kernels take either as
``ti.types.ndarray``.

*Arenas* hold the tensor field: ``ti.Vector.field(16, f32, capacity)``, the layout that is fastest in vector kernels.
A kernel is compiled once for each arena it sees, so arenas are pooled: one that is given back serves the next field
that fits, and the kernels compiled for it with it.
"""

import numpy as np
import taichi as ti

from tslim import backend

CHUNK = 16
"""Components stored side by side in one arena element."""

_TI_DTYPES = {np.dtype(np.float32): ti.f32, np.dtype(np.int32): ti.i32, np.dtype(np.uint32): ti.u32}


def array(shape: int | tuple[int, ...], dtype=np.float32):
    """A zeroed array on the current device: ``np.ndarray`` on the CPU, ``ti.ndarray`` elsewhere."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if backend.current().is_cpu:
        return np.zeros(shape, dtype)
    made = ti.ndarray(_TI_DTYPES[np.dtype(dtype)], shape)
    made.fill(0)
    return made


def upload(values: np.ndarray):
    """A device array with the given values (f32, i32 or u32)."""
    values = np.ascontiguousarray(values)
    made = array(values.shape, values.dtype)
    write(made, values)
    return made


def share(values: np.ndarray):
    """Like ``upload``, but on the CPU without a copy where possible: for large data that nobody will change."""
    if backend.current().is_cpu:
        return np.ascontiguousarray(values)
    return upload(values)


def write(into, values: np.ndarray) -> None:
    """Overwrites a whole device array from the host."""
    if isinstance(into, np.ndarray):
        into[...] = values
    else:
        into.from_numpy(np.ascontiguousarray(np.broadcast_to(values, into.shape)))


def read(buffer) -> np.ndarray:
    """A host copy of a device array."""
    return buffer.copy() if isinstance(buffer, np.ndarray) else buffer.to_numpy()


class _Pool:
    """Arenas that were given back, for the next one who asks.

    Equal arenas are handed out in the order in which they were made, so that whoever takes the same arenas as somebody
    before gets them in the same roles, for which kernels are compiled already.
    """

    def __init__(self) -> None:
        self.free: list = []
        self.made: list = []

    def take(self, n: int):
        fitting = [a for a in self.free if a.shape[0] >= n]
        if fitting:
            best = min(fitting, key=lambda a: (a.shape[0], next(i for i, b in enumerate(self.made) if b is a)))
            self.free = [a for a in self.free if a is not best]
            return best
        self.made.append(ti.Vector.field(CHUNK, ti.f32, shape=max(n, 1)))
        return self.made[-1]

    def give(self, arena) -> None:
        self.free.append(arena)


_pool = _Pool()


def take_arena(n: int):
    """An arena of at least ``n`` elements of 16 floats; its contents are whatever the last user left."""
    return _pool.take(n)


def give_arena(arena) -> None:
    """Returns an arena to the pool. The caller must not touch it afterwards."""
    _pool.give(arena)
