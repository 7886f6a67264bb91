"""What is possible about a capture's cameras, and hardly meant: said in warnings, and left as it is."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tslim.data import geometry, shots
from tslim.data.shots import Shot
from tslim.scene import lenses
from tslim.scene.cameras import Cameras

OFF_CENTRE = 0.25
"""Share of a picture's width or height that its centre may be away from the middle."""
OUTLYING = 100.0
"""Times the usual distance from the middle of all cameras that one may stand away."""
ONE_PLACE = 1e-4
"""Share of the distance of the sparse points below which cameras stand in one place."""
HARDLY_SEEN, WELL_SEEN = 0.02, 0.1
"""Shares of the sparse points in a picture, on the average."""
MOST_POINTS, MOST_CAMERAS = 500, 50
"""At most so many are looked at."""
HOW_TO_TURN = "poses are camera-to-world, with OpenGL axes: x right, y up, looking along -z"


def of_cameras(every: Sequence[Shot], points: np.ndarray | None) -> list[str]:
    """Warnings about lenses and poses of possible cameras; ``points`` (p, 3) are the sparse ones, if there are any."""
    if not every:
        return []
    cameras = shots.cameras_of(every, [shot.size for shot in every])
    points = points if points is not None and len(points) else None
    return [*_centres(every), *_panoramas(every), *_places(every, cameras, points), *_directions(cameras, points)]


def _centres(every: Sequence[Shot]) -> list[str]:
    off = [s for s in every if any(abs(s.intrinsics[2 + i] / s.size[i] - 0.5) > OFF_CENTRE for i in (0, 1))]
    if not off:
        return []
    (_, _, cx, cy), (width, height) = off[0].intrinsics, off[0].size
    return [
        f"the centre of {len(off)} of {len(every)} pictures is far from their middle ({off[0].name}: {cx:g}, {cy:g} "
        f"of {width}x{height} pixels): if their lens is that of a larger or smaller copy, give width and height with it"
    ]


def _panoramas(every: Sequence[Shot]) -> list[str]:
    odd = [s for s in every if s.lens == lenses.EQUIRECTANGULAR and abs(s.size[0] - 2 * s.size[1]) > 0.02 * s.size[0]]
    if not odd:
        return []
    width, height = odd[0].size
    return [
        f"{len(odd)} panoramas are not twice as wide as high ({odd[0].name}: {width}x{height}): they are taken for all "
        "of 360° by 180°, stretched"
    ]


def _places(every: Sequence[Shot], cameras: Cameras, points: np.ndarray | None) -> list[str]:
    origins = cameras.origins.astype(np.float64)
    middle = np.median(origins, 0)
    away = np.linalg.norm(origins - middle, axis=1)
    usual = float(np.median(away))
    seen = 0.0 if points is None else float(np.median(np.linalg.norm(points - middle, axis=1)))
    if float(np.quantile(away, 0.9)) <= ONE_PLACE * seen:
        return ["the cameras stand in one place: what is near and what is far cannot be told from their photographs"]
    outlying = np.flatnonzero(away > OUTLYING * usual)
    if not usual > 0 or not len(outlying):
        return []
    return [
        f"the camera of {every[outlying[0]].name}{f' (and {len(outlying) - 1} more)' if len(outlying) > 1 else ''} "
        f"stands {away[outlying[0]] / usual:.0f} times farther away than others do: if that is a mistake, leave it out"
    ]


def _directions(cameras: Cameras, points: np.ndarray | None) -> list[str]:
    """Whether cameras look away from what they should see, and whether they would not with the other axes."""
    turned = replace(cameras, poses=geometry.opengl_from_opencv(cameras.poses.astype(np.float64)))
    cure = f"{HOW_TO_TURN}; those of OpenCV need their second and third column negated"
    if points is not None:
        seen = _share_seen(cameras, points)
        if seen >= HARDLY_SEEN:
            return []
        if _share_seen(turned, points) >= WELL_SEEN:
            return [f"the sparse points lie behind the cameras: {cure}"]
        return [f"only {100 * seen:.1f} % of the sparse points are in a picture, on the average: {HOW_TO_TURN}"]
    one_way = geometry.faces_forward(cameras.poses.astype(np.float64))
    if one_way or geometry.converge(cameras) or not geometry.converge(turned):
        return []
    return [f"the cameras look away from one another, and would all look at one thing if they were turned: {cure}"]


def _share_seen(cameras: Cameras, points: np.ndarray) -> float:
    """Share of the points that are in a picture, a mean over cameras."""
    some = points[:: 1 + len(points) // MOST_POINTS].astype(np.float64)
    shares = []
    for i in range(0, len(cameras), 1 + len(cameras) // MOST_CAMERAS):
        with np.errstate(all="ignore"):
            pixels, depth = cameras.project(some, i)
            inside = (depth > 0) & np.all((pixels >= 0) & (pixels < cameras.sizes[i]), 1)
        shares.append(float(inside.mean()))
    return float(np.mean(shares))
