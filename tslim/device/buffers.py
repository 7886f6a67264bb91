"""Device memory in two kinds, so that nothing else in tslim asks which arch it runs on.

*Arrays* hold what passes from stage to stage (rays, samples, features, decoder weights). On the CPU they are numpy
arrays, which Taichi kernels and BLAS both use in place; on a GPU they are ``ti.ndarray``. Kernels take either as
``ti.types.ndarray``.

*Arenas* hold the tensor field as vectors of 16 floats: numpy arrays (capacity, 16) on the CPU, aligned as vectors,
``ti.Vector.ndarray`` elsewhere.
"""

import numpy as np
import taichi as ti

from kernels.vectors import CHUNK
from tslim.device import backend

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


def borrow(values: np.ndarray):
    """Like ``upload``, but on the CPU without a copy where possible: for large data that nobody will change."""
    if backend.current().is_cpu:
        return np.ascontiguousarray(values)
    return upload(values)


def write(into, values: np.ndarray) -> None:
    """Overwrites a whole device array, or arena, from the host."""
    if isinstance(into, np.ndarray):
        into[...] = values
    else:
        into.from_numpy(np.ascontiguousarray(np.broadcast_to(values, (*into.shape, *into.element_shape))))


def write_first(into, values: np.ndarray) -> None:
    """Overwrites the first numbers of a flat device array from the host; on a GPU the others become 0."""
    if isinstance(into, np.ndarray):
        into[: len(values)] = values
    else:
        into.from_numpy(np.pad(values, (0, into.shape[0] - len(values))))


def read(buffer) -> np.ndarray:
    """A host copy of a device array or arena."""
    return buffer.copy() if isinstance(buffer, np.ndarray) else buffer.to_numpy()


def number(buffer, index: int) -> int:
    """A number that the host has to know before it can go on; on a GPU it waits here for the device."""
    return int(buffer[index])


def numbers(buffer) -> list[int]:
    """All numbers of a small device array, at once: the host waits as ``number`` does, and only once."""
    return read(buffer).tolist()


_given_back: list = []
"""Arenas on a GPU for the next one who asks: Taichi 1.7 never frees arrays of vectors."""


def take_arena(n: int):
    """An arena of at least ``n`` elements of 16 floats, whose contents are undefined."""
    n = max(n, 1)
    if not backend.current().is_cpu:
        fitting = [i for i, arena in enumerate(_given_back) if arena.shape[0] >= n]
        if not fitting:
            return ti.Vector.ndarray(CHUNK, ti.f32, n)
        return _given_back.pop(min(fitting, key=lambda i: _given_back[i].shape[0]))
    room = np.empty(CHUNK * (n + 1), np.float32)
    first = -room.ctypes.data // room.itemsize % CHUNK  # Taichi takes it for granted that whole vectors are aligned
    return room[first : first + CHUNK * n].reshape(n, CHUNK)


def give_arena(arena) -> None:
    """Gives an arena back. The caller must not touch it afterwards; the CPU frees it with the last reference."""
    if not backend.current().is_cpu:
        _given_back.append(arena)
