"""PSNR and SSIM against hand-computed values and a slow, direct twin."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tslim.errors import ConfigError
from tslim.measuring import metrics


def slow_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Window by window, from the definition: weighted mean, variance and covariance around the mean."""
    one = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    weights = np.outer(one, one) / np.outer(one, one).sum()
    values = []
    for c in range(a.shape[2]):
        for i in range(a.shape[0] - 10):
            for j in range(a.shape[1] - 10):
                x, y = a[i : i + 11, j : j + 11, c], b[i : i + 11, j : j + 11, c]
                mx, my = (weights * x).sum(), (weights * y).sum()
                vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
                cov = (weights * (x - mx) * (y - my)).sum()
                values.append(
                    (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)),
                )
    return float(np.mean(values))


def test_psnr_of_known_errors():
    a = np.full((4, 5, 3), 0.5, np.float32)
    assert metrics.psnr(a, a + np.float32(0.125)) == pytest.approx(-20 * math.log10(0.125), abs=1e-12)
    assert metrics.psnr(np.zeros((2, 2)), np.ones((2, 2))) == 0
    # one of four pixels off by 1/2: mse 1/16
    assert metrics.psnr(np.zeros(4), np.array([0.5, 0, 0, 0])) == pytest.approx(10 * math.log10(16))
    assert metrics.psnr(a, a) == math.inf


def test_psnr_does_not_lose_small_errors_to_single_precision():
    a = np.ones((300, 300, 3), np.float32)
    b = a - np.float32(2**-12)
    assert metrics.psnr(a, b) == pytest.approx(20 * 12 * math.log10(2), abs=1e-9)


@settings(deadline=None, max_examples=15)
@given(
    h=st.integers(11, 20), w=st.integers(11, 50), c=st.integers(1, 3), seed=st.integers(0, 99), blend=st.floats(0, 1)
)
def test_ssim_equals_its_definition_window_by_window(h, w, c, seed, blend):
    rng = np.random.default_rng(seed)
    a = rng.random((h, w, c))
    b = blend * a + (1 - blend) * rng.random((h, w, c))
    assert metrics.ssim(a, b) == pytest.approx(slow_ssim(a, b), abs=1e-9)
    assert metrics.ssim(a, b) == pytest.approx(metrics.ssim(b, a), abs=1e-12)


def test_ssim_over_more_than_one_block_of_rows_equals_its_definition():
    rng = np.random.default_rng(1)
    a = rng.random((80, 12, 1))
    b = np.clip(a + 0.1 * rng.normal(size=a.shape), 0, 1)
    assert metrics.ssim(a, b) == pytest.approx(slow_ssim(a, b), abs=1e-9)


def test_ssim_of_known_pictures():
    rng = np.random.default_rng(0)
    noise = rng.random((32, 32, 3))
    assert metrics.ssim(noise, noise) == pytest.approx(1, abs=1e-12)
    # constant pictures: only the brightness term is left, (2·0.25·0.75 + C1) / (0.25² + 0.75² + C1)
    dark, bright = np.full((20, 20), 0.25), np.full((20, 20), 0.75)
    assert metrics.ssim(dark, bright) == pytest.approx((0.375 + 1e-4) / (0.625 + 1e-4), abs=1e-9)
    # mirrored around one half: same means on average, opposite structure
    assert metrics.ssim(noise, 1 - noise) < -0.5


def test_ssim_of_a_large_picture_is_quick():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 800, 800, 3)).astype(np.float32)
    metrics.ssim(a, b)
    best = min(_seconds(metrics.ssim, a, b) for _ in range(3))
    assert best < 20.0, "0.1 s on two quiet cores; window by window takes minutes"


def _seconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


@pytest.mark.parametrize("shapes", [((12, 12, 3), (12, 13, 3)), ((10, 40, 3), (10, 40, 3)), ((40,), (40,))])
def test_pictures_that_cannot_be_compared_are_refused(shapes):
    with pytest.raises(ConfigError, match="shape"):
        metrics.ssim(np.zeros(shapes[0]), np.zeros(shapes[1]))


def test_psnr_refuses_other_shapes_rather_than_broadcasting():
    with pytest.raises(ConfigError, match="shapes"):
        metrics.psnr(np.zeros((4, 4, 3)), np.zeros((4, 4, 1)))
