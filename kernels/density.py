"""The density feature, masked by rank, and density; with adjoints.

    f(x, rank) = sum_m sum_{k < rank} p^m_k(x)                              (SlimmeRF eq. 2; p: ``vm.py``)
    sigma(x, rank) = activation(s_rank f + b_rank + shift)

s and b are the optional scale and shift per rank (one and zero when unused). Components at and above the rank are
neither added nor given a gradient; chunks that lie wholly above it are not read.
"""

import taichi as ti

from kernels.launch import vector_kernel
from kernels.space import pull_back
from kernels.tasks import indices_each, scatter_items, scatter_share
from kernels.types import f32_1d, i32_1d, ivec3, load3, vec3
from kernels.vectors import CHUNK, below, lane_mask, vec16, vec16_1d
from kernels.vm import AFFINE_WIDTH, in_box, on_grid, product, product_slope, scatter_line, scatter_plane, texel_below


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
def density_components(
    planes: ti.template(),
    lines: ti.template(),
    chunk: ti.i32,
    low: ivec3,
    frac: vec3,
    grid: ivec3,
    max_chunks: ti.i32,
) -> vec16:
    """What each of a chunk's 16 components adds to the density feature: its products in the three modes."""
    acc = vec16(0.0)
    for m in ti.static(range(3)):
        acc += product(planes, lines, m, chunk, low, frac, grid, max_chunks)
    return acc


@ti.func
def density_feature(
    planes: ti.template(),
    lines: ti.template(),
    at: vec3,
    rank: ti.i32,
    grid: ivec3,
    max_chunks: ti.i32,
) -> ti.f32:
    """f(x, rank): the sum over modes and the first ``rank`` components; ``at`` is x on the grid."""
    low, frac = texel_below(at, grid)
    total = 0.0
    for chunk in range((rank + CHUNK - 1) // CHUNK):
        total += below(density_components(planes, lines, chunk, low, frac, grid, max_chunks), rank, chunk).sum()
    return total


@ti.func
def density_features(
    planes: ti.template(),
    lines: ti.template(),
    at: vec3,
    ranks: ti.template(),
    grid: ivec3,
    max_chunks: ti.i32,
):
    """``density_feature`` at several ranks (a vector), for which texels are read once."""
    features = ti.Vector([0.0] * ranks.n)
    if ti.static(ranks.n == 1):
        features[0] = density_feature(planes, lines, at, ranks[0], grid, max_chunks)
    else:
        low, frac = texel_below(at, grid)
        last = 0
        for r in ti.static(range(ranks.n)):
            last = ti.max(last, ranks[r])
        for chunk in range((last + CHUNK - 1) // CHUNK):
            components = density_components(planes, lines, chunk, low, frac, grid, max_chunks)
            sums = vec16(0.0)  # of the chunk's first 1, 2, .. components
            total = 0.0
            for lane in ti.static(range(CHUNK)):
                total += components[lane]
                sums[lane] = total
            for r in ti.static(range(ranks.n)):
                some = ti.min(ranks[r] - chunk * CHUNK, CHUNK)
                if some > 0:
                    features[r] += sums[some - 1]
    return features


@vector_kernel
def density_at(
    n: ti.i32,
    points: f32_1d,
    point_rank: i32_1d,
    planes: vec16_1d,
    lines: vec16_1d,
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
            at = on_grid(x, box_min, texels_per_unit, grid)
            f = density_feature(planes, lines, at, rank, grid, max_chunks)
            a = (rank - 1) * AFFINE_WIDTH
            sigma[i] = activate(f, affine[a], affine[a + 1] + density_shift, use_softplus)


@ti.func
def find_copies(
    path: ti.i32,
    n_paths: ti.i32,
    copies: ti.template(),
    chunk: ti.i32,
    ray_rank: ti.template(),
    ray_start: ti.template(),
    ray_used: ti.template(),
):
    """Rank, first sample and number of samples (0 at ranks without the chunk) of a path's rays, as vectors; and which
    of them has the most samples.
    """
    ranks = ti.Vector([0] * copies)
    starts = ti.Vector([0] * copies)
    used = ti.Vector([0] * copies)
    longest = 0
    for r in ti.static(range(copies)):
        ray = r * n_paths + path
        ranks[r] = ray_rank[ray]
        starts[r] = ray_start[ray]
        if chunk * CHUNK < ranks[r]:
            used[r] = ray_used[ray]
        if used[r] > used[longest]:
            longest = r
    return ranks, starts, used, longest


@ti.func
def sum_copies(
    k: ti.i32,
    chunk: ti.i32,
    mask: vec16,
    ranks: ti.template(),
    starts: ti.template(),
    used: ti.template(),
    sample_grad: ti.template(),
) -> vec16:
    """dL/dp of a chunk's components at sample k of a path's rays: each component's from the rays of higher rank.

    ``mask``: the lanes below the first ray's rank.
    """
    q = vec16(0.0)
    if ti.static(ranks.n == 1):
        q = mask * sample_grad[starts[0] + k]
    else:
        for r in ti.static(range(ranks.n)):
            if k < used[r]:
                q[ti.min(ranks[r] - chunk * CHUNK, CHUNK) - 1] += sample_grad[starts[r] + k]
        for lane in ti.static(range(CHUNK - 2, -1, -1)):
            q[lane] += q[lane + 1]
    return q


@vector_kernel
def density_backward(
    n_paths: ti.i32,
    copies: ti.template(),
    n_chunks: ti.i32,
    threads: ti.i32,
    n_whole: ti.i32,
    n_bands: ti.i32,
    n_parts: ti.i32,
    ray_rank: i32_1d,
    ray_start: i32_1d,
    ray_used: i32_1d,
    sample_at: f32_1d,
    sample_grad: f32_1d,
    planes: vec16_1d,
    lines: vec16_1d,
    grad_planes: vec16_1d,
    grad_lines: vec16_1d,
    grid: ivec3,
    max_chunks: ti.i32,
    atomic: ti.template(),
):
    """Adjoint of the density feature: adds to the gradient arenas, given sample_grad = dL/df of each used sample.

    sample_at, n_paths, copies: as ``composite.trace_density`` left and takes them.

    On the CPU a thread owns what it writes; threads, n_whole, n_bands, n_parts: see ``tasks.scatter_share``.
    """
    if ti.static(atomic):
        for item in range(n_paths * n_chunks * 3):
            path = item % n_paths
            chunk = item // n_paths // 3
            m = item // n_paths % 3
            ranks, starts, used, longest = find_copies(path, n_paths, copies, chunk, ray_rank, ray_start, ray_used)
            mask = lane_mask(ranks[0], chunk)
            for k in range(used[longest]):
                low, frac = texel_below(load3(sample_at, starts[longest] + k), grid)
                q = sum_copies(k, chunk, mask, ranks, starts, used, sample_grad)
                scatter_plane(q, m, chunk, 0, 1, low, frac, lines, grad_planes, grid, max_chunks, True)
                scatter_line(q, 0, m, chunk, 0, 1, low, frac, planes, lines, grad_lines, grid, max_chunks, True)
    else:
        spread = ti.static(indices_each(1))
        for index in range(scatter_items(3 * n_chunks, threads, n_whole, n_bands, n_parts) * spread):
            if index % spread > 0:
                continue
            item = index // spread
            task, plane, line, band, bands = scatter_share(item, 3 * n_chunks, threads, n_whole, n_bands, n_parts)
            m = task % 3
            chunk = task // 3
            for path in range(n_paths):
                ranks, starts, used, longest = find_copies(path, n_paths, copies, chunk, ray_rank, ray_start, ray_used)
                mask = lane_mask(ranks[0], chunk)
                for k in range(used[longest]):
                    low, frac = texel_below(load3(sample_at, starts[longest] + k), grid)
                    q = sum_copies(k, chunk, mask, ranks, starts, used, sample_grad)
                    if plane == 1:
                        scatter_plane(q, m, chunk, band, bands, low, frac, lines, grad_planes, grid, max_chunks, False)
                    if line == 1:
                        scatter_line(
                            q, 0, m, chunk, band, bands, low, frac, planes, lines, grad_lines, grid, max_chunks, False
                        )


@vector_kernel
def density_ray_gradients(
    n_rays: ti.i32,
    ray_o: f32_1d,
    ray_d: f32_1d,
    contracted: ti.i32,
    ray_rank: i32_1d,
    ray_start: i32_1d,
    ray_used: i32_1d,
    sample_t: f32_1d,
    sample_at: f32_1d,
    sample_grad: f32_1d,
    planes: vec16_1d,
    lines: vec16_1d,
    texels_per_unit: vec3,
    grid: ivec3,
    max_chunks: ti.i32,
    grad_o: f32_1d,
    grad_d: f32_1d,
):
    """grad_o, grad_d (n_rays, 3): the density's part of the gradients of ray_o and ray_d, with samples at fixed t."""
    spread = ti.static(indices_each(16))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        o = load3(ray_o, ray)
        d = load3(ray_d, ray)
        by_o = vec3(0.0)
        by_d = vec3(0.0)
        for s in range(ray_start[ray], ray_start[ray] + ray_used[ray]):
            t = sample_t[s]
            low, frac = texel_below(load3(sample_at, s), grid)
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
