"""The domain of a field: which part of the world it covers, in which coordinates, and what lies behind it."""

from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from tslim.config import Space
from tslim.errors import ConfigError

SPACES = ("box", "ndc", "contracted")
CONTRACTED_BOX = np.array([[-2.0] * 3, [2.0] * 3], np.float32)
"""Where everything lies in field coordinates once it is contracted."""

Colour = tuple[float, float, float]


def to_ndc(points: np.ndarray, near: float) -> np.ndarray:
    """NDC (n, 3) of world points (n, 3) in front of the camera's plane, z < 0 (see ``kernels.space``)."""
    depth = -points[:, 2:]
    return np.concatenate([2 * points[:, :2] / depth, 1 - 2 * near / depth], 1)


def contract(points: np.ndarray, cube: np.ndarray) -> np.ndarray:
    """Contracted coordinates in [−2, 2]³ (n, 3) of world points (n, 3) (see ``kernels.space``)."""
    q = (points - cube.mean(0)) / (0.5 * (cube[1] - cube[0]))
    size = np.abs(q).max(1, keepdims=True)
    outer = np.maximum(size, 1.0)
    is_largest = np.abs(q).argmax(1)[:, None] == np.arange(3)
    return np.where(is_largest & (size > 1), np.sign(q) * (2 - 1 / outer), q / outer)


@dataclass(frozen=True, eq=False)
class Domain:
    """Immutable: whoever shrinks a box makes another domain. ``Domain.of`` checks what it is given."""

    box: np.ndarray
    """(2, 3) f32 corners in field coordinates: minimum, maximum"""
    near: float = 0.0
    """distance along a ray, in world units, at which sampling starts; in ndc that of the near plane"""
    far: float = 1e10
    """distance at which it ends; limits nothing in ndc"""
    space: Space = "box"
    """"box", "ndc" or "contracted": what field coordinates are (see ``kernels.space``)"""
    background: Colour | None = (1.0, 1.0, 1.0)
    """sRGB colour behind the field, or None for the caller's choice"""
    cube: np.ndarray | None = None
    """(2, 3) world corners of the part of a contracted space that stays as it is; None in other spaces"""

    @staticmethod
    def of(
        box: np.ndarray,
        *,
        near: float = 0.0,
        far: float = 1e10,
        space: str = "box",
        background: Colour | None = (1.0, 1.0, 1.0),
    ) -> "Domain":
        """The domain of a new field. ``box`` as ``Scene.box``: in a contracted space the cube that stays as it is.

        Raises ``ConfigError`` for a box without a volume, an unknown space, or what does not fit the space.
        """
        box = np.array(box, np.float32)
        if box.shape != (2, 3) or not np.isfinite(box).all() or not (box[1] > box[0]).all():
            raise ConfigError(f"box {box.tolist()}: expected two finite corners, (minimum, maximum), that differ")
        if space not in SPACES:
            raise ConfigError(f"space {space}: known are {', '.join(SPACES)}")
        if space == "ndc" and not near > 0:
            raise ConfigError(f"near {near}: ndc needs the distance of a near plane, above 0")
        sides = box[1] - box[0]
        if space == "contracted" and not np.allclose(sides, sides[0], rtol=1e-3):
            raise ConfigError(f"box {box.tolist()}: what a contracted space leaves as it is must be a cube")
        return Domain.unchecked(box, near, far, space, background)

    @staticmethod
    def unchecked(box: np.ndarray, near: float, far: float, space: str, background: Colour | None) -> "Domain":
        """As ``of``, without checks: for a scene that is still to be looked at."""
        cube, box = None, np.array(box, np.float32).reshape(2, 3)
        if space == "contracted":
            cube, box = box, CONTRACTED_BOX.copy()
        return Domain(box, float(near), float(far), cast(Space, space), background, cube)

    def with_box(self, box: np.ndarray) -> "Domain":
        """The same domain with another box in field coordinates."""
        return replace(self, box=np.array(box, np.float32))

    def to_field(self, points: np.ndarray) -> np.ndarray:
        """Field coordinates (n, 3) of world points (n, 3); NaN in ndc behind the cameras, where there are none."""
        points = np.asarray(points, np.float64)
        if self.cube is not None:
            return contract(points, self.cube.astype(np.float64))
        if self.space == "ndc":
            return to_ndc(np.where(points[:, 2:] < 0, points, np.nan), self.near)
        return points

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """World points (n, 3) of field coordinates (n, 3), the inverse of ``to_field``; not finite where space ends."""
        points = np.asarray(points, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.cube is not None:
                size = np.abs(points).max(1, keepdims=True)
                is_largest = np.abs(points).argmax(1)[:, None] == np.arange(3)
                outer = 1 / (2 - size)
                q = np.where(size <= 1, points, np.where(is_largest, np.sign(points) * outer, points * outer))
                return self.cube.mean(0) + q * 0.5 * (self.cube[1] - self.cube[0])
            if self.space == "ndc":
                z = 2 * self.near / (points[:, 2:] - 1)
                return np.concatenate([points[:, :2] * -z / 2, z], 1)
        return points

    def stretch(self, points: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """(n,) length in field coordinates of a step of length 1 in the world, from points along unit directions."""
        points, d = np.asarray(points, np.float64), np.asarray(directions, np.float64)
        if self.space == "ndc":
            depth = np.where(points[:, 2:] < 0, -points[:, 2:], np.nan)
            sideways = 2 * (d[:, :2] + points[:, :2] * d[:, 2:] / depth) / depth
            return np.linalg.norm(np.concatenate([sideways, -2 * self.near * d[:, 2:] / depth**2], 1), axis=1)
        if self.cube is not None:
            half = 0.5 * (self.cube[1] - self.cube[0]).astype(np.float64)
            q, d = (points - self.cube.mean(0)) / half, d / half
            j = np.abs(q).argmax(1)[:, None]
            size, along = np.abs(np.take_along_axis(q, j, 1)), np.take_along_axis(d, j, 1)
            outside = (d - q * np.sign(np.take_along_axis(q, j, 1)) * along / size) / size
            np.put_along_axis(outside, j, along / size**2, 1)
            return np.linalg.norm(np.where(size > 1, outside, d), axis=1)
        return np.linalg.norm(d, axis=1)

    @property
    def world_box(self) -> np.ndarray:
        """(2, 3) world corners of what matters: the box, the cube, or in ndc all up to four times the near plane."""
        if self.space == "ndc":
            depth = 4 * self.near
            (x0, y0), (x1, y1) = self.box[:, :2] / 2 * depth
            return np.array([[x0, y0, -depth], [x1, y1, -self.near]], np.float32)
        return self.box if self.cube is None else self.cube


class InDomain:
    """Gives the properties of ``self.domain`` as its own, read only."""

    domain: Domain

    @property
    def box(self) -> np.ndarray:
        """(2, 3) corners in field coordinates."""
        return self.domain.box

    @property
    def near(self) -> float:
        """Distance along a ray at which sampling starts."""
        return self.domain.near

    @property
    def far(self) -> float:
        """Distance along a ray at which sampling ends."""
        return self.domain.far

    @property
    def space(self) -> Space:
        """What field coordinates are: "box", "ndc" or "contracted"."""
        return self.domain.space

    @property
    def background(self) -> Colour | None:
        """sRGB colour behind the field, or None."""
        return self.domain.background

    @property
    def cube(self) -> np.ndarray | None:
        """(2, 3) world corners of the part of a contracted space that stays as it is."""
        return self.domain.cube

    @property
    def world_box(self) -> np.ndarray:
        """(2, 3) world corners of what matters."""
        return self.domain.world_box
