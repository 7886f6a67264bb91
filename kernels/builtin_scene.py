"""A small ray tracer with procedural textures: it makes the photographs that the built-in scene consists of.

It shares nothing with the field's kernels, rays included, so that training on it tests their conventions.

Notation as in ``kernels.solids``. Materials are rows of 14 floats: pattern, colour A (3), colour B (3), scale, shine,
gloss (exponent of the highlight), frequencies of the coarse and the fine noise (0: none), grain (stretch of the fine
noise along x), relief (strength of the fine noise). Colours are linear light until the end.

Light: a sun with a small disc (each sub-sample sees another point of it), a sky, occlusion of the sky by a list of
spheres (rows of 4 floats: centre, radius), Blinn-Phong highlights, and a Fresnel rim that reflects the sky.
"""

import taichi as ti

from kernels.launch import kernel
from kernels.solids import nearest_hit, normal_at, own_frame, table
from kernels.types import ivec3, record, u32_1d, vec3

STICK_OUT = 2e-4
"""Shadow rays start this far above the surface, so that it does not shade itself."""


@ti.func
def lattice_noise(p: ivec3) -> ti.f32:
    """A pseudo-random number in [0, 1) for each point of the integer lattice."""
    h = ti.cast(p[0], ti.u32) * ti.u32(0x8DA6B343) ^ ti.cast(p[1], ti.u32) * ti.u32(0xD8163841)
    h ^= ti.cast(p[2], ti.u32) * ti.u32(0xCB1AB31F)
    h ^= h >> ti.u32(15)
    h *= ti.u32(0x2C1B3C6D)
    h ^= h >> ti.u32(12)
    h *= ti.u32(0x297A2D39)
    h ^= h >> ti.u32(15)
    return ti.cast(h >> ti.u32(8), ti.f32) / 16777216.0


@ti.func
def fractal_noise(point: vec3) -> ti.f32:
    """Four octaves of value noise, in [0, 1), mean about 0.5."""
    total = 0.0
    amplitude = 0.5333333
    x = point
    for _ in range(4):
        cell = ti.floor(x)
        corner = ti.cast(cell, ti.i32)
        f = x - cell
        f = f * f * (3.0 - 2.0 * f)
        value = 0.0
        for j in range(8):
            step = ti.Vector([j & 1, (j >> 1) & 1, j >> 2])
            w = vec3(1.0)
            for k in ti.static(range(3)):
                w[k] = f[k] if step[k] == 1 else 1.0 - f[k]
            value += w[0] * w[1] * w[2] * lattice_noise(corner + step)
        total += amplitude * value
        amplitude *= 0.5
        x = 2.03 * x + 17.3
    return total


@ti.func
def pattern_share(pattern: ti.i32, q: vec3, n: vec3, scale: ti.f32, coarse: ti.f32, fine: ti.f32) -> ti.f32:
    """How much of colour B is at a point, 0 to 1: 1 checker, 2 spokes, 3 bands, 4 helix, 5 veins, 6 wood, 7 dots."""
    turn = ti.atan2(q[1], q[0]) / (2.0 * ti.math.pi)
    share = 0.0
    if pattern == 1:
        cell = ti.cast(ti.floor(scale * q + 0.001), ti.i32)
        share = ti.cast((cell[0] + cell[1] + cell[2]) & 1, ti.f32)
    elif pattern == 2:
        share = ti.floor(2.0 * ti.math.fract(scale * turn))
    elif pattern == 3:
        share = ti.floor(2.0 * ti.math.fract(scale * q[2] + 0.25))
    elif pattern == 4:
        share = ti.floor(2.0 * ti.math.fract(scale * q[2] + 2.0 * turn))
    elif pattern == 5:
        ridge = 2.0 * coarse - 1.0
        share = 0.8 * ti.exp(-ridge * ridge * 160.0) + 0.25 * fine
    elif pattern == 6:
        rings = ti.math.fract(scale * (ti.sqrt(q[1] * q[1] + (q[2] + 0.2) ** 2) + 0.06 * coarse))
        share = 0.75 * rings * rings + 0.25 * fine
    elif pattern == 7:
        f = (ti.math.fract(scale * q + 0.5) - 0.5) * (1.0 - ti.abs(n))  # the two directions along a box's face
        share = 1.0 if f.dot(f) < 0.09 else 0.0
    return share


@ti.func
def planet(q: vec3, coarse: ti.f32, fine: ti.f32) -> vec3:
    """Linear colour of a globe: sea, coasts, land by height, white poles."""
    height = coarse + 0.10 * (fine - 0.5)
    land = ti.math.clamp((height - 0.52) * 7.0, 0.0, 1.0)
    colour = vec3(0.012, 0.06, 0.19) + (height - 0.2) * vec3(0.02, 0.30, 0.42)
    if ti.abs(q[2]) / q.norm() + 0.22 * (height - 0.5) > 0.90:
        colour = vec3(0.82, 0.87, 0.92)
    elif height > 0.515:
        colour = ti.math.mix(vec3(0.10, 0.27, 0.05), vec3(0.42, 0.24, 0.09), land)
    elif height > 0.50:
        colour = vec3(0.62, 0.50, 0.26)
    return colour


@ti.func
def surface_colour(q: vec3, n: vec3, m: ti.i32, materials: table) -> vec3:
    """Linear albedo of material m."""
    noise = ti.Vector([0.5, 0.5])
    for k in range(2):
        frequency = materials[m, 10 + k]
        if frequency > 0.0:
            grain = vec3(materials[m, 12] if k == 1 else 1.0, 1.0, 1.0)
            noise[k] = fractal_noise(frequency * grain * q + 3.7)
    pattern = ti.cast(materials[m, 0], ti.i32)
    colour = vec3(materials[m, 1], materials[m, 2], materials[m, 3])
    if pattern == 8:
        colour = planet(q, noise[0], noise[1])
    elif pattern > 0:
        share = pattern_share(pattern, q, n, materials[m, 7], noise[0], noise[1])
        colour = ti.math.mix(colour, vec3(materials[m, 4], materials[m, 5], materials[m, 6]), share)
    return colour * (1.0 + materials[m, 13] * (noise[1] - 0.5))


@ti.func
def sky(d: vec3) -> vec3:
    """Linear radiance from direction d: bright above, warm ground below."""
    above = ti.math.smoothstep(-0.25, 0.9, d[2])
    return ti.math.mix(vec3(0.30, 0.25, 0.21), vec3(0.72, 0.84, 1.02), above)


@ti.func
def openness(p: vec3, n: vec3, floor_height: ti.f32, occluders: table) -> ti.f32:
    """Share of the sky that spheres and the floor leave visible, 0 to 1.

    Each sphere takes its cosine-weighted solid angle, cos r² / d².
    """
    free = 1.0
    for s in range(occluders.shape[0]):
        towards = vec3(occluders[s, 0], occluders[s, 1], occluders[s, 2]) - p
        square = towards.dot(towards)
        along = n.dot(towards)
        ratio = occluders[s, 3] * occluders[s, 3] / square
        if along > 0.0 and 0.01 < ratio < 0.998:  # a sphere does not darken itself
            free *= 1.0 - 0.85 * ratio * along * ti.rsqrt(square)
    above = p[2] - floor_height
    return free * (1.0 - (0.45 * ti.exp(-14.0 * above) if above > 1e-3 else 0.0))


@ti.func
def shade(
    o: vec3, d: vec3, sun: vec3, floor_height: ti.f32, groups: table, primitives: table, materials: table,
    occluders: table,
):  # fmt: skip
    """(colour, hit): sRGB colour seen along a ray, hit 1.0 or 0.0."""
    start, along = o, d
    colour, hit = vec3(0.0), 0.0
    lit = 1.0
    p, n, albedo = vec3(0.0), vec3(0.0), vec3(0.0)
    shine, gloss = 0.0, 1.0
    for leg in range(2):  # the eye's ray, then the one to the sun
        t, i = nearest_hit(start, along, leg, groups, primitives)
        if leg == 1:
            lit = 0.0 if i >= 0 else 1.0
        elif i >= 0:
            hit = 1.0
            m = ti.cast(primitives[i, 1], ti.i32)
            frame = own_frame(primitives, i)
            p = o + t * d
            q = frame @ (p - vec3(primitives[i, 2], primitives[i, 3], primitives[i, 4]))
            own = normal_at(
                q, ti.cast(primitives[i, 0], ti.i32), vec3(primitives[i, 14], primitives[i, 15], primitives[i, 16])
            )
            n = frame.transpose() @ own
            albedo = surface_colour(q, own, m, materials)
            shine, gloss = materials[m, 8], materials[m, 9]
            start, along = p + STICK_OUT * n, sun
        if hit == 0.0 or n.dot(sun) <= 0.0:
            lit = 0.0
            break
    if hit > 0.0:
        free = openness(p, n, floor_height, occluders)
        direct = lit * ti.max(n.dot(sun), 0.0)
        colour = albedo * (direct * vec3(2.05, 1.86, 1.58) + 0.62 * free * sky(n))
        mirror = d - 2.0 * d.dot(n) * n
        facing = ti.max(-d.dot(n), 0.0)
        fresnel = 0.04 + 0.6 * (1.0 - facing) ** 4
        halfway = (sun - d).normalized()
        spark = lit * ti.max(n.dot(halfway), 0.0) ** gloss
        colour += shine * (spark * vec3(1.0, 0.96, 0.88) + 0.45 * fresnel * free * sky(mirror))
        colour = 1.0 - ti.exp(-1.15 * colour)  # highlights bend over instead of clipping
        for k in ti.static(range(3)):
            c = colour[k]
            colour[k] = 12.92 * c if c < 0.0031308 else 1.055 * c ** (1.0 / 2.4) - 0.055
    return colour, hit


@ti.func
def packed(colour: vec3, alpha: ti.f32) -> ti.u32:
    """r | g << 8 | b << 16 | a << 24, rounded."""
    c = ti.cast(ti.math.clamp(colour, 0.0, 1.0) * 255.0 + 0.5, ti.u32)
    a = ti.cast(alpha * 255.0 + 0.5, ti.u32)
    return c[0] | c[1] << ti.u32(8) | c[2] << ti.u32(16) | a << ti.u32(24)


@record
class Shot:
    """What all images have in common: focal length and size in pixels, where the sun is, and the floor."""

    focal: ti.f32
    width: ti.i32
    height: ti.i32
    sun: vec3
    floor_height: ti.f32


@kernel
def render_images(
    shot: Shot, poses: table, groups: table, primitives: table, materials: table, occluders: table, pixels: u32_1d
):
    """Images of the primitives from every camera.

    poses (n, 12): camera-to-world [R | o] by rows, OpenGL axes; pinhole with the principal point in the middle.
    pixels (n · height · width): packed straight-alpha sRGB, alpha being the share of a pixel that is covered.

    A pixel is the mean of 4 rays, or of 16 where those differ: what covers it only in part, edges of shadows and of
    patterns. Not differentiable.
    """
    for index in range(pixels.shape[0]):
        focal, width, height = shot.focal, shot.width, shot.height
        view = index // (width * height)
        y, x = (index // width) % height, index % width
        o = vec3(poses[view, 3], poses[view, 7], poses[view, 11])
        sun = shot.sun.normalized()
        side = sun.cross(vec3(0.0, 0.0, 1.0)).normalized()
        total, covered = vec3(0.0), 0.0
        low, high = vec3(2.0), vec3(-2.0)
        count = 4
        k = 0
        while k < count:
            # a 4×4 grid in an order whose first four have one in each row and column
            column, row = k % 4, ((2 * (k % 4) + 1) % 5 + k // 4) % 4
            px = (ti.cast(x, ti.f32) + 0.25 * ti.cast(column, ti.f32) + 0.125 - 0.5 * ti.cast(width, ti.f32)) / focal
            py = -(ti.cast(y, ti.f32) + 0.25 * ti.cast(row, ti.f32) + 0.125 - 0.5 * ti.cast(height, ti.f32)) / focal
            d = vec3(0.0)
            for r in ti.static(range(3)):
                d[r] = poses[view, 4 * r] * px + poses[view, 4 * r + 1] * py - poses[view, 4 * r + 2]
            angle = 2.399963 * ti.cast(k, ti.f32)
            disc = 0.022 * ti.sqrt((ti.cast((k * 7) % 16, ti.f32) + 0.5) / 16.0)
            light = (sun + disc * (ti.cos(angle) * side + ti.sin(angle) * sun.cross(side))).normalized()
            colour, hit = shade(o, d.normalized(), light, shot.floor_height, groups, primitives, materials, occluders)
            total += colour
            covered += hit
            seen = colour if hit > 0.0 else vec3(-1.0)
            low, high = ti.min(low, seen), ti.max(high, seen)
            k += 1
            if k == 4 and (high - low).max() > 0.1:
                count = 16
        if covered > 0.0:
            total /= covered
        pixels[index] = packed(total, covered / ti.cast(count, ti.f32))
