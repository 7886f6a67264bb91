"""Between the pipeline's flat arrays and the fields that autodiff knows: values one way, gradients the other."""

import taichi as ti

from kernels.types import f32_1d


@ti.kernel
def publish(
    n: ti.i32, pixel: f32_1d, ray_opacity: f32_1d, ray_depth: f32_1d,
    rgb: ti.template(), opacity: ti.template(), depth: ti.template(),
):  # fmt: skip
    """Fields rgb (3-vectors), opacity and depth of n rays from pixel (n, 3), ray_opacity and ray_depth (n).

    Adjoint: ``collect_gradients``, as part of ``tslim.rendering.differentiable``.
    """
    for i in range(n):
        rgb[i] = ti.Vector([pixel[3 * i], pixel[3 * i + 1], pixel[3 * i + 2]])
        opacity[i] = ray_opacity[i]
        depth[i] = ray_depth[i]


@ti.kernel
def collect_gradients(
    n: ti.i32, rgb: ti.template(), opacity: ti.template(), depth: ti.template(),
    grad_pixel: f32_1d, grad_opacity: f32_1d, grad_depth: f32_1d,
):  # fmt: skip
    """grad_pixel (n, 3), grad_opacity and grad_depth (n) from the gradients of the fields that ``publish`` wrote."""
    for i in range(n):
        for c in ti.static(range(3)):
            grad_pixel[3 * i + c] = rgb.grad[i][c]
        grad_opacity[i] = opacity.grad[i]
        grad_depth[i] = depth.grad[i]
