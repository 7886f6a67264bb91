"""Proves on start-up that a device computes right gradients, on a problem whose answer is known.

The answer is computed here by numpy in double precision from the equations in ``kernels/selfcheck.py``.
"""

import numpy as np
import taichi as ti

from kernels import selfcheck

RAYS, SAMPLES, BINS = 8, 48, 5
TOLERANCE = 2e-4
"""Largest error accepted, relative to the largest value of each quantity; single precision stays below 2e-6."""


def find_wrong(is_cpu: bool) -> str | None:
    """``None`` if the device in use gets all of it right, else what is wrong, in a few words."""
    rng = np.random.default_rng(7)
    sigma = rng.uniform(0.0, 0.2, RAYS * SAMPLES).astype(np.float32)
    colour = rng.uniform(0.0, 1.0, RAYS * SAMPLES).astype(np.float32)
    got = _on_device(sigma, colour, is_cpu)
    for name, right in _expected(sigma.astype(np.float64), colour.astype(np.float64)).items():
        error = float(np.max(np.abs(got[name] - right)) / np.max(np.abs(right)))
        if not error < TOLERANCE:
            return f"{name} off by {100 * error:.2g} %"
    return None


def _expected(sigma: np.ndarray, colour: np.ndarray) -> dict[str, np.ndarray]:
    """Pixels, their gradient by density, and that gradient summed in bins; f64."""
    sigma, colour = sigma.reshape(RAYS, SAMPLES), colour.reshape(RAYS, SAMPLES)
    light = np.cumprod(np.concatenate([np.ones((RAYS, 1)), np.exp(-sigma)], axis=1), axis=1)
    shine = light[:, :-1] * (1.0 - np.exp(-sigma)) * colour
    behind = np.cumsum(shine[:, ::-1], axis=1)[:, ::-1] - shine
    grad = light[:, 1:] * colour - behind - light[:, -1:]
    return {
        "rendering": shine.sum(1) + light[:, -1],
        "the gradient of compositing": grad.reshape(-1),
        "the sum of gradients": np.bincount(np.arange(grad.size) % BINS, grad.reshape(-1)),
    }


def _on_device(sigma: np.ndarray, colour: np.ndarray, is_cpu: bool) -> dict[str, np.ndarray]:
    """The same from the device in use."""

    def array(n: int):
        return np.zeros(n, np.float32) if is_cpu else ti.ndarray(ti.f32, n)

    def upload(values: np.ndarray):
        if is_cpu:
            return values
        made = array(values.size)
        made.from_numpy(values)
        return made

    sigma, colour = upload(sigma), upload(colour)
    pixel, light, grad, sums = array(RAYS), array(RAYS), array(RAYS * SAMPLES), array(BINS)
    selfcheck.composite(sigma, colour, RAYS, SAMPLES, pixel, light)
    selfcheck.composite_adjoint(sigma, colour, RAYS, SAMPLES, light, grad)
    selfcheck.scatter(grad, RAYS * SAMPLES, BINS, ti.field(ti.f32, BINS), sums, not is_cpu)
    names = ("rendering", "the gradient of compositing", "the sum of gradients")
    return {n: a if is_cpu else a.to_numpy() for n, a in zip(names, (pixel, grad, sums), strict=True)}
