"""Rays to the sparse points of structure from motion, and what stands where such a ray should be free, or stop.

A point that a photograph shows is seen along the ray from its camera: before it there is nothing, and there light
stops. With w_i the weights of a ray's samples, t_i where they lie and [low, high] the place of its point:

    weight * (sum_i w_i [t_i < low]  +  (1 - sum_i w_i [low <= t_i <= high])²)

After Deng et al. 2022 (DS-NeRF), with a sum before the point and at it in place of a distribution around it.
"""

import taichi as ti

from kernels.launch import kernel
from kernels.random import uniform
from kernels.tasks import indices_each
from kernels.types import f32_1d, i32_1d

SIGHTING = 8
"""Numbers of a sighting: origin and unit direction of its ray, then low and high."""


@kernel
def aim(
    n_rays: ti.i32, n_points: ti.i32, n_ranks: ti.i32, seed: ti.u32, step: ti.i32, first: i32_1d, sightings: f32_1d,
    seen_rank: i32_1d, ray_o: f32_1d, ray_d: f32_1d, ray_rank: i32_1d, ray_ends: f32_1d,
):  # fmt: skip
    """Rays of a step of training: each to a point drawn at random, from a photograph drawn of those that show it.

    first (n_points + 1): where a point's sightings begin; sightings (., SIGHTING). Ranks are those of seen_rank
    (n_ranks), in turn. ray_o, ray_d (n_rays, 3); ray_ends (n_rays, 2): low and high.
    """
    spread = ti.static(indices_each(64))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        draw = ti.cast(2 * ray, ti.u32)
        point = ti.min(ti.cast(uniform(seed, ti.cast(step, ti.u32), draw) * n_points, ti.i32), n_points - 1)
        count = first[point + 1] - first[point]
        nth = ti.cast(uniform(seed, ti.cast(step, ti.u32), draw + ti.u32(1)) * count, ti.i32)
        at = SIGHTING * (first[point] + ti.min(nth, count - 1))
        for a in ti.static(range(3)):
            ray_o[3 * ray + a] = sightings[at + a]
            ray_d[3 * ray + a] = sightings[at + 3 + a]
        ray_ends[2 * ray] = sightings[at + 6]
        ray_ends[2 * ray + 1] = sightings[at + 7]
        ray_rank[ray] = seen_rank[ray % n_ranks]


@kernel
def weight_gradients(
    n_rays: ti.i32, weight: ti.f32, ray_ends: f32_1d, ray_used: i32_1d, sample_t: f32_1d, sample_weight: f32_1d,
    sample_grad: f32_1d,
):  # fmt: skip
    """sample_grad = d (the sum over rays of what the module's text says) / dw of each used sample."""
    spread = ti.static(indices_each(64))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        low = ray_ends[2 * ray]
        high = ray_ends[2 * ray + 1]
        stopped = 0.0
        for i in range(ray_used[2 * ray], ray_used[2 * ray + 1]):
            if low <= sample_t[i] and sample_t[i] <= high:
                stopped += sample_weight[i]
        for i in range(ray_used[2 * ray], ray_used[2 * ray + 1]):
            gradient = 0.0
            if sample_t[i] < low:
                gradient = weight
            elif sample_t[i] <= high:
                gradient = -2.0 * weight * (1.0 - stopped)
            sample_grad[i] = gradient
