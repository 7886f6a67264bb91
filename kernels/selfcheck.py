"""A miniature of what training asks of a device: the probe that runs when a device starts.

Two things go wrong on some drivers without a message: floating-point atomics that lose additions, and loops that carry
values from turn to turn (transmittance, colour). The probe has one of each, as straight and as small as it can be.

Notation: ray i has samples s = 0..S−1 with density σ and colour c (one channel); step length 1.
    α_s = 1 − exp(−σ_s),  T_s = Π_{j<s} (1 − α_j),  w_s = T_s α_s,  C = Σ_s w_s c_s + T_S
    ∂C/∂σ_s = T_{s+1} c_s − Σ_{j>s} w_j c_j − T_S,  ∂C/∂c_s = w_s
"""

import taichi as ti

from kernels.types import f32_1d


@ti.kernel
def composite(
    sigma: f32_1d, colour: f32_1d, n_rays: ti.i32, n_samples: ti.i32,
    pixel: f32_1d, light: f32_1d,
):  # fmt: skip
    """Pixel C and transmittance T_S of each ray; samples of ray i at ``i * n_samples + s``."""
    for i in range(n_rays):
        total = 0.0
        left = 1.0
        for s in range(n_samples):
            k = i * n_samples + s
            alpha = 1.0 - ti.exp(-sigma[k])
            total += left * alpha * colour[k]
            left *= 1.0 - alpha
        pixel[i] = total + left
        light[i] = left


@ti.kernel
def composite_adjoint(
    sigma: f32_1d, colour: f32_1d, n_rays: ti.i32, n_samples: ti.i32,
    light: f32_1d, grad_sigma: f32_1d,
):  # fmt: skip
    """∂C/∂σ of each sample, walking each ray from its end."""
    for i in range(n_rays):
        left = light[i]
        behind = light[i]
        for back in range(n_samples):
            k = i * n_samples + n_samples - 1 - back
            keep = ti.exp(-sigma[k])
            grad_sigma[k] = left * colour[k] - behind
            left /= keep
            behind += left * (1.0 - keep) * colour[k]


@ti.kernel
def scatter(
    values: f32_1d, n: ti.i32, n_bins: ti.i32, bins: ti.template(), sums: f32_1d, atomic: ti.template(),
):  # fmt: skip
    """Adds value k to bin ``k % n_bins`` of the field ``bins``, then copies the bins to ``sums``.

    By atomics from all values at once, or each bin by its owner.
    """
    for b in range(n_bins):
        bins[b] = 0.0
    if ti.static(atomic):
        for k in range(n):
            ti.atomic_add(bins[k % n_bins], values[k])
    else:
        for b in range(n_bins):
            for j in range((n - b + n_bins - 1) // n_bins):
                bins[b] += values[j * n_bins + b]
    for b in range(n_bins):
        sums[b] = bins[b]
