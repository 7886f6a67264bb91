"""A gain per image: what exposure and white balance make of the colours that a field has, channel by channel.

    seen_c = exp(g_c) pixel_c            g: log gains of the ray's image

Of copies of a ray (``trace``) all belong to the image of the first.
"""

import taichi as ti

from kernels.launch import kernel
from kernels.tasks import indices_each, on_cpu
from kernels.types import f32_1d, i32_1d


@kernel
def apply_gains(n_rays: ti.i32, n_pixels: ti.i32, ray_image: i32_1d, gains: f32_1d, pixel: f32_1d):
    """pixel (n_rays, 3) becomes what the photographs show, in place. Adjoint: ``gains_backward``.

    gains (n_images, 3); ray_image (n_pixels).
    """
    for i in range(3 * n_rays):
        image = ray_image[i // 3 % n_pixels]
        pixel[i] = pixel[i] * ti.exp(gains[3 * image + i % 3])


@kernel
def gains_backward(
    n_rays: ti.i32, n_pixels: ti.i32, ray_image: i32_1d, gains: f32_1d, seen: f32_1d, grad_pixel: f32_1d,
    grad_gains: f32_1d,
):  # fmt: skip
    """Adds to grad_gains (n_images, 3), and turns grad_pixel = dL/dseen into dL/dpixel.

    On a CPU one task owns each channel, so that sums have one order.
    """
    if ti.static(on_cpu()):
        spread = ti.static(indices_each(1))
        for index in range(3 * spread):
            if index % spread > 0:
                continue
            c = index // spread
            for ray in range(n_rays):
                at = 3 * ray + c
                gain = 3 * ray_image[ray % n_pixels] + c
                grad_gains[gain] = grad_gains[gain] + grad_pixel[at] * seen[at]
                grad_pixel[at] = grad_pixel[at] * ti.exp(gains[gain])
    else:
        for i in range(3 * n_rays):
            gain = 3 * ray_image[i // 3 % n_pixels] + i % 3
            ti.atomic_add(grad_gains[gain], grad_pixel[i] * seen[i])
            grad_pixel[i] = grad_pixel[i] * ti.exp(gains[gain])


@kernel
def pull_to_zero(n: ti.i32, weight: ti.f32, values: f32_1d, gradient: f32_1d):
    """Adds the gradient of weight times the sum of squares."""
    for i in range(n):
        gradient[i] = gradient[i] + 2.0 * weight * values[i]


@kernel
def take_out_mean(n: ti.i32, width: ti.i32, values: f32_1d):
    """Subtracts from values (n, width) the mean row: gains that all images share are the field's colours."""
    spread = ti.static(indices_each(1))
    for index in range(width * spread):
        if index % spread > 0:
            continue
        column = index // spread
        total = 0.0
        for i in range(n):
            total += values[i * width + column]
        for i in range(n):
            values[i * width + column] = values[i * width + column] - total / ti.cast(n, ti.f32)
