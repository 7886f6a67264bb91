"""How close two pictures are. numpy only, in double precision."""

import math

import numpy as np

from tslim.errors import ConfigError

WINDOW = 11
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2
_BLOCK = 32


def psnr(a: np.ndarray, b: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB, -10 log10(mean((a - b)²)), of two pictures in [0, 1]; infinite if equal.

    Any shape; ``valid`` (bool, the first axes of that shape) limits the mean to some pixels. ``ConfigError`` if the
    shapes differ or no pixel is valid.
    """
    a, b = _pair(a, b)
    if valid is not None:
        a, b = _pair(a[valid], b[valid])
    error = float(np.mean(np.square(a - b)))
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(a: np.ndarray, b: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Structural similarity of two pictures (h, w, 3) or (h, w) in [0, 1]: 1 if equal.

    Wang et al. 2004, as NeRF papers compute it: Gaussian window of 11x11 with sigma 1.5, only where it lies wholly
    inside the picture, K1 = 0.01, K2 = 0.03, mean over pixels and channels; rounding errors of the moments are clipped
    so that variances are not negative and covariances not above their bound. With ``valid`` (h, w) the others count as
    equal, and the mean is over the valid pixels. ``ConfigError`` if the shapes differ, a side is shorter than the
    window, or no window has a valid pixel in its middle.
    """
    a, b = _pair(a, b)
    if valid is not None:
        b = np.where(valid if b.ndim == 2 else valid[..., None], b, a)
    if a.ndim not in (2, 3) or min(a.shape[:2]) < WINDOW:
        raise ConfigError(f"SSIM needs pictures of at least {WINDOW}x{WINDOW} pixels, got shape {a.shape}")
    a, b = (np.ascontiguousarray(np.moveaxis(np.atleast_3d(x), 2, 0)) for x in (a, b))
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = np.maximum(_blur(a * a) - mean_a * mean_a, 0)
    var_b = np.maximum(_blur(b * b) - mean_b * mean_b, 0)
    cov = _blur(a * b) - mean_a * mean_b
    bound = np.sqrt(var_a * var_b)
    cov = np.clip(cov, -bound, bound)
    numerator = (2 * mean_a * mean_b + C1) * (2 * cov + C2)
    denominator = (mean_a * mean_a + mean_b * mean_b + C1) * (var_a + var_b + C2)
    similarity = numerator / denominator
    if valid is not None:
        edge = WINDOW // 2
        similarity = similarity[:, valid[edge:-edge, edge:-edge]]
        if similarity.size == 0:
            raise ConfigError("SSIM of pictures without a valid pixel")
    return float(np.mean(similarity))


def gaussian_window() -> np.ndarray:
    """(11,) weights of the window along one axis, summing to 1."""
    weights = np.exp(-0.5 * np.square((np.arange(WINDOW) - WINDOW // 2) / SIGMA))
    return weights / weights.sum()


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.size == 0:
        raise ConfigError(f"pictures of shapes {a.shape} and {b.shape} cannot be compared")
    return a, b


def _blur(planes: np.ndarray) -> np.ndarray:
    """(c, h, w) → (c, h - 10, w - 10), the window's weighted means.

    As matrix products on blocks of rows and columns: BLAS does the 42 products a value of a block sooner than numpy
    does 11 passes over the whole picture.
    """
    c, h, w = planes.shape
    high, wide = h - WINDOW + 1, w - WINDOW + 1
    band = np.zeros((_BLOCK, _BLOCK + WINDOW - 1))
    for i in range(_BLOCK):
        band[i, i : i + WINDOW] = gaussian_window()
    blurred = np.empty((c, high, w))
    for start in range(0, high, _BLOCK):
        size = min(_BLOCK, high - start)
        part = band[:size, : size + WINDOW - 1]
        np.matmul(part, planes[:, start : start + size + WINDOW - 1], out=blurred[:, start : start + size])
    rows, result = blurred.reshape(-1, w), np.empty((c * high, wide))
    for start in range(0, wide, _BLOCK):
        size = min(_BLOCK, wide - start)
        part = band[:size, : size + WINDOW - 1]
        np.matmul(rows[:, start : start + size + WINDOW - 1], part.T, out=result[:, start : start + size])
    return result.reshape(c, high, wide)
