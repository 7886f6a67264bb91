"""The vector-matrix (VM) tensor field, masked by rank: density feature and appearance features, and their adjoints.

With P^m_k, L^m_k the plane and line of component k in mode m, interpolated bilinearly and linearly at x:

    f(x, rank) = sum_m sum_{k < rank}  P^m_k(u, v) L^m_k(w)                       density feature       (SlimmeRF eq. 2)
    p^m_k(x)   = P^m_k(u, v) L^m_k(w),  k < 3 rank                                appearance products
    a(x, rank) = s_rank * (p B) + b_rank                                          27 features, basis B

s and b are the optional scale and shift per rank (ones and zeros when unused); the density feature has its own pair.
Components at and above the rank are neither added nor given a gradient; chunks that lie wholly above it are not read.

Gradients, with q the gradient of the product of one component: dP texel += q L w_texel, dL texel += q P w_texel.
"""

import taichi as ti

from kernels.march import ivec3, load3
from kernels.rays import f32_1d, i32_1d, vec3
from kernels.space import place, pull_back

CHUNK = 16
N_FEATURES = 27
AFFINE_WIDTH = 2 + 2 * N_FEATURES
"""Numbers per rank: density scale, density shift, 27 feature scales, 27 feature shifts."""

vec16 = ti.types.vector(CHUNK, ti.f32)


@ti.func
def lane_mask(rank: ti.i32, chunk: ti.i32) -> vec16:
    """1 for lanes of the chunk whose component index is below ``rank``, else 0."""
    mask = vec16(0.0)
    for lane in ti.static(range(CHUNK)):
        mask[lane] = ti.select(chunk * CHUNK + lane < rank, 1.0, 0.0)
    return mask


@ti.func
def grid_position(x: vec3, box_min: vec3, texels_per_unit: vec3, grid: ivec3):
    """Lower texel (3) and fraction (3) of a position in field coordinates on the grid; clamped to the box."""
    low = ivec3(0)
    frac = vec3(0.0)
    for a in ti.static(range(3)):
        g = (x[a] - box_min[a]) * texels_per_unit[a]
        g = ti.min(ti.max(g, 0.0), ti.cast(grid[a] - 1, ti.f32))
        low[a] = ti.min(ti.cast(g, ti.i32), grid[a] - 2)
        frac[a] = g - ti.cast(low[a], ti.f32)
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
def density_feature(
    planes: ti.template(),
    lines: ti.template(),
    x: vec3,
    rank: ti.i32,
    box_min: vec3,
    texels_per_unit: vec3,
    grid: ivec3,
    max_chunks: ti.i32,
) -> ti.f32:
    """f(x, rank): the sum over modes and the first ``rank`` components."""
    low, frac = grid_position(x, box_min, texels_per_unit, grid)
    total = 0.0
    for chunk in range((rank + CHUNK - 1) // CHUNK):
        acc = vec16(0.0)
        for m in ti.static(range(3)):
            acc += product(planes, lines, m, chunk, low, frac, grid, max_chunks)
        total += (acc * lane_mask(rank, chunk)).sum()
    return total


@ti.func
def softplus(z: ti.f32) -> ti.f32:
    """log(1 + exp(z)) to f32 accuracy; the series spares a logarithm where density is next to nothing, as mostly."""
    sigma = z
    if z < -8.0:
        e = ti.exp(z)
        sigma = e * (1.0 - 0.5 * e)
    elif z < 16.0:
        sigma = ti.max(z, 0.0) + ti.log(1.0 + ti.exp(-ti.abs(z)))
    return sigma


@ti.func
def exp_minus(x: ti.f32) -> ti.f32:
    """exp(-x) for x >= 0 to f32 accuracy; the series spares a call where x is small, as it is in thin air."""
    y = 1.0 - x * (1.0 - x * (0.5 - x * (1.0 / 6.0)))
    if x > 0.01:
        y = ti.exp(-x)
    return y


@ti.func
def activate(feature: ti.f32, scale: ti.f32, shift: ti.f32, use_softplus: ti.i32) -> ti.f32:
    """Density from the density feature: softplus or relu of scale f + shift."""
    z = scale * feature + shift
    sigma = ti.max(z, 0.0)
    if use_softplus == 1:
        sigma = softplus(z)
    return sigma


@ti.func
def activate_slope(feature: ti.f32, scale: ti.f32, shift: ti.f32, use_softplus: ti.i32) -> ti.f32:
    """d sigma / d z of ``activate``, z = scale f + shift."""
    z = scale * feature + shift
    slope = ti.select(z > 0.0, 1.0, 0.0)
    if use_softplus == 1:
        slope = 1.0 / (1.0 + ti.exp(-z))
    return slope


@ti.func
def in_box(x: vec3, box_min: vec3, texels_per_unit: vec3, grid: ivec3) -> ti.i32:
    """1 where x lies in the box, borders included."""
    inside = 1
    for a in ti.static(range(3)):
        g = (x[a] - box_min[a]) * texels_per_unit[a]
        if g < 0.0 or g > ti.cast(grid[a] - 1, ti.f32):
            inside = 0
    return inside


@ti.kernel
def density_at(
    n: ti.i32,
    points: f32_1d,
    point_rank: i32_1d,
    planes: ti.template(),
    lines: ti.template(),
    affine: f32_1d,
    box_min: vec3,
    texels_per_unit: vec3,
    grid: ivec3,
    max_chunks: ti.i32,
    density_shift: ti.f32,
    use_softplus: ti.i32,
    sigma: f32_1d,
):
    """Density (per unit of the field, before the distance scale) at points (n, 3) in field coordinates, each at its own
    rank; 0 outside the box.
    """
    for i in range(n):
        x = load3(points, i)
        sigma[i] = 0.0
        rank = point_rank[i]
        if in_box(x, box_min, texels_per_unit, grid) == 1 and rank > 0:
            f = density_feature(planes, lines, x, rank, box_min, texels_per_unit, grid, max_chunks)
            a = (rank - 1) * AFFINE_WIDTH
            sigma[i] = activate(f, affine[a], affine[a + 1] + density_shift, use_softplus)


@ti.func
def store16(matrix: ti.template(), at: ti.i32, values: vec16):
    """Writes 16 consecutive floats of a flat array."""
    for lane in ti.static(range(CHUNK)):
        matrix[at + lane] = values[lane]


@ti.func
def load16(matrix: ti.template(), at: ti.i32) -> vec16:
    """Reads 16 consecutive floats of a flat array."""
    out = vec16(0.0)
    for lane in ti.static(range(CHUNK)):
        out[lane] = matrix[at + lane]
    return out


@ti.kernel
def appearance_products(
    n_groups: ti.i32,
    n_chunks: ti.i32,
    block: ti.i32,
    group_ray: i32_1d,
    group_start: i32_1d,
    group_kept: f32_1d,
    kept_t: f32_1d,
    kept_weight: f32_1d,
    ray_o: f32_1d,
    ray_d: f32_1d,
    contracted: ti.i32,
    ray_rank: i32_1d,
    planes: ti.template(),
    lines: ti.template(),
    box_min: vec3,
    texels_per_unit: vec3,
    grid: ivec3,
    max_chunks: ti.i32,
    products: f32_1d,
):
    """products (n_groups, 48 n_chunks): p^m_k at each group's ray's rank, zeros above it; the groups' weighted means.

    Column (3 c + m) 16 + lane, as the rows of the basis. Adjoint: ``appearance_backward``. One task takes ``block``
    groups through one chunk of one mode, and chunk comes after chunk: on a CPU its plane then stays in the cache.
    """
    width = n_chunks * 3 * CHUNK
    blocks = (n_groups + block - 1) // block
    for item in range(3 * n_chunks * blocks):
        column = item // blocks
        chunk = column // 3
        first = item % blocks * block
        for g in range(first, ti.min(first + block, n_groups)):
            ray = group_ray[g]
            components = 3 * ray_rank[ray]
            p = vec16(0.0)
            if chunk * CHUNK < components:
                o = load3(ray_o, ray)
                d = load3(ray_d, ray)
                for j in range(group_start[g], group_start[g + 1]):
                    low, frac = grid_position(place(o, d, kept_t[j], contracted), box_min, texels_per_unit, grid)
                    share = kept_weight[j] / group_kept[g]
                    p += product(planes, lines, column % 3, chunk, low, frac, grid, max_chunks) * share
                p *= lane_mask(components, chunk)
            store16(products, g * width + column * CHUNK, p)


@ti.kernel
def feature_affine(
    n_groups: ti.i32, group_ray: i32_1d, ray_rank: i32_1d, affine: f32_1d, raw: f32_1d, features: f32_1d
):
    """features = s_rank * raw + b_rank, both (n, 27). Adjoint: ``feature_affine_backward``."""
    for j in range(n_groups):
        a = (ray_rank[group_ray[j]] - 1) * AFFINE_WIDTH + 2
        for i in range(N_FEATURES):
            at = j * N_FEATURES + i
            features[at] = affine[a + i] * raw[at] + affine[a + N_FEATURES + i]


@ti.kernel
def feature_affine_backward(
    n_groups: ti.i32,
    group_ray: i32_1d,
    ray_rank: i32_1d,
    affine: f32_1d,
    raw: f32_1d,
    grad_features: f32_1d,
    grad_affine: f32_1d,
):
    """Adds to grad_affine (max_rank, 56) the gradients of s and b, and turns grad_features into that of ``raw``.

    One task per feature owns that feature's column of both, so that sums have one order.
    """
    for i in range(N_FEATURES):
        for j in range(n_groups):
            a = (ray_rank[group_ray[j]] - 1) * AFFINE_WIDTH + 2 + i
            at = j * N_FEATURES + i
            g = grad_features[at]
            grad_affine[a] = grad_affine[a] + g * raw[at]
            grad_affine[a + N_FEATURES] = grad_affine[a + N_FEATURES] + g
            grad_features[at] = g * affine[a]


@ti.func
def add_texel(arena: ti.template(), at: ti.i32, value: vec16, atomic: ti.template()):
    """arena[at] += value, atomically or as the texel's owner."""
    if ti.static(atomic):
        for lane in ti.static(range(CHUNK)):
            ti.atomic_add(arena[at][lane], value[lane])
    else:
        arena[at] = arena[at] + value


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
            g_v = area // g_u
            row0 = ti.cast(v * n_bands // g_v == band, ti.i32)
            row1 = ti.cast((v + 1) * n_bands // g_v == band, ti.i32)
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
    m: ti.i32,
    chunk: ti.i32,
    band: ti.i32,
    n_bands: ti.i32,
    low: ivec3,
    frac: vec3,
    planes: ti.template(),
    grad_lines: ti.template(),
    grid: ivec3,
    max_chunks: ti.i32,
    atomic: ti.template(),
):
    """The same for the line's gradient; of its texels it writes those w with w n_bands // G_w = band."""
    plane_base, area, g_u, line_base, g_w = mode_layout(m, grid, max_chunks)
    u, v, w, fu, fv, fw = mode_axes(m, low, frac)
    end0 = 1
    end1 = 1
    if ti.static(not atomic):
        if n_bands > 1:
            end0 = ti.cast(w * n_bands // g_w == band, ti.i32)
            end1 = ti.cast((w + 1) * n_bands // g_w == band, ti.i32)
    if end0 + end1 > 0:
        lt = line_base + chunk * g_w + w
        qp = q * plane_value(planes, plane_base + chunk * area + v * g_u + u, g_u, fu, fv)
        if end0 == 1:
            add_texel(grad_lines, lt, qp * (1.0 - fw), atomic)
        if end1 == 1:
            add_texel(grad_lines, lt + 1, qp * fw, atomic)


@ti.kernel
def density_backward(
    n_rays: ti.i32,
    n_chunks: ti.i32,
    n_bands: ti.i32,
    n_parts: ti.i32,
    ray_o: f32_1d,
    ray_d: f32_1d,
    contracted: ti.i32,
    ray_rank: i32_1d,
    ray_start: i32_1d,
    ray_used: i32_1d,
    sample_t: f32_1d,
    sample_grad: f32_1d,
    planes: ti.template(),
    lines: ti.template(),
    grad_planes: ti.template(),
    grad_lines: ti.template(),
    box_min: vec3,
    texels_per_unit: vec3,
    grid: ivec3,
    max_chunks: ti.i32,
    atomic: ti.template(),
):
    """Adjoint of the density feature: adds to the gradient arenas, given sample_grad = dL/df of each used sample.

    On the CPU one task owns a chunk of a mode, or a band of its rows; with n_parts = 2 one of its plane or its line,
    which share no arithmetic but the position: the way to have twice the tasks for next to nothing.
    """
    if ti.static(atomic):
        for item in range(n_rays * n_chunks * 3):
            ray = item % n_rays
            chunk = item // n_rays // 3
            m = item // n_rays % 3
            if chunk * CHUNK < ray_rank[ray]:
                mask = lane_mask(ray_rank[ray], chunk)
                o = load3(ray_o, ray)
                d = load3(ray_d, ray)
                for s in range(ray_start[ray], ray_start[ray] + ray_used[ray]):
                    low, frac = grid_position(place(o, d, sample_t[s], contracted), box_min, texels_per_unit, grid)
                    q = mask * sample_grad[s]
                    scatter_plane(q, m, chunk, 0, 1, low, frac, lines, grad_planes, grid, max_chunks, True)
                    scatter_line(q, m, chunk, 0, 1, low, frac, planes, grad_lines, grid, max_chunks, True)
    else:
        ti.loop_config(block_dim=1)
        for task in range(n_parts * 3 * n_chunks * n_bands):
            whole = n_parts == 1
            part = task % n_parts
            m = task // n_parts % 3
            chunk = task // (n_parts * 3) % n_chunks
            band = task // (n_parts * 3 * n_chunks)
            for ray in range(n_rays):
                if chunk * CHUNK < ray_rank[ray]:
                    mask = lane_mask(ray_rank[ray], chunk)
                    o = load3(ray_o, ray)
                    d = load3(ray_d, ray)
                    for s in range(ray_start[ray], ray_start[ray] + ray_used[ray]):
                        low, frac = grid_position(place(o, d, sample_t[s], contracted), box_min, texels_per_unit, grid)
                        q = mask * sample_grad[s]
                        if whole or part == 0:
                            scatter_plane(
                                q, m, chunk, band, n_bands, low, frac, lines, grad_planes, grid, max_chunks, False
                            )
                        if whole or part == 1:
                            scatter_line(
                                q, m, chunk, band, n_bands, low, frac, planes, grad_lines, grid, max_chunks, False
                            )


@ti.kernel
def appearance_backward(
    n_groups: ti.i32,
    n_kept: ti.i32,
    n_chunks: ti.i32,
    n_bands: ti.i32,
    n_parts: ti.i32,
    group_ray: i32_1d,
    group_start: i32_1d,
    group_kept: f32_1d,
    kept_t: f32_1d,
    kept_weight: f32_1d,
    ray_o: f32_1d,
    ray_d: f32_1d,
    contracted: ti.i32,
    ray_rank: i32_1d,
    grad_products: f32_1d,
    planes: ti.template(),
    lines: ti.template(),
    grad_planes: ti.template(),
    grad_lines: ti.template(),
    box_min: vec3,
    texels_per_unit: vec3,
    grid: ivec3,
    max_chunks: ti.i32,
    use_slope: ti.i32,
    kept_slope: f32_1d,
    atomic: ti.template(),
):
    """Adjoint of ``appearance_products``: adds to the gradient arenas, given grad_products (n_groups, 48 n_chunks).

    With use_slope = 1 it also writes kept_slope (3 n_chunks, n_kept), grad_products . p of each kept sample, from which
    ``composite.mean_gradients`` goes on. n_bands, n_parts: see ``density_backward``.
    """
    width = n_chunks * 3 * CHUNK
    if ti.static(atomic):
        for item in range(n_groups * n_chunks * 3):
            group = item // (n_chunks * 3)
            column = item % (n_chunks * 3)
            chunk = column // 3
            ray = group_ray[group]
            components = 3 * ray_rank[ray]
            below = chunk * CHUNK < components
            o = load3(ray_o, ray)
            d = load3(ray_d, ray)
            whole = load16(grad_products, group * width + column * CHUNK) * lane_mask(components, chunk)
            for j in range(group_start[group], group_start[group + 1]):
                along = 0.0
                if below:
                    low, frac = grid_position(place(o, d, kept_t[j], contracted), box_min, texels_per_unit, grid)
                    q = whole * (kept_weight[j] / group_kept[group])
                    scatter_plane(q, column % 3, chunk, 0, 1, low, frac, lines, grad_planes, grid, max_chunks, True)
                    scatter_line(q, column % 3, chunk, 0, 1, low, frac, planes, grad_lines, grid, max_chunks, True)
                    if use_slope == 1:
                        along = (whole * product(planes, lines, column % 3, chunk, low, frac, grid, max_chunks)).sum()
                if use_slope == 1:
                    kept_slope[column * n_kept + j] = along
    else:
        ti.loop_config(block_dim=1)
        for task in range(n_parts * 3 * n_chunks * n_bands):
            both = n_parts == 1
            part = task % n_parts
            column = task // n_parts % (3 * n_chunks)
            m = column % 3
            chunk = column // 3
            band = task // (n_parts * 3 * n_chunks)
            for group in range(n_groups):
                ray = group_ray[group]
                components = 3 * ray_rank[ray]
                below = chunk * CHUNK < components
                whole = vec16(0.0)
                if below:
                    whole = load16(grad_products, group * width + column * CHUNK) * lane_mask(components, chunk)
                o = load3(ray_o, ray)
                d = load3(ray_d, ray)
                for j in range(group_start[group], group_start[group + 1]):
                    wanted = use_slope == 1 and part == n_parts - 1 and j % n_bands == band
                    along = 0.0
                    if below:
                        low, frac = grid_position(place(o, d, kept_t[j], contracted), box_min, texels_per_unit, grid)
                        q = whole * (kept_weight[j] / group_kept[group])
                        if both or part == 0:
                            scatter_plane(
                                q, m, chunk, band, n_bands, low, frac, lines, grad_planes, grid, max_chunks, False
                            )
                        if both or part == 1:
                            scatter_line(
                                q, m, chunk, band, n_bands, low, frac, planes, grad_lines, grid, max_chunks, False
                            )
                        if wanted:
                            along = (whole * product(planes, lines, m, chunk, low, frac, grid, max_chunks)).sum()
                    if wanted:
                        kept_slope[column * n_kept + j] = along


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


@ti.kernel
def density_origin_gradient(
    n_rays: ti.i32,
    ray_o: f32_1d,
    ray_d: f32_1d,
    contracted: ti.i32,
    ray_rank: i32_1d,
    ray_start: i32_1d,
    ray_used: i32_1d,
    sample_t: f32_1d,
    sample_grad: f32_1d,
    planes: ti.template(),
    lines: ti.template(),
    box_min: vec3,
    texels_per_unit: vec3,
    grid: ivec3,
    max_chunks: ti.i32,
    grad_o: f32_1d,
    grad_d: f32_1d,
):
    """grad_o, grad_d (n_rays, 3): the density's part of the gradients of ray_o and ray_d, with samples at fixed t."""
    for ray in range(n_rays):
        o = load3(ray_o, ray)
        d = load3(ray_d, ray)
        by_o = vec3(0.0)
        by_d = vec3(0.0)
        for s in range(ray_start[ray], ray_start[ray] + ray_used[ray]):
            t = sample_t[s]
            low, frac = grid_position(place(o, d, t, contracted), box_min, texels_per_unit, grid)
            by_x = vec3(0.0)
            for chunk in range((ray_rank[ray] + CHUNK - 1) // CHUNK):
                q = lane_mask(ray_rank[ray], chunk) * sample_grad[s]
                for m in range(3):
                    by_x += product_slope(planes, lines, q, m, chunk, low, frac, texels_per_unit, grid, max_chunks)
            if contracted == 1:
                by_x = pull_back(o + d * t, by_x)
            by_o += by_x
            by_d += by_x * t
        for a in ti.static(range(3)):
            grad_o[3 * ray + a] = by_o[a]
            grad_d[3 * ray + a] = by_d[a]


@ti.kernel
def appearance_origin_gradient(
    n_rays: ti.i32,
    n_chunks: ti.i32,
    ray_o: f32_1d,
    ray_d: f32_1d,
    contracted: ti.i32,
    ray_rank: i32_1d,
    ray_group_start: i32_1d,
    group_start: i32_1d,
    group_kept: f32_1d,
    kept_t: f32_1d,
    kept_weight: f32_1d,
    grad_products: f32_1d,
    planes: ti.template(),
    lines: ti.template(),
    box_min: vec3,
    texels_per_unit: vec3,
    grid: ivec3,
    max_chunks: ti.i32,
    grad_o: f32_1d,
    grad_d: f32_1d,
):
    """Adds the appearance's part to grad_o and grad_d (n_rays, 3); the decoder's viewing direction has none in it."""
    width = n_chunks * 3 * CHUNK
    for ray in range(n_rays):
        o = load3(ray_o, ray)
        d = load3(ray_d, ray)
        by_o = vec3(0.0)
        by_d = vec3(0.0)
        for g in range(ray_group_start[ray], ray_group_start[ray + 1]):
            for j in range(group_start[g], group_start[g + 1]):
                t = kept_t[j]
                low, frac = grid_position(place(o, d, t, contracted), box_min, texels_per_unit, grid)
                by_x = vec3(0.0)
                for part in range(3 * ((3 * ray_rank[ray] + CHUNK - 1) // CHUNK)):
                    q = load16(grad_products, g * width + part * CHUNK) * lane_mask(3 * ray_rank[ray], part // 3)
                    by_x += product_slope(
                        planes, lines, q, part % 3, part // 3, low, frac, texels_per_unit, grid, max_chunks
                    )
                by_x *= kept_weight[j] / group_kept[g]
                if contracted == 1:
                    by_x = pull_back(o + d * t, by_x)
                by_o += by_x
                by_d += by_x * t
        for a in ti.static(range(3)):
            grad_o[3 * ray + a] = grad_o[3 * ray + a] + by_o[a]
            grad_d[3 * ray + a] = grad_d[3 * ray + a] + by_d[a]


@ti.kernel
def basis_features(n_groups: ti.i32, width: ti.i32, products: f32_1d, basis: f32_1d, features: f32_1d):
    """features (n, 27) = products (n, width) times the first rows of the basis. Adjoint: the two kernels below.

    For devices without BLAS; the CPU hands all three to numpy (``tslim.renderer``).
    """
    for item in range(n_groups * N_FEATURES):
        j = item // N_FEATURES
        i = item % N_FEATURES
        total = 0.0
        for k in range(width):
            total += products[j * width + k] * basis[k * N_FEATURES + i]
        features[item] = total


@ti.kernel
def basis_features_backward(
    n_groups: ti.i32, width: ti.i32, grad_features: f32_1d, basis: f32_1d, grad_products: f32_1d
):
    """grad_products (n, width) = grad_features times the basis transposed."""
    for item in range(n_groups * width):
        j = item // width
        k = item % width
        total = 0.0
        for i in range(N_FEATURES):
            total += grad_features[j * N_FEATURES + i] * basis[k * N_FEATURES + i]
        grad_products[item] = total


@ti.kernel
def basis_gradient(n_groups: ti.i32, width: ti.i32, products: f32_1d, grad_features: f32_1d, grad_basis: f32_1d):
    """grad_basis (width, 27) = products transposed times grad_features."""
    for item in range(width * N_FEATURES):
        k = item // N_FEATURES
        i = item % N_FEATURES
        total = 0.0
        for j in range(n_groups):
            total += products[j * width + k] * grad_features[j * N_FEATURES + i]
        grad_basis[item] = total
