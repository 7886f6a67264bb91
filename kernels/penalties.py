"""Penalties on where along a ray its weights lie; their gradients go into ``composite.composite_backward``.

With w_i the weights of a ray's samples and s_i their places along it, in units of ``length``:

    distortion   sum_ij w_i w_j |s_i - s_j|  +  1/3 delta sum_i w_i²      (Barron et al. 2022, eq. 15)
    occlusion    sum_i w_i [s_i < near]                                   (after Yang et al. 2023)

The first draws a ray's weight together, against fog and floaters; the second clears the space in front of the cameras.
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
