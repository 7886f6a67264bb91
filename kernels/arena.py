"""Moving planes and lines: between host and arena, and from one grid to another."""

import taichi as ti

from kernels.launch import vector_kernel
from kernels.types import f32_1d, ivec3, vec3
from kernels.vectors import CHUNK, vec16, vec16_1d
from kernels.vm import find_texel, line_value, mode_layout, plane_value


@vector_kernel
def put_components(
    arena: vec16_1d, base: ti.i32, texels: ti.i32, first: ti.i32, n: ti.i32, values: f32_1d
):  # fmt: skip
    """Writes components first .. first + n - 1 of a tensor (``texels`` a component) from values (n, texels)."""
    for i in range(n * texels):
        k = first + i // texels
        arena[base + k // CHUNK * texels + i % texels][k % CHUNK] = values[i]


@vector_kernel
def get_components(
    arena: vec16_1d, base: ti.i32, texels: ti.i32, first: ti.i32, n: ti.i32, values: f32_1d
):  # fmt: skip
    """The inverse of ``put_components``."""
    for i in range(n * texels):
        k = first + i // texels
        values[i] = arena[base + k // CHUNK * texels + i % texels][k % CHUNK]


@vector_kernel
def fill_arena(arena: vec16_1d, n: ti.i32, value: ti.f32):
    """Sets the first n elements."""
    for i in range(n):
        arena[i] = vec16(value)


@vector_kernel
def copy_arena(source: vec16_1d, target: vec16_1d, n: ti.i32):
    """target[:n] = source[:n]."""
    for i in range(n):
        target[i] = source[i]


@ti.func
def split(position: ti.f32, size: ti.i32):
    """Lower texel and fraction of a position, clamped to the grid."""
    g = ti.min(ti.max(position, 0.0), ti.cast(size - 1, ti.f32))
    low = ti.min(ti.cast(g, ti.i32), size - 2)
    return low, g - ti.cast(low, ti.f32)


@vector_kernel
def resample(
    old_planes: vec16_1d,
    old_lines: vec16_1d,
    old_grid: ivec3,
    scale: vec3,
    shift: vec3,
    planes: vec16_1d,
    lines: vec16_1d,
    grid: ivec3,
    n_chunks: ti.i32,
):
    """Bilinear and linear resampling: texel i along an axis of the new grid lies at scale i + shift on the old one.

    Growing has scale = (old - 1) / (new - 1) and no shift; cropping at texels has scale 1 and the first texel as shift.
    """
    plane_texels = grid[0] * grid[1] + grid[0] * grid[2] + grid[1] * grid[2]
    line_texels = grid[0] + grid[1] + grid[2]
    for i in range(n_chunks * (plane_texels + line_texels)):
        chunk = i // (plane_texels + line_texels)
        m, is_line, rest = find_texel(i % (plane_texels + line_texels), grid)
        plane_base, area, g_u, line_base, g_w = mode_layout(m, grid, n_chunks)
        old_plane_base, old_area, old_u, old_line_base, old_w = mode_layout(m, old_grid, n_chunks)
        u_axis = ti.select(m == 2, 1, 0)
        v_axis = ti.select(m == 0, 1, 2)
        w_axis = 2 - m
        scale_u = 0.0
        shift_u = 0.0
        scale_v = 0.0
        shift_v = 0.0
        scale_w = 0.0
        shift_w = 0.0
        for a in ti.static(range(3)):
            if u_axis == a:
                scale_u = scale[a]
                shift_u = shift[a]
            if v_axis == a:
                scale_v = scale[a]
                shift_v = shift[a]
            if w_axis == a:
                scale_w = scale[a]
                shift_w = shift[a]
        if is_line == 1:
            w, fw = split(ti.cast(rest, ti.f32) * scale_w + shift_w, old_w)
            lines[line_base + chunk * g_w + rest] = line_value(old_lines, old_line_base + chunk * old_w + w, fw)
        else:
            u, fu = split(ti.cast(rest % g_u, ti.f32) * scale_u + shift_u, old_u)
            v, fv = split(ti.cast(rest // g_u, ti.f32) * scale_v + shift_v, old_area // old_u)
            at = old_plane_base + chunk * old_area + v * old_u + u
            planes[plane_base + chunk * area + rest] = plane_value(old_planes, at, old_u, fu, fv)
