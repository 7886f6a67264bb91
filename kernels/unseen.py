"""Rays of cameras that nobody held: those of photographs, from somewhere near by."""

import taichi as ti

from kernels.launch import kernel
from kernels.poses import rotation
from kernels.random import uniform
from kernels.tasks import indices_each
from kernels.types import f32_1d, i32_1d, load3, record, store3, vec3


@ti.func
def symmetric(seed: ti.u32, step: ti.i32, index: ti.i32) -> vec3:
    """Three numbers in [-1, 1)."""
    v = vec3(0.0)
    for a in ti.static(range(3)):
        v[a] = 2.0 * uniform(seed, ti.cast(step, ti.u32), ti.cast(3 * index + a, ti.u32)) - 1.0
    return v


@ti.func
def beside(d: vec3, i: ti.f32, j: ti.f32) -> vec3:
    """The unit vector d, moved by i and j along two directions across it."""
    axis = vec3(0.0, 0.0, 1.0)
    if ti.abs(d[2]) > 0.8:
        axis = vec3(0.0, 1.0, 0.0)
    across = d.cross(axis).normalized()
    return (d + i * across + j * d.cross(across)).normalized()


@record
class Wander:
    """Where cameras are put instead: turned about ``centre`` and shifted, at random by ``seed``.

    The turn's vector is drawn from a cube of ``spread`` radians to each side, the shift from one of ``spread`` times
    ``unit``, the distance at which cameras stand. Such a camera sees patches of ``side`` × ``side`` rays, neighbours
    ``apart`` radians from each other.
    """

    side: ti.i32
    apart: ti.f32
    seed: ti.u32
    centre: vec3
    unit: ti.f32
    spread: ti.f32


@kernel
def wander(
    n_rays: ti.i32, how: Wander, step: ti.i32, ray_o: f32_1d, ray_d: f32_1d, ray_rank: i32_1d,
    out_o: f32_1d, out_d: f32_1d, out_rank: i32_1d,
):  # fmt: skip
    """Rays as cameras elsewhere would see them in a step of training: of each given ray a patch, around it.

    Directions have unit length, ranks are those of the given ray. ray_o, ray_d: (n_rays / side², 3); out_o, out_d:
    (n_rays, 3), patch after patch.
    """
    spread = ti.static(indices_each(64))
    for index in range(n_rays * spread):
        if index % spread > 0:
            continue
        ray = index // spread
        side = how.side
        patch = ray // (side * side)
        turn = rotation(how.spread * symmetric(how.seed, step, 2 * patch))
        shift = how.spread * how.unit * symmetric(how.seed, step, 2 * patch + 1)
        store3(out_o, ray, how.centre + turn @ (load3(ray_o, patch) - how.centre) + shift)
        d = load3(ray_d, patch)
        if side > 1:
            middle = 0.5 * ti.cast(side - 1, ti.f32)
            row = ti.cast(ray % (side * side) // side, ti.f32)
            d = beside(d, how.apart * (row - middle), how.apart * (ti.cast(ray % side, ti.f32) - middle))
        store3(out_d, ray, turn @ d)
        out_rank[ray] = ray_rank[patch]
