"""The loss of a step: the squared error of each ray, and its gradient."""

import taichi as ti

from kernels.launch import kernel
from kernels.types import f32_1d


@kernel
def squared_error(
    n_rays: ti.i32, pixel: f32_1d, target: f32_1d, ray_weight: f32_1d,
    grad_scale: ti.f32, ray_loss: f32_1d, grad_pixel: f32_1d,
):  # fmt: skip
    """ray_loss = mean over channels of (clamp(C) - target)², and grad_pixel = d(sum_i ray_weight_i loss_i)/dC * scale.

    pixel, target, grad_pixel: (n_rays, 3). The clamp to [0, 1] (as in TensoRF) passes no gradient where it acts.
    """
    for ray in range(n_rays):
        loss = 0.0
        for a in ti.static(range(3)):
            c = pixel[3 * ray + a]
            clamped = ti.min(ti.max(c, 0.0), 1.0)
            e = clamped - target[3 * ray + a]
            loss += e * e / 3.0
            grad = 0.0
            if c >= 0.0 and c <= 1.0:
                grad = 2.0 / 3.0 * e * ray_weight[ray] * grad_scale
            grad_pixel[3 * ray + a] = grad
        ray_loss[ray] = loss
