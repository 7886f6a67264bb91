"""Where a scene lies: box, near, far and space, found from cameras and sparse points.

What ``Scene.box``, ``near`` and ``far`` mean depends on ``Scene.space``. Distances are measured along rays of unit
length, in world units.

``box``: an object. The field fills ``box`` (world units); a ray is followed inside the box, between ``near`` and
``far``.

``ndc``: a forward-facing scene. The world is turned and moved (never scaled) so that the mean camera stands at the
origin, upright, and looks along −z. A point p with p_z <= −near is mapped by::

    ndc(p) = (2 p_x / −p_z,  2 p_y / −p_z,  1 + 2 near / p_z)

which keeps straight lines straight and is the NDC of the NeRF paper for a square camera of focal length = image size,
so that nothing but ``near`` has to be remembered. The plane z = −near is at −1, infinity at +1. ``box`` is given **in
these coordinates**: [−1, 1] along the third, and along the first two what the cameras see, with a margin. ``near`` is
the distance of that plane from the origin (0.75 × the nearest bound, as in LLFF and TensoRF), and ``far`` the farthest
bound: it does not limit rays, it only says where a camera path should look.

``contracted``: everything around. ``box`` (world units) is a **cube**, the part of space that is not contracted; with
centre c and half side h, q = (p − c) / h is mapped by MERF's piecewise-projective contraction::

    contract(q) = q                            where max|q| <= 1, else, with j the axis of max|q|,
    contract(q)_j = sign(q_j) (2 − 1 / |q_j|),  contract(q)_i = q_i / |q_j|

so that the world lies in [−2, 2]³: the cube in [−1, 1]³, and a slab of thickness 1 on each of its six faces for what is
beyond (lines stay straight within each; neighbours across the border of two slabs don't stay neighbours). A ray is
followed from ``near`` in front of its camera to ``far``, which is so large that what lies behind would share its last
texel. Half the texels along an axis serve the cube. The cube is centred on what the cameras look at, with half their
usual distance as half side: the subject then gets four times the texels that a cube around the cameras would give it,
and the background loses only depth resolution. Where there are sparse points, the world is turned first so that its
axes are those of what stands in it (``tslim.data.orientation``).
"""

import numpy as np

from tslim.scene import paths
from tslim.scene.cameras import Cameras

NDC_MARGIN = 1.05
"""ndc boxes are this much larger than what the cameras see, for camera paths that leave their hull a little."""

_HORIZON = 50.0
"""contracted: rays end at least so many half sides away, where one texel of a 200³ grid holds all the rest."""

LEAST_INSIDE = 0.3
"""Share of the sparse points below which a cube found from the cameras alone is not where the scene is."""

_MISSED = 0.7
"""The axes of cameras that look at something miss it by less than this times their distance from each other."""

_FORWARD_COSINE = np.cos(np.radians(60.0))
"""Cameras turned farther than this from the mean direction can't share one projective frame."""


def opengl_from_opencv(poses: np.ndarray) -> np.ndarray:
    """(n, 3, 4) camera-to-world with axes right, up, backward from (n, 3, 4) with right, down, forward."""
    return poses * np.array([1.0, -1.0, -1.0, 1.0])


def rotations(quaternions: np.ndarray) -> np.ndarray:
    """(n, 3, 3) rotation matrices of (n, 4) quaternions w, x, y, z, which need not have exactly unit length."""
    w, x, y, z = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def mean_frame(poses: np.ndarray) -> np.ndarray:
    """(4, 4) camera-to-world of the mean of (n, 3, 4) poses: mean origin, mean backward axis, roll by the mean up."""
    back = poses[:, :, 2].mean(0)
    back /= np.linalg.norm(back)
    right = np.cross(poses[:, :, 1].mean(0), back)
    if np.linalg.norm(right) < 1e-6:  # cameras held every way up: any roll is as good
        right = np.cross(np.eye(3)[np.argmin(np.abs(back))], back)
    right /= np.linalg.norm(right)
    frame = np.eye(4)
    frame[:3] = np.stack([right, np.cross(back, right), back, poses[:, :, 3].mean(0)], 1)
    return frame


def recentred(poses: np.ndarray) -> np.ndarray:
    """(n, 3, 4) poses as seen from their mean frame; the world is turned and moved, not scaled."""
    return (np.linalg.inv(mean_frame(poses)) @ _square(poses))[:, :3]


def faces_forward(poses: np.ndarray) -> bool:
    """Whether all (n, 3, 4) cameras look roughly one way, so that NDC can hold what they see."""
    mean = poses[:, :, 2].mean(0)
    length = np.linalg.norm(mean)
    return bool(length > 0.5 and np.all(poses[:, :, 2] @ (mean / length) > _FORWARD_COSINE))


def ndc_box(cameras: Cameras, near: float) -> np.ndarray | None:
    """(2, 3) box in NDC of what recentred cameras see beyond z = −near; None if a ray does not get there.

    A ray's image in NDC is the segment from where it meets the near plane to its point at infinity, so the two ends
    of the rays through the image's border bound it.
    """
    ends = []
    steps = np.linspace(0, 1, 5)
    border = np.array([(s, t) for s in steps for t in steps if s in (0, 1) or t in (0, 1)])
    for i in range(len(cameras)):
        origin, direction = cameras.rays(i, border * cameras.sizes[i])
        if np.any(direction[:, 2] > -0.05) or np.any(origin[:, 2] <= -near):
            return None
        to_plane = (near + origin[:, 2:]) / -direction[:, 2:]
        at_plane = origin[:, :2] + to_plane * direction[:, :2]
        ends += [2 * at_plane / near, 2 * direction[:, :2] / -direction[:, 2:]]
    corners = np.concatenate(ends)
    low, high = corners.min(0), corners.max(0)
    middle, half = (low + high) / 2, NDC_MARGIN * (high - low) / 2
    return np.array([[*(middle - half), -1.0], [*(middle + half), 1.0]])


def surroundings(cameras: Cameras, points: np.ndarray | None) -> tuple[np.ndarray, float, float]:
    """Box, near and far of a contracted space (see the module's text) from cameras and, if there are any, points."""
    origins = cameras.origins.astype(np.float64)
    points = None if points is None or not len(points) else points.astype(np.float64)
    center, half, near = _cube(cameras)
    if points is not None:
        away = np.abs(points - center).max(1)
        one_way = faces_forward(cameras.poses.astype(np.float64))
        if not converge(cameras) and not one_way:
            half = max(half, float(np.median(away)))
        elif not converge(cameras) or float((away < half).mean()) < LEAST_INSIDE:
            center = np.median(points, 0)
            half = float(np.quantile(np.abs(points - center).max(1), 0.75))
    half = half if half > 0 else 1.0  # a single viewpoint without points: any scale is as good
    far = _HORIZON * max(half, float(np.abs(origins - center).max()) / _HORIZON)
    seen = visible_distances(cameras, points)
    if len(seen):
        near = 0.7 * float(np.quantile(seen, 0.002))
        far = max(far, 1.5 * float(np.quantile(seen, 0.998)))
    near = max(min(near, 0.5 * half), 1e-4 * half)
    return np.stack([center - half, center + half]), near, far


def _cube(cameras: Cameras) -> tuple[np.ndarray, float, float]:
    """(centre, half side, near) of the cube that holds the subject, from the cameras alone."""
    origins = cameras.origins.astype(np.float64)
    spread = float(np.median(np.abs(origins - np.median(origins, 0)).max(1)))
    if converge(cameras):
        focus = paths.focus_point(cameras)
        distance = np.linalg.norm(focus - origins, axis=1)
        return focus, 0.5 * float(np.median(distance)), 0.1 * float(np.quantile(distance, 0.05))
    if faces_forward(cameras.poses.astype(np.float64)) and spread > 0:
        distance = overlap_distance(cameras)
        ahead = -mean_frame(cameras.poses.astype(np.float64))[:3, 2]
        return np.median(origins, 0) + distance * ahead, max(0.5 * distance, spread), 0.05 * distance
    return np.median(origins, 0), 2 * spread, 0.1 * spread  # they look outwards: the cube holds where they stand


def converge(cameras: Cameras) -> bool:
    """Whether the cameras look at a point: it lies in front of them, and their axes miss it by less than they are
    apart.

    Axes that are parallel but for some jitter (mapping flights) have a nearest point, too, far off and by chance.
    """
    origins, forward = cameras.origins.astype(np.float64), cameras.forward.astype(np.float64)
    towards = paths.focus_point(cameras) - origins
    along = np.einsum("ij,ij->i", towards, forward)
    distance = np.linalg.norm(towards, axis=1)
    if not ((along > 0.5 * distance).mean() > 0.7 and np.median(distance) > 0):
        return False
    apart = np.median(np.linalg.norm(origins - np.median(origins, 0), axis=1))
    missed = np.median(np.linalg.norm(towards - along[:, None] * forward, axis=1))
    return bool(missed < _MISSED * apart) or not apart > 0


def overlap_distance(cameras: Cameras) -> float:
    """How far away cameras that all look one way see something, if neighbours share some three quarters of it."""
    origins = cameras.origins.astype(np.float64)
    apart = np.linalg.norm(origins[:, None] - origins[None], axis=-1) if len(origins) < 2000 else None
    if apart is None:
        return float(np.linalg.norm(np.ptp(origins, 0)))
    apart[np.arange(len(apart)), np.arange(len(apart))] = np.inf
    apart = apart[:, (apart > 0).any(0)]
    gap = float(np.median(apart.min(1)))
    if not np.isfinite(gap) or gap <= 0:
        return 1.0
    return 4 * gap * float(np.median(cameras.intrinsics[:, 0] / cameras.sizes[:, 0]))


def object_box(cameras: Cameras) -> np.ndarray:
    """(2, 3) cube around what the cameras look at that most of them see whole."""
    center = paths.focus_point(cameras)
    distance = np.linalg.norm(cameras.origins - center, axis=1)
    half_angle = 0.5 * cameras.sizes.min(1) / cameras.intrinsics[:, :2].min(1)
    half = float(np.median(distance * half_angle / np.sqrt(1 + half_angle**2)))
    half = half if half > 0 else 1.0
    return np.stack([center - half, center + half])


def limits_of_box(cameras: Cameras, box: np.ndarray) -> tuple[float, float]:
    """near and far between which every ray of the cameras passes through a world-space box."""
    box = np.asarray(box, np.float64)
    origins = cameras.origins.astype(np.float64)
    diagonal = float(np.linalg.norm(box[1] - box[0]))
    outside = np.linalg.norm(np.maximum(np.maximum(box[0] - origins, origins - box[1]), 0), axis=1)
    farthest = np.linalg.norm(np.maximum(np.abs(box[0] - origins), np.abs(box[1] - origins)), axis=1)
    return max(0.99 * float(outside.min()), 0.005 * diagonal), 1.01 * float(farthest.max())


def visible_distances(cameras: Cameras, points: np.ndarray | None, most: int = 20_000) -> np.ndarray:
    """Distances (k,) of points to the cameras in whose picture they fall, for at most ``most`` points."""
    if points is None or not len(points):
        return np.zeros(0)
    points = points[:: 1 + len(points) // most].astype(np.float64)
    found = []
    for i in range(0, len(cameras), 1 + len(cameras) // 200):
        with np.errstate(all="ignore"):
            pixels, depth = cameras.project(points, i)
            inside = (depth > 0) & np.all((pixels >= 0) & (pixels < cameras.sizes[i]), 1)
        found.append(np.linalg.norm(points[inside] - cameras.origins[i], axis=1))
    return np.concatenate(found)


def _square(poses: np.ndarray) -> np.ndarray:
    last = np.broadcast_to(np.array([[[0.0, 0.0, 0.0, 1.0]]]), (len(poses), 1, 4))
    return np.concatenate([poses, last], 1)
