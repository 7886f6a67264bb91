"""Where in the field a point of a ray lies, and how rays of the world become rays that are marched.

The field's box lies in *field coordinates* x. A ray is marched as o + t d in *ray coordinates*:

``box``         ray and field coordinates are the world's.
``ndc``         both are those of ndc(p) = (2 p_x / -p_z, 2 p_y / -p_z, 1 + 2 near / p_z). Straight lines stay straight:
                the ray starts where it meets the plane p_z = -near (at its origin if that lies beyond) and ends at the
                image of its point at infinity. d has unit length, t is a length in these coordinates.
``contracted``  ray coordinates are q = (p - centre) / half, in which the cube that stays as it is has the corners ±1;
                d is shortened by the same factor, so that t is a distance in the world. MERF's piecewise-projective
                contraction (Reiser et al. 2023, eq. 2) leads to the field, with j the (first) axis of max|q|:

                contract(q) = q  where max|q| <= 1;  else
                contract(q)_j = sign(q_j) (2 - 1 / |q_j|),   contract(q)_i = q_i / |q_j|

``tslim.data.geometry`` says how centre, half and near are found.
"""

import taichi as ti

from kernels.launch import kernel
from kernels.types import f32_1d, load3, vec3

NEVER = 1e6
"""Coordinates of a ray that meets nothing: a viewer's that looks away from an ndc scene."""


@ti.func
def largest_axis(q: vec3) -> ti.i32:
    """The first axis along which |q| is largest."""
    j = 0
    if ti.abs(q[1]) > ti.abs(q[0]):
        j = 1
    if ti.abs(q[2]) > ti.max(ti.abs(q[0]), ti.abs(q[1])):
        j = 2
    return j


@ti.func
def contract(q: vec3) -> vec3:
    """Field coordinates in [-2, 2]³ of q."""
    size = ti.max(ti.abs(q[0]), ti.abs(q[1]), ti.abs(q[2]))
    x = q
    if size > 1.0:
        shrink = 1.0 / size
        x = q * shrink
        outwards = 2.0 - shrink
        j = largest_axis(q)
        for a in ti.static(range(3)):
            if a == j:
                x[a] = ti.select(q[a] > 0.0, outwards, -outwards)
    return x


@ti.func
def place(o: vec3, d: vec3, t: ti.f32, contracted: ti.i32) -> vec3:
    """Field coordinates of the point at t of a ray."""
    x = o + d * t
    if contracted == 1:
        x = contract(x)
    return x


@ti.func
def pull_back(q: vec3, gradient: vec3) -> vec3:
    """Gradient with respect to q of what has the given gradient with respect to contract(q)."""
    size = ti.max(ti.abs(q[0]), ti.abs(q[1]), ti.abs(q[2]))
    by_q = gradient
    if size > 1.0:
        shrink = 1.0 / size
        j = largest_axis(q)
        along = 0.0
        across = 0.0
        sign = 1.0
        for a in ti.static(range(3)):
            if a == j:
                along = gradient[a]
                sign = ti.select(q[a] > 0.0, 1.0, -1.0)
            else:
                across += gradient[a] * q[a]
        by_q = gradient * shrink
        for a in ti.static(range(3)):
            if a == j:
                by_q[a] = (along - sign * across) * shrink * shrink
    return by_q


@ti.func
def motion(q: vec3, d: vec3):
    """How contract(q) moves as q moves along d: its velocity, and the rate at which 1 / max|q| falls, 0 in the cube.

    Beyond the cube the ray's image is straight within each slab, x = A + B / |q_j|.
    """
    size = ti.max(ti.abs(q[0]), ti.abs(q[1]), ti.abs(q[2]))
    velocity = d
    rate = 0.0
    if size > 1.0:
        shrink = 1.0 / size
        j = largest_axis(q)
        outwards = 0.0
        for a in ti.static(range(3)):
            if a == j:
                outwards = ti.select(q[a] > 0.0, d[a], -d[a])
        rate = outwards * shrink
        velocity = (d - q * rate) * shrink
        for a in ti.static(range(3)):
            if a == j:
                velocity[a] = ti.select(q[a] > 0.0, rate, -rate) * shrink
    return velocity, rate


@ti.func
def advance(velocity: vec3, rate: ti.f32, length: ti.f32) -> ti.f32:
    """How far t must go on for ``length`` in field coordinates, given the ray's ``motion``; 1e30 if it ends before.

    Exact within the cube and within a slab; a step across the border of two of them is as long as if there were none.
    """
    dt = length / velocity.norm()
    left = 1.0 - rate * dt
    return ti.select(left > 1e-4, dt / ti.max(left, 1e-4), 1e30)


@ti.func
def end_of_piece(q: vec3, x: vec3, forwards: ti.i32, axis: ti.i32) -> ti.f32:
    """Where along a field axis the cube, or the slab, that x = contract(q) lies in ends, in the given direction."""
    edge = ti.select(forwards == 1, 1.0, -1.0)
    if ti.max(ti.abs(q[0]), ti.abs(q[1]), ti.abs(q[2])) > 1.0 and axis == largest_axis(q):
        beyond = ti.cast(forwards, ti.f32)
        edge = ti.select(x[axis] > 0.0, 1.0 + beyond, beyond - 2.0)
    return edge


@kernel
def cube_rays(
    n_rays: ti.i32, centre: vec3, half: ti.f32, ray_o: f32_1d, ray_d: f32_1d, marched_o: f32_1d, marched_d: f32_1d
):
    """Rays of the world in the coordinates q of a contracted space. All arrays (n_rays, 3)."""
    for i in range(n_rays):
        for a in ti.static(range(3)):
            marched_o[3 * i + a] = (ray_o[3 * i + a] - centre[a]) / half
            marched_d[3 * i + a] = ray_d[3 * i + a] / half


@ti.func
def ndc_ends(o: vec3, d: vec3, near: ti.f32):
    """Where a world ray's image in NDC starts and ends, and the world distance of the start from o.

    Only for d_z < 0.
    """
    skipped = ti.max((near + o[2]) / -d[2], 0.0)
    p = o + d * skipped
    depth = ti.max(-p[2], near)
    start = vec3(2.0 * p[0] / depth, 2.0 * p[1] / depth, 1.0 - 2.0 * near / depth)
    end = vec3(2.0 * d[0] / -d[2], 2.0 * d[1] / -d[2], 1.0)
    return start, end, skipped


@kernel
def ndc_rays(n_rays: ti.i32, near: ti.f32, ray_o: f32_1d, ray_d: f32_1d, marched_o: f32_1d, marched_d: f32_1d):
    """Rays of the world in NDC. All arrays (n_rays, 3). A ray that does not look along -z meets nothing."""
    for i in range(n_rays):
        d = load3(ray_d, i)
        start = vec3(NEVER)
        along = vec3(0.0, 0.0, 1.0)
        if d[2] < -1e-6:
            start, end, _ = ndc_ends(load3(ray_o, i), d, near)
            along = (end - start).normalized()
        for a in ti.static(range(3)):
            marched_o[3 * i + a] = start[a]
            marched_d[3 * i + a] = along[a]


@kernel
def ndc_depth(n_rays: ti.i32, near: ti.f32, ray_o: f32_1d, ray_d: f32_1d, ray_opacity: f32_1d, ray_depth: f32_1d):
    """Turns ray_depth, the sum of weight times t in NDC, into opacity times the world distance of the mean t.

    The mean is taken in NDC, where distances to the background are finite.
    """
    for i in range(n_rays):
        d = load3(ray_d, i)
        opacity = ray_opacity[i]
        if d[2] < -1e-6 and opacity > 1e-6:
            o = load3(ray_o, i)
            start, end, skipped = ndc_ends(o, d, near)
            part = ti.min(ray_depth[i] / opacity / (end - start).norm(), 0.9999)
            beyond = -(o[2] + d[2] * skipped)
            ray_depth[i] = opacity * (skipped + beyond / -d[2] * part / (1.0 - part))


@kernel
def cube_rays_backward(n_rays: ti.i32, half: ti.f32, grad_o: f32_1d, grad_d: f32_1d):
    """Adjoint of ``cube_rays``: turns gradients of marched_o and marched_d into those of ray_o and ray_d, in place."""
    for i in range(3 * n_rays):
        grad_o[i] = grad_o[i] / half
        grad_d[i] = grad_d[i] / half


@ti.func
def ndc_pull_back(o: vec3, d: vec3, near: ti.f32, by_start: vec3, by_end: vec3):
    """Gradients with respect to o and d of what has the given gradients with respect to ``ndc_ends``.

    With p = o + skipped d where the image starts: skipped = (near + o_z) / -d_z grows by 1 / -d_z with o_z and by
    skipped / -d_z with d_z, so that all that moves p through o does so through d as well, times skipped.
    """
    start, end, skipped = ndc_ends(o, d, near)
    by_o = vec3(0.0)
    if skipped > 0.0:
        by_o = vec3(by_start[0], by_start[1], (by_start[0] * d[0] + by_start[1] * d[1]) / -d[2]) * (2.0 / near)
    else:
        by_o = (
            vec3(
                2.0 * by_start[0],
                2.0 * by_start[1],
                start[0] * by_start[0] + start[1] * by_start[1] + (start[2] - 1.0) * by_start[2],
            )
            / -o[2]
        )
    by_d = vec3(2.0 * by_end[0], 2.0 * by_end[1], end[0] * by_end[0] + end[1] * by_end[1]) / -d[2]
    return by_o, by_d + by_o * skipped


@kernel
def ndc_rays_backward(n_rays: ti.i32, near: ti.f32, ray_o: f32_1d, ray_d: f32_1d, grad_o: f32_1d, grad_d: f32_1d):
    """Adjoint of ``ndc_rays``: turns gradients of marched_o and marched_d into those of ray_o and ray_d, in place.

    All arrays (n_rays, 3).
    """
    for i in range(n_rays):
        by_o = vec3(0.0)
        by_d = vec3(0.0)
        d = load3(ray_d, i)
        if d[2] < -1e-6:
            o = load3(ray_o, i)
            start, end, _ = ndc_ends(o, d, near)
            across = end - start
            along = across.normalized()
            by_along = load3(grad_d, i)
            by_end = (by_along - along * along.dot(by_along)) / across.norm()
            by_o, by_d = ndc_pull_back(o, d, near, load3(grad_o, i) - by_end, by_end)
        for a in ti.static(range(3)):
            grad_o[3 * i + a] = by_o[a]
            grad_d[3 * i + a] = by_d[a]


@kernel
def ndc_depth_backward(
    n_rays: ti.i32, near: ti.f32, ray_o: f32_1d, ray_d: f32_1d, ray_opacity: f32_1d, ray_depth: f32_1d,
    grad_opacity: f32_1d, grad_depth: f32_1d, grad_o: f32_1d, grad_d: f32_1d,
):  # fmt: skip
    """Adjoint of ``ndc_depth``, whose result ray_depth is.

    Turns grad_depth in place into the gradient of what ray_depth was before, adds to grad_opacity, and overwrites
    grad_o and grad_d (n_rays, 3). With z = ray_depth / opacity the mean distance, p the part of the image that lies
    before it, and b the distance of its start along -z: z = skipped + b / -d_z p / (1 - p).
    """
    for i in range(n_rays):
        by_o = vec3(0.0)
        by_d = vec3(0.0)
        d = load3(ray_d, i)
        opacity = ray_opacity[i]
        if d[2] < -1e-6 and opacity > 1e-6:
            o = load3(ray_o, i)
            start, end, skipped = ndc_ends(o, d, near)
            beyond = -(o[2] + d[2] * skipped)
            z = ray_depth[i] / opacity
            ratio = ti.max(z - skipped, 0.0) * -d[2] / beyond  # p / (1 - p)
            part = ratio / (1.0 + ratio)
            by_z = grad_depth[i] * opacity
            by_part = by_z * beyond / -d[2] * (1.0 + ratio) * (1.0 + ratio)
            if ratio > 9990.0:  # held there
                by_part = 0.0
            across = end - start
            along = across.normalized()
            grad_opacity[i] = grad_opacity[i] + grad_depth[i] * z - by_part * part / opacity
            grad_depth[i] = by_part / (across.norm() * opacity)
            by_length = -by_part * part / across.norm()
            by_o, by_d = ndc_pull_back(o, d, near, -along * by_length, along * by_length)
            by_d[2] += by_z * beyond * ratio / (d[2] * d[2])
            if skipped > 0.0:
                by_o[2] += by_z / -d[2]
                by_d[2] += by_z * skipped / -d[2]
            else:
                by_o[2] -= by_z * ratio / -d[2]
        for a in ti.static(range(3)):
            grad_o[3 * i + a] = by_o[a]
            grad_d[3 * i + a] = by_d[a]
