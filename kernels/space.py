"""Where in the field a point of a ray lies.

A ray is o + t d in the coordinates that it is marched in. The field's box lies in *field coordinates*. Both are the
same unless ``contracted`` is 1: then o and d are in the coordinates q in which the cube that stays as it is has the
corners ±1, and MERF's piecewise-projective contraction (Reiser et al. 2023, eq. 2) leads from q to the field:

    contract(q) = q  where max|q| <= 1;  else, with j the (first) axis of max|q|,
    contract(q)_j = sign(q_j) (2 - 1 / |q_j|),   contract(q)_i = q_i / |q_j|
"""

import taichi as ti

from kernels.rays import vec3


@ti.func
def contract(q: vec3) -> vec3:
    """Field coordinates in [-2, 2]³ of q."""
    size = ti.max(ti.abs(q[0]), ti.abs(q[1]), ti.abs(q[2]))
    x = q
    if size > 1.0:
        shrink = 1.0 / size
        x = q * shrink
        outwards = 2.0 - shrink
        if ti.abs(q[0]) >= size:
            x[0] = ti.select(q[0] > 0.0, outwards, -outwards)
        elif ti.abs(q[1]) >= size:
            x[1] = ti.select(q[1] > 0.0, outwards, -outwards)
        else:
            x[2] = ti.select(q[2] > 0.0, outwards, -outwards)
    return x


@ti.func
def place(o: vec3, d: vec3, t: ti.f32, contracted: ti.i32) -> vec3:
    """Field coordinates of the point at t of a ray."""
    x = o + d * t
    if contracted == 1:
        x = contract(x)
    return x
