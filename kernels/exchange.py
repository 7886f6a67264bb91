"""Between the memory of other libraries and device arrays, for devices on which they do not share it.

``values`` is a flat array on any device that Taichi can read: on CUDA a tensor of torch's there stays there.
"""

import taichi as ti

from kernels.launch import kernel, vector_kernel
from kernels.types import f32_1d
from kernels.vectors import CHUNK, vec16_1d


@kernel
def put_numbers(into: f32_1d, first: ti.i32, n: ti.i32, values: f32_1d):
    """into[first : first + n] = values."""
    for i in range(n):
        into[first + i] = values[i]


@kernel
def get_numbers(source: f32_1d, first: ti.i32, n: ti.i32, values: f32_1d):
    """values = source[first : first + n]."""
    for i in range(n):
        values[i] = source[first + i]


@vector_kernel
def put_vectors(arena: vec16_1d, first: ti.i32, n: ti.i32, values: f32_1d):
    """Elements first .. first + n - 1 of an arena from values (n, 16)."""
    for i in range(n * CHUNK):
        arena[first + i // CHUNK][i % CHUNK] = values[i]


@vector_kernel
def get_vectors(arena: vec16_1d, first: ti.i32, n: ti.i32, values: f32_1d):
    """The inverse of ``put_vectors``."""
    for i in range(n * CHUNK):
        values[i] = arena[first + i // CHUNK][i % CHUNK]
