"""Posed cameras, as plain numpy arrays.

Conventions, used everywhere in tslim: a pose is a camera-to-world matrix [R | o] with OpenGL axes (x right, y up, the
camera looks along −z); pixel (column i, row j) counts from the top left and has its centre at (i + 0.5, j + 0.5).
Without distortion that centre looks along R · ((i + 0.5 − cx) / fx, −(j + 0.5 − cy) / fy, −1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tslim.errors import SceneError
from tslim.scene import lenses

ROTATION_TOLERANCE = 5e-3
"""Largest entry of |R Rᵀ − I| that still counts as a rotation; files with four decimals stay well below."""


@dataclass(frozen=True, eq=False)
class Cameras:
    """``n`` posed cameras. Arrays are converted to the stated dtypes; wrong shapes raise ``SceneError``."""

    poses: np.ndarray
    """(n, 3, 4) float32 camera-to-world, OpenGL axes, world units."""
    intrinsics: np.ndarray
    """(n, 4) float32: fx, fy, cx, cy in pixels."""
    sizes: np.ndarray
    """(n, 2) int32: width, height in pixels."""
    lens: np.ndarray
    """(n,) int32: ``PINHOLE``, ``RADIAL``, ``FISHEYE``, ``EQUIRECTANGULAR`` or ``POLYNOMIAL`` of ``lenses``."""
    distortion: np.ndarray
    """(n, 8) float32 coefficients in the order of the lens, then zeros."""

    def __post_init__(self) -> None:
        n = len(self.poses)
        for name, dtype, shape in (
            ("poses", np.float32, (n, 3, 4)),
            ("intrinsics", np.float32, (n, 4)),
            ("sizes", np.int32, (n, 2)),
            ("lens", np.int32, (n,)),
            ("distortion", np.float32, (n, 8)),
        ):
            with np.errstate(over="ignore", invalid="ignore"):  # what float32 can't hold is infinite; validate says so
                values = np.ascontiguousarray(getattr(self, name), dtype)
            if values.shape != shape:
                raise SceneError(f"cameras: {name} has shape {values.shape}, expected {shape}")
            object.__setattr__(self, name, values)

    @staticmethod
    def pinhole(
        poses: np.ndarray,
        focal: float | np.ndarray,
        size: tuple[int, int] | np.ndarray,
        center: tuple[float, float] | np.ndarray | None = None,
    ) -> "Cameras":
        """Cameras without distortion.

        ``poses`` (n, 3 or 4, 4); ``focal`` in pixels, one number or (n,) or (n, 2) for fx, fy; ``size`` (width, height)
        for all or (n, 2); ``center`` (cx, cy) for all or (n, 2), the middle of the image if None.
        """
        poses = np.asarray(poses, np.float32).reshape(-1, *np.shape(poses)[-2:])[:, :3, :]
        n = len(poses)
        sizes = np.broadcast_to(np.asarray(size, np.int32), (n, 2))
        focal = np.asarray(focal, np.float64)
        focals = np.broadcast_to(focal[:, None] if focal.ndim == 1 else focal, (n, 2))
        centers = sizes / 2 if center is None else np.broadcast_to(np.asarray(center, np.float64), (n, 2))
        return Cameras(poses, np.concatenate([focals, centers], 1), sizes, np.zeros(n), np.zeros((n, 8)))

    @staticmethod
    def look_at(
        eyes: np.ndarray,
        targets: np.ndarray | Sequence[float],
        up: np.ndarray | Sequence[float],
        fov: float,
        size: tuple[int, int],
    ) -> "Cameras":
        """Cameras at ``eyes`` (n, 3) that look at ``targets`` ((3,) or (n, 3)), roll fixed by ``up`` ((3,) or (n, 3)).

        ``fov`` is the horizontal field of view in degrees, ``size`` (width, height).
        """
        if not 0 < fov < 180:
            raise SceneError(f"cameras: field of view {fov:g} degrees, expected more than 0 and less than 180")
        focal = 0.5 * size[0] / np.tan(np.radians(fov) / 2)
        return Cameras.pinhole(look_at_poses(eyes, targets, up), focal, size)

    @staticmethod
    def concatenate(parts: Sequence["Cameras"]) -> "Cameras":
        """All cameras of ``parts``, in order."""
        if not parts:
            return Cameras.none()
        names = ("poses", "intrinsics", "sizes", "lens", "distortion")
        return Cameras(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))

    @staticmethod
    def none() -> "Cameras":
        """Zero cameras."""
        return Cameras(np.zeros((0, 3, 4)), np.zeros((0, 4)), np.zeros((0, 2)), np.zeros(0), np.zeros((0, 8)))

    def __len__(self) -> int:
        return len(self.poses)

    def __repr__(self) -> str:
        return f"<Cameras: {self.in_words()}>"

    def in_words(self) -> str:
        """How many, of what size and field of view: "100 of 800×800, 39°"."""
        if not len(self):
            return "none"
        (low, high), (narrow, wide) = (self.sizes.min(0), self.sizes.max(0)), (self.fov.min(), self.fov.max())
        size = f"{low[0]}×{low[1]}" + ("" if (low == high).all() else f" to {high[0]}×{high[1]}")
        return f"{len(self)} of {size}, {narrow:.0f}°" + ("" if wide - narrow < 1 else f" to {wide:.0f}°")

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray) -> "Cameras":
        """Always ``Cameras``: an integer gives one of length 1."""
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"camera {index} of {len(self)}")
            index = [int(index)]
        elif not isinstance(index, slice):
            index = np.asarray(index)
            index = index if index.dtype == bool else index.astype(np.int64)
        return Cameras(
            self.poses[index], self.intrinsics[index], self.sizes[index], self.lens[index], self.distortion[index]
        )

    @property
    def origins(self) -> np.ndarray:
        """(n, 3) camera centres in world units."""
        return self.poses[:, :, 3]

    @property
    def forward(self) -> np.ndarray:
        """(n, 3) unit viewing directions of the optical axes."""
        return -self.poses[:, :, 2]

    @property
    def fov(self) -> np.ndarray:
        """(n,) horizontal fields of view in degrees, distortion left out."""
        return np.degrees(2 * np.arctan(0.5 * self.sizes[:, 0] / self.intrinsics[:, 0].astype(np.float64)))

    def scaled(self, factor: float) -> "Cameras":
        """The same views at ``factor`` times the resolution; what is left of a pixel on the right and below is cut off.

        ``scaled(1 / k)`` fits images that ``image_file.area_downscale`` made k times smaller.
        """
        if not factor > 0:
            raise SceneError(f"cameras: scale {factor:g}, expected a positive number")
        sizes = np.maximum(np.floor(self.sizes * factor + 1e-6), 1)
        return Cameras(self.poses, self.intrinsics * np.float32(factor), sizes, self.lens, self.distortion)

    def pixel_centers(self, index: int = 0) -> np.ndarray:
        """(h·w, 2) pixel centres of one camera, row by row from the top."""
        width, height = self.sizes[index]
        x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        return np.stack([x.ravel(), y.ravel()], 1)

    def rays(self, index: int = 0, pixels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Origins and unit directions, (k, 3) float64 each, through ``pixels`` (k, 2) (all centres if None).

        On the host, lens included, for plots and checks; rendering makes its rays on the device.
        """
        pixels = self.pixel_centers(index) if pixels is None else np.asarray(pixels, np.float64)
        pose = self.poses[index].astype(np.float64)
        local = lenses.directions(pixels, self.intrinsics[index], int(self.lens[index]), self.distortion[index])
        directions = local @ pose[:, :3].T
        return np.broadcast_to(pose[:, 3], directions.shape), directions

    def project(self, points: np.ndarray, index: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Pixel positions (k, 2) and depths along the optical axis (k,) of world ``points`` (k, 3), lens included.

        Positions are NaN for points that the camera cannot see because they lie behind it.
        """
        pose = self.poses[index].astype(np.float64)
        local = (np.asarray(points, np.float64) - pose[:, 3]) @ pose[:, :3]
        pixels = lenses.project(local, self.intrinsics[index], int(self.lens[index]), self.distortion[index])
        return pixels, -local[:, 2]

    def validate(self, names: Sequence[str] | None = None, source: str = "cameras") -> None:
        """Raises ``SceneError`` for the first impossible camera, with its name (its number where names are None).

        Checked: finite numbers, R Rᵀ = I with det R = +1, positive focal lengths and sizes, a known lens.
        """
        rotation = self.poses[:, :, :3].astype(np.float64)
        with np.errstate(all="ignore"):
            defect = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max((1, 2), initial=0)
            determinant = np.linalg.det(rotation) if len(self) else np.zeros(0)
        checks = (
            (~np.isfinite(self.poses).all((1, 2)), "has NaN or infinity in its pose"),
            (~(defect <= ROTATION_TOLERANCE), "has a pose whose rotation is not orthonormal"),
            (~(determinant > 0), "has a mirrored pose (the determinant of its rotation is negative)"),
            (~np.isfinite(self.intrinsics).all(1), "has NaN or infinity in its intrinsics"),
            (~(self.intrinsics[:, :2] > 0).all(1), "has a focal length that is not positive"),
            (~(self.sizes > 0).all(1), "has an image of zero size"),
            ((self.lens < 0) | (self.lens >= len(lenses.NAMES)), "has an unknown lens model"),
            (~np.isfinite(self.distortion).all(1), "has NaN or infinity in its distortion"),
        )
        for bad, what in checks:
            if bad.any():
                first = int(np.argmax(bad))
                name = str(first) if names is None else names[first]
                more = f" (and {int(bad.sum()) - 1} more)" if bad.sum() > 1 else ""
                raise SceneError(f"{source}: frame {name}{more} {what}")


def look_at_poses(eyes: np.ndarray, targets: np.ndarray | Sequence[float], up: np.ndarray | Sequence[float]):
    """(n, 3, 4) float32 OpenGL camera-to-world matrices; a view along ``up`` gets some valid roll."""
    eyes = np.atleast_2d(np.asarray(eyes, np.float64))
    back = eyes - np.asarray(targets, np.float64)
    distance = np.linalg.norm(back, axis=1, keepdims=True)
    if not (distance > 0).all():
        raise SceneError("cameras: a camera stands on the point that it should look at")
    back /= distance
    up = np.broadcast_to(np.asarray(up, np.float64), back.shape)
    right = np.cross(up, back)
    along = np.linalg.norm(right, axis=1) < 1e-6 * np.linalg.norm(up, axis=1)
    if along.any():
        substitute = np.eye(3)[np.argmin(np.abs(back), axis=1)]
        right = np.where(along[:, None], np.cross(substitute, back), right)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(back, right), back, eyes], 2).astype(np.float32)
