"""From weights and colours to pixels; with adjoints.

With W_g what the colour c_g of a group of samples counts for (``groups.py``; without groups W = w), and w_i the weights
of the samples (``trace.py``):

    (1)  opacity = sum_i w_i,   depth = sum_i w_i t_i
    (2)  C = sum_g W_g c_g + (1 - opacity) background
    (3)  dL/dc_g = W_g dL/dC
    (4)  dL/dw_i = dL/dC . (c_{g(i)} - background) + dL/dopacity + t_i dL/ddepth

where c_{g(i)} is black for a sample without a colour, and (2) of ``groups.py`` comes on top.
"""

import taichi as ti

from kernels.groups import Visibility
from kernels.launch import kernel
from kernels.tasks import indices_each
from kernels.types import f32_1d, i32_1d, load3, record, store3, vec3


@kernel
def composite(
    n_rays: ti.i32, ray_used: i32_1d, ray_group_start: i32_1d, sample_t: f32_1d, sample_weight: f32_1d,
    group_weight: f32_1d, colours: f32_1d, background: vec3,
    pixel: f32_1d, ray_opacity: f32_1d, ray_depth: f32_1d,
):  # fmt: skip
    """pixel (n_rays, 3): C of each ray, not clamped; its ray_opacity and ray_depth. colours: (n_groups, 3).

    Adjoints: ``colour_gradients`` and ``composite_backward``.
    """
    spread = ti.static(indices_each(64))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        opacity = 0.0
        depth = 0.0
        for s in range(ray_used[2 * ray], ray_used[2 * ray + 1]):
            opacity += sample_weight[s]  # (1)
            depth += sample_weight[s] * sample_t[s]
        c = background * (1.0 - opacity)
        for g in range(ray_group_start[ray], ray_group_start[ray + 1]):
            c += load3(colours, g) * group_weight[g]  # (2)
        store3(pixel, ray, c)
        ray_opacity[ray] = opacity
        ray_depth[ray] = depth


@kernel
def colour_gradients(
    n_groups: ti.i32, group_ray: i32_1d, group_weight: f32_1d, grad_pixel: f32_1d, grad_colours: f32_1d
):
    """grad_colours (n_groups, 3): (3)."""
    for g in range(n_groups):
        store3(grad_colours, g, load3(grad_pixel, group_ray[g]) * group_weight[g])


@record
class Composition:
    """What pixels are composed by, and whether sample_grad holds gradients of penalties (``kernels.penalties``)."""

    background: vec3
    visibility: Visibility
    with_penalties: ti.i32


@kernel
def composite_backward(
    n_rays: ti.i32, ray_used: i32_1d, ray_group_start: i32_1d, group_start: i32_1d,
    sample_t: f32_1d, sample_weight: f32_1d, colours: f32_1d, composition: Composition,
    grad_pixel: f32_1d, grad_opacity: f32_1d, grad_depth: f32_1d, sample_grad: f32_1d,
):  # fmt: skip
    """sample_grad: dL/dw of each used sample, (4), from grad_pixel (n_rays, 3), grad_opacity and grad_depth (n_rays).

    Where there are penalties, adds to what sample_grad holds of them. ``groups.mean_gradients`` and
    ``trace.trace_backward`` go on from there.
    """
    spread = ti.static(indices_each(32))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        g = load3(grad_pixel, ray)
        by_opacity = grad_opacity[ray] - g.dot(composition.background)
        by_depth = grad_depth[ray]
        group = ray_group_start[ray]
        j = group_start[group]
        for s in range(ray_used[2 * ray], ray_used[2 * ray + 1]):
            gw = by_opacity + by_depth * sample_t[s]
            if composition.with_penalties == 1:
                gw += sample_grad[s]
            visible = sample_weight[s] > composition.visibility.weight_threshold
            if visible:
                if j == group_start[group + 1]:
                    group += 1
                j += 1
            if visible or (composition.visibility.span > 0.0 and group < ray_group_start[ray + 1]):
                gw += g.dot(load3(colours, group))
            sample_grad[s] = gw
