"""Lens models in numpy: which ray a pixel sees, and which pixel a point falls on.

Notation. A *pixel* (u, v) has its centre at +0.5. A point (X, Y, Z) in camera coordinates with x right, y **down**,
z forward (OpenCV) has the ideal image point (x, y) = (X/Z, Y/Z); the lens moves it to (x', y'), and u = fx x' + cx,
v = fy y' + cy. Poses elsewhere in tslim are OpenGL (y up, −z forward): ``directions`` and ``project`` take and give
OpenGL camera coordinates and flip inside.

``RADIAL`` (radial-tangential, OpenCV's default and COLMAP's SIMPLE_RADIAL, RADIAL and OPENCV), coefficients
k1 k2 p1 p2 k3, r² = x² + y²::

    x' = x (1 + k1 r² + k2 r⁴ + k3 r⁶) + 2 p1 x y + p2 (r² + 2x²)
    y' = y (1 + k1 r² + k2 r⁴ + k3 r⁶) + p1 (r² + 2y²) + 2 p2 x y

``FISHEYE`` (equidistant with a polynomial, OpenCV's fisheye and COLMAP's OPENCV_FISHEYE), coefficients k1 k2 k3 k4,
θ the angle from the optical axis::

    θ' = θ (1 + k1 θ² + k2 θ⁴ + k3 θ⁶ + k4 θ⁸),   (x', y') = θ' (x, y) / r

Both are inverted by Newton's method. A polynomial of this kind stops growing somewhere; past that radius it folds the
image over and no ray exists. ``worst_inversion_error`` finds coefficients for which that happens inside the picture.
"""

import numpy as np

PINHOLE, RADIAL, FISHEYE = 0, 1, 2
"""Values of ``Cameras.lens``."""

_NEWTON_STEPS = 20


def _radial_factor(r2: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 + k1 r² + k2 r⁴ + k3 r⁶ and its derivative by r²."""
    k1, k2, k3 = c[0], c[1], c[4]
    return 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), k1 + r2 * (2 * k2 + r2 * 3 * k3)


def _fisheye_angle(theta: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """θ' and dθ'/dθ."""
    t2 = theta * theta
    value = theta * (1 + t2 * (c[0] + t2 * (c[1] + t2 * (c[2] + t2 * c[3]))))
    slope = 1 + t2 * (3 * c[0] + t2 * (5 * c[1] + t2 * (7 * c[2] + t2 * 9 * c[3])))
    return value, slope


def _distort_radial(xy: np.ndarray, c: np.ndarray) -> np.ndarray:
    x, y = xy[..., 0], xy[..., 1]
    r2 = x * x + y * y
    factor, _ = _radial_factor(r2, c)
    p1, p2 = c[2], c[3]
    return np.stack(
        [x * factor + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * factor + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y],
        axis=-1,
    )


def _undistort_radial(target: np.ndarray, c: np.ndarray) -> np.ndarray:
    p1, p2 = c[2], c[3]
    xy = target.copy()
    for _ in range(_NEWTON_STEPS):
        x, y = xy[..., 0], xy[..., 1]
        factor, slope = _radial_factor(x * x + y * y, c)
        miss = _distort_radial(xy, c) - target
        xx = factor + 2 * slope * x * x + 2 * p1 * y + 6 * p2 * x
        xy_ = 2 * slope * x * y + 2 * p1 * x + 2 * p2 * y  # the Jacobian is symmetric
        yy = factor + 2 * slope * y * y + 6 * p1 * y + 2 * p2 * x
        det = xx * yy - xy_ * xy_
        det = np.where(np.abs(det) < 1e-9, 1e-9, det)
        step = np.stack([yy * miss[..., 0] - xy_ * miss[..., 1], xx * miss[..., 1] - xy_ * miss[..., 0]], -1)
        step /= det[..., None]
        xy = xy - np.clip(step, -0.5, 0.5)  # a long step only happens near a fold; it would leave the picture
        if np.abs(step).max(initial=0) < 1e-12:
            break
    return xy


def _undistort_fisheye(target: np.ndarray, c: np.ndarray) -> np.ndarray:
    """θ for each θ'."""
    theta = target.copy()
    for _ in range(_NEWTON_STEPS):
        value, slope = _fisheye_angle(theta, c)
        step = (value - target) / np.where(np.abs(slope) < 1e-9, 1e-9, slope)
        theta = np.clip(theta - np.clip(step, -0.5, 0.5), 0.0, np.pi)
        if np.abs(step).max(initial=0) < 1e-12:
            break
    return theta


def directions(pixels: np.ndarray, intrinsics: np.ndarray, lens: int = PINHOLE, distortion=None) -> np.ndarray:
    """Unit directions, in OpenGL camera coordinates, of the rays that pixel positions see.

    pixels: (..., 2), pixel centres at +0.5; intrinsics: (4,) fx fy cx cy; distortion: (8,) or None. Returns (..., 3)
    float64. Not meaningful beyond a fold of the lens (see ``worst_inversion_error``).
    """
    fx, fy, cx, cy = np.asarray(intrinsics, np.float64)
    c = np.zeros(8) if distortion is None else np.asarray(distortion, np.float64)
    xy = (np.asarray(pixels, np.float64) - (cx, cy)) / (fx, fy)
    if lens == FISHEYE:
        radius = np.linalg.norm(xy, axis=-1)
        theta = _undistort_fisheye(radius, c)
        scale = np.sin(theta) / np.where(radius < 1e-12, 1.0, radius)
        scale = np.where(radius < 1e-12, 1.0, scale)
        return np.stack([xy[..., 0] * scale, -xy[..., 1] * scale, -np.cos(theta)], axis=-1)
    if lens == RADIAL:
        xy = _undistort_radial(xy, c)
    d = np.stack([xy[..., 0], -xy[..., 1], -np.ones(xy.shape[:-1])], axis=-1)
    return d / np.linalg.norm(d, axis=-1, keepdims=True)


def project(points: np.ndarray, intrinsics: np.ndarray, lens: int = PINHOLE, distortion=None) -> np.ndarray:
    """Pixel positions of points given in OpenGL camera coordinates: the inverse of ``directions`` for any length.

    points: (..., 3). Returns (..., 2) float64; NaN where a point lies behind the camera (any lens but fisheye, which
    sees up to 180° from its axis).
    """
    fx, fy, cx, cy = np.asarray(intrinsics, np.float64)
    c = np.zeros(8) if distortion is None else np.asarray(distortion, np.float64)
    points = np.asarray(points, np.float64)
    x, y, z = points[..., 0], -points[..., 1], -points[..., 2]
    if lens == FISHEYE:
        radius = np.hypot(x, y)
        bent, _ = _fisheye_angle(np.arctan2(radius, z), c)
        scale = bent / np.where(radius < 1e-12, 1.0, radius)
        xy = np.stack([x * scale, y * scale], axis=-1)
    else:
        depth = np.where(z > 1e-12, z, np.nan)
        xy = np.stack([x / depth, y / depth], axis=-1)
        if lens == RADIAL:
            xy = _distort_radial(xy, c)
    return xy * (fx, fy) + (cx, cy)


def worst_inversion_error(size: np.ndarray, intrinsics: np.ndarray, lens: int, distortion: np.ndarray) -> float:
    """Largest distance in pixels between a pixel of the picture's border and where its ray projects back to.

    Near zero for every usable lens; infinite where the coefficients fold the picture over, so that some pixels have no
    ray.
    """
    if lens == PINHOLE:
        return 0.0
    w, h = (float(s) for s in size)
    along = np.linspace(0, 1, 17)
    border = np.concatenate(
        [np.stack([along * w, np.full(17, y)], -1) for y in (0.0, h / 2, h)]
        + [np.stack([np.full(17, x), along * h], -1) for x in (0.0, w / 2, w)]
    )
    with np.errstate(all="ignore"):
        back = project(directions(border, intrinsics, lens, distortion), intrinsics, lens, distortion)
        # A ray found beyond the fold projects back to the right pixel too: the lens must also grow along the way.
        if lens == FISHEYE:
            c = np.asarray(distortion, np.float64)
            rays = directions(border, intrinsics, lens, distortion)
            theta = np.linspace(0, 1, 33)[:, None] * np.arccos(np.clip(-rays[:, 2], -1, 1))
            grows = _fisheye_angle(theta, c)[1] > 0
        else:
            c = np.asarray(distortion, np.float64)
            rays = directions(border, intrinsics, lens, distortion)
            r2 = (np.linspace(0, 1, 33)[:, None] * np.hypot(rays[:, 0], rays[:, 1]) / -rays[:, 2]) ** 2
            factor, slope = _radial_factor(r2, c)
            grows = factor + 2 * r2 * slope > 0
        error = np.linalg.norm(back - border, axis=-1)
    if not np.all(grows):
        return float("inf")
    return float(np.nan_to_num(error, nan=np.inf, posinf=np.inf).max())
