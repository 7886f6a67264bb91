"""From what moves samples to what moves rays.

With dL/dx_i what ``density.density_slopes`` and ``appearance.appearance_slopes`` found of the used samples of a ray, at
fixed distances t_i (where samples lie along a ray is not differentiated):

    (1)  dL/do = sum_i J_i^T dL/dx_i
    (2)  dL/dd = sum_i t_i J_i^T dL/dx_i

J_i is how a point of the ray becomes a place on the grid (``vm.Lattice.ray_slope``).
"""

import taichi as ti

from kernels.launch import kernel
from kernels.tasks import indices_each
from kernels.types import f32_1d, i32_1d, load3, store3, vec3
from kernels.vm import Lattice


@kernel
def ray_gradients(
    n_rays: ti.i32, ray_o: f32_1d, ray_d: f32_1d, ray_used: i32_1d, sample_t: f32_1d, sample_slope: f32_1d,
    lattice: Lattice, grad_o: f32_1d, grad_d: f32_1d,
):  # fmt: skip
    """grad_o, grad_d (n_rays, 3): gradients of ray_o and ray_d, without that of the decoder's viewing direction."""
    spread = ti.static(indices_each(16))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        o = load3(ray_o, ray)
        d = load3(ray_d, ray)
        by_o = vec3(0.0)
        by_d = vec3(0.0)
        for s in range(ray_used[2 * ray], ray_used[2 * ray + 1]):
            by_point = lattice.ray_slope(o + d * sample_t[s], load3(sample_slope, s))
            by_o += by_point  # (1)
            by_d += by_point * sample_t[s]  # (2)
        store3(grad_o, ray, by_o)
        store3(grad_d, ray, by_d)
