"""Penalties on where along a ray its weights lie; their gradients go into ``composite.composite_backward``.

With w_i the weights of a ray's samples and s_i their places along it, in units of ``length``:

    distortion   sum_ij w_i w_j |s_i - s_j|  +  1/3 delta sum_i w_i²      (Barron et al. 2022, eq. 15)
    occlusion    sum_i w_i [s_i < near]                                   (after Yang et al. 2023)
    depth        (e - e')², e = 1 - sum_i w_i (1 - s_i), of neighbouring rays   (Niemeyer et al. 2022, eq. 4)

The first draws a ray's weight together, against fog and floaters; the second clears the space in front of the cameras;
the third makes surfaces smooth. Light that nothing stops counts there as stopped at the far end, s = 1.
"""

import taichi as ti

from kernels.launch import kernel
from kernels.tasks import indices_each
from kernels.types import f32_1d, i32_1d, record


@record
class Penalties:
    """Weights of both penalties, and the units in which they are meant.

    A sample's place is s = (sample_along - begin) / length; delta is a step in the same units as s.
    """

    distortion: ti.f32
    occlusion: ti.f32
    near: ti.f32
    begin: ti.f32
    length: ti.f32
    delta: ti.f32


@kernel
def weight_gradients(
    n_rays: ti.i32, penalties: Penalties, ray_used: i32_1d, sample_along: f32_1d, sample_weight: f32_1d,
    sample_grad: f32_1d,
):  # fmt: skip
    """sample_grad = d (distortion * first + occlusion * second penalty) / dw of each used sample.

    sample_along: how far along the ray a sample lies. One pass sums up what lies behind, another moves it to what lies
    in front.
    """
    spread = ti.static(indices_each(64))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        first = ray_used[2 * ray]
        end = ray_used[2 * ray + 1]
        behind = 0.0
        behind_moment = 0.0
        for i in range(first, end):
            behind += sample_weight[i]
            behind_moment += sample_weight[i] * (sample_along[i] - penalties.begin) / penalties.length
        front = 0.0
        front_moment = 0.0
        for i in range(first, end):
            w = sample_weight[i]
            s = (sample_along[i] - penalties.begin) / penalties.length
            behind -= w
            behind_moment -= w * s
            between = s * front - front_moment + behind_moment - s * behind
            gradient = penalties.distortion * (2.0 * between + 2.0 / 3.0 * penalties.delta * w)
            if s < penalties.near:
                gradient += penalties.occlusion
            sample_grad[i] = gradient
            front += w
            front_moment += w * s


@kernel
def smooth_depth(
    n_rays: ti.i32, side: ti.i32, weight: ti.f32, begin: ti.f32, length: ti.f32, ray_used: i32_1d,
    sample_along: f32_1d, sample_weight: f32_1d, ray_place: f32_1d, sample_grad: f32_1d,
):  # fmt: skip
    """Adds to sample_grad d (weight * sum of (e - e')² over pairs) / dw of each used sample.

    Rays come in patches of side × side, one after another; a pair are two that are beside or below each other.
    ray_place (n_rays): e of each.
    """
    spread = ti.static(indices_each(64))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        place = 1.0
        for s in range(ray_used[2 * ray], ray_used[2 * ray + 1]):
            place -= sample_weight[s] * (1.0 - (sample_along[s] - begin) / length)
        ray_place[ray] = place
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        row = ray % (side * side) // side
        column = ray % side
        apart = 0.0
        if column > 0:
            apart += ray_place[ray] - ray_place[ray - 1]
        if column < side - 1:
            apart += ray_place[ray] - ray_place[ray + 1]
        if row > 0:
            apart += ray_place[ray] - ray_place[ray - side]
        if row < side - 1:
            apart += ray_place[ray] - ray_place[ray + side]
        for s in range(ray_used[2 * ray], ray_used[2 * ray + 1]):
            sample_grad[s] -= 2.0 * weight * apart * (1.0 - (sample_along[s] - begin) / length)
