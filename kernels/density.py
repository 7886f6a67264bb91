"""The density feature, masked by rank, and density; with adjoints.

    f(x, rank) = sum_m sum_{k < rank} p^m_k(x)                              (SlimmeRF eq. 2; p: ``vm.py``)
    sigma(x, rank) = activation(z),   z = s_rank f + b_rank + shift

s and b are the optional scale and shift per rank (one and zero when unused). Components at and above the rank are
neither added nor given a gradient; chunks that lie wholly above it are not read.
"""

import taichi as ti

from kernels.launch import vector_kernel
from kernels.maths import softplus
from kernels.tasks import Cut, Portion, indices_each, whole_portion
from kernels.types import f32_1d, i32_1d, load3, record, store3, vec3
from kernels.vectors import CHUNK, below, lane_mask, vec16, vec16_1d
from kernels.vm import (
    SCALES_WIDTH,
    Lattice,
    Layout,
    Spot,
    product,
    product_slope,
    scatter_line,
    scatter_plane,
)


@record
class Activation:
    """How the density feature becomes density: by softplus or relu of z = s f + b + ``shift``."""

    shift: ti.f32
    use_softplus: ti.i32

    @ti.func
    def scale_and_shift(self, rank_scales: ti.template(), rank: ti.i32):
        """s and b + shift of a rank."""
        at = (rank - 1) * SCALES_WIDTH
        return rank_scales[at], rank_scales[at + 1] + self.shift

    @ti.func
    def density(self, z: ti.f32) -> ti.f32:
        """sigma."""
        sigma = ti.max(z, 0.0)
        if self.use_softplus == 1:
            sigma = softplus(z)
        return sigma

    @ti.func
    def slope(self, z: ti.f32) -> ti.f32:
        """d sigma / d z."""
        slope = ti.select(z > 0.0, 1.0, 0.0)
        if self.use_softplus == 1:
            slope = 1.0 / (1.0 + ti.exp(-z))
        return slope


@ti.func
def density_components(factors: ti.template(), layout: ti.template(), chunk: ti.i32, spot: Spot) -> vec16:
    """What each of a chunk's 16 components adds to the density feature: its products in the three modes."""
    acc = vec16(0.0)
    for m in ti.static(range(3)):
        acc += product(factors, layout.corner(m, chunk, spot))
    return acc


@ti.func
def density_feature(factors: ti.template(), layout: ti.template(), at: vec3, rank: ti.i32) -> ti.f32:
    """f(x, rank): the sum over modes and the first ``rank`` components; ``at`` is x on the grid."""
    spot = layout.spot(at)
    total = 0.0
    for chunk in range((rank + CHUNK - 1) // CHUNK):
        total += below(density_components(factors, layout, chunk, spot), rank, chunk).sum()
    return total


@ti.func
def density_features(factors: ti.template(), layout: ti.template(), at: vec3, ranks: ti.template()):
    """``density_feature`` at several ranks (a vector), for which texels are read once."""
    features = ti.Vector([0.0] * ranks.n)
    if ti.static(ranks.n == 1):
        features[0] = density_feature(factors, layout, at, ranks[0])
    else:
        spot = layout.spot(at)
        last = 0
        for r in ti.static(range(ranks.n)):
            last = ti.max(last, ranks[r])
        for chunk in range((last + CHUNK - 1) // CHUNK):
            components = density_components(factors, layout, chunk, spot)
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
    n: ti.i32, points: f32_1d, point_rank: i32_1d, factors: vec16_1d, rank_scales: f32_1d, lattice: Lattice,
    activation: Activation, sigma: f32_1d,
):  # fmt: skip
    """Density (per unit of the field, before the distance scale) at points (n, 3) in field coordinates, each at its own
    rank; 0 outside the box.
    """
    for i in range(n):
        x = load3(points, i)
        sigma[i] = 0.0
        rank = point_rank[i]
        if lattice.holds(x) == 1 and rank > 0:
            f = density_feature(factors, lattice.layout, lattice.on_grid(x), rank)
            scale, shift = activation.scale_and_shift(rank_scales, rank)
            sigma[i] = activation.density(scale * f + shift)


@ti.func
def find_copies(marched: ti.i32, n_marched: ti.i32, copies: ti.template(), chunk: ti.i32, rays: ti.template()):
    """Rank, first sample and number of samples (0 at ranks without the chunk) of a marched ray's copies; and
    which of them has the most samples.
    """
    ray_rank, ray_used = ti.static(rays)
    ranks = ti.Vector([0] * copies)
    starts = ti.Vector([0] * copies)
    used = ti.Vector([0] * copies)
    longest = 0
    for r in ti.static(range(copies)):
        ray = r * n_marched + marched
        ranks[r] = ray_rank[ray]
        starts[r] = ray_used[2 * ray]
        if chunk * CHUNK < ranks[r]:
            used[r] = ray_used[2 * ray + 1] - starts[r]
        if used[r] > used[longest]:
            longest = r
    return ranks, starts, used, longest


@ti.func
def sum_copies(
    k: ti.i32, chunk: ti.i32, mask: vec16, ranks: ti.template(), starts: ti.template(), used: ti.template(),
    sample_grad: ti.template(),
) -> vec16:  # fmt: skip
    """dL/dp of a chunk's components at sample k of a marched ray's copies: each component's from those of higher rank.

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


@ti.func
def scatter_marched(
    marched: ti.i32, n_marched: ti.i32, copies: ti.template(), portion: Portion, layout: ti.template(),
    rays: ti.template(), samples: ti.template(), factors: ti.template(), atomic: ti.template(),
):  # fmt: skip
    """Adds a portion of the gradients that a marched ray's samples have: what the two kernels below have in common."""
    sample_at, sample_grad = ti.static(samples)
    values, grad = ti.static(factors)
    m = portion.task % 3
    chunk = portion.task // 3
    ranks, starts, used, longest = find_copies(marched, n_marched, copies, chunk, rays)
    mask = lane_mask(ranks[0], chunk)
    for k in range(used[longest]):
        corner = layout.corner(m, chunk, layout.spot(load3(sample_at, starts[longest] + k)))
        q = sum_copies(k, chunk, mask, ranks, starts, used, sample_grad)
        if portion.plane == 1:
            scatter_plane(q, corner, portion, values, grad, atomic)
        if portion.line == 1:
            scatter_line(q, corner, portion, values, grad, 0, atomic)


@vector_kernel
def density_backward(
    n_marched: ti.i32, copies: ti.template(), n_chunks: ti.i32, cut: Cut,
    ray_rank: i32_1d, ray_used: i32_1d, sample_at: f32_1d, sample_grad: f32_1d,
    factors: vec16_1d, grad_factors: vec16_1d, layout: Layout,
):  # fmt: skip
    """Adjoint of the density feature: adds to grad_factors, given sample_grad = dL/df of each used sample.

    sample_at, n_marched, copies: as ``trace.trace_density`` takes and leaves them. For the CPU: a thread owns what it
    writes.
    """
    n_tasks = 3 * n_chunks
    spread = ti.static(indices_each(1))
    for index in range(cut.portions(n_tasks) * spread):
        if index % spread > 0:
            continue
        portion = cut.portion(index // spread, n_tasks)
        for marched in range(n_marched):
            scatter_marched(
                marched, n_marched, copies, portion, layout, (ray_rank, ray_used), (sample_at, sample_grad),
                (factors, grad_factors), False,
            )  # fmt: skip


@vector_kernel
def density_backward_atomic(
    n_marched: ti.i32, copies: ti.template(), n_chunks: ti.i32, ray_rank: i32_1d, ray_used: i32_1d,
    sample_at: f32_1d, sample_grad: f32_1d, factors: vec16_1d, grad_factors: vec16_1d, layout: Layout,
):  # fmt: skip
    """``density_backward`` for a GPU: a thread for each marched ray, chunk and mode, by atomics."""
    for item in range(n_marched * n_chunks * 3):
        scatter_marched(
            item % n_marched, n_marched, copies, whole_portion(item // n_marched), layout,
            (ray_rank, ray_used), (sample_at, sample_grad), (factors, grad_factors), True,
        )  # fmt: skip


@vector_kernel
def density_slopes(
    n_rays: ti.i32, ray_rank: i32_1d, ray_used: i32_1d, sample_at: f32_1d, sample_grad: f32_1d, factors: vec16_1d,
    layout: Layout, sample_slope: f32_1d,
):  # fmt: skip
    """sample_slope (n, 3): the density's part of dL/dx of each used sample, x in texels. See ``ray_gradients``."""
    spread = ti.static(indices_each(16))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        for s in range(ray_used[2 * ray], ray_used[2 * ray + 1]):
            spot = layout.spot(load3(sample_at, s))
            slope = vec3(0.0)
            for chunk in range((ray_rank[ray] + CHUNK - 1) // CHUNK):
                q = lane_mask(ray_rank[ray], chunk) * sample_grad[s]
                for m in range(3):
                    slope += product_slope(factors, q, m, layout.corner(m, chunk, spot))
            store3(sample_slope, s, slope)
