"""Lens models in numpy: which ray a pixel sees, and which pixel a point falls on.

Notation. A *pixel* (u, v) has its centre at +0.5. A point (X, Y, Z) in camera coordinates with x right, y **down**,
z forward (OpenCV) has an ideal image point q = (x, y); the lens moves it to q' = (x', y'), and u = fx x' + cx,
v = fy y' + cy. Poses elsewhere in tslim are OpenGL (y up, −z forward): ``directions`` and ``project`` take and give
OpenGL camera coordinates and flip inside.

``PINHOLE``, ``RADIAL`` and ``POLYNOMIAL`` have the ideal point q = (X, Y) / Z. ``FISHEYE`` has q = θ (X, Y) / |(X, Y)|
with θ the angle from the optical axis, which may exceed 90°. The three that bend do so by one equation, s = x² + y²::

    F(s) = (1 + a1 s + a2 s² + a3 s³ + a4 s⁴) / (1 + b1 s + b2 s² + b3 s³)
    x' = x F + 2 p1 x y + p2 (s + 2x²) + s1 s
    y' = y F + p1 (s + 2y²) + 2 p2 x y + s2 s

They differ in the order of their eight coefficients (``Cameras.distortion``), which is that of their sources:

=============  ========================  ============================================================================
lens           coefficients              read from
=============  ========================  ============================================================================
RADIAL         a1 a2 p1 p2 a3 b1 b2 b3   OpenCV's default (k1 k2 p1 p2 k3 k4 k5 k6); COLMAP's but for fisheyes
POLYNOMIAL     a1 a2 a3 a4 p1 p2 s1 s2   nerfstudio's and Metashape's k1 k2 k3 k4 p1 p2
FISHEYE        a1 a2 a3 a4 p1 p2 s1 s2   OpenCV's and COLMAP's fisheye models, THIN_PRISM_FISHEYE included
=============  ========================  ============================================================================

``EQUIRECTANGULAR`` shows all directions: longitude = (u − cx) / fx, latitude (downwards) = (v − cy) / fy, in radians.

``kernels.lenses`` does the same on the device, step by step: an angle or radius by Newton's method kept within a
bracket, then, for lenses with p or s, Newton's method in two dimensions from there. The bracket ends where the radial
part stops growing (``max_radius``): past that radius it folds the image over and no ray exists.
``worst_inversion_error`` finds coefficients for which that happens inside the picture.
"""

import functools
from collections.abc import Mapping

import numpy as np
from numpy.polynomial import polynomial

PINHOLE, RADIAL, FISHEYE, EQUIRECTANGULAR, POLYNOMIAL = range(5)
"""Values of ``Cameras.lens``, the same in ``kernels.lenses``."""

NAMES = ("pinhole", "radial-tangential", "fisheye", "equirectangular", "polynomial")
"""What people call them, by value."""

RADIUS_STEPS, PLANE_STEPS = 20, 10
"""Steps of Newton's method for the radius, and then for both coordinates; the same in ``kernels.lenses``."""

TABLE = 12
"""Numbers that describe a camera's lens on the device (see ``device_table``)."""

_FLATTEST = 100.0
"""A perspective picture ends here at the latest (89.4° from the axis), in units of the focal length."""

_BEFORE_POLE = 0.999
"""Share of the radius at which a denominator is zero that may be looked at: its sign is certain in float32."""

_LEAST_GROWTH = 5e-3
"""Least growth of areas: a lens that squeezes more of what it shows into a pixel is about to fold it over."""

_STRONGEST = 16.0
"""No lens moves what it shows so many times farther from the axis, or nearer to it."""


_ORDERS = {
    RADIAL: ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    POLYNOMIAL: ("k1", "k2", "k3", "k4", "p1", "p2", "s1", "s2"),
    FISHEYE: ("k1", "k2", "k3", "k4", "p1", "p2", "s1", "s2"),
}
"""The names under which files give the coefficients, in the order of ``Cameras.distortion``."""


def of_coefficients(lens: int, coefficients: Mapping[str, float]) -> tuple[int, tuple[float, ...]]:
    """(lens, its eight coefficients) from those that a file gives by OpenCV's names; what isn't given is zero.

    A perspective lens that bends nothing is a ``PINHOLE``. Raises ``ValueError``, with the names, for coefficients
    that the lens doesn't have, unless they are zero.
    """
    order = _ORDERS.get(lens, ())
    unknown = [name for name, value in coefficients.items() if value and name not in order]
    if unknown:
        raise ValueError(", ".join(unknown))
    values = tuple(float(coefficients.get(name, 0.0)) for name in order) or (0.0,) * 8
    return (PINHOLE if lens in (RADIAL, POLYNOMIAL) and not any(values) else lens), values


def all_around(width: float, height: float) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of an equirectangular picture of all directions."""
    return width / (2 * np.pi), height / np.pi, width / 2, height / 2


def _terms(lens: int, distortion: np.ndarray | None) -> np.ndarray:
    """(11,) a1 a2 a3 a4 b1 b2 b3 p1 p2 s1 s2 from a lens's own order of coefficients."""
    terms = np.zeros(11)
    if distortion is not None:
        order = (0, 1, 7, 8, 2, 4, 5, 6) if lens == RADIAL else (0, 1, 2, 3, 7, 8, 9, 10)
        terms[list(order)] = distortion
    return terms


def _factor(s: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F and its derivative by s."""
    top = 1 + s * (t[0] + s * (t[1] + s * (t[2] + s * t[3])))
    top_slope = t[0] + s * (2 * t[1] + s * (3 * t[2] + s * 4 * t[3]))
    bottom = 1 + s * (t[4] + s * (t[5] + s * t[6]))
    bottom_slope = t[4] + s * (2 * t[5] + s * 3 * t[6])
    value = top / bottom
    return value, (top_slope - value * bottom_slope) / bottom


def _bend(q: np.ndarray, t: np.ndarray) -> np.ndarray:
    """q' (..., 2)."""
    x, y = q[..., 0], q[..., 1]
    s = x * x + y * y
    factor, _ = _factor(s, t)
    p1, p2, s1, s2 = t[7:]
    return np.stack(
        [
            x * factor + 2 * p1 * x * y + p2 * (s + 2 * x * x) + s1 * s,
            y * factor + p1 * (s + 2 * y * y) + 2 * p2 * x * y + s2 * s,
        ],
        axis=-1,
    )


def _jacobian(q: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(..., 2, 2) derivatives of q' by q."""
    x, y = q[..., 0], q[..., 1]
    factor, slope = _factor(x * x + y * y, t)
    p1, p2, s1, s2 = t[7:]
    mixed = 2 * slope * x * y + 2 * p1 * x + 2 * p2 * y
    rows = (
        (factor + 2 * slope * x * x + 2 * p1 * y + 6 * p2 * x + 2 * s1 * x, mixed + 2 * s1 * y),
        (mixed + 2 * s2 * x, factor + 2 * slope * y * y + 6 * p1 * y + 2 * p2 * x + 2 * s2 * y),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def max_radius(lens: int, distortion: np.ndarray | None) -> float:
    """The radius |q| up to which the radial part of a lens grows: its first fold or pole, or the end of all rays."""
    t = _terms(lens, distortion)
    return _max_radius(lens, tuple(t[:7].tolist()))


@functools.lru_cache(maxsize=1024)
def _max_radius(lens: int, radial: tuple[float, ...]) -> float:
    end = float(np.pi) if lens == FISHEYE else _FLATTEST
    if not np.isfinite(radial).all():
        return end
    top, bottom = np.array([1, *radial[:4]]), np.array([1, *radial[4:]])
    # d(r F)/dr has the sign of N D + 2 s (N' D − N D').
    turn = polynomial.polymul(polynomial.polyder(top), bottom)
    turn = polynomial.polysub(turn, polynomial.polymul(top, polynomial.polyder(bottom)))
    slope = polynomial.polyadd(polynomial.polymul(top, bottom), polynomial.polymul([0, 2], turn))
    for roots, share in ((_roots(slope), 1.0), (_roots(bottom), _BEFORE_POLE)):
        real = roots.real[np.abs(roots.imag) <= 1e-7 * np.abs(roots)]
        end = min(end, share * float(np.sqrt(real[real > 0].min(initial=np.inf))))
    return end


def _roots(coefficients: np.ndarray) -> np.ndarray:
    """Roots of a polynomial, lowest power first.

    Leading zeros are cut off, and what is so small that dividing by it would overflow: the roots that it adds lie
    beyond anything.
    """
    large = np.flatnonzero(np.abs(coefficients) > 1e-150 * np.abs(coefficients).max())
    return polynomial.polyroots(coefficients[: large[-1] + 1])


def _unbend(target: np.ndarray, t: np.ndarray, end: float) -> np.ndarray:
    """q (..., 2) for each q' = ``target``."""
    wanted = np.hypot(target[..., 0], target[..., 1])
    low, high = np.zeros_like(wanted), np.full_like(wanted, end)
    radius = np.minimum(wanted, end)
    for _ in range(RADIUS_STEPS):
        factor, slope = _factor(radius * radius, t)
        miss = radius * factor - wanted
        high, low = np.where(miss > 0, radius, high), np.where(miss > 0, low, radius)
        found = radius - miss / np.maximum(factor + 2 * radius * radius * slope, 1e-6)
        radius = np.where((found < low) | (found > high), 0.5 * (low + high), found)
    q = target * (radius / np.where(wanted > 1e-12, wanted, 1.0))[..., None]
    if t[7:].any():
        for _ in range(PLANE_STEPS):
            dx, dy = np.moveaxis(_bend(q, t) - target, -1, 0)
            (xx, xy), (yx, yy) = np.moveaxis(_jacobian(q, t), (-2, -1), (0, 1))
            det = np.maximum(xx * yy - xy * yx, 1e-6)
            step = np.stack([yy * dx - xy * dy, xx * dy - yx * dx], -1) / det[..., None]
            q = q - np.clip(step, -0.5, 0.5)  # a long step only happens near a fold; it would leave the picture
    return q


def directions(pixels: np.ndarray, intrinsics: np.ndarray, lens: int = PINHOLE, distortion=None) -> np.ndarray:
    """Unit directions, in OpenGL camera coordinates, of the rays that pixel positions see.

    pixels: (..., 2), pixel centres at +0.5; intrinsics: (4,) fx fy cx cy; distortion: (8,) or None. Returns (..., 3)
    float64. Not meaningful beyond a fold of the lens (see ``worst_inversion_error``).
    """
    fx, fy, cx, cy = np.asarray(intrinsics, np.float64)
    q = (np.asarray(pixels, np.float64) - (cx, cy)) / (fx, fy)
    if lens == EQUIRECTANGULAR:
        lon, lat = q[..., 0], q[..., 1]
        return np.stack([np.cos(lat) * np.sin(lon), -np.sin(lat), -np.cos(lat) * np.cos(lon)], axis=-1)
    if lens != PINHOLE:
        q = _unbend(q, _terms(lens, distortion), max_radius(lens, distortion))
    if lens == FISHEYE:
        theta = np.hypot(q[..., 0], q[..., 1])
        scale = np.sinc(theta / np.pi)
        return np.stack([q[..., 0] * scale, -q[..., 1] * scale, -np.cos(theta)], axis=-1)
    d = np.stack([q[..., 0], -q[..., 1], -np.ones(q.shape[:-1])], axis=-1)
    return d / np.linalg.norm(d, axis=-1, keepdims=True)


def project(points: np.ndarray, intrinsics: np.ndarray, lens: int = PINHOLE, distortion=None) -> np.ndarray:
    """Pixel positions of points given in OpenGL camera coordinates: the inverse of ``directions`` for any length.

    points: (..., 3). Returns (..., 2) float64; NaN where a lens cannot show the point: behind the camera (fisheye and
    equirectangular pictures show that, too), or farther from the axis than its polynomial grows.
    """
    fx, fy, cx, cy = np.asarray(intrinsics, np.float64)
    points = np.asarray(points, np.float64)
    x, y, z = points[..., 0], -points[..., 1], -points[..., 2]
    if lens == EQUIRECTANGULAR:
        q = np.stack([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))], axis=-1)
        return q * (fx, fy) + (cx, cy)
    radius = np.hypot(x, y)
    if lens == FISHEYE:
        scale = np.arctan2(radius, z) / np.where(radius < 1e-12, 1.0, radius)
    else:
        scale = 1 / np.where(z > 1e-12, z, np.nan)
    q = np.stack([x * scale, y * scale], axis=-1)
    if lens != PINHOLE:
        t = _terms(lens, distortion)
        shown = np.hypot(q[..., 0], q[..., 1]) <= max_radius(lens, distortion) * (1 + 1e-9)
        with np.errstate(invalid="ignore"):
            q = np.where(shown[..., None], _bend(q, t), np.nan)
    return q * (fx, fy) + (cx, cy)


def device_table(lens: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """(n, 12) float32 for ``kernels.lenses``: a1 a2 a3 a4 b1 b2 b3 p1 p2 s1 s2 and ``max_radius`` of each camera.

    lens: (n,); distortion: (n, 8).
    """
    rows = [
        (*_terms(int(kind), c), max_radius(int(kind), c))
        for kind, c in zip(lens, distortion.astype(np.float64), strict=True)
    ]
    return np.array(rows, np.float32).reshape(-1, TABLE)


def worst_inversion_error(size: np.ndarray, intrinsics: np.ndarray, lens: int, distortion: np.ndarray) -> float:
    """Largest distance in pixels between a pixel of a grid over the picture and where its ray projects back to.

    Near zero for every usable lens; infinite where the coefficients fold the picture over, so that some pixels have no
    ray.
    """
    if lens in (PINHOLE, EQUIRECTANGULAR):
        return 0.0
    w, h = (float(s) for s in size)
    grid = np.stack(np.meshgrid(np.linspace(0, w, 17), np.linspace(0, h, 17)), -1).reshape(-1, 2)
    fx, fy, cx, cy = np.asarray(intrinsics, np.float64)
    t, end = _terms(lens, distortion), max_radius(lens, distortion)
    with np.errstate(all="ignore"):
        target = (grid - (cx, cy)) / (fx, fy)
        q = _unbend(target, t, end)
        error = np.linalg.norm((_bend(q, t) - target) * (fx, fy), axis=-1)
        # A point found beyond a fold is bent to the right pixel, too: the lens must also grow along the way.
        jacobian = _jacobian(np.linspace(0, 1, 33)[:, None, None] * q, t)
        grows = np.linalg.det(jacobian) > _LEAST_GROWTH
        radius, bent = np.linalg.norm(q, axis=-1), np.linalg.norm(target, axis=-1)
        absurd = (radius > end) | (radius > _STRONGEST * bent) | (bent > _STRONGEST * radius)
    if not grows.all() or absurd[bent > 0].any():
        return float("inf")
    return float(np.nan_to_num(error, nan=np.inf, posinf=np.inf).max())
