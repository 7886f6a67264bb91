"""Moves of cameras, from the gradients of their rays.

A camera turns about a point ``centre`` that lies amid what is seen, and shifts by a multiple of ``unit``, the distance
at which cameras stand from there:

    (1)  o' = centre + exp(w) (o - centre) + unit s,   d' = exp(w) d

so that at w = s = 0

    (2)  dL/dw = d x dL/dd + (o - centre) x dL/do,   dL/ds = unit dL/do

``move_cameras`` takes each step into the poses, and the next starts from zero again. What turns, shifts or scales all
cameras alike changes no picture once the field has followed: ``take_out_common`` takes it out of a step.
"""

import taichi as ti

from kernels.launch import kernel
from kernels.rays import CAMERA, POSE
from kernels.tasks import indices_each, on_cpu
from kernels.types import f32_1d, i32_1d, load3, store3, vec3

N_MOVES = 6
"""Numbers of a move: the turn w in radians, then the shift s."""
mat3 = ti.types.matrix(3, 3, ti.f32)


@ti.func
def ray_moves(ray: ti.i32, rays: ti.template(), centre: vec3, unit: ti.f32):
    """A ray's parts of dL/dw and dL/ds."""
    ray_o, ray_d, grad_o, grad_d = ti.static(rays)
    by_o = load3(grad_o, ray)
    turn = load3(ray_d, ray).cross(load3(grad_d, ray)) + (load3(ray_o, ray) - centre).cross(by_o)
    return turn, by_o * unit


@kernel
def move_gradients(
    n_rays: ti.i32, n_pixels: ti.i32, ray_image: i32_1d, ray_o: f32_1d, ray_d: f32_1d, grad_o: f32_1d, grad_d: f32_1d,
    centre: vec3, unit: ti.f32, grad_moves: f32_1d,
):  # fmt: skip
    """Adds to grad_moves (n_images, 6) the gradients (2), given those of world rays (n_rays, 3).

    On a CPU one task owns each of the six numbers, so that sums have one order.
    """
    if ti.static(on_cpu()):
        spread = ti.static(indices_each(1))
        for index in range(2 * spread):
            if index % spread > 0:
                continue
            part = index // spread
            for ray in range(n_rays):
                turn, shift = ray_moves(ray, (ray_o, ray_d, grad_o, grad_d), centre, unit)
                by = ti.select(part == 0, turn, shift)
                at = N_MOVES * ray_image[ray % n_pixels] + 3 * part
                for a in ti.static(range(3)):
                    grad_moves[at + a] = grad_moves[at + a] + by[a]
    else:
        for ray in range(n_rays):
            turn, shift = ray_moves(ray, (ray_o, ray_d, grad_o, grad_d), centre, unit)
            at = N_MOVES * ray_image[ray % n_pixels]
            for a in ti.static(range(3)):
                ti.atomic_add(grad_moves[at + a], turn[a])
                ti.atomic_add(grad_moves[at + 3 + a], shift[a])


@ti.func
def rotation(w: vec3) -> mat3:
    """exp(w), by Rodrigues' formula."""
    angle2 = w.dot(w)
    angle = ti.sqrt(angle2)
    a = 1.0 - angle2 / 6.0
    b = 0.5 - angle2 / 24.0
    if angle > 1e-2:
        a = ti.sin(angle) / angle
        b = (1.0 - ti.cos(angle)) / angle2
    k = mat3([[0.0, -w[2], w[1]], [w[2], 0.0, -w[0]], [-w[1], w[0], 0.0]])
    return mat3([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]) + a * k + b * (k @ k)


@ti.func
def camera_origin(cameras: ti.template(), image: ti.i32) -> vec3:
    """Where a camera stands."""
    pose = CAMERA * image + POSE
    return vec3(cameras[pose + 3], cameras[pose + 7], cameras[pose + 11])


@kernel
def take_out_common(n_images: ti.i32, unit: ti.f32, cameras: f32_1d, moves: f32_1d):
    """Subtracts from moves (n_images, 6) what turns, shifts and scales all cameras alike, to first order.

    The scaling is the one about the cameras' mean position that is closest to their shifts. One thread does it all.
    """
    spread = ti.static(indices_each(1))
    for index in range(spread):
        if index % spread > 0:
            continue
        share = 1.0 / ti.cast(n_images, ti.f32)
        turn = vec3(0.0)
        shift = vec3(0.0)
        middle = vec3(0.0)
        for i in range(n_images):
            turn += load3(moves, 2 * i) * share
            shift += load3(moves, 2 * i + 1) * share
            middle += camera_origin(cameras, i) * share
        outwards = 0.0
        size = 1e-12
        for i in range(n_images):
            arm = (camera_origin(cameras, i) - middle) / unit
            outwards += load3(moves, 2 * i + 1).dot(arm)
            size += arm.dot(arm)
        for i in range(n_images):
            arm = (camera_origin(cameras, i) - middle) / unit
            store3(moves, 2 * i, load3(moves, 2 * i) - turn)
            store3(moves, 2 * i + 1, load3(moves, 2 * i + 1) - shift - arm * (outwards / size))


@kernel
def move_cameras(n_images: ti.i32, centre: vec3, unit: ti.f32, moves: f32_1d, cameras: f32_1d):
    """Takes (1) into the poses of cameras (n_images, CAMERA), whose axes stay at right angles, and zeroes moves."""
    for i in range(n_images):
        turn = rotation(load3(moves, 2 * i))
        pose = CAMERA * i + POSE
        o = centre + turn @ (camera_origin(cameras, i) - centre) + unit * load3(moves, 2 * i + 1)
        x = turn @ vec3(cameras[pose], cameras[pose + 4], cameras[pose + 8])
        z = turn @ vec3(cameras[pose + 2], cameras[pose + 6], cameras[pose + 10])
        z = z.normalized()
        x = (x - z * x.dot(z)).normalized()
        y = z.cross(x)
        for a in ti.static(range(3)):
            cameras[pose + 4 * a] = x[a]
            cameras[pose + 4 * a + 1] = y[a]
            cameras[pose + 4 * a + 2] = z[a]
            cameras[pose + 4 * a + 3] = o[a]
        store3(moves, 2 * i, vec3(0.0))
        store3(moves, 2 * i + 1, vec3(0.0))
