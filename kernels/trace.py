"""From density along a ray to the weights of its samples; with adjoint.

For the samples i = 0, 1, .. of a ray, front to back, each of length delta, and with s = distance_scale (Max 1995):

    (1)  alpha_i = 1 - exp(-s sigma_i delta)
    (2)  T_i = prod_{j<i} (1 - alpha_j)                      transmittance in front of sample i
    (3)  w_i = T_i alpha_i

A ray ends behind the sample after which T falls below ``early_stop``; samples behind it are not looked at and get no
gradient. Those that were looked at are *used*: ray_used (n_rays, 2) holds the first of a ray, and the one behind its
last. From dw_j/dsigma_i = s delta (T_{i+1} [j = i] - w_j [j > i]) follows

    (4)  dL/dsigma_i = s delta ( T_{i+1} dL/dw_i  -  sum_{j>i} w_j dL/dw_j )
    (5)  dL/df_i = dL/dsigma_i activation'(z_i) s_rank,   z_i = s_rank f_i + b_rank + shift      (``density.py``)
"""

import taichi as ti

from kernels.density import Activation, density_features
from kernels.launch import kernel, vector_kernel
from kernels.maths import exp_minus
from kernels.tasks import RUN, indices_each, on_cpu
from kernels.types import f32_1d, i32_1d, load3, record, store3
from kernels.vectors import vec16_1d
from kernels.vm import SCALES_WIDTH, Lattice


@record
class Medium:
    """What light passes through: how features become density, s delta of a sample, and the transmittance at which a ray
    ends.
    """

    activation: Activation
    delta_scaled: ti.f32
    early_stop: ti.f32


@vector_kernel
def trace_density(
    n_marched: ti.i32, copies: ti.template(), ray_o: f32_1d, ray_d: f32_1d, ray_rank: i32_1d, ray_start: i32_1d,
    sample_t: f32_1d, factors: vec16_1d, rank_scales: f32_1d, lattice: Lattice, medium: Medium,
    sample_at: f32_1d, sample_feature: f32_1d, sample_weight: f32_1d, ray_used: i32_1d,
):  # fmt: skip
    """Density feature and weight of each sample, front to back until the ray ends.

    Rays i, i + n_marched, .. are the same but for their rank, ``copies`` of them: their samples are at the same
    places, where texels are read once for all. ray_o, ray_d: of at least n_marched rays.
    Out: ray_used and, of each used sample, sample_at (xyz in texels of the grid), sample_feature and sample_weight.
    Adjoint: ``trace_backward`` and ``density.density_backward``.
    """
    spread = ti.static(indices_each(16))
    for index in range(n_marched * spread):
        if index % spread > 0:
            continue
        marched = index // spread
        o = load3(ray_o, marched)
        d = load3(ray_d, marched)
        ranks = ti.Vector([0] * copies)
        transmittance = ti.Vector([1.0] * copies)
        used = ti.Vector([0] * copies)
        for r in ti.static(range(copies)):
            ranks[r] = ray_rank[r * n_marched + marched]
        count = ray_start[marched + 1] - ray_start[marched]
        k = 0
        while k < count:
            t = sample_t[ray_start[marched] + k]
            at = lattice.along_ray(o, d, t)
            features = density_features(factors, lattice.layout, at, ranks)
            going = 0
            for r in ti.static(range(copies)):
                if used[r] == k:
                    s = ray_start[r * n_marched + marched] + k
                    scale, shift = medium.activation.scale_and_shift(rank_scales, ranks[r])
                    sigma = medium.activation.density(scale * features[r] + shift)
                    passed = exp_minus(medium.delta_scaled * sigma)  # 1 - (1)
                    weight = transmittance[r] * (1.0 - passed)  # (3)
                    transmittance[r] *= passed  # (2)
                    store3(sample_at, s, at)
                    sample_feature[s] = features[r]
                    sample_weight[s] = weight
                    used[r] += 1
                    # A ray that has ended has used fewer samples than there were.
                    if transmittance[r] >= medium.early_stop:
                        going = 1
                    else:
                        used[r] = -used[r]
            k += 1
            if going == 0:
                count = k
        for r in ti.static(range(copies)):
            ray = r * n_marched + marched
            ray_used[2 * ray] = ray_start[ray]
            ray_used[2 * ray + 1] = ray_start[ray] + ti.abs(used[r])


@kernel
def trace_backward(
    n_rays: ti.i32, ray_rank: i32_1d, ray_used: i32_1d,
    sample_t: f32_1d, sample_feature: f32_1d, sample_weight: f32_1d,
    rank_scales: f32_1d, medium: Medium, fade: ti.f32, sample_grad: f32_1d,
    ray_grad_scales: f32_1d,
):  # fmt: skip
    """Adjoint of ``trace_density`` down to the density feature: sample_grad, dL/dw of each used sample, becomes dL/df.

    fade > 0 shortens gradients of samples at t < fade by (t / fade)², since every ray passes there more densely than
    anywhere else (Philip & Deschaintre 2023): then they are no gradients of any loss. Out also ray_grad_scales
    (n_rays, 2): each ray's part of the gradient of its rank's scale and shift.
    """
    spread = ti.static(indices_each(32))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        first = ray_used[2 * ray]
        end = ray_used[2 * ray + 1]
        behind = 0.0
        for s in range(first, end):
            behind += sample_weight[s] * sample_grad[s]
        scale, shift = medium.activation.scale_and_shift(rank_scales, ray_rank[ray])
        transmittance = 1.0
        grad_scale = 0.0
        grad_shift = 0.0
        for s in range(first, end):
            f = sample_feature[s]
            z = scale * f + shift
            gw = sample_grad[s]
            transmittance *= exp_minus(medium.delta_scaled * medium.activation.density(z))  # T_{i+1} of (2)
            behind -= sample_weight[s] * gw
            gz = medium.delta_scaled * (transmittance * gw - behind) * medium.activation.slope(z)  # (4)
            if sample_t[s] < fade:
                gz *= sample_t[s] * sample_t[s] / (fade * fade)
            sample_grad[s] = gz * scale  # (5)
            grad_scale += gz * f
            grad_shift += gz
        ray_grad_scales[2 * ray] = grad_scale
        ray_grad_scales[2 * ray + 1] = grad_shift


@kernel
def lift_fade(n_rays: ti.i32, ray_used: i32_1d, sample_t: f32_1d, fade: ti.f32, sample_grad: f32_1d):
    """Takes back what ``trace_backward`` shortened gradients by: sample_grad is that of the loss again."""
    spread = ti.static(indices_each(32))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        for s in range(ray_used[2 * ray], ray_used[2 * ray + 1]):
            if sample_t[s] < fade:
                sample_grad[s] = sample_grad[s] * fade * fade / ti.max(sample_t[s] * sample_t[s], 1e-12)


@kernel
def sum_rank_scales(
    n_rays: ti.i32, max_rank: ti.i32, ray_rank: i32_1d, ray_grad_scales: f32_1d, grad_rank_scales: f32_1d
):
    """Adds each ray's density scale and shift gradients to its rank's row of grad_rank_scales (max_rank, 56)."""
    if ti.static(on_cpu()):
        spread = ti.static(indices_each(1))
        for index in range(max_rank * spread):
            if index % spread > 0:
                continue
            r = index // spread
            for ray in range(n_rays):
                if ray_rank[ray] == r + 1:
                    at = r * SCALES_WIDTH
                    grad_rank_scales[at] = grad_rank_scales[at] + ray_grad_scales[2 * ray]
                    grad_rank_scales[at + 1] = grad_rank_scales[at + 1] + ray_grad_scales[2 * ray + 1]
    else:
        for item in range(2 * ((n_rays + RUN - 1) // RUN)):
            which = item % 2
            at = -1
            total = 0.0
            for ray in range(item // 2 * RUN, ti.min((item // 2 + 1) * RUN, n_rays)):
                row = (ray_rank[ray] - 1) * SCALES_WIDTH + which
                if row != at:
                    if at >= 0:
                        ti.atomic_add(grad_rank_scales[at], total)
                    at = row
                    total = 0.0
                total += ray_grad_scales[2 * ray + which]
            ti.atomic_add(grad_rank_scales[at], total)
