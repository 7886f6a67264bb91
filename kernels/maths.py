"""Functions of one number where the plain formula is slow, or loses digits."""

import taichi as ti


@ti.func
def softplus(z: ti.f32) -> ti.f32:
    """log(1 + exp(z)) to f32 accuracy; the series spares a logarithm where density is next to nothing, as mostly."""
    sigma = z
    if z < -8.0:
        e = ti.exp(z)
        sigma = e * (1.0 - 0.5 * e)
    elif z < 16.0:
        sigma = ti.max(z, 0.0) + ti.log(1.0 + ti.exp(-ti.abs(z)))
    return sigma


@ti.func
def exp_minus(x: ti.f32) -> ti.f32:
    """exp(-x) for x >= 0 to f32 accuracy; the series spares a call where x is small, as it is in thin air."""
    y = 1.0 - x * (1.0 - x * (0.5 - x * (1.0 / 6.0)))
    if x > 0.01:
        y = ti.exp(-x)
    return y


@ti.func
def sincos(x):
    """Sine and cosine together, within 2e-7 + 1e-7·|x|, without calls or branches: a loop over it vectorises.

    What GPUs have instead may be off by 5e-4 (Vulkan promises no more), half a pixel at f = 1000.
    Reduction to |r| ≤ π/4 in two steps (Cody and Waite), then the minimax polynomials of Cephes ``sinf``/``cosf``.
    """
    quarter_turns = ti.floor(x * 0.6366197723675814 + 0.5)
    r = (x - quarter_turns * 1.5703125) - quarter_turns * 4.83826794897e-4
    z = r * r
    s = r + r * z * (-1.6666654611e-1 + z * (8.3321608736e-3 + z * -1.9515295891e-4))
    c = 1.0 - 0.5 * z + z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5))
    quadrant = ti.cast(quarter_turns, ti.i32)
    odd = (quadrant & 1) != 0
    sine = ti.select(odd, c, s)
    cosine = ti.select(odd, s, c)
    sine = ti.select((quadrant & 2) != 0, -sine, sine)
    cosine = ti.select(((quadrant + 1) & 2) != 0, -cosine, cosine)
    return sine, cosine
