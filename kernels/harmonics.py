"""Features and viewing direction to colour by spherical harmonics: the decoder that has no parameters.

    colour_j = sigmoid(Σ_b Y_b(d)·a[9j + b]),   Y the nine real spherical harmonics of degree ≤ 2

with a the 27 features of a sample, d its unit viewing direction; x̄ = ∂loss/∂x.
"""

import taichi as ti

from kernels.launch import kernel
from kernels.types import f32_1d, i32_1d, load3
from kernels.vm import N_FEATURES


@ti.func
def sh_basis(d):
    """The nine real spherical harmonics of degree ≤ 2 at the unit vector d, in the order and signs of PlenOctrees."""
    x, y, z = d[0], d[1], d[2]
    return ti.Vector(
        [
            0.28209479177387814,
            -0.4886025119029199 * y,
            0.4886025119029199 * z,
            -0.4886025119029199 * x,
            1.0925484305920792 * x * y,
            -1.0925484305920792 * y * z,
            0.31539156525252005 * (2.0 * z * z - x * x - y * y),
            -1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ]
    )


@kernel
def sh_decode(features: f32_1d, sample_ray: i32_1d, ray_dirs: f32_1d, n: ti.i32, colours: f32_1d):
    """colours[3i + j] = sigmoid(Σ_b Y_b(d)·features[27i + 9j + b]), d the direction of sample i < n."""
    for i in range(n):
        ray = sample_ray[i]
        basis = sh_basis(load3(ray_dirs, ray))
        for j in ti.static(range(3)):
            total = 0.0
            for b in ti.static(range(9)):
                total += basis[b] * features[N_FEATURES * i + 9 * j + b]
            colours[3 * i + j] = 1.0 / (1.0 + ti.exp(-total))


@kernel
def sh_backward(
    sample_ray: i32_1d, ray_dirs: f32_1d, n: ti.i32, colours: f32_1d, grad_colours: f32_1d, grad_features: f32_1d
):
    """grad_features[i, 9j + b] = c̄_j·c_j·(1 − c_j)·Y_b, i < n, with c the colours that ``sh_decode`` left."""
    for i in range(n):
        ray = sample_ray[i]
        basis = sh_basis(load3(ray_dirs, ray))
        for j in ti.static(range(3)):
            colour = colours[3 * i + j]
            o = grad_colours[3 * i + j] * colour * (1.0 - colour)
            for b in ti.static(range(9)):
                grad_features[N_FEATURES * i + 9 * j + b] = o * basis[b]


@ti.func
def sh_slope(d, a):
    """Gradient by d of Σ_b Y_b(d)·a_b."""
    x, y, z = d[0], d[1], d[2]
    return ti.Vector(
        [
            -0.4886025119029199 * a[3]
            + 1.0925484305920792 * (y * a[4] - z * a[7])
            - 0.6307831305050401 * x * a[6]
            + 1.0925484305920792 * x * a[8],
            -0.4886025119029199 * a[1]
            + 1.0925484305920792 * (x * a[4] - z * a[5])
            - 0.6307831305050401 * y * a[6]
            - 1.0925484305920792 * y * a[8],
            0.4886025119029199 * a[2] - 1.0925484305920792 * (y * a[5] + x * a[7]) + 1.2615662610100802 * z * a[6],
        ]
    )


@kernel
def sh_directions_backward(
    features: f32_1d, sample_ray: i32_1d, ray_dirs: f32_1d, n: ti.i32,
    colours: f32_1d, grad_colours: f32_1d, grad_directions: f32_1d,
):  # fmt: skip
    """The rest of the adjoint of ``sh_decode``: grad_directions[i] = Σ_j c̄_j·c_j·(1 − c_j)·Σ_b a[9j + b]·∇Y_b(d)."""
    for i in range(n):
        ray = sample_ray[i]
        by_basis = ti.Vector([0.0] * 9)
        for j in ti.static(range(3)):
            colour = colours[3 * i + j]
            o = grad_colours[3 * i + j] * colour * (1.0 - colour)
            for b in ti.static(range(9)):
                by_basis[b] += o * features[N_FEATURES * i + 9 * j + b]
        slope = sh_slope(load3(ray_dirs, ray), by_basis)
        for c in ti.static(range(3)):
            grad_directions[3 * i + c] = slope[c]
