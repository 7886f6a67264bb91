"""Rays of cameras that nobody held: those of photographs, from somewhere near by."""

import taichi as ti

from kernels.launch import kernel
from kernels.poses import rotation
from kernels.random import uniform
from kernels.tasks import indices_each
from kernels.types import f32_1d, load3, store3, vec3


@ti.func
def symmetric(seed: ti.u32, step: ti.i32, index: ti.i32) -> vec3:
    """Three numbers in [-1, 1)."""
    v = vec3(0.0)
    for a in ti.static(range(3)):
        v[a] = 2.0 * uniform(seed, ti.cast(step, ti.u32), ti.cast(3 * index + a, ti.u32)) - 1.0
    return v


@kernel
def wander(
    n_rays: ti.i32, seed: ti.u32, step: ti.i32, centre: vec3, unit: ti.f32, spread: ti.f32,
    ray_o: f32_1d, ray_d: f32_1d, out_o: f32_1d, out_d: f32_1d,
):  # fmt: skip
    """Each ray as a camera elsewhere would see it: turned about ``centre`` and shifted, at random.

    The turn's vector is drawn from a cube of ``spread`` radians to each side, the shift from one of ``spread`` times
    ``unit``, the distance at which cameras stand. Directions keep their length. All arrays (n_rays, 3).
    """
    spread_out = ti.static(indices_each(64))
    for index in range(n_rays * spread_out):
        if index % spread_out > 0:
            continue
        ray = index // spread_out
        turn = rotation(spread * symmetric(seed, step, 2 * ray))
        shift = spread * unit * symmetric(seed, step, 2 * ray + 1)
        store3(out_o, ray, centre + turn @ (load3(ray_o, ray) - centre) + shift)
        store3(out_d, ray, turn @ load3(ray_d, ray))
