"""The preview's camera: turns drags and keys into poses. Plain numpy, no window.

Lengths on the screen are given as fractions of the picture's height, so that a drag means the same at every size.
"""

import dataclasses
import math

import numpy as np

from tslim.scene.cameras import Cameras, look_at_poses
from tslim.scene.paths import estimate_up

DEFAULT_FOV = 45.0
"""Vertical field of view in degrees, where nothing says otherwise."""
ORBIT_SPEED = math.pi
"""Radians for a drag over the picture's height."""
STEEPEST = math.radians(89.0)
"""The camera may not orbit over the pole: the picture would turn upside down."""


class OrbitCamera:
    """A camera that looks at a target from a distance.

    Attributes:
        rotation: (3, 3) camera-to-world, columns right, up, back (OpenGL).
        target: (3,) the point that orbits go around, in world units.
        distance: from eye to target, in world units.
        fov: vertical field of view in radians.
        exact: the data-set camera that was snapped to, or None since the camera was moved.
    """

    def __init__(self, box: np.ndarray, *, up=(0.0, 0.0, 1.0), fov: float = DEFAULT_FOV) -> None:
        """Looks at ``box`` (2, 3) from far enough to see all of it, ``up`` being up."""
        self.up = np.asarray(up, np.float64) / np.linalg.norm(up)
        self.extent = float(np.linalg.norm(np.asarray(box[1], np.float64) - box[0]))
        self.center = np.asarray(box, np.float64).mean(0)
        self.fov = math.radians(fov)
        self.exact: Cameras | None = None
        self.home: tuple[np.ndarray, float, np.ndarray, float] | None = None
        self.reset()

    @staticmethod
    def like(cameras: Cameras, box: np.ndarray) -> "OrbitCamera":
        """Looks from where the first of the given cameras looks; up is what they agree on."""
        camera = OrbitCamera(box, up=estimate_up(cameras))
        camera.snap(cameras[0])
        camera.home = (camera.target.copy(), camera.distance, camera.rotation.copy(), camera.fov)
        return camera

    def reset(self) -> None:
        """Back to the first view."""
        self.exact = None
        if self.home is not None:
            target, self.distance, rotation, self.fov = self.home
            self.target, self.rotation = target.copy(), rotation.copy()
            return
        self.target = self.center.copy()
        self.distance = 0.55 * self.extent / math.tan(self.fov / 2)
        side = np.eye(3)[np.argmin(np.abs(self.up))]
        side -= self.up * (side @ self.up)
        pose = look_at_poses(1.0 * side / np.linalg.norm(side) + 0.6 * self.up, np.zeros(3), self.up)[0]
        self.rotation = pose[:, :3].astype(np.float64)

    @property
    def eye(self) -> np.ndarray:
        """(3,) where the camera stands."""
        return self.target + self.distance * self.rotation[:, 2]

    def orbit(self, dx: float, dy: float) -> None:
        """Around the target: a drag to the right turns the scene to the right, a drag down shows it from above."""
        self.exact = None
        self.rotation = _turn(self.up, -ORBIT_SPEED * dx) @ self.rotation
        height = math.asin(float(np.clip(self.rotation[:, 2] @ self.up, -1, 1)))
        # A camera that was snapped to beyond the limit may come back, but not go further.
        wanted = height + ORBIT_SPEED * dy
        limit = max(STEEPEST, abs(height))
        tilt = float(np.clip(wanted, -limit, limit)) - height
        upright = 1.0 if self.rotation[:, 1] @ self.up >= 0 else -1.0
        self.rotation = _turn(self.rotation[:, 0], -upright * tilt) @ self.rotation
        self.rotation = _orthonormal(self.rotation)

    def pan(self, dx: float, dy: float) -> None:
        """Moves the scene with the cursor: what is at the target's depth stays under it."""
        self.exact = None
        scale = 2 * self.distance * math.tan(self.fov / 2)
        self.target = self.target - scale * (dx * self.rotation[:, 0] - dy * self.rotation[:, 1])

    def zoom(self, amount: float) -> None:
        """Towards the target for positive amounts: 1 halves the distance."""
        self.exact = None
        nearest, farthest = 1e-3 * self.extent, 20 * self.extent
        self.distance = float(np.clip(self.distance * 2.0**-amount, nearest, farthest))

    def fly(self, right: float, up: float, forward: float, seconds: float) -> None:
        """Moves eye and target together; full speed crosses a third of the scene each second."""
        self.exact = None
        move = self.rotation @ np.array([right, up, -forward], np.float64)
        self.target = self.target + 0.33 * self.extent * seconds * move

    def snap(self, camera: Cameras) -> None:
        """Takes over a data-set camera (``Cameras`` of length 1); ``exact`` holds it until the next move."""
        pose = camera.poses[0].astype(np.float64)
        self.rotation, eye = _orthonormal(pose[:, :3]), pose[:, 3]
        self.fov = 2 * math.atan(0.5 * float(camera.sizes[0, 1]) / float(camera.intrinsics[0, 1]))
        ahead = float((eye - self.center) @ self.rotation[:, 2])
        self.distance = max(ahead, 0.1 * self.extent)
        self.target = eye - self.distance * self.rotation[:, 2]
        self.exact = camera

    def cameras(self, width: int, height: int) -> Cameras:
        """One camera of this size."""
        pose = np.concatenate([self.rotation, self.eye[:, None]], axis=1)[None]
        return Cameras.pinhole(pose, 0.5 * height / math.tan(self.fov / 2), (width, height))


def every_kth_pixel(camera: Cameras, k: int) -> Cameras:
    """The camera whose picture is ``picture[k // 2 :: k, k // 2 :: k]`` of the given one's (``Cameras`` of length 1).

    Its rays go through the very centres of the pixels that are kept, so that an error measured on them is an unbiased
    estimate of the whole picture's.
    """
    first = k // 2
    sizes = np.maximum(-(-(camera.sizes - first) // k), 1)
    intrinsics = camera.intrinsics.astype(np.float64) / k
    intrinsics[:, 2:] += 0.5 - (first + 0.5) / k
    return dataclasses.replace(camera, sizes=sizes, intrinsics=intrinsics)


def _turn(axis: np.ndarray, angle: float) -> np.ndarray:
    """(3, 3) rotation about a unit axis (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def _orthonormal(rotation: np.ndarray) -> np.ndarray:
    """The nearest rotation, so that rounding does not add up over thousands of drags."""
    u, _, vt = np.linalg.svd(rotation)
    return u @ vt
