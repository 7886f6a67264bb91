"""From density to weights, and from weights and colours to pixels; with adjoints.

For the samples i = 0, 1, .. of a ray, front to back, each of length delta, and with s = distance_scale (Max 1995):

    alpha_i = 1 - exp(-s sigma_i delta),   T_i = prod_{j<i} (1 - alpha_j),   w_i = T_i alpha_i
    C = sum_i w_i c_i + (1 - sum_i w_i) background,      depth = sum_i w_i t_i,      opacity = sum_i w_i

A ray ends after the sample at which T falls below ``stop_transmittance``; samples behind it are not looked at and get
no gradient. Only samples with w_i > weight_threshold are given a colour ("kept"); the others count as black, as in
TensoRF. The gradient of the weights follows from dw_j/dsigma_i = s delta (T_{i+1} [j = i] - w_j [j > i]):

    dL/dsigma_i = s delta ( T_{i+1} dL/dw_i  -  sum_{j>i} w_j dL/dw_j )

With a ``span`` above 0, kept samples within it of a group's first form that *group* and share one colour: the decoder
sees the mean P of their appearance products p_i, weighted by w_i, with K = sum w_i. Samples that are not kept take the
colour of the group before them (or else behind them) instead of black, so W, what a group's colour counts for, includes
them. With a span of 0 each kept sample is a group of its own, W = K = w, and nothing of this has an effect. Through the
mean the weight of a kept sample has one more effect,

    dL/dw_i = dL/dP . (p_i - P) / K  +  ...
"""

import taichi as ti

from kernels.density import activate, activate_slope, density_features, exp_minus
from kernels.launch import kernel, vector_kernel
from kernels.space import place
from kernels.tasks import indices_each
from kernels.types import f32_1d, i32_1d, ivec3, load3, vec3
from kernels.vectors import vec16_1d
from kernels.vm import AFFINE_WIDTH, on_grid


@vector_kernel
def trace_density(
    n_paths: ti.i32,
    copies: ti.template(),
    ray_o: f32_1d,
    ray_d: f32_1d,
    contracted: ti.i32,
    ray_rank: i32_1d,
    ray_start: i32_1d,
    sample_t: f32_1d,
    planes: vec16_1d,
    lines: vec16_1d,
    affine: f32_1d,
    box_min: vec3,
    texels_per_unit: vec3,
    grid: ivec3,
    max_chunks: ti.i32,
    density_shift: ti.f32,
    use_softplus: ti.i32,
    delta_scaled: ti.f32,
    stop_transmittance: ti.f32,
    weight_threshold: ti.f32,
    sample_along: f32_1d,
    span: ti.f32,
    sample_at: f32_1d,
    sample_feature: f32_1d,
    sample_weight: f32_1d,
    ray_used: i32_1d,
    ray_kept: i32_1d,
    ray_groups: i32_1d,
    ray_opacity: f32_1d,
    ray_depth: f32_1d,
):
    """Density feature and weight of each sample, front to back until the ray ends.

    Rays path, path + n_paths, .. of n_paths copies are the same but for their rank: their samples are at the same
    places, where texels are read once for all. ray_o, ray_d: of at least n_paths rays. delta_scaled = s delta;
    sample_along: how far along the ray a sample lies, in the units of span (sample_t, but where space is contracted).
    Out, for the first ray_used[i] samples of ray i: sample_at (xyz in texels of the grid), sample_feature,
    sample_weight; and per ray the numbers of kept samples and of their groups, the opacity and the depth (sum of w t).
    Adjoint: ``composite_backward`` and ``density.density_backward``.
    """
    spread = ti.static(indices_each(16))
    for index in range(n_paths * spread):
        if index % spread > 0:
            continue
        path = index // spread
        o = load3(ray_o, path)
        d = load3(ray_d, path)
        ranks = ti.Vector([0] * copies)
        light = ti.Vector([1.0] * copies)
        used = ti.Vector([0] * copies)
        kept = ti.Vector([0] * copies)
        groups = ti.Vector([0] * copies)
        group_along = ti.Vector([0.0] * copies)
        opacity = ti.Vector([0.0] * copies)
        depth = ti.Vector([0.0] * copies)
        for r in ti.static(range(copies)):
            ranks[r] = ray_rank[r * n_paths + path]
        count = ray_start[path + 1] - ray_start[path]
        k = 0
        while k < count:
            t = sample_t[ray_start[path] + k]
            along = sample_along[ray_start[path] + k]
            at = on_grid(place(o, d, t, contracted), box_min, texels_per_unit, grid)
            features = density_features(planes, lines, at, ranks, grid, max_chunks)
            going = 0
            for r in ti.static(range(copies)):
                if used[r] == k:
                    s = ray_start[r * n_paths + path] + k
                    a = (ranks[r] - 1) * AFFINE_WIDTH
                    sigma = activate(features[r], affine[a], affine[a + 1] + density_shift, use_softplus)
                    through = exp_minus(delta_scaled * sigma)
                    weight = light[r] * (1.0 - through)
                    light[r] *= through
                    for i in ti.static(range(3)):
                        sample_at[3 * s + i] = at[i]
                    sample_feature[s] = features[r]
                    sample_weight[s] = weight
                    opacity[r] += weight
                    depth[r] += weight * t
                    if weight > weight_threshold:
                        kept[r] += 1
                        if groups[r] == 0 or along - group_along[r] > span:
                            groups[r] += 1
                            group_along[r] = along
                    used[r] += 1
                    # A ray that has ended has used fewer samples than there were.
                    if light[r] >= stop_transmittance:
                        going = 1
                    else:
                        used[r] = -used[r]
            k += 1
            if going == 0:
                count = k
        for r in ti.static(range(copies)):
            ray = r * n_paths + path
            ray_used[ray] = ti.abs(used[r])
            ray_kept[ray] = kept[r]
            ray_groups[ray] = groups[r]
            ray_opacity[ray] = opacity[r]
            ray_depth[ray] = depth[r]


@kernel
def collect_kept(
    n_rays: ti.i32,
    ray_start: i32_1d,
    ray_used: i32_1d,
    sample_t: f32_1d,
    sample_at: f32_1d,
    sample_weight: f32_1d,
    weight_threshold: ti.f32,
    sample_along: f32_1d,
    span: ti.f32,
    ray_kept_start: i32_1d,
    ray_group_start: i32_1d,
    kept_t: f32_1d,
    kept_at: f32_1d,
    kept_weight: f32_1d,
    group_ray: i32_1d,
    group_start: i32_1d,
    group_kept: f32_1d,
    group_weight: f32_1d,
):
    """Packs the kept samples, ray by ray from ray_kept_start[ray], and their groups from ray_group_start[ray].

    Group g holds the kept samples group_start[g] to group_start[g + 1], n_groups + 1 starts are written; group_kept and
    group_weight are its K and W.
    """
    spread = ti.static(indices_each(64))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        at = ray_kept_start[ray]
        g = ray_group_start[ray] - 1
        group_along = 0.0
        kept = 0.0
        total = 0.0
        for s in range(ray_start[ray], ray_start[ray] + ray_used[ray]):
            weight = sample_weight[s]
            if weight > weight_threshold:
                along = sample_along[s]
                if at == ray_kept_start[ray] or along - group_along > span:
                    if at > ray_kept_start[ray]:
                        total = 0.0
                    g += 1
                    group_along = along
                    kept = 0.0
                    group_ray[g] = ray
                    group_start[g] = at
                kept += weight
                total += weight
                kept_t[at] = sample_t[s]
                for a in ti.static(range(3)):
                    kept_at[3 * at + a] = sample_at[3 * s + a]
                kept_weight[at] = weight
                at += 1
            elif span > 0.0:
                total += weight
            if at > ray_kept_start[ray]:
                group_kept[g] = kept
                group_weight[g] = total
        if ray == n_rays - 1:
            group_start[ray_group_start[n_rays]] = at


@kernel
def composite(
    n_rays: ti.i32,
    ray_group_start: i32_1d,
    group_weight: f32_1d,
    colours: f32_1d,
    ray_opacity: f32_1d,
    background: vec3,
    pixel: f32_1d,
):
    """pixel (n_rays, 3): C of each ray, not clamped. colours: (n_groups, 3).

    Adjoints: ``colour_gradients`` and ``composite_backward``.
    """
    spread = ti.static(indices_each(64))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        c = background * (1.0 - ray_opacity[ray])
        for g in range(ray_group_start[ray], ray_group_start[ray + 1]):
            c += load3(colours, g) * group_weight[g]
        for a in ti.static(range(3)):
            pixel[3 * ray + a] = c[a]


@kernel
def squared_error(
    n_rays: ti.i32,
    pixel: f32_1d,
    target: f32_1d,
    ray_weight: f32_1d,
    grad_scale: ti.f32,
    ray_loss: f32_1d,
    grad_pixel: f32_1d,
):
    """ray_loss = mean over channels of (clamp(C) - target)², and grad_pixel = d(sum_i ray_weight_i loss_i)/dC * scale.

    pixel, target, grad_pixel: (n_rays, 3). The clamp to [0, 1] (as in TensoRF) passes no gradient where it acts.
    """
    for ray in range(n_rays):
        loss = 0.0
        for a in ti.static(range(3)):
            c = pixel[3 * ray + a]
            clamped = ti.min(ti.max(c, 0.0), 1.0)
            e = clamped - target[3 * ray + a]
            loss += e * e / 3.0
            grad = 0.0
            if c >= 0.0 and c <= 1.0:
                grad = 2.0 / 3.0 * e * ray_weight[ray] * grad_scale
            grad_pixel[3 * ray + a] = grad
        ray_loss[ray] = loss


@kernel
def colour_gradients(
    n_groups: ti.i32, group_ray: i32_1d, group_weight: f32_1d, grad_pixel: f32_1d, grad_colours: f32_1d
):
    """grad_colours (n_groups, 3) = W dL/dpixel."""
    for g in range(n_groups):
        for a in ti.static(range(3)):
            grad_colours[3 * g + a] = group_weight[g] * grad_pixel[3 * group_ray[g] + a]


@kernel
def mean_gradients(
    n_groups: ti.i32,
    n_kept: ti.i32,
    n_columns: ti.i32,
    group_start: i32_1d,
    group_kept: f32_1d,
    kept_weight: f32_1d,
    kept_slope: f32_1d,
):
    """kept_slope[:n_kept] = dL/dP . (p - P) / K of each kept sample, what its weight does to the mean of its group.

    In: kept_slope (n_columns, n_kept), dL/dP . p of each chunk and mode (``appearance.appearance_backward``). Its first
    row takes the result.
    """
    spread = ti.static(indices_each(128))
    for index in range(n_groups * spread):
        if index % spread > 0:
            continue
        g = index // spread
        mean = 0.0
        for j in range(group_start[g], group_start[g + 1]):
            along = 0.0
            for column in range(n_columns):
                along += kept_slope[column * n_kept + j]
            kept_slope[j] = along
            mean += along * kept_weight[j]
        mean /= group_kept[g]
        for j in range(group_start[g], group_start[g + 1]):
            kept_slope[j] = (kept_slope[j] - mean) / group_kept[g]


@kernel
def composite_backward(
    n_rays: ti.i32,
    ray_rank: i32_1d,
    ray_start: i32_1d,
    ray_used: i32_1d,
    ray_kept_start: i32_1d,
    ray_group_start: i32_1d,
    group_start: i32_1d,
    kept_slope: f32_1d,
    span: ti.f32,
    sample_t: f32_1d,
    sample_feature: f32_1d,
    sample_weight: f32_1d,
    colours: f32_1d,
    affine: f32_1d,
    density_shift: ti.f32,
    use_softplus: ti.i32,
    delta_scaled: ti.f32,
    weight_threshold: ti.f32,
    background: vec3,
    grad_pixel: f32_1d,
    grad_opacity: f32_1d,
    grad_depth: f32_1d,
    with_penalties: ti.i32,
    fade: ti.f32,
    sample_grad: f32_1d,
    ray_grad_affine: f32_1d,
):
    """Adjoint of ``composite`` and of the weights, down to the density feature.

    In: grad_pixel (n_rays, 3), grad_opacity, grad_depth (n_rays); with a span above 0 also kept_slope (n_kept), what
    ``mean_gradients`` found; with_penalties = 1 adds what sample_grad holds before, dL/dw of something else
    (``kernels.penalties``); fade > 0 shortens gradients of samples at t < fade by (t / fade)², since every ray passes
    there more densely than anywhere else (Philip & Deschaintre 2023): then they are no gradients of any loss. Out:
    sample_grad = dL/df of each used sample; ray_grad_affine (n_rays, 2): each ray's part
    of the gradient of its rank's scale and shift.
    """
    spread = ti.static(indices_each(32))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        g = load3(grad_pixel, ray)
        through_background = grad_opacity[ray] - g.dot(background)
        g_depth = grad_depth[ray]
        first = ray_start[ray]
        end = first + ray_used[ray]
        j = ray_kept_start[ray]
        group = ray_group_start[ray]
        behind = 0.0
        for s in range(first, end):
            w = sample_weight[s]
            gw = through_background + g_depth * sample_t[s]
            if with_penalties == 1:
                gw += sample_grad[s]
            if w > weight_threshold:
                if j == group_start[group + 1]:
                    group += 1
                if span > 0.0:
                    gw += kept_slope[j]
                j += 1
            if w > weight_threshold or (span > 0.0 and group < ray_group_start[ray + 1]):
                gw += g.dot(load3(colours, group))
            sample_grad[s] = gw
            behind += w * gw
        a = (ray_rank[ray] - 1) * AFFINE_WIDTH
        scale = affine[a]
        shift = affine[a + 1] + density_shift
        light = 1.0
        grad_scale = 0.0
        grad_shift = 0.0
        for s in range(first, end):
            f = sample_feature[s]
            w = sample_weight[s]
            light *= exp_minus(delta_scaled * activate(f, scale, shift, use_softplus))
            gw = sample_grad[s]
            behind -= w * gw
            gz = delta_scaled * (light * gw - behind) * activate_slope(f, scale, shift, use_softplus)
            if sample_t[s] < fade:
                gz *= sample_t[s] * sample_t[s] / (fade * fade)
            sample_grad[s] = gz * scale
            grad_scale += gz * f
            grad_shift += gz
        ray_grad_affine[2 * ray] = grad_scale
        ray_grad_affine[2 * ray + 1] = grad_shift


@kernel
def sum_affine(n_rays: ti.i32, max_rank: ti.i32, ray_rank: i32_1d, ray_grad_affine: f32_1d, grad_affine: f32_1d):
    """Adds each ray's density scale and shift gradients to its rank's row of grad_affine (max_rank, 56)."""
    spread = ti.static(indices_each(1))
    for index in range(max_rank * spread):
        if index % spread > 0:
            continue
        r = index // spread
        for ray in range(n_rays):
            if ray_rank[ray] == r + 1:
                at = r * AFFINE_WIDTH
                grad_affine[at] = grad_affine[at] + ray_grad_affine[2 * ray]
                grad_affine[at + 1] = grad_affine[at + 1] + ray_grad_affine[2 * ray + 1]
