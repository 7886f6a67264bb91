"""The vector-matrix (VM) decomposition: components on a grid, how a point reads them and how gradients get back.

With P^m_k, L^m_k the plane and line of component k in mode m, interpolated bilinearly and linearly at x, everything a
field knows at x is made of the products p^m_k(x) = P^m_k(u, v) L^m_k(w). Gradients, with q that of one product:
dP texel += q L w_texel, dL texel += q P w_texel. What is summed from the products is in ``density.py`` and
``appearance.py``; components come in chunks of 16.
"""

import taichi as ti

from kernels.types import ivec3, vec3
from kernels.vectors import CHUNK, vec16

N_FEATURES = 27
AFFINE_WIDTH = 2 + 2 * N_FEATURES
"""Numbers per rank: density scale, density shift, 27 feature scales, 27 feature shifts."""


@ti.func
def on_grid(x: vec3, box_min: vec3, texels_per_unit: vec3, grid: ivec3) -> vec3:
    """A position in field coordinates in texels of the grid, clamped to the box."""
    at = vec3(0.0)
    for a in ti.static(range(3)):
        at[a] = ti.min(ti.max((x[a] - box_min[a]) * texels_per_unit[a], 0.0), ti.cast(grid[a] - 1, ti.f32))
    return at


@ti.func
def texel_below(at: vec3, grid: ivec3):
    """Lower texel (3) and fraction (3) of a position on the grid."""
    low = ivec3(0)
    frac = vec3(0.0)
    for a in ti.static(range(3)):
        low[a] = ti.min(ti.cast(at[a], ti.i32), grid[a] - 2)
        frac[a] = at[a] - ti.cast(low[a], ti.f32)
    return low, frac


@ti.func
def mode_layout(m: ti.i32, grid: ivec3, max_chunks: ti.i32):
    """plane_base, area, G_u, line_base, G_w of mode m (see the package's docstring)."""
    xy = grid[0] * grid[1]
    xz = grid[0] * grid[2]
    plane_base = 0
    area = xy
    g_u = grid[0]
    line_base = 0
    g_w = grid[2]
    if m == 1:
        plane_base = max_chunks * xy
        area = xz
        line_base = max_chunks * grid[2]
        g_w = grid[1]
    elif m == 2:
        plane_base = max_chunks * (xy + xz)
        area = grid[1] * grid[2]
        g_u = grid[1]
        line_base = max_chunks * (grid[2] + grid[1])
        g_w = grid[0]
    return plane_base, area, g_u, line_base, g_w


@ti.func
def find_texel(i: ti.i32, grid: ivec3):
    """Mode, whether it is a line's (1) or a plane's (0), and place within its tensor, of texel i of one chunk.

    All planes' texels come first, mode after mode, then all lines'.
    """
    rest = i
    plane_texels = grid[0] * grid[1] + grid[0] * grid[2] + grid[1] * grid[2]
    is_line = 0
    if rest >= plane_texels:
        is_line = 1
        rest -= plane_texels
    m = 0
    _, area, _, _, g_w = mode_layout(0, grid, 0)
    size = ti.select(is_line == 1, g_w, area)
    while rest >= size:
        rest -= size
        m += 1
        _, area, _, _, g_w = mode_layout(m, grid, 0)
        size = ti.select(is_line == 1, g_w, area)
    return m, is_line, rest


@ti.func
def mode_axes(m: ti.i32, low: ivec3, frac: vec3):
    """Texel indices and fractions along u, v, w of mode m."""
    u = low[0]
    v = low[1]
    w = low[2]
    fu = frac[0]
    fv = frac[1]
    fw = frac[2]
    if m == 1:
        v = low[2]
        w = low[1]
        fv = frac[2]
        fw = frac[1]
    elif m == 2:
        u = low[1]
        v = low[2]
        w = low[0]
        fu = frac[1]
        fv = frac[2]
        fw = frac[0]
    return u, v, w, fu, fv, fw


@ti.func
def plane_value(planes: ti.template(), at: ti.i32, g_u: ti.i32, fu: ti.f32, fv: ti.f32) -> vec16:
    """Bilinear interpolation of one chunk; ``at`` is the texel of the lower corner."""
    return (planes[at] * (1.0 - fu) + planes[at + 1] * fu) * (1.0 - fv) + (
        planes[at + g_u] * (1.0 - fu) + planes[at + g_u + 1] * fu
    ) * fv


@ti.func
def line_value(lines: ti.template(), at: ti.i32, fw: ti.f32) -> vec16:
    """Linear interpolation of one chunk."""
    return lines[at] * (1.0 - fw) + lines[at + 1] * fw


@ti.func
def product(
    planes: ti.template(),
    lines: ti.template(),
    m: ti.i32,
    chunk: ti.i32,
    low: ivec3,
    frac: vec3,
    grid: ivec3,
    max_chunks: ti.i32,
) -> vec16:
    """P L of one chunk of one mode."""
    plane_base, area, g_u, line_base, g_w = mode_layout(m, grid, max_chunks)
    u, v, w, fu, fv, fw = mode_axes(m, low, frac)
    p = plane_value(planes, plane_base + chunk * area + v * g_u + u, g_u, fu, fv)
    return p * line_value(lines, line_base + chunk * g_w + w, fw)


@ti.func
def in_box(x: vec3, box_min: vec3, texels_per_unit: vec3, grid: ivec3) -> ti.i32:
    """1 where x lies in the box, borders included."""
    inside = 1
    for a in ti.static(range(3)):
        g = (x[a] - box_min[a]) * texels_per_unit[a]
        if g < 0.0 or g > ti.cast(grid[a] - 1, ti.f32):
            inside = 0
    return inside


@ti.func
def add_texel(arena: ti.template(), at: ti.i32, value: vec16, atomic: ti.template()):
    """arena[at] += value, atomically or as the texel's owner."""
    if ti.static(atomic):
        for lane in ti.static(range(CHUNK)):
            ti.atomic_add(arena[at][lane], value[lane])
    else:
        arena[at] = arena[at] + value


@ti.func
def in_band(i: ti.i32, band: ti.i32, n_bands: ti.i32, size: ti.i32) -> ti.i32:
    """Whether i n_bands // size = band, without the division."""
    rest = i * n_bands - band * size
    return ti.cast(rest >= 0 and rest < size, ti.i32)


@ti.func
def scatter_plane(
    q: vec16,
    m: ti.i32,
    chunk: ti.i32,
    band: ti.i32,
    n_bands: ti.i32,
    low: ivec3,
    frac: vec3,
    lines: ti.template(),
    grad_planes: ti.template(),
    grid: ivec3,
    max_chunks: ti.i32,
    atomic: ti.template(),
):
    """Adds the plane's gradient of one chunk of one mode for one sample, where q is the gradient of its product.

    Of the plane's rows it writes those of ``band``: rows v with v n_bands // G_v = band.
    """
    plane_base, area, g_u, line_base, g_w = mode_layout(m, grid, max_chunks)
    u, v, w, fu, fv, fw = mode_axes(m, low, frac)
    row0 = 1
    row1 = 1
    if ti.static(not atomic):
        if n_bands > 1:
            row0 = in_band(v, band, n_bands, area // g_u)
            row1 = in_band(v + 1, band, n_bands, area // g_u)
    if row0 + row1 > 0:
        at = plane_base + chunk * area + v * g_u + u
        ql = q * line_value(lines, line_base + chunk * g_w + w, fw)
        if row0 == 1:
            g = ql * (1.0 - fv)
            add_texel(grad_planes, at, g * (1.0 - fu), atomic)
            add_texel(grad_planes, at + 1, g * fu, atomic)
        if row1 == 1:
            g = ql * fv
            add_texel(grad_planes, at + g_u, g * (1.0 - fu), atomic)
            add_texel(grad_planes, at + g_u + 1, g * fu, atomic)


@ti.func
def scatter_line(
    q: vec16,
    with_product: ti.i32,
    m: ti.i32,
    chunk: ti.i32,
    band: ti.i32,
    n_bands: ti.i32,
    low: ivec3,
    frac: vec3,
    planes: ti.template(),
    lines: ti.template(),
    grad_lines: ti.template(),
    grid: ivec3,
    max_chunks: ti.i32,
    atomic: ti.template(),
):
    """The same for the line's gradient; of its texels it writes those w with w n_bands // G_w = band.

    Returns whether the sample is the band's, which is true of one band only, and if so and with_product = 1 the sum of
    q p over the lanes.
    """
    plane_base, area, g_u, line_base, g_w = mode_layout(m, grid, max_chunks)
    u, v, w, fu, fv, fw = mode_axes(m, low, frac)
    end0 = 1
    end1 = 1
    if ti.static(not atomic):
        if n_bands > 1:
            end0 = in_band(w, band, n_bands, g_w)
            end1 = in_band(w + 1, band, n_bands, g_w)
    along = 0.0
    if end0 + end1 > 0:
        lt = line_base + chunk * g_w + w
        qp = q * plane_value(planes, plane_base + chunk * area + v * g_u + u, g_u, fu, fv)
        if end0 == 1:
            if with_product == 1:
                along = (qp * line_value(lines, lt, fw)).sum()
            add_texel(grad_lines, lt, qp * (1.0 - fw), atomic)
        if end1 == 1:
            add_texel(grad_lines, lt + 1, qp * fw, atomic)
    return end0, along


@ti.func
def product_slope(
    planes: ti.template(),
    lines: ti.template(),
    q: vec16,
    m: ti.i32,
    chunk: ti.i32,
    low: ivec3,
    frac: vec3,
    texels_per_unit: vec3,
    grid: ivec3,
    max_chunks: ti.i32,
) -> vec3:
    """Gradient in field coordinates of sum_lane q (P L) for one chunk of one mode."""
    plane_base, area, g_u, line_base, g_w = mode_layout(m, grid, max_chunks)
    u, v, w, fu, fv, fw = mode_axes(m, low, frac)
    at = plane_base + chunk * area + v * g_u + u
    lt = line_base + chunk * g_w + w
    ql = q * line_value(lines, lt, fw)
    by_u = (ql * ((planes[at + 1] - planes[at]) * (1.0 - fv) + (planes[at + g_u + 1] - planes[at + g_u]) * fv)).sum()
    by_v = (ql * ((planes[at + g_u] - planes[at]) * (1.0 - fu) + (planes[at + g_u + 1] - planes[at + 1]) * fu)).sum()
    by_w = (q * plane_value(planes, at, g_u, fu, fv) * (lines[lt + 1] - lines[lt])).sum()
    slope = vec3(by_u, by_v, by_w)
    if m == 1:
        slope = vec3(by_u, by_w, by_v)
    elif m == 2:
        slope = vec3(by_w, by_u, by_v)
    return slope * texels_per_unit
