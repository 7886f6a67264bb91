"""Camera paths for videos, each described by a few numbers so that a model file can carry its own path."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tslim import config
from tslim.errors import ConfigError, SceneError, short
from tslim.scene import lenses
from tslim.scene.cameras import Cameras
from tslim.scene.domain import InDomain

Vector = tuple[float, float, float]
LARGEST_SIDE = 16_384
"""Most pixels along a side of a picture."""

_WIDEST = 80.0
"""Degrees that a camera path shows of what fisheyes and panoramas have seen."""


@dataclass(frozen=True)
class Orbit:
    """Once around ``center`` at a fixed distance and elevation, looking at it."""

    center: Vector = (0.0, 0.0, 0.0)
    radius: float = 4.0
    """distance of the cameras from the centre, world units"""
    elevation: float = 30.0
    """degrees above the plane through the centre that ``up`` is normal to"""
    up: Vector = (0.0, 0.0, 1.0)
    fov: float = 40.0
    """horizontal field of view, degrees"""
    size: tuple[int, int] = (400, 400)
    """width, height in pixels"""

    def cameras(self, frames: int = 120) -> Cameras:
        """``frames`` cameras, evenly spaced; the step from the last to the first is like the others."""
        _require_sensible(frames, self.radius, "radius", self.size)
        up = _unit(self.up)
        east, north = _plane(up)
        turn = 2 * np.pi * np.arange(frames)[:, None] / frames
        tilt = np.radians(np.clip(self.elevation, -89.0, 89.0))
        outwards = np.cos(tilt) * (np.cos(turn) * east + np.sin(turn) * north) + np.sin(tilt) * up
        return Cameras.look_at(np.asarray(self.center) + self.radius * outwards, self.center, up, self.fov, self.size)

    def sized(self, size: tuple[int, int]) -> "Orbit":
        """The same path in another size: pictures of another shape show more at two sides, and nothing less."""
        return replace(self, size=size, fov=_fov_that_shows_as_much(self.fov, self.size, size))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a model's metadata; ``path_from_dict`` reads it."""
        return {"path": "orbit", **asdict(self)}


@dataclass(frozen=True)
class Spiral:
    """For forward-facing scenes: small loops around one viewpoint, always looking at one point in front of it."""

    center: Vector
    """the viewpoint that the loops surround"""
    right: Vector
    up: Vector
    """with ``right`` and the viewing direction up × right = −back, an orthonormal frame"""
    radii: Vector
    """half-widths of the loops along right, up and the viewing direction, world units"""
    focus: float
    """distance of the point that is looked at"""
    fov: float = 50.0
    """horizontal field of view, degrees"""
    size: tuple[int, int] = (504, 378)
    """width, height in pixels"""
    turns: int = 2
    """loops in one video"""

    def cameras(self, frames: int = 120) -> Cameras:
        """``frames`` cameras; the video can be played in a loop."""
        _require_sensible(frames, self.focus, "focus", self.size)
        axes = np.stack([_unit(self.right), _unit(self.up), np.cross(_unit(self.right), _unit(self.up))])
        phase = 2 * np.pi * np.arange(frames) / frames
        offsets = np.stack([np.cos(self.turns * phase), -np.sin(self.turns * phase), -np.sin(phase)], 1)
        eyes = np.asarray(self.center) + (offsets * np.asarray(self.radii)) @ axes
        return Cameras.look_at(eyes, np.asarray(self.center) - self.focus * axes[2], axes[1], self.fov, self.size)

    def sized(self, size: tuple[int, int]) -> "Spiral":
        """The same path in another size: pictures of another shape show more at two sides, and nothing less."""
        return replace(self, size=size, fov=_fov_that_shows_as_much(self.fov, self.size, size))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a model's metadata; ``path_from_dict`` reads it."""
        return {"path": "spiral", **asdict(self)}


def path_of(model: InDomain, metadata: dict[str, Any]) -> Orbit | Spiral:
    """The camera path that a model carries, or one around (in ndc before) what it holds.

    Raises as ``path_from_dict``.
    """
    own = metadata.get("path")
    if own:
        return path_from_dict(own)
    low, high = np.asarray(model.world_box, np.float64)
    if model.space == "ndc":
        near = model.near
        return Spiral((0, 0, 0), (1, 0, 0), (0, 1, 0), (0.2 * near, 0.2 * near, 0.0), focus=3 * near)
    return Orbit(center=tuple((low + high) / 2), radius=1.2 * float(np.linalg.norm(high - low)))


def path_from_dict(data: dict[str, Any]) -> Orbit | Spiral:
    """The path that ``to_dict`` described; raises ``SceneError`` if it does not describe one."""
    kinds: dict[str, type[Orbit] | type[Spiral]] = {"orbit": Orbit, "spiral": Spiral}
    try:
        if not isinstance(data, dict) or data.get("path") not in kinds:
            raise ConfigError("what kind it is")
        path = config.from_dict({k: v for k, v in data.items() if k != "path"}, kinds[data["path"]])
        path.cameras(2).validate()
    except (ConfigError, SceneError, TypeError) as error:
        raise SceneError(f"not a camera path: {short(data)} ({error}); known: {', '.join(kinds)}") from None
    return path


def fit_orbit(cameras: Cameras, center: np.ndarray) -> Orbit:
    """An orbit around ``center`` like the given cameras: median distance, elevation and field of view."""
    up = estimate_up(cameras)
    outwards = cameras.origins.astype(np.float64) - center
    distance = np.linalg.norm(outwards, axis=1)
    radius = float(np.median(distance))
    if not radius > 0:
        raise SceneError("cameras: all stand on the centre of the box, so that no orbit fits them")
    elevation = np.degrees(np.arcsin(np.clip(outwards @ up / np.maximum(distance, 1e-12), -1, 1)))
    return Orbit(
        center=_floats(center),
        radius=radius,
        elevation=float(np.clip(np.median(elevation), -80, 80)),
        up=_floats(up),
        fov=_usual_fov(cameras),
        size=_usual_size(cameras),
    )


def surround(cameras: Cameras, center: np.ndarray) -> bool:
    """Whether the cameras stand all around ``center``, so that an orbit sees nothing that they have not seen.

    Seen from above, no gap between neighbours may be wider than 100 degrees.
    """
    east, north = _plane(estimate_up(cameras))
    outwards = cameras.origins.astype(np.float64) - center
    angles = np.sort(np.arctan2(outwards @ north, outwards @ east))
    gaps = np.diff(np.concatenate([angles, angles[:1] + 2 * np.pi]))
    return bool(gaps.max() < np.radians(100))


def fit_spiral(cameras: Cameras, near: float, far: float, focus: float | None = None) -> Spiral:
    """A spiral within the given forward-facing cameras; the point looked at lies between ``near`` and ``far``.

    As in LLFF, the loops reach the 90th percentile of the cameras' offsets, and the focus is where inverse depth is
    a quarter near and three quarters far, unless ``focus`` says how far it is.
    """
    back = _unit(-cameras.forward.mean(0))
    right = np.cross(cameras.poses[:, :, 1].mean(0).astype(np.float64), back)
    right = _unit(right) if np.linalg.norm(right) > 1e-6 else _plane(back)[0]
    axes = np.stack([right, np.cross(back, right), back])
    center = cameras.origins.astype(np.float64).mean(0)
    radii = np.percentile(np.abs((cameras.origins - center) @ axes.T), 90, axis=0)
    near = max(float(near), 1e-6)
    far = max(5 * float(far), near) if np.isfinite(far) else 100 * near
    return Spiral(
        center=_floats(center),
        right=_floats(right),
        up=_floats(axes[1]),
        radii=_floats(radii),
        focus=1 / (0.25 / near + 0.75 / far) if focus is None else focus,
        fov=_usual_fov(cameras),
        size=_usual_size(cameras),
    )


def spiral_on_one_side(spiral: Spiral, orbit: Orbit) -> Spiral:
    """The spiral if its viewpoint stands to one side of what the orbit goes around, else one on the orbit.

    The middle of cameras that stand all around lies among them: loops there would show nothing, or look straight down.
    """
    up = _unit(orbit.up)
    aside = np.asarray(spiral.center) - np.asarray(orbit.center)
    aside_radius = orbit.radius * np.cos(np.radians(orbit.elevation))
    if np.linalg.norm(aside - up * (aside @ up)) > 0.5 * aside_radius:
        return spiral
    pose = orbit.cameras(1).poses[0].astype(np.float64)
    return Spiral(
        center=_floats(pose[:, 3]),
        right=_floats(pose[:, 0]),
        up=_floats(pose[:, 1]),
        radii=_floats(orbit.radius * np.array([0.2, 0.12, 0.1])),
        focus=orbit.radius,
        fov=orbit.fov,
        size=orbit.size,
    )


def estimate_up(cameras: Cameras) -> np.ndarray:
    """(3,) unit vector: the world's upward direction, as the cameras were held.

    The mean of the cameras' y axes. Where these rather than the x axes all lie in one plane, the photographs were taken
    with the camera on its side, and up is that plane's normal, on the side that the cameras look down from. Within 20
    degrees of a world axis, that axis.
    """
    up = cameras.poses[:, :, 1].astype(np.float64).mean(0)
    flatness_x, _ = _common_plane(cameras.poses[:, :, 0])
    flatness_y, normal = _common_plane(cameras.poses[:, :, 1])
    if flatness_y < min(0.1, 0.25 * flatness_x):
        up = normal if normal @ cameras.forward.mean(0) <= 0 else -normal
    if not np.linalg.norm(up) > 1e-3:
        return np.array([0.0, 0.0, 1.0])
    up = _unit(up)
    axis = np.argmax(np.abs(up))
    if abs(up[axis]) > np.cos(np.radians(20)):
        return np.sign(up[axis]) * np.eye(3)[axis]
    return up


def _common_plane(axes: np.ndarray) -> tuple[float, np.ndarray]:
    """How far (n, 3) unit vectors are from lying in one plane (0 if they do, 1 if they lie every way or in a line), and
    that plane's normal."""
    axes = axes.astype(np.float64)
    spread, directions = np.linalg.eigh(axes.T @ axes / max(len(axes), 1))
    return (float(spread[0] / spread[1]) if spread[1] > 0.05 else 1.0), directions[:, 0]


def focus_point(cameras: Cameras) -> np.ndarray:
    """(3,) the point nearest to all optical axes in the least-squares sense; mean origin if the axes are parallel."""
    along = cameras.forward.astype(np.float64)
    across = np.eye(3) - along[:, :, None] * along[:, None, :]
    matrix = across.sum(0)
    if np.linalg.cond(matrix) > 1e6:
        return cameras.origins.astype(np.float64).mean(0)
    return np.linalg.solve(matrix, (across @ cameras.origins.astype(np.float64)[:, :, None]).sum(0)[:, 0])


def focus_and_distance(cameras: Cameras) -> tuple[np.ndarray, float]:
    """``focus_point``, and the median distance of the cameras from there, world units."""
    centre = focus_point(cameras)
    return centre, float(np.median(np.linalg.norm(cameras.origins.astype(np.float64) - centre, axis=1)))


def _fov_that_shows_as_much(fov: float, size: tuple[int, int], new: tuple[int, int]) -> float:
    """Horizontal field of view (degrees) at which pictures of the new size hold all that those of ``size`` did."""
    wider = (new[0] / size[0]) / min(new[0] / size[0], new[1] / size[1])
    return float(np.degrees(2 * np.arctan(wider * np.tan(np.radians(fov) / 2))))


def _usual_fov(cameras: Cameras) -> float:
    """Median horizontal field of view, but of fisheyes and panoramas what a pinhole can show without stretching it."""
    bent = np.isin(cameras.lens, (lenses.FISHEYE, lenses.EQUIRECTANGULAR))
    return float(np.median(np.where(bent, np.minimum(cameras.fov, _WIDEST), cameras.fov)))


def _usual_size(cameras: Cameras) -> tuple[int, int]:
    sizes, counts = np.unique(cameras.sizes, axis=0, return_counts=True)
    width, height = sizes[np.argmax(counts)]
    return int(width), int(height)


def _plane(normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors that span the plane of ``normal``, right-handed with it; for z up they are x and y."""
    reference = np.array([0.0, 1.0, 0.0]) if abs(normal[1]) < 0.9 else np.array([0.0, 0.0, -1.0])
    east = _unit(np.cross(reference, normal))
    return east, np.cross(normal, east)


def _unit(vector) -> np.ndarray:
    vector = np.asarray(vector, np.float64)
    length = np.linalg.norm(vector)
    if not length > 0:
        raise SceneError(f"camera path: {tuple(vector)} is no direction")
    return vector / length


def _floats(vector: np.ndarray) -> Vector:
    x, y, z = (float(v) for v in vector)
    return x, y, z


def _require_sensible(frames: int, distance: float, name: str, size: tuple[int, int]) -> None:
    if frames < 1:
        raise SceneError(f"camera path: {frames} frames, expected at least 1")
    if not 0 < distance < np.inf:
        raise SceneError(f"camera path: {name} {distance:g}, expected a positive number")
    if not all(1 <= side <= LARGEST_SIDE for side in size):
        raise SceneError(f"camera path: pictures of {size[0]}x{size[1]}, expected sides of 1 to {LARGEST_SIDE}")
