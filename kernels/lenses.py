"""The ray that a lens gives a pixel: ``tslim.scene.lenses`` on the device, equation by equation and step by step.

Notation: q' = ((u − cx) / fx, (v − cy) / fy) is the point of the picture, y downwards, q what the lens bent there,
s = |q|², and with the 12 numbers a1..a4, b1..b3, p1, p2, s1, s2, max_radius that describe a lens (``TABLE`` a camera)::

    F(s) = (1 + a1 s + a2 s² + a3 s³ + a4 s⁴) / (1 + b1 s + b2 s² + b3 s³)
    x' = x F + 2 p1 x y + p2 (s + 2x²) + s1 s
    y' = y F + p1 (s + 2y²) + 2 p2 x y + s2 s

q is a point of the plane z = 1 for perspective lenses, and θ (cos φ, sin φ) for a fisheye, θ the angle from the axis.
``max_radius`` is the |q| up to which r F(r²) grows, so that the root is alone in [0, max_radius].
"""

import taichi as ti

from kernels.maths import sincos
from kernels.types import vec2, vec3, vec4

PINHOLE, RADIAL, FISHEYE, EQUIRECTANGULAR, POLYNOMIAL = range(5)
"""Kinds of lenses, the same in ``tslim.scene.lenses``; a RADIAL and a POLYNOMIAL one differ in their files only."""
TABLE = 12
"""Numbers a camera."""
RADIUS_STEPS, PLANE_STEPS = 20, 10
"""Of Newton's method for |q|, and then for q where p or s bend it; a lens is accepted if so many are enough."""


@ti.func
def factor_and_slope(s: ti.f32, a: vec4, b: vec3) -> vec2:
    """F(s) and dF/ds."""
    top = 1.0 + s * (a[0] + s * (a[1] + s * (a[2] + s * a[3])))
    top_slope = a[0] + s * (2.0 * a[1] + s * (3.0 * a[2] + s * 4.0 * a[3]))
    bottom = 1.0 + s * (b[0] + s * (b[1] + s * b[2]))
    bottom_slope = b[0] + s * (2.0 * b[1] + s * 3.0 * b[2])
    value = top / bottom
    return vec2(value, (top_slope - value * bottom_slope) / bottom)


@ti.func
def unbent_radius(wanted: ti.f32, max_radius: ti.f32, a: vec4, b: vec3) -> ti.f32:
    """The root r in [0, max_radius] of r F(r²) = wanted: Newton's method, halving the bracket where a step would leave
    it."""
    low, high = 0.0, max_radius
    radius = ti.min(wanted, max_radius)
    for _ in range(RADIUS_STEPS):
        f = factor_and_slope(radius * radius, a, b)
        miss = radius * f[0] - wanted
        if miss > 0.0:
            high = radius
        else:
            low = radius
        radius -= miss / ti.max(f[0] + 2.0 * radius * radius * f[1], 1e-6)
        if radius < low or radius > high:
            radius = 0.5 * (low + high)
    return radius


@ti.func
def newton_in_the_plane(start: vec2, target: vec2, a: vec4, b: vec3, p: vec4) -> vec2:
    """q with q' = target, from a start without p1, p2, s1, s2 (given as ``p``)."""
    q = start
    for _ in range(PLANE_STEPS):
        x, y = q[0], q[1]
        s = x * x + y * y
        f = factor_and_slope(s, a, b)
        dx = x * f[0] + 2.0 * p[0] * x * y + p[1] * (s + 2.0 * x * x) + p[2] * s - target[0]
        dy = y * f[0] + p[0] * (s + 2.0 * y * y) + 2.0 * p[1] * x * y + p[3] * s - target[1]
        mixed = 2.0 * f[1] * x * y + 2.0 * p[0] * x + 2.0 * p[1] * y
        xx = f[0] + 2.0 * f[1] * x * x + 2.0 * p[0] * y + 6.0 * p[1] * x + 2.0 * p[2] * x
        yy = f[0] + 2.0 * f[1] * y * y + 6.0 * p[0] * y + 2.0 * p[1] * x + 2.0 * p[3] * y
        xy = mixed + 2.0 * p[2] * y
        yx = mixed + 2.0 * p[3] * x
        det = ti.max(xx * yy - xy * yx, 1e-6)
        step = vec2(yy * dx - xy * dy, xx * dy - yx * dx) / det
        q -= ti.math.clamp(step, -0.5, 0.5)
    return q


@ti.func
def unbent(target: vec2, table: ti.template(), base: ti.i32) -> vec2:
    """q of the point q' = target, for the lens at ``table[base]``."""
    a = vec4(table[base], table[base + 1], table[base + 2], table[base + 3])
    b = vec3(table[base + 4], table[base + 5], table[base + 6])
    p = vec4(table[base + 7], table[base + 8], table[base + 9], table[base + 10])
    wanted = target.norm()
    q = target
    if wanted > 1e-12:
        q = target * (unbent_radius(wanted, table[base + 11], a, b) / wanted)
    if p.norm_sqr() > 0.0:
        q = newton_in_the_plane(q, target, a, b, p)
    return q


@ti.func
def lens_direction(lens: ti.i32, target: vec2, table: ti.template(), base: ti.i32) -> vec3:
    """Direction, in camera axes (OpenGL; not normalised), of the ray that a lens shows at the point q' = target."""
    direction = vec3(target[0], -target[1], -1.0)
    if lens == EQUIRECTANGULAR:
        sin_lon, cos_lon = sincos(target[0])
        sin_lat, cos_lat = sincos(target[1])
        direction = vec3(cos_lat * sin_lon, -sin_lat, -cos_lat * cos_lon)
    elif lens != PINHOLE:
        q = unbent(target, table, base)
        direction = vec3(q[0], -q[1], -1.0)
        if lens == FISHEYE:
            theta = q.norm()
            sine, cosine = sincos(theta)
            scale = 1.0
            if theta > 1e-6:
                scale = sine / theta
            direction = vec3(scale * q[0], -scale * q[1], -cosine)
    return direction
