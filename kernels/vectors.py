"""Vectors of 16 components: what arenas are made of, and how kernels compute with them.

Taichi takes vectors apart and leaves it to LLVM to find them again, which that of Taichi 1.7 does four numbers at a
time on processors that it does not know. A ``launch.vector_kernel`` leaves them whole, so that they fill the
registers that there are: gathers take less than half the time. Taichi 1.7.4 then crashes on fields of vectors, which
users may have in kernels of theirs, and on conversions and functions of whole vectors: hence arrays instead of fields,
a switch a kernel, and lane by lane what is no plain arithmetic. Arrays of vectors must be aligned to 64 bytes.
"""

import taichi as ti

CHUNK = 16
"""Components stored side by side in one arena element."""

vec16 = ti.types.vector(CHUNK, ti.f32)
vec16_1d = ti.types.ndarray(dtype=vec16, ndim=1)


@ti.func
def lane_mask(rank: ti.i32, chunk: ti.i32) -> vec16:
    """1 for lanes of the chunk whose component index is below ``rank``, else 0."""
    mask = vec16(0.0)
    for lane in ti.static(range(CHUNK)):
        mask[lane] = ti.select(chunk * CHUNK + lane < rank, 1.0, 0.0)
    return mask


@ti.func
def below(values: vec16, rank: ti.i32, chunk: ti.i32) -> vec16:
    """The values with zeros in lanes of the chunk whose component index is ``rank`` or above."""
    kept = values
    if (chunk + 1) * CHUNK > rank:
        kept *= lane_mask(rank, chunk)
    return kept
