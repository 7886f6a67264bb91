"""Arenas and the kernels that compute with whole vectors of them."""

import numpy as np
import pytest
import taichi as ti

from kernels.launch import vector_kernel
from kernels.vectors import vec16_1d


@vector_kernel
def _add(n: ti.i32, a: vec16_1d, b: vec16_1d):
    """b += 2 a."""
    for i in range(n):
        b[i] = b[i] + a[i] * 2.0


def test_arenas_of_any_size_are_aligned_as_whole_vectors_must_be(cpu):
    from tslim.device import buffers

    arenas = [buffers.take_arena(n) for n in (0, 1, 3, 17, 1000, 70_001)]
    assert [len(arena) for arena in arenas] == [1, 1, 3, 17, 1000, 70_001]
    assert {arena.ctypes.data % 64 for arena in arenas} == {0}
    assert all(arena.flags.c_contiguous and arena.dtype == np.float32 for arena in arenas)


def test_whole_vectors_compute_what_their_lanes_would(cpu):
    from tslim.device import buffers

    a, b = buffers.take_arena(5), buffers.take_arena(5)
    a[...] = np.arange(80).reshape(5, 16)
    b[...] = 1
    _add(4, a, b)
    np.testing.assert_array_equal(b[:4], 1 + 2 * np.arange(64).reshape(4, 16))
    assert (b[4] == 1).all()


def test_other_kernels_are_compiled_as_before_even_if_one_of_ours_fails(cpu):
    with pytest.raises(ti.TaichiCompilationError):
        _fails(1.0)
    assert ti.cfg.real_matrix_scalarize
    field = ti.Vector.field(3, ti.f32, 4)
    _fill(field)  # with whole vectors Taichi 1.7.4 aborts the process here
    assert field[3].to_list() == [3, 4, 5]


@vector_kernel
def _fails(x: ti.f32):
    y = ti.Vector([x, x]) @ ti.Vector([x, x, x])
    print(y)


@ti.kernel
def _fill(field: ti.template()):
    for i in field:
        field[i] = ti.Vector([i, i + 1, i + 2])
