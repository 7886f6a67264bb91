"""Where rays meet solid primitives, in groups that are skipped together: the geometry of the built-in scene.

Notation: o, d origin and unit direction of a ray; t distance along it; q a point in a primitive's own frame; n a unit
normal. A primitive is a row of 18 floats: kind, material, centre (3), world-to-own rotation by rows (9), size (3), and
the radius of a sphere around it. Kinds and sizes:

    0 ellipsoid   three radii                      1 box     three half edges
    2 frustum     radius at −z, at +z, half height  3 torus   distance of the tube from the z axis, radius of the tube

Groups are rows of 6 floats: first primitive, end, centre (3), radius of a sphere around them.
"""

import taichi as ti

from kernels.types import f32_2d, vec3

mat3 = ti.types.matrix(3, 3, ti.f32)
table = f32_2d

MISS = 1e9
TUBE_STEPS = 40
"""Sphere-tracing steps on a torus; a grazing ray that needs more is taken to miss."""


@ti.func
def hit_ellipsoid(o: vec3, d: vec3, radii: vec3) -> ti.f32:
    """Nearest t > 0 with |q / radii| = 1, or MISS."""
    a, b = o / radii, d / radii
    bb, ab = b.dot(b), a.dot(b)
    # a − (ab / bb) b is the point nearest to the centre: no cancellation for distant origins
    nearest = a - (ab / bb) * b
    inside = 1.0 - nearest.dot(nearest)
    t = MISS
    if inside > 0.0:
        half = ti.sqrt(inside / bb)
        enters, leaves = -ab / bb - half, -ab / bb + half
        if enters > 0.0:
            t = enters
        elif leaves > 0.0:
            t = leaves
    return t


@ti.func
def hit_box(o: vec3, d: vec3, half: vec3) -> ti.f32:
    """Nearest t > 0 on the surface of |q| <= half, or MISS."""
    enters, leaves = -MISS, MISS
    for k in ti.static(range(3)):
        inverse = 1.0 / (d[k] if ti.abs(d[k]) > 1e-12 else 1e-12)
        t0, t1 = (-half[k] - o[k]) * inverse, (half[k] - o[k]) * inverse
        enters, leaves = ti.max(enters, ti.min(t0, t1)), ti.min(leaves, ti.max(t0, t1))
    t = MISS
    if enters < leaves and leaves > 0.0:
        t = enters if enters > 0.0 else leaves
    return t


@ti.func
def hit_frustum(o: vec3, d: vec3, size: vec3) -> ti.f32:
    """Nearest t > 0 on a capped frustum x² + y² = (middle + slope z)², |z| <= half, or MISS."""
    half = size[2]
    middle, slope = 0.5 * (size[0] + size[1]), 0.5 * (size[1] - size[0]) / half
    r_o, r_d = middle + slope * o[2], slope * d[2]
    a = d[0] * d[0] + d[1] * d[1] - r_d * r_d
    b = o[0] * d[0] + o[1] * d[1] - r_o * r_d
    c = o[0] * o[0] + o[1] * o[1] - r_o * r_o
    t = MISS
    inside = b * b - a * c
    if inside > 0.0 and ti.abs(a) > 1e-9:
        root = ti.sqrt(inside)
        for s in ti.static((-1.0, 1.0)):
            side = (-b + s * root) / a
            if 0.0 < side < t and ti.abs(o[2] + side * d[2]) <= half and r_o + side * r_d >= 0.0:
                t = side
    if ti.abs(d[2]) > 1e-9:
        for s in ti.static((-1.0, 1.0)):
            cap = (s * half - o[2]) / d[2]
            x, y = o[0] + cap * d[0], o[1] + cap * d[1]
            radius = middle + slope * s * half
            if 0.0 < cap < t and x * x + y * y <= radius * radius:
                t = cap
    return t


@ti.func
def hit_torus(o: vec3, d: vec3, size: vec3) -> ti.f32:
    """Nearest t > 0 on a torus around z, by sphere tracing inside the slab |z| <= tube radius; or MISS."""
    major, tube = size[0], size[1]
    enters = hit_box(o, d, vec3(major + tube, major + tube, tube))
    t = MISS
    if enters < MISS:
        x = enters if ti.max(ti.abs(o[0]), ti.abs(o[1])) > major + tube or ti.abs(o[2]) > tube else 0.0
        step = 0
        while step < TUBE_STEPS:
            q = o + x * d
            ring = ti.sqrt(q[0] * q[0] + q[1] * q[1]) - major
            distance = ti.sqrt(ring * ring + q[2] * q[2]) - tube
            if distance < 1e-4:
                t = x
                step = TUBE_STEPS
            x += distance
            step += 1
            if ti.abs(q[2]) > tube + 1e-3 and q[2] * d[2] > 0.0:
                step = TUBE_STEPS
    return t


@ti.func
def own_frame(primitives: table, i: ti.i32) -> mat3:
    """World-to-own rotation of primitive i."""
    return mat3(
        [
            [primitives[i, 5], primitives[i, 6], primitives[i, 7]],
            [primitives[i, 8], primitives[i, 9], primitives[i, 10]],
            [primitives[i, 11], primitives[i, 12], primitives[i, 13]],
        ]
    )


@ti.func
def nearest_hit(o: vec3, d: vec3, any_hit: ti.i32, groups: table, primitives: table):
    """(t, primitive) of the nearest surface, (MISS, −1) if there is none; with ``any_hit`` the first one found."""
    best, found = MISS, -1
    g = 0
    while g < groups.shape[0]:
        towards = vec3(groups[g, 2], groups[g, 3], groups[g, 4]) - o
        along = towards.dot(d)
        off = towards - along * d
        radius = groups[g, 5]
        if off.dot(off) < radius * radius and along > -radius and along - radius < best:
            for i in range(ti.cast(groups[g, 0], ti.i32), ti.cast(groups[g, 1], ti.i32)):
                center = vec3(primitives[i, 2], primitives[i, 3], primitives[i, 4])
                size = vec3(primitives[i, 14], primitives[i, 15], primitives[i, 16])
                away = center - o
                away -= away.dot(d) * d
                if away.dot(away) < primitives[i, 17] * primitives[i, 17]:
                    frame = own_frame(primitives, i)
                    q, w = frame @ (o - center), frame @ d
                    kind = ti.cast(primitives[i, 0], ti.i32)
                    t = MISS
                    if kind == 0:
                        t = hit_ellipsoid(q, w, size)
                    elif kind == 1:
                        t = hit_box(q, w, size)
                    elif kind == 2:
                        t = hit_frustum(q, w, size)
                    else:
                        t = hit_torus(q, w, size)
                    if t < best:
                        best, found = t, i
        if any_hit == 1 and found >= 0:
            g = groups.shape[0]
        g += 1
    return best, found


@ti.func
def normal_at(q: vec3, kind: ti.i32, size: vec3) -> vec3:
    """Outward unit normal at a point of a primitive's surface, in its own frame."""
    n = vec3(0.0)
    if kind == 0:
        n = q / (size * size)
    elif kind == 1:
        r = ti.abs(q) / size
        if r[0] >= r[1] and r[0] >= r[2]:
            n[0] = q[0]
        elif r[1] >= r[2]:
            n[1] = q[1]
        else:
            n[2] = q[2]
    elif kind == 2:
        middle, slope = 0.5 * (size[0] + size[1]), 0.5 * (size[1] - size[0]) / size[2]
        around = ti.sqrt(q[0] * q[0] + q[1] * q[1])
        if size[2] - ti.abs(q[2]) < middle + slope * q[2] - around:
            n[2] = q[2]
        else:
            n = vec3(q[0], q[1], -slope * around)
    else:
        around = ti.max(ti.sqrt(q[0] * q[0] + q[1] * q[1]), 1e-6)
        n = vec3(q[0] - size[0] * q[0] / around, q[1] - size[0] * q[1] / around, q[2])
    return n.normalized()
