"""Which samples are given a colour, and which of them share one; with the adjoint of what sharing does to weights.

Only samples with w_i > ``weight_threshold`` are *visible* and given a colour; the others count as black, as in TensoRF.

With a ``span`` above 0, visible samples within it of a group's first form that *group* and share one colour: the
decoder sees the mean of their appearance products p_i, weighted by w_i,

    (1)  P = sum_i w_i p_i / K,   K = sum_i w_i

Samples that are not visible take the colour of the group before them (or else behind them) instead of black, so W, what
a group's colour counts for, includes them. With a span of 0 each visible sample is a group of its own, W = K = w, and
nothing of this has an effect. Through the mean the weight of a visible sample has one more effect,

    (2)  dL/dw_i = dL/dP . (p_i - P) / K  +  ...
"""

import taichi as ti

from kernels.launch import kernel
from kernels.sums import add_block, fill_block, n_blocks, sum_block
from kernels.tasks import indices_each, on_cpu
from kernels.types import f32_1d, i32_1d, load3, record, store3


@record
class Visibility:
    """Which samples are visible, and within what distance along a ray they share a colour."""

    weight_threshold: ti.f32
    span: ti.f32


@record
class Groups:
    """Numbers of groups, of visible samples in them, and of chunks of components that the largest rank has; and
    whether samples may share a colour, so that their weights count in a mean.
    """

    n: ti.i32
    visible: ti.i32
    chunks: ti.i32
    shared: ti.i32


@kernel
def count_visible(
    n_rays: ti.i32, ray_used: i32_1d, sample_weight: f32_1d, sample_along: f32_1d, visibility: Visibility,
    ray_visible: i32_1d, ray_groups: i32_1d,
):  # fmt: skip
    """Numbers of visible samples and of their groups, for each ray.

    sample_along: how far along the ray a sample lies, in the units of the span.
    """
    spread = ti.static(indices_each(64))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        visible = 0
        groups = 0
        group_along = 0.0
        for s in range(ray_used[2 * ray], ray_used[2 * ray + 1]):
            if sample_weight[s] > visibility.weight_threshold:
                visible += 1
                if groups == 0 or sample_along[s] - group_along > visibility.span:
                    groups += 1
                    group_along = sample_along[s]
        ray_visible[ray] = visible
        ray_groups[ray] = groups


@kernel
def sum_counts(
    n_rays: ti.i32, ray_visible: i32_1d, ray_groups: i32_1d, ray_visible_start: i32_1d, ray_group_start: i32_1d,
    totals: i32_1d,
):  # fmt: skip
    """Running sums of both counts, n_rays + 1 of each: where the visible samples and the groups of a ray begin.

    totals (2): how many there are of both, together, so that the host waits once to know them.
    """
    if ti.static(on_cpu()):
        ti.loop_config(serialize=True)
        for i in range(n_rays):
            if i == 0:
                ray_visible_start[0] = 0
                ray_group_start[0] = 0
            ray_visible_start[i + 1] = ray_visible_start[i] + ray_visible[i]
            ray_group_start[i + 1] = ray_group_start[i] + ray_groups[i]
    else:
        for block in range(n_blocks(n_rays)):
            sum_block(block, n_rays, n_rays, ray_visible, ray_visible_start)
            sum_block(block, n_rays, n_rays, ray_groups, ray_group_start)
        ti.loop_config(serialize=True)
        for block in range(n_blocks(n_rays)):
            add_block(block, n_rays, ray_visible_start)
            add_block(block, n_rays, ray_group_start)
        for block in range(n_blocks(n_rays)):
            fill_block(block, n_rays, n_rays, ray_visible, ray_visible_start)
            fill_block(block, n_rays, n_rays, ray_groups, ray_group_start)
    ti.loop_config(serialize=True)
    for _ in range(1):
        totals[0] = ray_visible_start[n_rays]
        totals[1] = ray_group_start[n_rays]


@kernel
def collect_visible(
    n_rays: ti.i32, ray_used: i32_1d, sample_at: f32_1d, sample_weight: f32_1d, sample_along: f32_1d,
    visibility: Visibility, ray_visible_start: i32_1d, ray_group_start: i32_1d,
    visible_sample: i32_1d, visible_at: f32_1d, group_ray: i32_1d, group_start: i32_1d,
):  # fmt: skip
    """Packs the visible samples, ray by ray from ray_visible_start[ray], and their groups from ray_group_start[ray].

    visible_sample, visible_at: which sample it is, and where. Group g holds the visible samples group_start[g] to
    group_start[g + 1]; n_groups + 1 starts are written.
    """
    spread = ti.static(indices_each(64))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        j = ray_visible_start[ray]
        g = ray_group_start[ray]
        group_along = 0.0
        for s in range(ray_used[2 * ray], ray_used[2 * ray + 1]):
            if sample_weight[s] > visibility.weight_threshold:
                along = sample_along[s]
                if j == ray_visible_start[ray] or along - group_along > visibility.span:
                    group_along = along
                    group_ray[g] = ray
                    group_start[g] = j
                    g += 1
                visible_sample[j] = s
                store3(visible_at, j, load3(sample_at, s))
                j += 1
        if ray == n_rays - 1:
            group_start[g] = j


@kernel
def weigh_groups(
    n_groups: ti.i32, visibility: Visibility, ray_used: i32_1d, ray_group_start: i32_1d, sample_weight: f32_1d,
    visible_sample: i32_1d, group_ray: i32_1d, group_start: i32_1d,
    visible_part: f32_1d, group_visible: f32_1d, group_weight: f32_1d,
):  # fmt: skip
    """group_visible and group_weight, K and W of each group, and visible_part, w / K of each visible sample: (1)."""
    spread = ti.static(indices_each(128))
    for index in range(n_groups * spread):
        if index % spread > 0:
            continue
        g = index // spread
        visible = 0.0
        for j in range(group_start[g], group_start[g + 1]):
            visible += sample_weight[visible_sample[j]]
        for j in range(group_start[g], group_start[g + 1]):
            visible_part[j] = sample_weight[visible_sample[j]] / visible
        weight = visible
        if visibility.span > 0.0:
            ray = group_ray[g]
            first = visible_sample[group_start[g]]
            end = ray_used[2 * ray + 1]
            if g == ray_group_start[ray]:
                first = ray_used[2 * ray]
            if g + 1 < ray_group_start[ray + 1]:
                end = visible_sample[group_start[g + 1]]
            weight = 0.0
            for s in range(first, end):
                weight += sample_weight[s]
        group_visible[g] = visible
        group_weight[g] = weight


@kernel
def mean_gradients(
    groups: Groups, group_start: i32_1d, group_visible: f32_1d, visible_sample: i32_1d, visible_part: f32_1d,
    visible_slope: f32_1d, sample_grad: f32_1d,
):  # fmt: skip
    """Adds to sample_grad, dL/dw of each sample, what (2) has of dL/dP.

    In: visible_slope (3 chunks, visible), dL/dP . p of each chunk and mode (``appearance.appearance_backward``); its
    first row is overwritten by their sum.
    """
    spread = ti.static(indices_each(128))
    for index in range(groups.n * spread):
        if index % spread > 0:
            continue
        g = index // spread
        mean = 0.0
        for j in range(group_start[g], group_start[g + 1]):
            along = 0.0
            for column in range(3 * groups.chunks):
                along += visible_slope[column * groups.visible + j]
            visible_slope[j] = along
            mean += along * visible_part[j]
        for j in range(group_start[g], group_start[g + 1]):
            s = visible_sample[j]
            sample_grad[s] = sample_grad[s] + (visible_slope[j] - mean) / group_visible[g]
